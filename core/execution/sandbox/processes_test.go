package sandbox_test

import (
	"bytes"
	"context"
	"io"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"tool/core/execution/exec"
)

// helpers counts the live processes on this machine that are helpers of this
// very test binary.
func helpers(t testing.TB) int {
	t.Helper()
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	all, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range all {
		b, _ := os.ReadFile(p)
		if !bytes.HasPrefix(b, []byte("/bin/helper\x00helper")) && !bytes.HasPrefix(b, []byte("/proc/self/exe\x00helper")) {
			continue
		}
		// The helper is a copy, so compare sizes: another test binary's
		// helpers may be running too.
		if info, err := os.Stat(filepath.Join(filepath.Dir(p), "exe")); err == nil && info.Size() == self.Size() {
			n++
		}
	}
	return n
}

func count(t testing.TB, file string) int {
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(b, []byte("\n"))
}

// doomedParent runs a command that never ends; it is for being killed.
func doomedParent(dir string) {
	b := newBench(plain{}, dir)
	s := b.spawn("sleep")
	s.Objects = []exec.Object{}
	go io.WriteString(os.Stdout, "up\n")
	_, _ = b.run.Run(context.Background(), s)
	os.Exit(1)
}

// plain is a testing.TB for a process that is not a test.
type plain struct{ testing.TB }

func (plain) Helper()           {}
func (plain) Cleanup(func())    {}
func (plain) Fatal(args ...any) { panic(args) }
func (plain) Skip(args ...any)  { panic(args) }

func TestKilledParentLeavesNothing(t *testing.T) {
	b := newBench(t, t.TempDir()) // skips where there are no sandboxes
	dir := t.TempDir()
	t.Cleanup(func() { b.cas.RemoveAll(dir) }) // its trees are read-only
	cmd := osexec.Command("/proc/self/exe", "doomed-parent", dir)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the command to start", func() bool { return helpers(t) == 1 })
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	waitFor(t, "the command to die", func() bool { return helpers(t) == 0 })
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 1000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("waited in vain for ", what)
}

// TestAsOrdinaryUser runs this package's tests again as a user without any
// privilege, if the tests run as root.
func TestAsOrdinaryUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("not root: all the tests ran as an ordinary user")
	}
	// Where a parent directory is closed to others, the store would be too.
	tmp, err := os.MkdirTemp("", "sandbox-user-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	if err := os.Chown(tmp, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	args := []string{"-test.v", "-test.run=Test"}
	if testing.Short() {
		args = append(args, "-test.short")
	}
	cmd := osexec.Command("/proc/self/exe", args...)
	cmd.Dir = "/"
	cmd.Env = []string{"TMPDIR=" + tmp}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "SANDBOX NOT TESTED") {
		t.Skipf("SANDBOX NOT TESTED AS ORDINARY USER: %s", out)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: TestFacts") {
		t.Errorf("%v\n%s", err, out)
	}
}
