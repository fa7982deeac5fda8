package virtualbox_test

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"tool/backends/backendtest"
	"tool/backends/local"
	"tool/backends/virtualbox"
	"tool/core/machines/deploy"
)

// testTaken shows what keeps a machine from being made.
func testTaken(t *testing.T, w *world) {
	w.reach(deploy.Stopped)
	name := w.m.Name + "-" + w.m.Deployment[:8]
	w.manage("createvm", "--name", name, "--basefolder", w.f.Path("other"), "--register")
	w.refused(deploy.Running, "VirtualBox has a machine "+name, "not this deployment's", "modifyvm")
	w.manage("unregistervm", name, "--delete")

	disk := w.f.Path("old.vdi")
	w.manage("convertfromraw", w.m.Seed, disk, "--format", "VDI", "--uuid", virtualbox.DiskID(w.m, virtualbox.SeedFile))
	w.manage("createvm", "--name", "other", "--basefolder", w.f.Path("other"), "--register")
	w.manage("storagectl", "other", "--name", "c", "--add", "sata")
	w.manage("storageattach", "other", "--storagectl", "c", "--port", "0", "--type", "hdd", "--medium", disk)
	w.refused(deploy.Running, disk, "closemedium")
	w.manage("unregistervm", "other")
	_, _ = w.h.Manage("closemedium", "disk", disk)
	w.reach(deploy.Running)
}

// testVariables damages the file of the firmware's variables, as a full disk does.
func testVariables(t *testing.T, w *world) {
	for _, size := range []int64{0, 1000, 100000} {
		w.reach(deploy.Running)
		w.reach(deploy.Stopped)
		files, err := fs.Glob(os.DirFS(w.m.Dir), "*/*.nvram")
		if err != nil || len(files) != 1 {
			t.Fatalf("the firmware's variables: %v, %v", files, err)
		}
		if err := os.Truncate(filepath.Join(w.m.Dir, files[0]), size); err != nil {
			t.Fatal(err)
		}
		w.reach(deploy.Running)
	}
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
	w.m.Forwards = []deploy.Forward{{Port: backendtest.FreePort(t, w.m.HostAddr.String()), Guest: 81}}
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
	w.m.Hardware.Disk *= 2 // said before it is stopped for that
	w.refused(deploy.Running, "a disk with any cannot grow", "tool snapshot delete")
	w.m.Hardware.Disk /= 2
	w.observe(deploy.StateRunning)
	if err := w.b.RestoreSnapshot(ctx, w.m, "one"); err == nil || !strings.Contains(err.Error(), "must be stopped") {
		t.Error(err)
	}
	w.reach(deploy.Stopped)
	w.m.Hardware.Disk *= 2
	w.refused(deploy.Running, "a disk with any cannot grow", "tool snapshot delete")
	w.m.Hardware.Disk /= 2
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

// testMerged deletes the snapshots of a machine that has written as much since as
// before: VirtualBox then keeps the newer file, and root.vdi is gone.
func testMerged(t *testing.T, w *world) {
	ctx := context.Background()
	disk := func() string {
		t.Helper()
		out, err := w.h.Manage("showvminfo", w.id(), "--machinereadable")
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		_, path, _ := strings.Cut(out, `"disks-1-0"="`)
		path, _, _ = strings.Cut(path, `"`)
		return path
	}
	root := filepath.Join(w.m.Dir, "root.vdi")
	gone := func() {
		t.Helper()
		if _, err := os.Stat(root); !errors.Is(err, os.ErrNotExist) || filepath.Base(filepath.Dir(disk())) != "Snapshots" {
			t.Fatalf("the disk is %s, and root.vdi: %v", disk(), err)
		}
	}
	// kept goes through the machine's life, in which its disk stays what it was.
	kept := func() {
		t.Helper()
		at := disk()
		if o := w.observe(deploy.StateStopped); !o.Complete || len(o.Problems) > 0 {
			t.Fatalf("%+v", o)
		}
		w.reach(deploy.Running)
		if o := w.observe(deploy.StateRunning); !o.Complete || len(o.Problems) > 0 {
			t.Fatalf("%+v", o)
		}
		w.reach(deploy.Stopped)
		if err := w.b.Do(ctx, w.m, deploy.Step{Kind: local.StepDisk}); err != nil {
			t.Fatal(err)
		}
		if got := disk(); got != at {
			t.Fatalf("its disk was %s, and is %s", at, got)
		}
	}
	w.reach(deploy.Running)
	w.reach(deploy.Stopped)
	for _, n := range []string{"one", "two"} {
		if err := w.b.TakeSnapshot(ctx, w.m, deploy.Snapshot{Name: n}); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range []string{"one", "two"} {
		if err := w.b.DeleteSnapshot(ctx, w.m, n); err != nil {
			t.Fatal(err)
		}
		kept()
	}
	gone()

	// The base image stays when another machine goes, and VirtualBox has forgotten
	// who uses it.
	other := w.f.Machine(t, "m1")
	for _, g := range []deploy.Goal{deploy.Running, deploy.Stopped} {
		if err := w.tryReach(other, g); err != nil {
			t.Fatal(err)
		}
	}
	at := disk()
	w.manage("unregistervm", w.id())
	w.forget()
	if err := w.tryReach(other, deploy.Absent); err != nil {
		t.Fatal(err)
	}
	if all := bases(t, w.m.NetDir); len(all) != 1 {
		t.Fatalf("base images: %v", all)
	}
	w.reach(deploy.Running)
	w.reach(deploy.Stopped)
	if got := disk(); got != at {
		t.Fatalf("its disk was %s, and is %s", at, got)
	}
	// Its settings named the other's disk.
	if all := left(t, w.h, other); len(all) > 0 {
		t.Errorf("%s left %v", other.Name, all)
	}
	w.manage("storageattach", w.id(), "--storagectl", "disks", "--port", "1", "--device", "0", "--medium", "none")
	w.reach(deploy.Running)
	w.reach(deploy.Stopped)
	if got := disk(); got != at {
		t.Fatalf("its disk was %s, and is %s", at, got)
	}

	w.m.Hardware.Disk *= 2
	w.reach(deploy.Running)
	w.reach(deploy.Stopped)
	if got := disk(); got != root {
		t.Fatalf("its disk has grown, and is %s", got)
	}
	if _, err := os.Stat(at); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s: %v", at, err)
	}
	kept()
}

// testLeaving ends the destroying of a machine while it waits for another one's
// work on what both share: it is destroyed the next time.
func testLeaving(t *testing.T, w *world) {
	w.reach(deploy.Stopped)
	w.reach(deploy.Running)
	unlock, err := local.Lock(context.Background(), filepath.Join(w.m.NetDir, "base.lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Second)
	defer cancel()
	if err := w.b.Do(ctx, w.m, deploy.Step{Kind: local.StepDestroy}); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("destroying it: %v", err)
	}
	unlock()
	if o, err := w.b.Observe(context.Background(), w.m); err != nil || !o.Exists {
		t.Fatalf("%+v, %v", o, err)
	}
	if n := len(bases(t, w.m.NetDir)); n != 1 {
		t.Fatalf("%d base images", n)
	}
	w.reach(deploy.Absent)
	if n := len(bases(t, w.m.NetDir)); n != 0 {
		t.Fatalf("%d base images", n)
	}
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
