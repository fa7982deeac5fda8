package qemu_test

import (
	"fmt"
	"net/netip"
	"os"
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

// fleet is machines for one test, with what was built for them.
type fleet struct {
	*backendtest.Fleet
	b *built
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	b := need(t)
	f := &fleet{b: b, Fleet: backendtest.NewFleet(t, deploy.Machine{
		Deployment: fmt.Sprintf("test-%d", os.Getpid()), HostAddr: netip.AddrFrom4([4]byte{127, 77}),
		Kernel: b.kernel, Initrd: b.initrd, Cmdline: "console=ttyS0 panic=10", Emulator: b.emulator,
	})}
	f.Like.Root = f.Image(t, "root.img", 64)
	return f
}

func newBackend() *qemu.Backend {
	return qemu.New(qemu.Options{Switch: []string{os.Args[0], "vm-switch"}, StopTimeout: time.Second})
}

// pidOf returns the process of a machine.
func pidOf(t *testing.T, m *deploy.Machine) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(m.Dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func kill(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for range 500 {
		b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline"))
		if err != nil || len(b) == 0 { // a zombie has none
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("process %d does not end", pid)
}

func TestSuite(t *testing.T) {
	need(t)
	fleets := map[string]*fleet{}
	backendtest.Run(t, backendtest.Config{
		Backend: newBackend(),
		Machine: func(t *testing.T, name string) *deploy.Machine {
			if fleets[t.Name()] == nil {
				fleets[t.Name()] = newFleet(t)
			}
			return fleets[t.Name()].Machine(t, name)
		},
		Kill: func(t *testing.T, m *deploy.Machine) { kill(t, pidOf(t, m)) },
		LoseDisk: func(t *testing.T, m *deploy.Machine) {
			if err := os.Remove(filepath.Join(m.Dir, "disk.qcow2")); err != nil {
				t.Fatal(err)
			}
		},
		Left: backendtest.LeftFiles,
	})
	for name, f := range fleets {
		if pid, err := vswitch.Running(filepath.Join(f.Dir, "network")); err != nil || pid != 0 {
			t.Errorf("%s left the network's process %d, %v", name, pid, err)
		}
	}
}
