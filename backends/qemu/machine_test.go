package qemu_test

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"tool/backends/backendtest"
	"tool/backends/qemu"
	"tool/backends/qemu/vswitch"
	"tool/core/machines/deploy"
)

// reach brings m to g, and returns the error of the step that failed.
func reach(t *testing.T, b *qemu.Backend, m *deploy.Machine, g deploy.Goal) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	o, err := b.Observe(ctx, m)
	if err != nil {
		t.Fatal(err)
	}
	steps, err := b.Plan(m, o, g)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range steps {
		if err := b.Do(ctx, m, s); err != nil {
			return err
		}
	}
	return nil
}

// up starts a machine that is destroyed with the test.
func up(t *testing.T, b *qemu.Backend, m *deploy.Machine) {
	t.Helper()
	t.Cleanup(func() {
		if err := reach(t, b, m, deploy.Absent); err != nil {
			t.Error(err)
		}
	})
	if err := reach(t, b, m, deploy.Running); err != nil {
		t.Fatal(err)
	}
}

func observe(t *testing.T, b *qemu.Backend, m *deploy.Machine) *deploy.Observed {
	t.Helper()
	o, err := b.Observe(context.Background(), m)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// TestPortTaken shows what one is told whose port somebody else has.
func TestPortTaken(t *testing.T) {
	f, b := newFleet(t), newBackend()
	m := f.Machine(t, "m0")
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(m.SSHPort)))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = reach(t, b, m, deploy.Running)
	want := "port 127.0.0.1:" + strconv.Itoa(m.SSHPort) + " of this host is taken"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	if o := observe(t, b, m); o.State != deploy.StateStopped {
		t.Errorf("it is %s: %v", o.State, o.Problems)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	up(t, b, m)
	c, err := b.Dial(context.Background(), m)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.Close()
}

// TestStalePid shows that a number in a file is not taken for a machine: neither
// is its process ended, nor does it count as running.
func TestStalePid(t *testing.T) {
	f, b := newFleet(t), newBackend()
	m := f.Machine(t, "m0")
	up(t, b, m)
	kill(t, pidOf(t, m))
	other := exec.Command("sleep", "60")
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Process.Kill(); _ = other.Wait() })
	if err := os.WriteFile(filepath.Join(m.Dir, "pid"), []byte(strconv.Itoa(other.Process.Pid)), 0o600); err != nil {
		t.Fatal(err)
	}
	if o := observe(t, b, m); o.State != deploy.StateCrashed {
		t.Errorf("with the process of another program it is %s", o.State)
	}
	if err := reach(t, b, m, deploy.Stopped); err != nil {
		t.Fatal(err)
	}
	if err := other.Process.Signal(syscall.Signal(0)); errors.Is(err, os.ErrProcessDone) {
		t.Error("another program's process was ended")
	}
}

