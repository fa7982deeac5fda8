package deploy

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"

	"tool/core/machines/facts"
	"tool/core/machines/system"
	"tool/core/storage/cas"
	"tool/core/storage/store"
)

// Object is deployment.json: what building a deployment yields, and all that
// deploying it needs besides the state. docs/format.md describes it.
type Object struct {
	Version       int             `json:"version"`
	Name          string          `json:"name"`
	Label         string          `json:"label"`
	Description   string          `json:"description"`
	Backend       string          `json:"backend"`
	Network       Network         `json:"network"`
	Publish       []Publish       `json:"publish"`
	RolloutGroups []Group         `json:"rollout_groups"`
	Machines      []ObjectMachine `json:"machines"`

	// Ref is the object's own name in the store.
	Ref store.Ref `json:"-"`
}

// Network is the machines' private network.
type Network struct {
	Name string `json:"name"`
	CIDR string `json:"cidr"`
}

// Publish is a port, or a range from Port to To, that the controller reaches.
type Publish struct {
	Name    string `json:"name"`
	Machine string `json:"machine"`
	Port    int    `json:"port"`
	To      int    `json:"to,omitempty"`
}

// Group is a rollout group: at least Quorum of its machines keep running.
// An empty Quorum means all but one.
type Group struct {
	Name     string   `json:"name"`
	Machines []string `json:"machines"`
	Quorum   string   `json:"quorum"`
}

// ObjectMachine is one machine. System is a store path.
type ObjectMachine struct {
	Name     string                       `json:"name"`
	Label    string                       `json:"label"`
	System   string                       `json:"system"`
	Hardware Hardware                     `json:"hardware"`
	Firmware string                       `json:"firmware,omitempty"`
	ESP      string                       `json:"esp,omitempty"` // name of its EFI system partition's image
	Settings map[string]map[string]string `json:"settings,omitempty"`
	Services []system.Service             `json:"services"`

	ref      store.Ref
	manifest *system.Manifest
	declared string // firmware, before the backend had its say
}

// Ref returns the machine's system.
func (m *ObjectMachine) Ref() store.Ref { return m.ref }

// Manifest returns what the system is made of.
func (m *ObjectMachine) Manifest() *system.Manifest { return m.manifest }

const objectVersion = 1

// maxObject bounds deployment.json, in bytes.
const maxObject = 64 << 20

// LoadObject reads a deployment object and its systems' manifests from s.
func LoadObject(s *store.Store, ref store.Ref) (*Object, error) {
	o, err := loadObject(s, ref)
	if err != nil {
		return nil, fmt.Errorf("deployment object %s: %w", ref, err)
	}
	return o, nil
}

func loadObject(s *store.Store, ref store.Ref) (*Object, error) {
	if _, err := s.Get(ref); err != nil {
		return nil, err
	}
	b, err := cas.ReadSmall(s.Path(ref), maxObject)
	if err != nil {
		return nil, err
	}
	o, err := ParseObject(b)
	if err != nil {
		return nil, err
	}
	o.Ref = ref
	for i := range o.Machines {
		m := &o.Machines[i]
		if m.manifest, err = LoadManifest(s, m.ref); err != nil {
			return nil, fmt.Errorf("machine %s: %w", m.Name, err)
		}
	}
	return o, nil
}

// LoadManifest reads the manifest of a system in s.
func LoadManifest(s *store.Store, ref store.Ref) (*system.Manifest, error) {
	obj, err := s.Get(ref)
	if err != nil {
		return nil, err
	}
	dir, err := s.CAS().GetDirectory(obj.Node.Digest)
	if err != nil {
		return nil, err
	}
	n, ok := dir.Lookup(system.File)
	if !ok {
		return nil, fmt.Errorf("%s has no %s: it is not a system", ref, system.File)
	}
	b, err := s.CAS().ReadAll(n.Digest, system.MaxFile)
	if err != nil {
		return nil, err
	}
	return system.Parse(b)
}

