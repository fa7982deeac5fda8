package virtualbox_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tool/backends/backendtest"
	"tool/backends/local"
	"tool/backends/virtualbox"
	"tool/backends/virtualbox/vboxtest"
	"tool/core/machines/deploy"
)

// world is a host with one machine, for a test of what can go wrong with it.
type world struct {
	t *testing.T
	h *vboxtest.Host
	b *virtualbox.Backend
	f *backendtest.Fleet
	m *deploy.Machine
}

func newWorld(t *testing.T, h *vboxtest.Host) *world {
	t.Helper()
	f := newFleet(t)
	w := &world{t, h, newBackend(h), f, f.Machine(t, "m0")}
	t.Cleanup(func() {
		for _, m := range f.Machines {
			if err := w.tryReach(m, deploy.Absent); err != nil {
				t.Errorf("destroy %s at the end: %v", m.Name, err)
			}
			if all := left(t, h, m); len(all) > 0 {
				t.Errorf("destroying %s left %v", m.Name, all)
			}
		}
	})
	return w
}

func (w *world) tryReach(m *deploy.Machine, g deploy.Goal) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	o, err := w.b.Observe(ctx, m)
	if err != nil {
		return err
	}
	steps, err := w.b.Plan(m, o, g)
	if err != nil {
		return err
	}
	for _, s := range steps {
		if err := w.b.Do(ctx, m, s); err != nil {
			return err
		}
	}
	if o, err = w.b.Observe(ctx, m); err != nil {
		return err
	}
	if steps, err = w.b.Plan(m, o, g); err == nil && len(steps) > 0 {
		err = errors.New("there are steps again: " + steps[0].Text)
	}
	return err
}

func (w *world) reach(g deploy.Goal) {
	w.t.Helper()
	if err := w.tryReach(w.m, g); err != nil {
		w.t.Fatalf("%s: %v", g, err)
	}
}

func (w *world) observe(want deploy.State) *deploy.Observed {
	w.t.Helper()
	o, err := w.b.Observe(context.Background(), w.m)
	if err != nil {
		w.t.Fatal(err)
	}
	if o.State != want {
		w.t.Fatalf("it is %s (%v), want %s", o.State, o.Problems, want)
	}
	return o
}

func (w *world) id() string { return idOf(w.t, w.b, w.m) }

func (w *world) manage(args ...string) {
	w.t.Helper()
	if out, err := w.h.Manage(args...); err != nil {
		w.t.Fatalf("VBoxManage %v: %v\n%s", args, err, out)
	}
}

func (w *world) refused(g deploy.Goal, want ...string) {
	w.t.Helper()
	err := w.tryReach(w.m, g)
	for _, x := range want {
		if err == nil || !strings.Contains(err.Error(), x) {
			w.t.Fatalf("the error is %v, want %q in it", err, x)
		}
	}
}

