package backendtest

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"tool/core/machines/deploy"
)

// Fleet makes machines for one test, each the same whenever it is asked for.
type Fleet struct {
	Dir      string
	Like     deploy.Machine // what all have in common; their addresses at this host follow its
	Machines map[string]*deploy.Machine
}

// NewFleet returns a fleet of machines that are like one, and small.
func NewFleet(t *testing.T, like deploy.Machine) *Fleet {
	t.Helper()
	like.Hardware = deploy.Hardware{Memory: 128, CPUs: 1, Disk: 128}
	return &Fleet{Dir: t.TempDir(), Like: like, Machines: map[string]*deploy.Machine{}}
}

// Path returns where a file of that name is, or would be.
func (f *Fleet) Path(name string) string { return filepath.Join(f.Dir, name) }

// Image makes a file of so many MiB with nothing in it: what starts from it waits
// for a disk, for ever.
func (f *Fleet) Image(t *testing.T, name string, mib int64) string {
	t.Helper()
	err := os.WriteFile(f.Path(name), nil, 0o600)
	if err == nil {
		err = os.Truncate(f.Path(name), mib<<20)
	}
	if err != nil {
		t.Fatal(err)
	}
	return f.Path(name)
}

// Machine returns the fleet's machine of that name, with folders to be made in.
func (f *Fleet) Machine(t *testing.T, name string) *deploy.Machine {
	t.Helper()
	m := f.Machines[name]
	if m == nil {
		n := byte(len(f.Machines))
		like := f.Like
		m = &like
		m.Name, m.Dir, m.NetDir = name, f.Path("machines/"+name), f.Path("network")
		m.ControlMAC, m.ClusterMAC = fmt.Sprintf("52:54:00:00:01:%02x", n), fmt.Sprintf("52:54:00:00:02:%02x", n)
		m.Address = netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 168, 56, 10 + n}), 24)
		host := f.Like.HostAddr.As4()
		host[3] += 10 + n
		m.HostAddr = netip.AddrFrom4(host)
		m.SSHPort = FreePort(t, "127.0.0.1")
		m.Forwards = []deploy.Forward{{Port: FreePort(t, m.HostAddr.String()), Guest: 80}}
		m.Seed = f.Image(t, name+".seed", 2)
		f.Machines[name] = m
	}
	for _, d := range []string{m.Dir, m.NetDir} { // as the caller of a backend does
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// FreePort returns a port that nobody listens at. It is none of those that the
// kernel gives to whoever connects somewhere: such a one may be taken by the
// time that a machine wants it.
func FreePort(t *testing.T, addr string) int {
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

// LeftFiles lists the files that are left of a machine, and of its network.
func LeftFiles(t *testing.T, m *deploy.Machine) []string {
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
