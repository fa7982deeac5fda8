package deploy

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

func objectOf(n int) *Object {
	o := &Object{Version: 1, Network: Network{"n", "10.9.0.0/16"}}
	for i := range n {
		o.Machines = append(o.Machines, ObjectMachine{Name: fmt.Sprint("m", i)})
	}
	return o
}

func provisional(t *testing.T, name, cidr string) *Deployment {
	t.Helper()
	b, err := OpenBook(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	d, err := b.Provisional(name, "//c:c", "/w")
	if err != nil {
		t.Fatal(err)
	}
	d.Network, d.Backend = Network{name, cidr}, "fake"
	return d
}

// TestAllocate: all that is allocated is unique, and the same when it is done again.
func TestAllocate(t *testing.T) {
	d := provisional(t, "c", "10.9.0.0/16")
	other := provisional(t, "o", "10.9.0.0/16")
	o := objectOf(200)
	a := &Allocator{Others: []*Deployment{other}}
	others, err := Allocations(a, other, o, nil)
	if err != nil {
		t.Fatal(err)
	}
	other.Machines = others
	got, err := Allocations(a, d, o, nil)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Allocations(a, d, o, nil)
	if err != nil || !reflect.DeepEqual(got, again) {
		t.Errorf("allocated again it is another: %v", err)
	}
	seen := map[string]string{}
	unique := func(what string, v any, m string) {
		key := fmt.Sprint(what, " ", v)
		if was, ok := seen[key]; ok {
			t.Errorf("%s of %s and of %s", key, was, m)
		}
		seen[key] = m
	}
	for _, m := range others {
		unique("port", m.SSHPort, "other "+m.Name)
	}
	prefix := netip.MustParsePrefix(d.Network.CIDR)
	for name, m := range got {
		unique("port", m.SSHPort, name)
		unique("address", m.Address.Addr(), name)
		unique("host address", m.HostAddr, name)
		unique("mac", m.ControlMAC, name)
		unique("mac", m.ClusterMAC, name)
		unique("machine id", m.MachineID, name)
		if !prefix.Contains(m.Address.Addr()) || m.Address.Bits() != 16 || !m.HostAddr.IsLoopback() || m.SSHPort < firstSSHPort || m.SSHPort >= firstSSHPort+sshPorts {
			t.Errorf("%+v", m)
		}
	}
	if len(d.Machines) > 0 {
		t.Error("the deployment was changed")
	}
}

// TestAllocateKeeps: a machine keeps what it has when others come and go.
func TestAllocateKeeps(t *testing.T) {
	d := provisional(t, "c", "10.9.0.0/24")
	a := &Allocator{}
	first, err := Allocations(a, d, objectOf(3), nil)
	if err != nil {
		t.Fatal(err)
	}
	d.Machines = maps.Clone(first)
	delete(d.Machines, "m1")
	second, err := Allocations(a, d, objectOf(5), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"m0", "m1", "m2"} { // m1 gets the gap that it left
		if first[n].Address != second[n].Address || first[n].SSHPort != second[n].SSHPort {
			t.Errorf("%s: %+v and then %+v", n, first[n], second[n])
		}
	}
}

func TestAllocateErrors(t *testing.T) {
	d := provisional(t, "c", "10.9.0.0/29")
	if got, err := Allocations(&Allocator{}, d, objectOf(5), nil); err != nil || len(got) != 5 {
		t.Errorf("five machines in a /29: %v", err)
	}
	if _, err := Allocations(&Allocator{}, d, objectOf(6), nil); err == nil || !strings.Contains(err.Error(), "larger cidr") {
		t.Errorf("six machines in a /29: %v", err)
	}
	busy := &Allocator{Busy: func(port int) bool { return port%2 == 0 }}
	got, err := Allocations(busy, d, objectOf(5), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range got {
		if m.SSHPort%2 == 0 {
			t.Errorf("port %d is busy", m.SSHPort)
		}
	}
	full := &Allocator{Busy: func(int) bool { return true }}
	if _, err := Allocations(full, d, objectOf(1), nil); err == nil || !strings.Contains(err.Error(), "no TCP port") {
		t.Errorf("no port is free: %v", err)
	}
}