// forget ends VirtualBox's server, so that the next call reads all files anew.
func (w *world) forget() {
	w.t.Helper()
	for _, pid := range w.h.Processes("VBoxSVC") {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
	end := time.Now().Add(20 * time.Second)
	for len(w.h.Processes("VBoxSVC")) > 0 {
		if time.Now().After(end) {
			w.t.Fatal("VirtualBox's server does not end")
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestProvoked brings about what VirtualBox is known to stumble over.
func TestProvoked(t *testing.T) {
	h := vboxtest.New(t)
	for _, x := range []struct {
		name string
		run  func(*testing.T, *world)
	}{
		{"Saved", testSaved},
		{"Paused", testPaused},
		{"ByHand", testByHand},
		{"Inaccessible", testInaccessible},
		{"Media", testMedia},
		{"Half", testHalf},
		{"Locked", testLocked},
		{"Taken", testTaken},
		{"Variables", testVariables},
		{"Ports", testPorts},
		{"Networks", testNetworks},
		{"Snapshots", testSnapshots},
		{"Merged", testMerged},
		{"Leaving", testLeaving},
		{"TwoDeployments", testTwoDeployments},
	} {
		t.Run(x.name, func(t *testing.T) { x.run(t, newWorld(t, h)) })
	}
}

func testSaved(t *testing.T, w *world) {
	w.reach(deploy.Running)
	w.manage("controlvm", w.id(), "savestate")
	if o := w.observe(deploy.StatePaused); len(o.Problems) == 0 {
		t.Error("nothing is said of a saved state")
	}
	w.reach(deploy.Running)
	w.observe(deploy.StateRunning)
	w.manage("controlvm", w.id(), "savestate")
	w.reach(deploy.Stopped)
	w.observe(deploy.StateStopped)
	w.reach(deploy.Running)
	w.manage("controlvm", w.id(), "savestate")
	w.m.Hardware.Memory *= 2
	w.reach(deploy.Running)
	w.manage("controlvm", w.id(), "savestate")
	w.reach(deploy.Absent)
}

func testPaused(t *testing.T, w *world) {
	w.reach(deploy.Running)
	w.manage("controlvm", w.id(), "pause")
	w.observe(deploy.StatePaused)
	w.reach(deploy.Running)
	w.manage("controlvm", w.id(), "pause")
	w.reach(deploy.Stopped)
	w.reach(deploy.Running)
	w.manage("controlvm", w.id(), "pause")
	w.reach(deploy.Absent)
	// And once more of one that is destroyed after a crash.
	w.reach(deploy.Running)
	if err := w.b.Cut(context.Background(), w.m); err != nil {
		t.Fatal(err)
	}
	w.observe(deploy.StateCrashed)
	w.reach(deploy.Absent)
}

// testByHand takes the machine from VirtualBox in the ways that people do.
func testByHand(t *testing.T, w *world) {
	w.reach(deploy.Running)
	w.reach(deploy.Stopped)
	w.manage("unregistervm", w.id())
	if o := w.observe(deploy.StateStopped); o.Complete {
		t.Error("a machine that VirtualBox does not know is complete")
	}
	w.reach(deploy.Running)
	w.reach(deploy.Stopped)
	w.manage("unregistervm", w.id(), "--delete")
	w.reach(deploy.Running)
	w.reach(deploy.Stopped)
	w.manage("modifyvm", w.id(), "--memory", "256", "--nic2", "nat", "--mac-address1", "080027000001")
	if o := w.observe(deploy.StateStopped); len(o.Drift) < 2 {
		t.Errorf("what was changed by hand is seen as %q", o.Drift)
	}
	w.reach(deploy.Running)
	if o := w.observe(deploy.StateRunning); len(o.Drift) > 0 || o.Hardware.Memory != 128 {
		t.Errorf("%+v", o)
	}
}

func testInaccessible(t *testing.T, w *world) {
	w.reach(deploy.Running)
	w.reach(deploy.Stopped)
	spoil := func() {
		t.Helper()
		w.forget()
		for _, f := range []string{virtualbox.Settings(w.m), virtualbox.Settings(w.m) + "-prev"} {
			if err := os.Remove(f); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
		if out, err := w.h.Manage("list", "vms"); err != nil || !strings.Contains(out, "<inaccessible>") {
			t.Fatalf("%v: %s", err, out)
		}
	}
	spoil()
	if o := w.observe(deploy.StateStopped); o.Complete || len(o.Problems) == 0 {
		t.Errorf("%+v", o)
	}
	w.reach(deploy.Running)
	w.reach(deploy.Stopped)
	spoil()
	w.reach(deploy.Absent)
}

func testMedia(t *testing.T, w *world) {
	w.reach(deploy.Running)
	w.reach(deploy.Stopped)
	for _, f := range []string{"seed.vdi", "esp.vdi"} {
		if err := os.Remove(filepath.Join(w.m.Dir, f)); err != nil {
			t.Fatal(err)
		}
		w.reach(deploy.Running)
		w.reach(deploy.Stopped)
	}
	all := bases(t, w.m.NetDir)
	if len(all) != 1 {
		t.Fatal(all)
	}
	base := all[0]
	if err := os.Rename(base, base+".away"); err != nil {
		t.Fatal(err)
	}
	w.forget()
	w.refused(deploy.Running, "its disk cannot be read", filepath.Base(base), "destroy the machine")
	if err := os.Rename(base+".away", base); err != nil {
		t.Fatal(err)
	}
	w.reach(deploy.Running)
	w.reach(deploy.Stopped)
	root := filepath.Join(w.m.Dir, "root.vdi")
	if err := os.WriteFile(root, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.refused(deploy.Running, root, "is not a VDI")
}

// testHalf finds what a command left that was killed within a step.
func testHalf(t *testing.T, w *world) {
	do := func(kind string) {
		t.Helper()
		if err := w.b.Do(context.Background(), w.m, deploy.Step{Kind: kind}); err != nil {
			t.Fatal(err)
		}
	}
	touch := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(w.m.Dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	do("disk")
	touch("root.vdi.making", "")
	touch("seed.vdi.tmp", "half a seed")
	touch("esp.vdi.tmp", "half")
	w.reach(deploy.Running)
	w.reach(deploy.Stopped)
	w.reach(deploy.Absent)
	// Half a disk, which VirtualBox has not heard of, and a machine without any.
	touch("root.vdi", "half a disk")
	touch("root.vdi.making", "")
	id := w.id()
	w.manage("createvm", "--name", w.m.Name+"-"+w.m.Deployment[:8], "--uuid", id, "--basefolder", w.m.Dir, "--ostype", "Debian_64", "--register")
	w.reach(deploy.Running)
}

// testLocked does steps while others lock the machine again and again.
func testLocked(t *testing.T, w *world) {
	w.reach(deploy.Running)
	w.reach(deploy.Stopped)
	id := w.id()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for n := range 3 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
					_, _ = w.h.Manage("modifyvm", id, "--description", strconv.Itoa(n*1000+i))
					_, _ = w.h.Manage("setextradata", id, "other", strconv.Itoa(n*1000+i))
				}
			}
		})
	}
	for i := range 3 {
		for range 10 {
			if err := w.b.Do(context.Background(), w.m, deploy.Step{Kind: local.StepConfigure}); err != nil {
				t.Error(err)
			}
		}
		w.m.Hardware.Memory = 128 + 16*(i+1)
		if err := w.tryReach(w.m, deploy.Running); err != nil {
			t.Error(err)
		}
		if err := w.tryReach(w.m, deploy.Stopped); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	wg.Wait()
}