// TestLostFiles shows that a machine is found by its process when somebody
// removed files below it, and that it can be ended then.
func TestLostFiles(t *testing.T) {
	f, b := newFleet(t), newBackend()
	m := f.Machine(t, "m0")
	up(t, b, m)
	pid := pidOf(t, m)
	for _, name := range []string{"pid", "qmp.sock"} {
		if err := os.Remove(filepath.Join(m.Dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	o := observe(t, b, m)
	if o.State != deploy.StateUnknown || !strings.Contains(strings.Join(o.Problems, " "), "has been removed") {
		t.Errorf("it is %s: %v", o.State, o.Problems)
	}
	if _, err := b.Plan(m, o, deploy.Running); err == nil {
		t.Error("a machine that cannot be asked is planned to run")
	}
	if err := os.RemoveAll(m.Dir); err != nil {
		t.Fatal(err)
	}
	f.Machine(t, "m0") // makes the folder again
	if o := observe(t, b, m); !o.Exists {
		t.Error("a machine whose folder is gone counts as missing, but its process runs")
	}
	if err := reach(t, b, m, deploy.Absent); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join("/proc", strconv.Itoa(pid), "exe")); err == nil {
		t.Error("the process still runs")
	}
}

// TestCollected shows that a machine outlives the store that it came from.
func TestCollected(t *testing.T) {
	f, b := newFleet(t), newBackend()
	m := f.Machine(t, "m0")
	up(t, b, m)
	if err := os.Remove(f.Like.Root); err != nil {
		t.Fatal(err)
	}
	m.Root, m.Seed = "", ""
	if err := reach(t, b, m, deploy.Stopped); err != nil {
		t.Fatal(err)
	}
	if err := reach(t, b, m, deploy.Running); err != nil {
		t.Fatal(err)
	}
}

// TestOtherKernel shows that a kernel counts by its content, not by its path.
func TestOtherKernel(t *testing.T) {
	f, b := newFleet(t), newBackend()
	m := f.Machine(t, "m0")
	up(t, b, m)
	same := filepath.Join(f.Dir, "same")
	content, err := os.ReadFile(m.Initrd)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(same, content, 0o644); err != nil {
		t.Fatal(err)
	}
	m.Initrd = same
	if o := observe(t, b, m); len(o.Drift) > 0 {
		t.Errorf("a copy of the initrd is another one: %v", o.Drift)
	}
	other := filepath.Join(f.Dir, "other")
	if err := os.WriteFile(other, append(content, 0, 0, 0, 0), 0o644); err != nil {
		t.Fatal(err)
	}
	m.Initrd, m.Cmdline = other, m.Cmdline+" tool.generation=2"
	pid := pidOf(t, m)
	if o := observe(t, b, m); len(o.Drift) != 2 {
		t.Errorf("another initrd and command line are %v", o.Drift)
	}
	if err := reach(t, b, m, deploy.Running); err != nil {
		t.Fatal(err)
	}
	o := observe(t, b, m)
	if steps, err := b.Plan(m, o, deploy.Running); err != nil || len(steps) > 0 || pidOf(t, m) == pid {
		t.Errorf("after the restart: %v, %v, process %d as before %d", steps, err, pidOf(t, m), pid)
	}
}

// TestNetworkHeals shows that a switch whose process was killed is started
// again without touching machines.
func TestNetworkHeals(t *testing.T) {
	f, b := newFleet(t), newBackend()
	m := f.Machine(t, "m0")
	up(t, b, m)
	pid, err := vswitch.Running(m.NetDir)
	if err != nil || pid == 0 {
		t.Fatalf("the switch is %d, %v", pid, err)
	}
	kill(t, pid)
	for range 500 { // its lock goes a little after its memory
		if still, err := vswitch.Running(m.NetDir); err == nil && still == 0 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	before := pidOf(t, m)
	steps, err := b.Plan(m, observe(t, b, m), deploy.Running)
	if err != nil || len(steps) != 1 || steps[0].Kind != "network" {
		t.Fatalf("planned: %v, %v", steps, err)
	}
	if err := reach(t, b, m, deploy.Running); err != nil {
		t.Fatal(err)
	}
	if again, err := vswitch.Running(m.NetDir); err != nil || again == 0 || again == pid || pidOf(t, m) != before {
		t.Errorf("the switch is %d after %d, %v; the machine %d after %d", again, pid, err, pidOf(t, m), before)
	}
}

// TestConcurrent shows that two commands that do the same at once both find it done.
func TestConcurrent(t *testing.T) {
	f := newFleet(t)
	m := f.Machine(t, "m0")
	up(t, newBackend(), m)
	if err := reach(t, newBackend(), m, deploy.Stopped); err != nil {
		t.Fatal(err)
	}
	results := make(chan error)
	for range 3 {
		go func() { results <- newBackend().Do(context.Background(), m, deploy.Step{Kind: "start"}) }()
	}
	for range 3 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if o := observe(t, newBackend(), m); o.State != deploy.StateRunning {
		t.Errorf("it is %s: %v", o.State, o.Problems)
	}
}

// TestCancelled shows that a start that was interrupted is found or made again.
func TestCancelled(t *testing.T) {
	f, b := newFleet(t), newBackend()
	m := f.Machine(t, "m0")
	up(t, b, m)
	if err := reach(t, b, m, deploy.Stopped); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if err := b.Do(ctx, m, deploy.Step{Kind: "start"}); err != nil && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("an interrupted start: %v", err)
	}
	if err := b.Do(context.Background(), m, deploy.Step{Kind: "start"}); err != nil {
		t.Fatal(err)
	}
	if o := observe(t, b, m); o.State != deploy.StateRunning {
		t.Errorf("it is %s: %v", o.State, o.Problems)
	}
}

// TestForwards shows that ports are forwarded anew without a restart.
func TestForwards(t *testing.T) {
	f, b := newFleet(t), newBackend()
	m := f.Machine(t, "m0")
	up(t, b, m)
	pid := pidOf(t, m)
	open := func(port int) bool {
		c, err := net.DialTimeout("tcp", net.JoinHostPort(m.HostAddr.String(), strconv.Itoa(port)), 5*time.Second)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	}
	first, second := m.Forwards[0], deploy.Forward{Port: backendtest.FreePort(t, m.HostAddr.String()), Guest: 8080}
	for _, want := range [][]deploy.Forward{{first, second}, {second}, nil, {first}} {
		m.Forwards = want
		for range 2 { // the second finds it done
			if err := b.Do(context.Background(), m, deploy.Step{Kind: "forward"}); err != nil {
				t.Fatal(err)
			}
		}
		o := observe(t, b, m)
		if steps, err := b.Plan(m, o, deploy.Running); err != nil || len(steps) > 0 {
			t.Errorf("steps are left: %v, %v", steps, err)
		}
		for _, f := range []deploy.Forward{first, second} {
			wanted := false
			for _, w := range want {
				wanted = wanted || w == f
			}
			if open(f.Port) != wanted {
				t.Errorf("with %v the port %d is open: %v", want, f.Port, !wanted)
			}
		}
	}
	if pidOf(t, m) != pid {
		t.Error("it was started again")
	}
}
