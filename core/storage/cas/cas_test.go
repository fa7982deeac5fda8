package cas

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tool/core/model/digest"
	"tool/core/model/merkle"
)

func open(t testing.TB) *Store {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "s")
	s := openAt(t, dir)
	// t.TempDir cannot remove directories of mode 0555 as an ordinary user.
	t.Cleanup(func() { removeAll(dir) })
	return s
}

func openAt(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func put(t testing.TB, s *Store, content string) digest.Digest {
	t.Helper()
	d, err := s.PutBytes([]byte(content))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// putTree stores files by path; a content that starts with "→" is a link, one
// with "!" an executable.
func putTree(t testing.TB, s *Store, files map[string]string) digest.Digest {
	t.Helper()
	var b merkle.Builder
	for p, content := range files {
		n := merkle.Node{Kind: merkle.File, Executable: strings.HasPrefix(content, "!")}
		if target, ok := strings.CutPrefix(content, "→"); ok {
			n = merkle.Node{Kind: merkle.Symlink, Target: target}
		} else {
			n.Digest = put(t, s, content)
		}
		if err := b.Add(p, n); err != nil {
			t.Fatal(err)
		}
	}
	d, err := b.Write(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// tmpFiles lists what this session has left under tmp.
func tmpFiles(t testing.TB, s *Store) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(s.sess.path, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func damage(t testing.TB, path string) {
	t.Helper()
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.ReadAt(b[:], 0); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := f.WriteAt(b[:], 0); err != nil {
		t.Fatal(err)
	}
	if err := f.Chmod(blobMode); err != nil {
		t.Fatal(err)
	}
}

func TestPutAndRead(t *testing.T) {
	s := open(t)
	for _, size := range []int{0, 1, 1000, smallMax, smallMax + 1, 3*smallMax + 7} {
		content := bytes.Repeat([]byte("0123456"), size/7+1)[:size]
		want := digest.Of(content)
		if s.Has(want) {
			t.Fatalf("%d bytes: there already", size)
		}
		if _, err := s.Open(want); !errors.As(err, new(*NotFoundError)) || !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%d bytes: Open of an absent blob: %v", size, err)
		}
		got, err := s.Put(t.Context(), digest.Digest{}, bytes.NewReader(content))
		if err != nil || got != want {
			t.Fatalf("%d bytes: Put = %s, %v", size, got, err)
		}
		if m := s.Missing([]digest.Digest{want, digest.Of([]byte("absent"))}); len(m) != 1 || m[0] == want {
			t.Errorf("%d bytes: Missing = %v", size, m)
		}
		back, err := s.ReadAll(want, int64(size))
		if err != nil || !bytes.Equal(back, content) {
			t.Errorf("%d bytes: ReadAll: %d bytes, %v", size, len(back), err)
		}
		if size > 0 {
			if _, err := s.ReadAll(want, int64(size-1)); err == nil {
				t.Errorf("%d bytes: ReadAll gave more than its limit", size)
			}
		}
		if err := s.Verify(t.Context(), want); err != nil {
			t.Errorf("%d bytes: %v", size, err)
		}
		fi, err := os.Stat(s.Path(want, false))
		if err != nil || fi.Mode() != blobMode || fi.ModTime().Unix() != Mtime {
			t.Errorf("%d bytes: mode %v, time %v, %v", size, fi.Mode(), fi.ModTime(), err)
		}
	}
	if left := tmpFiles(t, s); len(left) != 0 {
		t.Errorf("left in tmp: %q", left)
	}
}

func TestPutMismatch(t *testing.T) {
	s := open(t)
	want := digest.Of([]byte("what was promised"))
	for name, content := range map[string]io.Reader{
		"other":   strings.NewReader("what was delivere"),
		"short":   strings.NewReader("what"),
		"longer":  strings.NewReader("what was promised and more"),
		"endless": endless{},
	} {
		_, err := s.Put(t.Context(), want, content)
		var m *MismatchError
		if !errors.As(err, &m) || m.Want != want || m.Got == want || !strings.Contains(err.Error(), want.String()) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := s.Put(t.Context(), digest.Digest{}, io.MultiReader(strings.NewReader(strings.Repeat("x", 2*smallMax)), failing{})); err == nil {
		t.Error("a reader's error was lost")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Put(ctx, digest.Digest{}, endless{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	n := 0
	s.Each(func(digest.Digest, bool, int64, time.Time) error { n++; return nil })
	if left := tmpFiles(t, s); n != 0 || len(left) != 0 {
		t.Errorf("left %d blobs and %q", n, left)
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("the line broke") }

func TestWriterEnds(t *testing.T) {
	s := open(t)
	w, err := s.NewWriter()
	if err != nil {
		t.Fatal(err)
	}
	big := bytes.Repeat([]byte("b"), 2*smallMax)
	if _, err := w.Write(big); err != nil {
		t.Fatal(err)
	}
	w.Abort()
	if _, err := w.Write(big); err == nil {
		t.Error("Write after Abort")
	}
	if _, err := w.Commit(false); err == nil {
		t.Error("Commit after Abort")
	}
	w, _ = s.NewWriter()
	w.Write(big)
	d, err := w.Commit(true)
	w.Abort()
	if err != nil || d != digest.Of(big) || !s.Has(d) {
		t.Errorf("Commit = %s, %v", d, err)
	}
	if _, err := os.Stat(s.Path(d, false)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the plain variant was made as well: %v", err)
	}
}

// TestTruncated: a file of the wrong size is a missing blob, and a put heals it.
func TestTruncated(t *testing.T) {
	s := open(t)
	d := put(t, s, "content")
	os.Chmod(s.Path(d, false), 0o644)
	if err := os.Truncate(s.Path(d, false), 3); err != nil {
		t.Fatal(err)
	}
	if s.Has(d) {
		t.Error("a truncated blob counts as there")
	}
	if _, err := s.Open(d); !errors.As(err, new(*NotFoundError)) {
		t.Errorf("Open: %v", err)
	}
	if err := s.Verify(t.Context(), d); !IsCorrupt(err) {
		t.Errorf("Verify: %v", err)
	}
	put(t, s, "content")
	if err := s.Verify(t.Context(), d); err != nil {
		t.Errorf("after a put: %v", err)
	}
}

func TestPutRenews(t *testing.T) {
	s := open(t)
	d := put(t, s, "x")
	before, _ := s.Stat(d)
	for range 1000 { // until the kernel's clock has ticked
		put(t, s, "x")
		if now, _ := s.Stat(d); now.After(before) {
			return
		}
	}
	deadline := time.Now().Add(10 * time.Second)
	for time.Now().Before(deadline) {
		put(t, s, "x")
		if now, _ := s.Stat(d); now.After(before) {
			return
		}
	}
	t.Error("a put of what is there does not change its ctime, which collections look at")
}

func TestConcurrentPuts(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	stores := []*Store{openAt(t, dir), openAt(t, dir)}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 50 {
				if _, err := stores[i%2].PutBytes(fmt.Append(nil, "blob", j)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	n := 0
	stores[0].Each(func(d digest.Digest, _ bool, _ int64, _ time.Time) error {
		n++
		return stores[1].Verify(t.Context(), d)
	})
	if n != 50 {
		t.Errorf("%d blobs, want 50", n)
	}
}

func TestDirectories(t *testing.T) {
	s := open(t)
	bad := &merkle.Directory{Files: []merkle.FileNode{{Name: "../x", Digest: digest.Empty}}}
	if _, err := s.PutDirectory(bad); err == nil {
		t.Error("stored a directory with an escape")
	}
	if _, err := s.GetDirectory(put(t, s, "\x0a\x03abc")); err == nil {
		t.Error("read a directory from other bytes")
	}
	mine := &merkle.Directory{Files: []merkle.FileNode{{Name: "a", Digest: digest.Empty}}}
	d, err := s.PutDirectory(mine)
	if err != nil {
		t.Fatal(err)
	}
	mine.Files[0].Name = "changed"
	got, err := s.GetDirectory(d)
	if err != nil || got.Files[0].Name != "a" {
		t.Errorf("the cache holds the caller's own directory: %v, %v", got, err)
	}
	other := openAt(t, s.Dir())
	damage(t, s.Path(d, false))
	if _, err := other.GetDirectory(d); !IsCorrupt(err) {
		t.Errorf("a damaged directory: %v", err)
	}
}

func TestDirCacheIsBounded(t *testing.T) {
	var c dirCache
	for i := range 1000 {
		d := digest.Of(fmt.Append(nil, i))
		d.Size = 1 << 20
		c.add(d, &merkle.Directory{})
	}
	if n := len(c.young) + len(c.old); n > 70 {
		t.Errorf("%d directories of 1 MiB in a cache of 64 MiB", n)
	}
}

func TestTempDirs(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	s := openAt(t, dir)
	p, err := s.TempDir("x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.TempDir("../x"); err == nil {
		t.Error("a prefix escapes")
	}
	// What a dead process leaves is a session nobody has locked.
	dead := filepath.Join(dir, "tmp", "DEAD")
	deep := filepath.Join(dead, "d-1", "a", "b")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	os.Symlink(s.Dir(), filepath.Join(deep, "link"))
	for _, d := range []string{deep, filepath.Dir(deep), dead} {
		os.Chmod(d, 0)
	}
	os.Chmod(dead, 0o555)
	openAt(t, dir)
	if _, err := os.Lstat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a dead process's directory is still there: %v", err)
	}
	if _, err := os.Lstat(p); err != nil {
		t.Errorf("a living process's directory: %v", err)
	}
}

func TestRemoveAllVeryDeep(t *testing.T) {
	s := open(t)
	top, err := s.TempDir("deep")
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(top, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 * maxDepth {
		if err := unix.Mkdirat(fd, "d", 0o755); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, "d", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Fchmod(fd, 0o555)
		unix.Close(fd)
		fd = next
	}
	unix.Close(fd)
	if _, err := s.Adopt(top); !errors.Is(err, errTooDeep) {
		t.Errorf("Adopt: %.200v", err)
	}
	if err := s.RemoveAll(top); err != nil {
		t.Errorf("RemoveAll: %.200v", err)
	}
	if err := s.RemoveAll(top); err != nil {
		t.Errorf("RemoveAll of nothing: %v", err)
	}
}
