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
	for range 20 {
		var err error
		bomb, err = s.PutDirectory(&merkle.Directory{Directories: []merkle.DirectoryNode{{Name: "a", Digest: bomb}, {Name: "b", Digest: bomb}}})
		if err != nil {
			t.Fatal(err)
		}
	}
	s.maxEntries = 1000
	if _, err := s.Materialise(t.Context(), bomb); err == nil || !strings.Contains(err.Error(), "more than 1000 entries") {
		t.Errorf("a bomb: %v", err)
	}
	if err := s.Export(t.Context(), merkle.Node{Kind: merkle.Dir, Digest: bomb}, filepath.Join(t.TempDir(), "x")); err == nil || !strings.Contains(err.Error(), "more than 1000 entries") {
		t.Errorf("exporting a bomb: %v", err)
	}
	s.maxEntries = maxEntries
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
	s := open(f)
	put(f, s, "")
	f.Fuzz(func(t *testing.T, b []byte) {
		tree, err := s.PutBytes(b)
		if err != nil {
			t.Fatal(err)
		}
		if tree != digest.Empty {
			defer s.Remove(tree)
		}
		path, err := s.Materialise(t.Context(), tree)
		if err != nil {
			return
		}
		defer s.RemoveTree(tree)
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
