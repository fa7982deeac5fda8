package virtualbox_test

import (
	"context"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tool/backends/backendtest"
	"tool/backends/virtualbox"
	"tool/backends/virtualbox/vboxtest"
	"tool/core/machines/deploy"
)

// newFleet is machines whose firmware looks for something to start, for ever.
func newFleet(t *testing.T) *backendtest.Fleet {
	t.Helper()
	f := backendtest.NewFleet(t, deploy.Machine{
		Deployment: fmt.Sprintf("%08x-test", rand.Uint32()), HostAddr: netip.AddrFrom4([4]byte{127, 78}),
		// Without the driver no network but NAT is to be had.
		Settings: map[string]string{"network": "none"},
	})
	// What people call their folders.
	f.Dir = filepath.Join(f.Dir, "räume [1]")
	if err := os.Mkdir(f.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	f.Like.Root, f.Like.ESP = f.Image(t, "root.img", 64), f.Image(t, "esp.img", 64)
	return f
}

func newBackend(h *vboxtest.Host) *virtualbox.Backend {
	return virtualbox.New(virtualbox.Options{Program: h.Program, Driver: h.Driver, StopTimeout: time.Second})
}

// left lists what is left of a machine: files, and what VirtualBox knows.
func left(t *testing.T, h *vboxtest.Host, m *deploy.Machine) []string {
	t.Helper()
	all := backendtest.LeftFiles(t, m)
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
	fleets := map[string]*backendtest.Fleet{}
	b := newBackend(h)
	if err := b.Usable(context.Background()); err != nil {
		t.Fatal(err)
	}
	backendtest.Run(t, backendtest.Config{
		Backend: b,
		Machine: func(t *testing.T, name string) *deploy.Machine {
			if fleets[t.Name()] == nil {
				fleets[t.Name()] = newFleet(t)
			}
			return fleets[t.Name()].Machine(t, name)
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
		if all := bases(t, f.Path("network")); len(all) > 0 {
			t.Errorf("%s left %v", name, all)
		}
	}
	for _, what := range []string{"vms", "hdds"} {
		if out, err := h.Manage("list", what); err != nil || strings.TrimSpace(out) != "" {
			t.Errorf("VBoxManage list %s at the end: %v\n%s", what, err, out)
		}
	}
}

// bases returns the base images in a folder.
func bases(t *testing.T, dir string) []string {
	t.Helper()
	all, err := fs.Glob(os.DirFS(dir), "base-*.vdi")
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		all[i] = filepath.Join(dir, all[i])
	}
	return all
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
