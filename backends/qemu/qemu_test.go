package qemu_test

import (
	"fmt"
	"math/rand/v2"
	"net"
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

// fleet makes machines for one test, each the same whenever it is asked for.
type fleet struct {
	b        *built
	dir      string
	root     string
	machines map[string]*deploy.Machine
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{b: need(t), dir: t.TempDir(), machines: map[string]*deploy.Machine{}}
	f.root = filepath.Join(f.dir, "root.img")
	if err := os.WriteFile(f.root, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(f.root, 64<<20); err != nil { // nothing: its kernel starts and waits for a disk
		t.Fatal(err)
	}
	return f
}

func (f *fleet) machine(t *testing.T, name string) *deploy.Machine {
	t.Helper()
	m := f.machines[name]
	if m == nil {
		n := len(f.machines)
		m = &deploy.Machine{
			Deployment: fmt.Sprintf("test-%d", os.Getpid()), Name: name, Hardware: deploy.Hardware{Memory: 128, CPUs: 1, Disk: 128},
			ControlMAC: fmt.Sprintf("52:54:00:00:01:%02x", n), ClusterMAC: fmt.Sprintf("52:54:00:00:02:%02x", n),
			Address: netip.MustParsePrefix(fmt.Sprintf("192.168.56.%d/24", 10+n)), HostAddr: netip.AddrFrom4([4]byte{127, 77, 0, byte(10 + n)}),
			SSHPort: freePort(t, "127.0.0.1"), Root: f.root, Kernel: f.b.kernel, Initrd: f.b.initrd, Cmdline: "console=ttyS0 panic=10", Emulator: f.b.emulator,
			Dir: filepath.Join(f.dir, "machines", name), NetDir: filepath.Join(f.dir, "network"),
		}
		m.Forwards = []deploy.Forward{{Port: freePort(t, m.HostAddr.String()), Guest: 80}}
		m.Seed = filepath.Join(f.dir, name+".seed")
		if err := os.WriteFile(m.Seed, make([]byte, 4096), 0o644); err != nil {
			t.Fatal(err)
		}
		f.machines[name] = m
	}
	for _, d := range []string{m.Dir, m.NetDir} { // as the caller of a backend does
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// freePort returns a port that nobody listens at. It is none of those that the
// kernel gives to whoever connects somewhere: such a one may be taken by the
// time that QEMU wants it.
func freePort(t *testing.T, addr string) int {
	t.Helper()
	for range 1000 {
		port := 10000 + rand.IntN(12000)
		l, err := net.Listen("tcp", net.JoinHostPort(addr, strconv.Itoa(port)))
		if err == nil {
			l.Close()
			return port
		}
	}
	t.Fatal("no port is free")
	return 0
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

// left lists the files that are left of a machine, and of its network.
func left(t *testing.T, m *deploy.Machine) []string {
	t.Helper()
	var all []string
	for _, d := range []string{m.Dir, m.NetDir} {
		entries, err := os.ReadDir(d)
		if err != nil && !os.IsNotExist(err) {
			t.Fatal(err)
		}
		for _, e := range entries {
			if d == m.Dir || strings.HasPrefix(e.Name(), m.Name+".") {
				all = append(all, filepath.Join(d, e.Name()))
			}
		}
	}
	return all
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
			return fleets[t.Name()].machine(t, name)
		},
		Kill: func(t *testing.T, m *deploy.Machine) { kill(t, pidOf(t, m)) },
		LoseDisk: func(t *testing.T, m *deploy.Machine) {
			if err := os.Remove(filepath.Join(m.Dir, "disk.qcow2")); err != nil {
				t.Fatal(err)
			}
		},
		Left: left,
	})
	for name, f := range fleets {
		if pid, err := vswitch.Running(filepath.Join(f.dir, "network")); err != nil || pid != 0 {
			t.Errorf("%s left the network's process %d, %v", name, pid, err)
		}
	}
}