// ParseObject reads deployment.json and checks what later code relies on.
func ParseObject(b []byte) (*Object, error) {
	var o Object
	if err := json.Unmarshal(b, &o); err != nil {
		return nil, err
	}
	if o.Version != objectVersion {
		return nil, fmt.Errorf("version %d, this program knows %d", o.Version, objectVersion)
	}
	if err := o.check(); err != nil {
		return nil, err
	}
	return &o, nil
}

func (o *Object) check() error {
	if len(o.Machines) == 0 {
		return fmt.Errorf("it has no machines")
	}
	if _, err := o.Network.prefix(); err != nil {
		return err
	}
	names := map[string]bool{}
	for i := range o.Machines {
		m := &o.Machines[i]
		if err := facts.CheckHost(m.Name); err != nil {
			return err
		}
		if names[m.Name] {
			return fmt.Errorf("machine %s stands there twice", m.Name)
		}
		names[m.Name] = true
		var err error
		if m.ref, err = system.RefOf(m.System); err != nil {
			return fmt.Errorf("machine %s: system: %w", m.Name, err)
		}
		if m.Hardware.Firmware == "" {
			m.Hardware.Firmware = m.Firmware
		}
		if m.Hardware.Firmware == "" {
			m.Hardware.Firmware = FirmwareDirect
		}
		m.declared = m.Hardware.Firmware
	}
	for _, g := range o.RolloutGroups {
		for _, m := range g.Machines {
			if !names[m] {
				return fmt.Errorf("rollout group %s: there is no machine %s", g.Name, m)
			}
		}
	}
	for _, p := range o.Publish {
		if !names[p.Machine] {
			return fmt.Errorf("publish %s: there is no machine %s", p.Name, p.Machine)
		}
		if p.Port < 1 || p.last() > 65535 || p.last() < p.Port || p.last()-p.Port > 1023 {
			return fmt.Errorf("publish %s: %d to %d is no range of at most 1024 ports", p.Name, p.Port, p.last())
		}
	}
	return nil
}

func (p *Publish) last() int { return max(p.Port, p.To) }

// Check reports why the network cannot be one.
func (n *Network) Check() error {
	_, err := n.prefix()
	return err
}

func (n *Network) prefix() (netip.Prefix, error) {
	p, err := netip.ParsePrefix(n.CIDR)
	if err != nil || !p.Addr().Is4() || p.Bits() > 29 || p.Bits() < 8 || p != p.Masked() {
		return p, fmt.Errorf("network %s: %s is not an IPv4 network of /8 to /29, such as 192.168.56.0/24", n.Name, n.CIDR)
	}
	return p, nil
}

// Machine returns the machine called name, or nil.
func (o *Object) Machine(name string) *ObjectMachine {
	if i := slices.IndexFunc(o.Machines, func(m ObjectMachine) bool { return m.Name == name }); i >= 0 {
		return &o.Machines[i]
	}
	return nil
}

// shape makes the hardware what the machines' backends can give.
func (o *Object) shape(backend func(machine string) Backend) {
	for i := range o.Machines {
		m := &o.Machines[i]
		if s, ok := backend(m.Name).(Shaper); ok {
			m.Hardware = s.Shape(m.Hardware)
		}
	}
}

// UEFI reports whether a machine starts by UEFI that would need no EFI system
// partition as it is declared.
func (o *Object) UEFI() bool {
	return slices.ContainsFunc(o.Machines, func(m ObjectMachine) bool { return m.Hardware.Firmware == FirmwareUEFI && m.declared != FirmwareUEFI })
}

// forwards returns the ports of a machine that the host reaches.
func (o *Object) forwards(machine string) []Forward {
	var fs []Forward
	for _, p := range o.Publish {
		if p.Machine == machine {
			for port := p.Port; port <= p.last(); port++ {
				fs = append(fs, Forward{Port: port, Guest: port})
			}
		}
	}
	slices.SortFunc(fs, func(a, b Forward) int { return a.Port - b.Port })
	return slices.Compact(fs)
}
