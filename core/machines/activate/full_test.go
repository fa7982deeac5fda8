package activate

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const fullEnv = "ACTIVATE_TEST_FULL_DIR"

// TestFullDisk fills a small file system, which it mounts in a namespace by
// running itself there. A machine's files have owners, so that takes root.
func TestFullDisk(t *testing.T) {
	if dir := os.Getenv(fullEnv); dir != "" {
		fillDisk(t, dir)
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestFullDisk$", "-test.v")
	cmd.Env = append(os.Environ(), fullEnv+"="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	switch {
	case bytes.Contains(out, []byte("CANNOT MOUNT")) || err != nil && len(out) == 0:
		t.Skipf("LOUD: a full disk was not tested: it takes root: %v\n%s", err, out)
	case err != nil || !bytes.Contains(out, []byte("FILLED")):
		t.Errorf("%v\n%s", err, out)
	}
}

func fillDisk(t *testing.T, dir string) {
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=80m"); err != nil {
		t.Fatalf("CANNOT MOUNT: %v", err)
	}
	r := &rig{t: t, sd: &fakeSystemd{root: dir, units: map[string]*fakeUnit{}}}
	os.MkdirAll(filepath.Join(dir, "proc"), 0o755)
	r.open()
	r.first(r.system(map[string]string{"a.service": "a"}, nil, nil))
	r.stage(2, r.system(map[string]string{"a.service": "a2"}, map[string]string{"x/y": "z"}, nil))
	if _, err := os.Stat(r.m.ballast()); err != nil {
		t.Errorf("no ballast: %v", err)
	}
	if _, err := r.m.StartSwitch(t.Context(), SwitchRequest{Generation: 2, Auto: true}); err != nil {
		t.Fatal(err)
	}
	fill := func() {
		f, err := os.Create(filepath.Join(dir, "fill"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for b := make([]byte, 4096); ; {
			if _, err := f.Write(b); err != nil {
				return
			}
		}
	}
	// Once it cannot even be said that it cannot be done, and once it can.
	fill()
	if err := r.m.RunSwitch(t.Context(), 2); err != nil {
		t.Errorf("with the ballast: %v", err)
	}
	s, err := r.m.Status()
	if err != nil || !s.Over() {
		t.Fatalf("%s, %v", s, err)
	}
	n := 1
	if s.Result == ResultConfirmed {
		n = 2
	}
	r.check(n, n)
	fill()
	var space *NoSpaceError
	if _, err := r.m.StartSwitch(t.Context(), SwitchRequest{Generation: 1}); !errors.As(err, &space) || !strings.Contains(err.Error(), "gc") {
		t.Errorf("a switch began on a full disk: %v", err)
	}
	r.restart()
	r.check(n, n)
	os.Remove(filepath.Join(dir, "fill"))
	if _, err := r.m.GC(t.Context(), 5); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(r.m.ballast()); err != nil {
		t.Errorf("the ballast did not come back: %v", err)
	}
	t.Log("FILLED")
}
