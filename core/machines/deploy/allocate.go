package deploy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"tool/core/machines/facts"
	"tool/core/storage/store"
)

// Allocator gives machines what must be unique on this host or in their
// network. It is a pure function of what it is made with, so a plan made twice
// is the same.
type Allocator struct {
	// Others are the deployments of the same user, whose ports and addresses
	// are taken.
	Others []*Deployment
	// Busy tells that somebody listens at a TCP port of 127.0.0.1; nil: nobody.
	Busy func(port int) bool
	// Keys makes a machine's host key; nil: leave it empty.
	Keys func(comment string) (private, public string, err error)
}

// Host addresses are 127.x.y.z: Linux answers at all of 127/8 without set-up.
const (
	sshPorts     = 10000 // how many ports are tried
	firstSSHPort = 22000
	firstHost    = 10 // number of the first machine in its network
)

// Allocate returns the machine's state where it has one, else a new one. adopter
// is its backend where that is one, else nil. It does not change d.
func (a *Allocator) Allocate(d *Deployment, o *Object, m *ObjectMachine, backend string, adopter Adopter, taken map[string]*MachineState) (*MachineState, error) {
	have := d.Machines[m.Name]
	if adopter != nil {
		return adopted(d, m, backend, adopter, have)
	}
	if have != nil {
		c := *have
		c.Hardware, c.Settings, c.Forwards = m.Hardware, m.Settings[backend], o.forwards(m.Name)
		return &c, nil
	}
	prefix, err := d.Network.prefix()
	if err != nil {
		return nil, err
	}
	ms := &MachineState{
		Name: m.Name, Backend: backend, Hardware: m.Hardware, Settings: m.Settings[backend], Forwards: o.forwards(m.Name),
		MachineID:  hash(d.UUID, m.Name, "machine-id")[:32],
		ControlMAC: mac(d.UUID, m.Name, "control"), ClusterMAC: mac(d.UUID, m.Name, "cluster"),
	}
	index, addr, err := a.address(d, prefix, taken)
	if err != nil {
		return nil, fmt.Errorf("machine %s: %w", m.Name, err)
	}
	ms.Address = netip.PrefixFrom(addr, prefix.Bits())
	h := sha256.Sum256([]byte(d.UUID))
	ms.HostAddr = netip.AddrFrom4([4]byte{127, 20 + h[0]%200, h[1], byte(index)})
	if ms.SSHPort, err = a.port(d, m.Name, taken); err != nil {
		return nil, fmt.Errorf("machine %s: %w", m.Name, err)
	}
	if a.Keys != nil {
		if ms.HostKey, ms.HostKeyPub, err = a.Keys(m.Name); err != nil {
			return nil, fmt.Errorf("machine %s: %w", m.Name, err)
		}
	}
	return ms, nil
}

// adopted is the state of a machine whose address, keys and hardware are its own.
func adopted(d *Deployment, m *ObjectMachine, backend string, adopter Adopter, have *MachineState) (*MachineState, error) {
	id, err := adopter.Identity(m.Settings[backend])
	if err != nil {
		return nil, fmt.Errorf("machine %s: %w", m.Name, err)
	}
	ms := &MachineState{Name: m.Name, Backend: backend, MachineID: hash(d.UUID, m.Name, "machine-id")[:32]}
	if have != nil {
		*ms = *have
	}
	ms.Adopted, ms.Host, ms.HostKeyPub = true, id.Host, id.HostKey
	ms.Address = netip.PrefixFrom(id.Address, id.Address.BitLen())
	ms.Hardware, ms.Settings = m.Hardware, m.Settings[backend]
	return ms, nil
}

// address returns the lowest free number and address of the network.
func (a *Allocator) address(d *Deployment, prefix netip.Prefix, taken map[string]*MachineState) (int, netip.Addr, error) {
	used := map[netip.Addr]bool{}
	for _, m := range taken {
		used[m.Address.Addr()] = true
	}
	for _, m := range d.Machines {
		used[m.Address.Addr()] = true
	}
	size := 1 << (32 - prefix.Bits())
	first := firstHost
	if size <= 32 {
		first = 2 // .1 may be the host's
	}
	addr := prefix.Addr()
	for i := 1; i < min(size-1, 255); i++ {
		addr = addr.Next()
		if i >= first && !used[addr] {
			return i, addr, nil
		}
	}
	return 0, addr, fmt.Errorf("network %s has no address left; give it a larger cidr", prefix)
}

func (a *Allocator) port(d *Deployment, machine string, taken map[string]*MachineState) (int, error) {
	used := map[int]bool{}
	for _, o := range append([]*Deployment{d}, a.Others...) {
		for _, m := range o.Machines {
			used[m.SSHPort] = true
		}
	}
	for _, m := range taken {
		used[m.SSHPort] = true
	}
	h := sha256.Sum256([]byte(d.UUID + "\x00" + machine + "\x00ssh"))
	start := int(h[0])<<8 | int(h[1])
	for i := range sshPorts {
		p := firstSSHPort + (start+i)%sshPorts
		if !used[p] && (a.Busy == nil || !a.Busy(p)) {
			return p, nil
		}
	}
	return 0, fmt.Errorf("no TCP port from %d to %d is free at 127.0.0.1", firstSSHPort, firstSSHPort+sshPorts-1)
}

func hash(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d:%s", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// mac returns a locally administered unicast address.
func mac(parts ...string) string {
	h := hash(parts...)
	return fmt.Sprintf("52:54:%s:%s:%s:%s", h[0:2], h[2:4], h[4:6], h[6:8])
}

// factsOf returns what machine m must know of itself, given all machines of
// the deployment.
func factsOf(d *Deployment, m *MachineState, all map[string]*MachineState) *facts.Facts {
	f := &facts.Facts{
		Version: 1, Deployment: d.UUID, Machine: m.Name, MachineID: m.MachineID,
		AuthorizedKeys: []string{d.KeyPublic}, HostKey: m.HostKey, HostKeyPublic: m.HostKeyPub, Firmware: m.Hardware.Firmware,
	}
	if m.Adopted {
		f.Adopted = true
	} else {
		f.Interfaces = []facts.Interface{{Name: "control", MAC: m.ControlMAC}, {Name: "cluster", MAC: m.ClusterMAC, Address: m.Address}}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if a := all[name].Address.Addr(); a.IsValid() {
			f.Hosts = append(f.Hosts, facts.Host{Name: name, Address: a})
		}
	}
	return f
}

// machine returns what a backend is told of m.
func (d *Deployment) machine(m *MachineState) *Machine {
	return &Machine{
		Deployment: d.UUID, Name: m.Name, Dir: d.MachineDir(m.Name), NetDir: d.NetDir(), Hardware: m.Hardware, Settings: m.Settings,
		Made: m.Made, Key: d.KeyPrivate, AuthorizedKey: d.KeyPublic,
		ControlMAC: m.ControlMAC, ClusterMAC: m.ClusterMAC, Address: m.Address, HostAddr: m.HostAddr, SSHPort: m.SSHPort, Forwards: m.Forwards,
	}
}

// refs returns what the deployment keeps on the controller.
func (g *Generation) refs() []store.Ref {
	refs := []store.Ref{g.Object}
	for _, r := range g.Machines {
		refs = append(refs, r)
	}
	slices.Sort(refs)
	return slices.Compact(refs)
}
