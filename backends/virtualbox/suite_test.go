package virtualbox_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"tool/backends/backendtest"
	"tool/backends/virtualbox"
	"tool/backends/virtualbox/vboxtest"
	"tool/core/machines/deploy"
)

// fleet makes machines for one test, each the same whenever it is asked for.
type fleet struct {
	host       *vboxtest.Host
	dir        string
	deployment string
	machines   map[string]*deploy.Machine
}

func newFleet(t *testing.T, h *vboxtest.Host) *fleet {
	t.Helper()
	f := &fleet{host: h, dir: t.TempDir(), deployment: fmt.Sprintf("%08x-test", rand.Uint32()), machines: map[string]*deploy.Machine{}}
	for _, image := range []string{"root.img", "esp.img"} {
		// Nothing: the firmware looks for something to start, for ever.
		if err := os.WriteFile(f.path(image), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(f.path(image), 64<<20); err != nil {
			t.Fatal(err)
		}
	}
	return f
}

func (f *fleet) path(name string) string { return filepath.Join(f.dir, name) }

func (f *fleet) machine(t *testing.T, name string) *deploy.Machine {
	t.Helper()
	m := f.machines[name]
	if m == nil {
		n := len(f.machines)
		m = &deploy.Machine{
			Deployment: f.deployment, Name: name, Hardware: deploy.Hardware{Memory: 128, CPUs: 1, Disk: 128},
			// Without the driver no network but NAT is to be had.
			Settings:   map[string]string{"network": "none"},
			ControlMAC: fmt.Sprintf("52:54:00:00:01:%02x", n), ClusterMAC: fmt.Sprintf("52:54:00:00:02:%02x", n),
			Address: netip.MustParsePrefix(fmt.Sprintf("192.168.56.%d/24", 10+n)), HostAddr: netip.AddrFrom4([4]byte{127, 78, 0, byte(10 + n)}),
			SSHPort: freePort(t, "127.0.0.1"), Root: f.path("root.img"), ESP: f.path("esp.img"), Seed: f.path(name + ".seed"),
			Dir: f.path("machines/" + name), NetDir: f.path("network"),
		}
		m.Forwards = []deploy.Forward{{Port: freePort(t, m.HostAddr.String()), Guest: 80}}
		if err := os.WriteFile(m.Seed, make([]byte, 2<<20), 0o600); err != nil {
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

// freePort returns a port that nobody listens at, and none of those that the
// kernel gives to whoever connects somewhere.
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

func newBackend(h *vboxtest.Host) *virtualbox.Backend {
	return virtualbox.New(virtualbox.Options{Program: h.Program, Driver: h.Driver, StopTimeout: time.Second})
}

// left lists what is left of a machine: files, and what VirtualBox knows.
func left(t *testing.T, h *vboxtest.Host, m *deploy.Machine) []string {
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
	for _, what := range []string{"vms", "hdds"} {
		out, err := h.Manage("list", what)
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		for line := range strings.Lines(out) {
			if strings.Contains(line, m.Dir+"/") || strings.Contains(line, `"`+m.Name+"-"+m.Deployment[:8]+`"`) || strings.Contains(line, "<inaccessible>") {
				all = append(all, strings.TrimSpace(line))
			}
		}
	}
	return all
}

func TestSuite(t *testing.T) {
	h := vboxtest.New(t)
	fleets := map[string]*fleet{}
	b := newBackend(h)
	if err := b.Usable(context.Background()); err != nil {
		t.Fatal(err)
	}
	backendtest.Run(t, backendtest.Config{
		Backend: b,
		Machine: func(t *testing.T, name string) *deploy.Machine {
			if fleets[t.Name()] == nil {
				fleets[t.Name()] = newFleet(t, h)
			}
			return fleets[t.Name()].machine(t, name)
		},
		Kill: func(t *testing.T, m *deploy.Machine) { h.Kill(t, idOf(t, b, m)) },
		LoseDisk: func(t *testing.T, m *deploy.Machine) {
			if err := os.Remove(filepath.Join(m.Dir, "root.vdi")); err != nil {
				t.Fatal(err)
			}
		},
		Left: func(t *testing.T, m *deploy.Machine) []string { return left(t, h, m) },
	})
	for name, f := range fleets {
		if all, err := filepath.Glob(f.path("network/*.vdi")); err != nil || len(all) > 0 {
			t.Errorf("%s left %v, %v", name, all, err)
		}
	}
	for _, what := range []string{"vms", "hdds"} {
		if out, err := h.Manage("list", what); err != nil || strings.TrimSpace(out) != "" {
			t.Errorf("VBoxManage list %s at the end: %v\n%s", what, err, out)
		}
	}
}

// idOf returns a machine's UUID.
func idOf(t *testing.T, b *virtualbox.Backend, m *deploy.Machine) string {
	t.Helper()
	o, err := b.Observe(context.Background(), m)
	if err != nil {
		t.Fatal(err)
	}
	return o.ID
}
