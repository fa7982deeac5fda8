package cas

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"tool/core/model/digest"
	"tool/core/model/merkle"
)

func TestMaterialise(t *testing.T) {
	s := open(t)
	files := map[string]string{"bin/sh": "!sh", "etc/conf": "conf", "etc/copy": "conf", "a/b/c/d": "deep", "lib": "→usr/lib", "evil": "→/etc/passwd"}
	tree := putTree(t, s, files)
	path, err := s.Materialise(t.Context(), tree)
	if err != nil {
		t.Fatal(err)
	}
	if path != filepath.Join(s.Dir(), "trees", tree.Hex()) {
		t.Errorf("path %s", path)
	}
	for p, want := range files {
		full := filepath.Join(path, p)
		fi, err := os.Lstat(full)
		if err != nil {
			t.Error(err)
			continue
		}
		if target, ok := strings.CutPrefix(want, "→"); ok {
			if got, _ := os.Readlink(full); got != target {
				t.Errorf("%s → %s", p, got)
			}
		} else {
			m := fs.FileMode(mode(strings.HasPrefix(want, "!")))
			if got, _ := os.ReadFile(full); string(got) != want || fi.Mode() != m {
				t.Errorf("%s: %q, mode %v", p, got, fi.Mode())
			}
			blob, err := os.Stat(s.Path(digest.Of([]byte(want)), m == execMode))
			if err != nil || !os.SameFile(fi, blob) {
				t.Errorf("%s is not the blob's inode: %v", p, err)
			}
		}
	}
	filepath.WalkDir(path, func(p string, d fs.DirEntry, err error) error {
		fi, err := d.Info()
		if err != nil || fi.ModTime().Unix() != Mtime || d.IsDir() && fi.Mode().Perm() != execMode {
			t.Errorf("%s: %v, %v, %v", p, fi.ModTime(), fi.Mode(), err)
		}
		return nil
	})
	if err := s.VerifyTree(t.Context(), tree); err != nil {
		t.Error(err)
	}
	if again, err := s.Materialise(t.Context(), tree); err != nil || again != path {
		t.Errorf("again: %s, %v", again, err)
	}
	if err := s.RemoveTree(tree); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after RemoveTree: %v", err)
	}
	if err := s.RemoveTree(tree); err != nil {
		t.Errorf("RemoveTree of nothing: %v", err)
	}
	if left := tmpFiles(t, s); len(left) != 0 {
		t.Errorf("left in tmp: %q", left)
	}
}

func TestMaterialiseRace(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	t.Cleanup(func() { removeAll(dir) })
	stores := []*Store{openAt(t, dir), openAt(t, dir)}
	files := map[string]string{}
	for i := range 300 {
		files[fmt.Sprintf("d%d/e%d/f%d", i%7, i%3, i)] = fmt.Sprintf("!content %d", i)
	}
	tree := putTree(t, stores[0], files)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			p, err := stores[i%2].Materialise(t.Context(), tree)
			if err != nil {
				t.Error(err)
				return
			}
			if _, err := os.Stat(filepath.Join(p, "d1/e1/f1")); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := stores[0].VerifyTree(t.Context(), tree); err != nil {
		t.Error(err)
	}
}

