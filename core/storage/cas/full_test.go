package cas

import (
	"bytes"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"tool/core/model/digest"
	"tool/core/model/merkle"
)

const fullEnv = "CAS_TEST_FULL_DIR"

// TestFull fills a small file system, which it mounts in a user namespace by
// running itself there.
func TestFull(t *testing.T) {
	if dir := os.Getenv(fullEnv); dir != "" {
		fillUp(t, dir)
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestFull$", "-test.v")
	cmd.Env = append(os.Environ(), fullEnv+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	switch {
	case bytes.Contains(out, []byte("CANNOT MOUNT")) || err != nil && len(out) == 0:
		t.Skipf("LOUD: a full disk was not tested: no user namespaces here: %v\n%s", err, out)
	case err != nil || !bytes.Contains(out, []byte("FILLED")):
		t.Errorf("%v\n%s", err, out)
	}
}

func fillUp(t *testing.T, dir string) {
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=8m,nr_inodes=2000"); err != nil {
		t.Fatalf("CANNOT MOUNT: %v", err)
	}
	s := openAt(t, filepath.Join(dir, "s"))
	tree := putTree(t, s, map[string]string{"a/f": "1", "b/g": "2"})
	content := func(n int) []byte {
		b := make([]byte, n)
		rand.Read(b)
		return b
	}
	var err error
	for err == nil { // by small blobs: inodes run out
		_, err = s.PutBytes(content(10))
	}
	checkFull(t, s, "PutBytes", err)
	if _, err := s.Materialise(t.Context(), tree); err != nil {
		checkFull(t, s, "Materialise", err)
	} else {
		t.Error("Materialise made directories without inodes")
	}
	if _, err := s.TempDir("x"); err == nil || !IsFull(err) {
		t.Errorf("TempDir: %v", err)
	}
	n := 0
	s.Each(func(d digest.Digest, _ bool, _ int64, _ time.Time) error {
		if n++; n%2 == 0 {
			return s.Remove(d)
		}
		return nil
	})
	err = nil
	for err == nil { // by large ones: blocks run out
		_, err = s.Put(t.Context(), digest.Digest{}, bytes.NewReader(content(smallMax+1)))
	}
	checkFull(t, s, "Put", err)
	// What was written by someone else can still be adopted: it only moves.
	out, err := s.TempDir("out")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(out, "f"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Adopt(filepath.Join(out, "f")); err != nil || n.Kind != merkle.File {
		t.Errorf("Adopt: %v, %v", n, err)
	}
	if err := s.Flush(); err != nil {
		t.Errorf("Flush: %v", err)
	}
	t.Log("FILLED")
}

// checkFull: the error tells the directory, and every blob is whole.
func checkFull(t *testing.T, s *Store, what string, err error) {
	t.Helper()
	if !IsFull(err) || !strings.Contains(err.Error(), "the store directory "+s.Dir()+" is full") {
		t.Errorf("%s: %v", what, err)
	}
	if left := tmpFiles(t, s); len(left) != 0 {
		t.Errorf("%s left in tmp: %q", what, left)
	}
	err = s.Each(func(d digest.Digest, x bool, _ int64, _ time.Time) error { return s.VerifyFile(t.Context(), d, x) })
	if err != nil {
		t.Errorf("after %s: %v", what, err)
	}
}
