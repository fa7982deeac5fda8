package virtualbox_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tool/backends/virtualbox"
	"tool/backends/virtualbox/vboxtest"
	"tool/core/machines/deploy"
)

// world is a host with one machine, for a test of what can go wrong with it.
type world struct {
	t *testing.T
	h *vboxtest.Host
	b *virtualbox.Backend
	f *fleet
	m *deploy.Machine
}

func newWorld(t *testing.T, h *vboxtest.Host) *world {
	t.Helper()
	f := newFleet(t, h)
	w := &world{t, h, newBackend(h), f, f.machine(t, "m0")}
	t.Cleanup(func() {
		for _, m := range f.machines {
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
		{"Ports", testPorts},
		{"Networks", testNetworks},
		{"Snapshots", testSnapshots},
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
	bases, err := filepath.Glob(filepath.Join(w.m.NetDir, "base-*.vdi"))
	if err != nil || len(bases) != 1 {
		t.Fatal(bases, err)
	}
	if err := os.Rename(bases[0], bases[0]+".away"); err != nil {
		t.Fatal(err)
	}
	w.forget()
	w.refused(deploy.Running, "its disk cannot be read", filepath.Base(bases[0]), "destroy the machine")
	if err := os.Rename(bases[0]+".away", bases[0]); err != nil {
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
				}
			}
		})
	}
	for i := range 3 {
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

// testTaken shows what keeps a machine from being made.
func testTaken(t *testing.T, w *world) {
	w.reach(deploy.Stopped)
	name := w.m.Name + "-" + w.m.Deployment[:8]
	w.manage("createvm", "--name", name, "--basefolder", w.f.path("other"), "--register")
	w.refused(deploy.Running, "VirtualBox has a machine "+name, "not this deployment's", "modifyvm")
	w.manage("unregistervm", name, "--delete")

	disk := w.f.path("old.vdi")
	w.manage("convertfromraw", w.m.Seed, disk, "--format", "VDI", "--uuid", virtualbox.DiskID(w.m, virtualbox.SeedFile))
	w.manage("createvm", "--name", "other", "--basefolder", w.f.path("other"), "--register")
	w.manage("storagectl", "other", "--name", "c", "--add", "sata")
	w.manage("storageattach", "other", "--storagectl", "c", "--port", "0", "--type", "hdd", "--medium", disk)
	w.refused(deploy.Running, disk, "closemedium")
	w.manage("unregistervm", "other")
	_, _ = w.h.Manage("closemedium", "disk", disk)
	w.reach(deploy.Running)
}

func testPorts(t *testing.T, w *world) {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(w.m.SSHPort)))
	if err != nil {
		t.Fatal(err)
	}
	w.refused(deploy.Running, "127.0.0.1:"+strconv.Itoa(w.m.SSHPort)+" of this host is taken")
	w.observe(deploy.StateStopped)
	l.Close()
	w.reach(deploy.Running)
	// The machine listens, and while it runs other ports are forwarded.
	first := net.JoinHostPort(w.m.HostAddr.String(), strconv.Itoa(w.m.Forwards[0].Port))
	dial := func(a string) error {
		c, err := net.DialTimeout("tcp", a, 5*time.Second)
		if err == nil {
			c.Close()
		}
		return err
	}
	if err := dial(first); err != nil {
		t.Error(err)
	}
	w.m.Forwards = []deploy.Forward{{Port: freePort(t, w.m.HostAddr.String()), Guest: 81}}
	w.reach(deploy.Running)
	if err := dial(first); err == nil {
		t.Errorf("%s still leads to the machine", first)
	}
	if err := dial(net.JoinHostPort(w.m.HostAddr.String(), strconv.Itoa(w.m.Forwards[0].Port))); err != nil {
		t.Error(err)
	}
}

// testNetworks asks for networks that there cannot be without the driver.
func testNetworks(t *testing.T, w *world) {
	w.m.Settings["network"] = "internal"
	w.refused(deploy.Running, "VERR_SUP_DRIVERLESS", "modprobe vboxdrv", "poweroff")
	w.observe(deploy.StateStopped)
	w.m.Settings["network"] = "hostonly"
	w.refused(deploy.Running, "a network with the host cannot be made", "/dev/vboxnetctl", "network=internal")
	if err := w.b.Do(context.Background(), w.m, deploy.Step{Kind: "network"}); err == nil || !strings.Contains(err.Error(), "hostonlyif create") {
		t.Error(err)
	}
	w.m.Settings["network"] = "elsewhere"
	w.refused(deploy.Running, "network=elsewhere is none of internal, hostonly, none")
	w.m.Settings["network"] = "none"
	w.reach(deploy.Running)
}