func TestMaterialiseFails(t *testing.T) {
	s := open(t)
	tree := putTree(t, s, map[string]string{"a/b": "1", "a/c": "2"})
	s.Remove(digest.Of([]byte("2")))
	var missing *NotFoundError
	if _, err := s.Materialise(t.Context(), tree); !errors.As(err, &missing) || missing.Digest != digest.Of([]byte("2")) || !strings.Contains(err.Error(), "a: c") {
		t.Errorf("a missing blob: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Materialise(ctx, tree); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	// Directories that double at each level: small to store, endless to lay out.
	bomb := put(t, s, "")
	for range 60 {
		var err error
		bomb, err = s.PutDirectory(&merkle.Directory{Directories: []merkle.DirectoryNode{{Name: "a", Digest: bomb}, {Name: "b", Digest: bomb}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	chain := digest.Empty
	for range maxDepth + 1 {
		chain, _ = s.PutDirectory(&merkle.Directory{Directories: []merkle.DirectoryNode{{Name: "d", Digest: chain}}})
	}
	if _, err := s.Materialise(t.Context(), chain); !errors.Is(err, errTooDeep) {
		t.Errorf("a deep chain: %.200v", err)
	}
	if left := tmpFiles(t, s); len(left) != 0 {
		t.Errorf("left in tmp: %q", left)
	}
}

func TestEMLINK(t *testing.T) {
	s := open(t)
	d := put(t, s, "popular")
	dir, err := s.TempDir("links")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; n < 70_000; n++ {
		if err := s.Link(d, false, filepath.Join(dir, fmt.Sprint(n))); err != nil {
			t.Fatalf("link %d: %v", n, err)
		}
	}
	first, _ := os.Stat(filepath.Join(dir, "0"))
	last, err := os.Stat(filepath.Join(dir, fmt.Sprint(n-1)))
	if err != nil {
		t.Fatal(err)
	}
	if os.SameFile(first, last) {
		t.Skip("LOUD: this file system allows 70000 links, the fallback was not reached")
	}
	blob, _ := os.Stat(s.Path(d, false))
	if !os.SameFile(blob, last) || last.Mode() != blobMode || last.ModTime().Unix() != Mtime {
		t.Errorf("the new inode is not the blob's: %v %v", last.Mode(), last.ModTime())
	}
	if err := s.Verify(t.Context(), d); err != nil {
		t.Error(err)
	}
}

// TestLinkFallsBack plays file systems that cannot link.
func TestLinkFallsBack(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EMLINK, unix.EXDEV, unix.EPERM} {
		s := open(t)
		s.linkBlob = func(string, int, string) error { return errno }
		tree := putTree(t, s, map[string]string{"d/f": "content", "x": "!exec"})
		path, err := s.Materialise(t.Context(), tree)
		if err != nil {
			t.Errorf("%v: %v", errno, err)
			continue
		}
		if err := s.VerifyTree(t.Context(), tree); err != nil {
			t.Errorf("%v: %v", errno, err)
		}
		copied := filepath.Join(path, "x")
		fi, err := os.Stat(copied)
		if err != nil || fi.Mode() != execMode || fi.ModTime().Unix() != Mtime {
			t.Errorf("%v: %v, %v", errno, fi, err)
		}
		damage(t, copied)
		os.Chmod(copied, execMode)
		if err := s.VerifyTree(t.Context(), tree); !IsCorrupt(err) {
			t.Errorf("%v: a damaged copy: %v", errno, err)
		}
	}
}

func TestExport(t *testing.T) {
	s := open(t)
	tree := putTree(t, s, map[string]string{"d/f": "content", "x": "!exec", "l": "→/etc/passwd"})
	out := t.TempDir()
	dst := filepath.Join(out, "tree")
	if err := s.Export(t.Context(), merkle.Node{Kind: merkle.Dir, Digest: tree}, dst); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dst, "d/f"), []byte("mine now"), 0); err != nil {
		t.Errorf("the copy is not writable: %v", err)
	}
	if fi, err := os.Stat(filepath.Join(dst, "x")); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("x: %v, %v", fi.Mode(), err)
	}
	if err := s.Verify(t.Context(), digest.Of([]byte("content"))); err != nil {
		t.Errorf("writing to the copy changed the blob: %v", err)
	}
	if err := s.Export(t.Context(), merkle.Node{Kind: merkle.Dir, Digest: tree}, dst); !errors.Is(err, os.ErrExist) {
		t.Errorf("export over something: %v", err)
	}
	file := merkle.Node{Kind: merkle.File, Digest: digest.Of([]byte("!exec")), Executable: true}
	if err := s.Export(t.Context(), file, filepath.Join(out, "file")); err != nil {
		t.Error(err)
	}
	s.Remove(file.Digest)
	if err := s.Export(t.Context(), file, filepath.Join(out, "none")); !errors.As(err, new(*NotFoundError)) {
		t.Errorf("a missing blob: %v", err)
	}
	if names, _ := filepath.Glob(filepath.Join(out, "*")); len(names) != 2 {
		t.Errorf("in the output directory: %q", names)
	}
	if names, _ := filepath.Glob(filepath.Join(out, ".*")); len(names) != 0 {
		t.Errorf("left over: %q", names)
	}
}

func TestAdopt(t *testing.T) {
	s := open(t)
	top, err := s.TempDir("out")
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(top, "out")
	secret := filepath.Join(top, "secret")
	os.WriteFile(secret, []byte("outside"), 0o600)
	os.MkdirAll(filepath.Join(out, "locked/empty"), 0o755)
	for p, c := range map[string]struct {
		content string
		mode    os.FileMode
	}{"plain": {"plain", 0o644}, "suid": {"suid", 0o4755}, "group-x": {"gx", 0o410}, "none": {"none", 0}, "locked/f": {"f", 0o200}, "big": {strings.Repeat("b", 3<<20), 0o600}} {
		f := filepath.Join(out, p)
		if err := os.WriteFile(f, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		os.Chmod(f, c.mode.Perm()|map[bool]os.FileMode{true: os.ModeSetuid}[c.mode&0o4000 != 0])
	}
	os.Link(filepath.Join(out, "plain"), filepath.Join(out, "second-name"))
	os.Link(filepath.Join(out, "big"), filepath.Join(top, "outside-name"))
	os.Symlink("../secret", filepath.Join(out, "up"))
	os.Symlink("/etc", filepath.Join(out, "locked/etc"))
	os.Chmod(filepath.Join(out, "locked/empty"), 0)
	os.Chmod(filepath.Join(out, "locked"), 0o555)

	node, err := s.Adopt(out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(out); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the source is still there: %v", err)
	}
	want := map[string]string{"big": "f", "group-x": "x", "locked": "d", "locked/empty": "d", "locked/etc": "l/etc", "locked/f": "f",
		"none": "f", "plain": "f", "second-name": "f", "suid": "x", "up": "l../secret"}
	got := map[string]string{}
	err = merkle.Walk(s, node.Digest, func(p string, n merkle.Node) error {
		switch {
		case n.Kind == merkle.Dir:
			got[p] = "d"
		case n.Kind == merkle.Symlink:
			got[p] = "l" + n.Target
		case n.Executable:
			got[p] = "x"
		default:
			got[p] = "f"
		}
		if n.Kind == merkle.File {
			if err := s.Verify(t.Context(), n.Digest); err != nil {
				t.Errorf("%s: %v", p, err)
			}
			for _, x := range []bool{false, true} {
				if fi, err := os.Stat(s.Path(n.Digest, x)); err == nil && fi.Mode() != os.FileMode(mode(x)) {
					t.Errorf("%s: blob of mode %v", p, fi.Mode())
				}
			}
		}
		return nil
	})
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v, %v\nwant %v", got, err, want)
	}
	// The name outside must not reach the blob.
	if err := os.WriteFile(filepath.Join(top, "outside-name"), []byte("overwritten"), 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), digest.Of([]byte(strings.Repeat("b", 3<<20)))); err != nil {
		t.Errorf("a second name of the output reaches into the store: %v", err)
	}
	if b, _ := os.ReadFile(secret); string(b) != "outside" {
		t.Errorf("a link was followed: %q", b)
	}
}

func TestAdoptKinds(t *testing.T) {
	s := open(t)
	top, err := s.TempDir("out")
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(top, "link")
	os.Symlink("nowhere", link)
	if n, err := s.Adopt(link); err != nil || n != (merkle.Node{Kind: merkle.Symlink, Target: "nowhere"}) {
		t.Errorf("link: %+v, %v", n, err)
	}
	f := filepath.Join(top, "f")
	os.WriteFile(f, []byte("!"), 0o711)
	if n, err := s.Adopt(f + "/"); err != nil || n != (merkle.Node{Kind: merkle.File, Digest: digest.Of([]byte("!")), Executable: true}) {
		t.Errorf("file: %+v, %v", n, err)
	}
	if _, err := s.Adopt(f); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
	pipe := filepath.Join(top, "d", "pipe")
	os.Mkdir(filepath.Dir(pipe), 0o755)
	if err := unix.Mkfifo(pipe, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Adopt(filepath.Dir(pipe)); err == nil || !strings.Contains(err.Error(), pipe+" is a named pipe") {
		t.Errorf("pipe: %v", err)
	}
	sock := filepath.Join(top, "sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	// A socket's path may be 107 bytes long; a descriptor makes it short.
	dir, err := os.Open(top)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/sock", dir.Fd())}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Adopt(sock); err == nil || !strings.Contains(err.Error(), "is a socket") {
		t.Errorf("socket: %v", err)
	}
	// A file with an access list or the like must not give it to the blob.
	attr := filepath.Join(top, "attr")
	os.WriteFile(attr, []byte("with attribute"), 0o644)
	if err := unix.Setxattr(attr, "user.x", []byte("1"), 0); err == nil {
		n, err := s.Adopt(attr)
		if err != nil {
			t.Fatal(err)
		}
		if size, err := unix.Listxattr(s.Path(n.Digest, false), nil); err != nil || size != 0 {
			t.Errorf("the blob has attributes: %d bytes, %v", size, err)
		}
	}
}

// FuzzMaterialise lays out trees that come from arbitrary Directory blobs and
// looks that nothing appears outside.
func FuzzMaterialise(f *testing.F) {
	d := &merkle.Directory{
		Files:       []merkle.FileNode{{Name: "f", Digest: digest.Empty}},
		Directories: []merkle.DirectoryNode{{Name: "d", Digest: digest.Empty}},
		Symlinks:    []merkle.SymlinkNode{{Name: "l", Target: "/etc"}},
	}
	f.Add(d.Encode())
	f.Add([]byte("\x0a\x02\x0a\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := open(t)
		put(t, s, "")
		tree, err := s.PutBytes(b)
		if err != nil {
			t.Fatal(err)
		}
		path, err := s.Materialise(t.Context(), tree)
		if err != nil {
			return
		}
		if err := s.VerifyTree(t.Context(), tree); err != nil {
			t.Error(err)
		}
		for _, dir := range []string{filepath.Dir(path), s.sess.path} {
			entries, _ := os.ReadDir(dir)
			if dir == s.sess.path && len(entries) != 0 || dir != s.sess.path && len(entries) != 1 {
				t.Errorf("%s: %v", dir, entries)
			}
		}
	})
}

func BenchmarkMaterialise(b *testing.B) {
	s := open(b)
	files := map[string]string{}
	for i := range 10_000 {
		files[fmt.Sprintf("d%d/e%d/f%d", i%16, i%32, i)] = string(binary.LittleEndian.AppendUint32(nil, uint32(i)))
	}
	tree := putTree(b, s, files)
	for b.Loop() {
		if _, err := s.Materialise(b.Context(), tree); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		s.RemoveTree(tree)
		b.StartTimer()
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/float64(len(files)), "µs/file")
}