func testSnapshots(t *testing.T, w *world) {
	ctx := context.Background()
	w.reach(deploy.Running)
	for _, n := range []string{"one", "two"} {
		if err := w.b.TakeSnapshot(ctx, w.m, deploy.Snapshot{Name: n, Description: "the " + n}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.b.TakeSnapshot(ctx, w.m, deploy.Snapshot{Name: "two"}); !errors.Is(err, deploy.ErrSnapshotExists) {
		t.Error(err)
	}
	all, err := w.b.Snapshots(ctx, w.m)
	if err != nil || len(all) != 2 || all[0] != (deploy.Snapshot{Name: "one", Description: "the one"}) || !all[1].Current {
		t.Fatalf("%+v, %v", all, err)
	}
	if err := w.b.RestoreSnapshot(ctx, w.m, "one"); err == nil || !strings.Contains(err.Error(), "must be stopped") {
		t.Error(err)
	}
	w.reach(deploy.Stopped)
	w.m.Hardware.Disk = 256
	w.reach(deploy.Running)
	if o := w.observe(deploy.StateRunning); o.Hardware.Disk != 256 || !o.Complete {
		t.Errorf("%+v", o)
	}
	w.reach(deploy.Stopped)
	if err := w.b.RestoreSnapshot(ctx, w.m, "three"); !errors.Is(err, deploy.ErrNoSnapshot) {
		t.Error(err)
	}
	if err := w.b.RestoreSnapshot(ctx, w.m, "one"); err != nil {
		t.Fatal(err)
	}
	w.observe(deploy.StatePaused) // it ran when the snapshot was taken
	w.reach(deploy.Running)
	if err := w.b.DeleteSnapshot(ctx, w.m, "two"); err != nil {
		t.Fatal(err)
	}
	if all, err := w.b.Snapshots(ctx, w.m); err != nil || len(all) != 1 {
		t.Errorf("%+v, %v", all, err)
	}
	w.reach(deploy.Absent) // with a snapshot
}

func testTwoDeployments(t *testing.T, w *world) {
	other := newWorld(t, w.h)
	for _, g := range []deploy.Goal{deploy.Running, deploy.Stopped, deploy.Running, deploy.Absent} {
		var wg sync.WaitGroup
		for _, x := range []*world{w, other} {
			wg.Go(func() {
				if err := x.tryReach(x.m, g); err != nil {
					t.Errorf("%s: %v", g, err)
				}
			})
		}
		wg.Wait()
	}
}

// TestUsable tells each reason by itself, with what to do.
func TestUsable(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	t.Setenv("VBOX_INSTALL_PATH", dir)
	program := filepath.Join(dir, "VBoxManage")
	usable := func(o virtualbox.Options) string {
		t.Helper()
		err := virtualbox.New(o).Usable(context.Background())
		if err == nil {
			return ""
		}
		return err.Error()
	}
	driver := filepath.Join(dir, "vboxdrv")
	if _, err := os.Stat("/usr/lib/virtualbox/VBoxManage"); err != nil {
		if got := usable(virtualbox.Options{}); !strings.Contains(got, "VirtualBox is not installed") || !strings.Contains(got, "TOOL_VBOXMANAGE") {
			t.Error(got)
		}
	}
	if got := usable(virtualbox.Options{Program: program}); !strings.Contains(got, program) {
		t.Error(got)
	}
	says := func(text string) {
		t.Helper()
		if err := os.WriteFile(program, []byte("#!/bin/sh\necho '"+text+"'\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	says("6.1.38_Debianr153438")
	if got := usable(virtualbox.Options{Driver: driver}); !strings.Contains(got, "VirtualBox 6.1 is too old: 7.0") {
		t.Error(got)
	}
	says("hello")
	if got := usable(virtualbox.Options{Driver: driver}); !strings.Contains(got, "its version cannot be read") {
		t.Error(got)
	}
	says("7.2.22")
	if got := usable(virtualbox.Options{Driver: driver}); !strings.Contains(got, "driver is not loaded") || !strings.Contains(got, "modprobe vboxdrv") {
		t.Error(got)
	}
	if err := os.Mkdir(driver, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := usable(virtualbox.Options{Driver: driver}); !strings.Contains(got, "not accessible") || !strings.Contains(got, "vboxusers") {
		t.Error(got)
	}
}

// TestBrokenSettings shows what is told where VirtualBox itself cannot start.
func TestBrokenSettings(t *testing.T) {
	h := vboxtest.New(t)
	if err := os.WriteFile(filepath.Join(h.Home, "VirtualBox.xml"), []byte("<broken\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	err := newBackend(h).Usable(context.Background())
	if err == nil || !strings.Contains(err.Error(), "VirtualBox's server does not start") || !strings.Contains(err.Error(), "VirtualBox.xml") {
		t.Error(err)
	}
}
