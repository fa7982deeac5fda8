package deploy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"tool/core/machines/activate"
	"tool/core/machines/agent"
	"tool/core/machines/system"
	"tool/core/storage/store"
)

// Sight is what was found of one machine before planning.
type Sight struct {
	Backend *Observed
	Hello   *agent.Hello // nil: it does not run, or cannot be asked
	Err     error        // why it cannot be asked
	// Active is the manifest of the system that is active on it, nil if unknown.
	Active *system.Manifest
	// What sending the new system would take.
	SendBytes, ClosureBytes int64
	SendBlobs               int
}

// active returns the system that is active on the machine, or "".
func (s *Sight) active() store.Ref {
	if s.Hello == nil {
		return ""
	}
	return refOf(s.Hello, s.Hello.Active)
}

// confirmed returns the confirmed one, or "".
func (s *Sight) confirmed() store.Ref {
	if s.Hello == nil {
		return ""
	}
	return refOf(s.Hello, s.Hello.Confirmed)
}

// refOf returns the system of a machine's generation, or "".
func refOf(h *agent.Hello, n int) store.Ref {
	for _, g := range h.Generations {
		if g.Number == n && n > 0 {
			return g.Ref
		}
	}
	return ""
}

// Desired is where a plan leads.
type Desired struct {
	Object     *Object
	Machines   map[string]*MachineState // as allocated, those that stay and those that come
	Makings    map[string]*Machine      // the same, as their backends are told of them
	Generation int
	Mode       string
	Parallel   int
	On         []string // only these machines; nil: all
	Destroy    bool     // --allow-destroy
	Epochs     bool     // --allow-epoch: go back across a state epoch
	Note       string
}

func (w *Desired) selected(name string) bool { return w.On == nil || slices.Contains(w.On, name) }

// MakePlan decides. It is a pure function: no I/O, and the same arguments give
// the same plan.
func MakePlan(d *Deployment, want *Desired, seen map[string]*Sight, backends map[string]Backend) (*Plan, error) {
	p := &Plan{
		Version: planVersion, Deployment: d.UUID, Name: d.Name, Label: d.Label, Object: want.Object.Ref, Generation: want.Generation,
		Mode: want.Mode, Backend: d.Backend, Network: d.Network, Note: want.Note, On: want.On, Parallel: want.Parallel,
	}
	for _, name := range want.On {
		if want.Object.Machine(name) == nil && d.Machines[name] == nil {
			return nil, fmt.Errorf("deployment %s has no machine %q; it has %s", d.Name, name, strings.Join(machineNames(want.Object), ", "))
		}
	}
	var changing []string
	down := map[string]bool{}
	for i := range want.Object.Machines {
		om := &want.Object.Machines[i]
		s := seen[om.Name]
		if s.Hello == nil {
			down[om.Name] = true
		}
		if !want.selected(om.Name) {
			continue
		}
		mp, err := planMachine(p, d, want, om, s, backends)
		if err != nil {
			return nil, fmt.Errorf("machine %s: %w", om.Name, err)
		}
		p.Machines = append(p.Machines, *mp)
		if mp.System == SystemSwitch || mp.System == SystemResume {
			changing = append(changing, om.Name)
		}
	}
	for _, name := range d.MachineNames() {
		if want.Object.Machine(name) != nil || !want.selected(name) {
			continue
		}
		mp, err := planRemoval(p, d, want, d.Machines[name], seen[name], backends)
		if err != nil {
			return nil, fmt.Errorf("machine %s: %w", name, err)
		}
		p.Machines = append(p.Machines, *mp)
	}
	var err error
	p.Waves, err = waves(want.Object.RolloutGroups, changing, down, want.Parallel)
	return p, err
}

func machineNames(o *Object) []string {
	var names []string
	for _, m := range o.Machines {
		names = append(names, m.Name)
	}
	return names
}

func planMachine(p *Plan, d *Deployment, want *Desired, om *ObjectMachine, s *Sight, backends map[string]Backend) (*MachinePlan, error) {
	ms := want.Machines[om.Name]
	b := backends[ms.Backend]
	if b == nil {
		return nil, fmt.Errorf("there is no backend %q", ms.Backend)
	}
	mp := &MachinePlan{
		Name: om.Name, Label: om.Label, Backend: ms.Backend, Adopted: ms.Adopted, Resource: ResourceKeep, Hardware: om.Hardware, To: om.ref, System: SystemKeep,
		ClosureBytes: s.ClosureBytes, SendBytes: s.SendBytes, SendBlobs: s.SendBlobs,
	}
	var err error
	if mp.Steps, err = b.Plan(want.Makings[om.Name], s.Backend, Running); err != nil {
		return nil, err
	}
	destructive := slices.ContainsFunc(mp.Steps, func(s Step) bool { return s.Destructive })
	have := d.Machines[om.Name]
	made := have != nil && have.Made
	switch {
	case !made && s.Hello == nil:
		mp.Resource = ResourceCreate
	case made && !s.Backend.Exists:
		mp.Resource, mp.Why = ResourceCreate, "it was made before and is gone"
	case destructive:
		mp.Resource = ResourceReplace
		if made && !want.Destroy {
			p.Refusals = append(p.Refusals, Refusal{om.Name, "is replaced, and the data on its disk is lost", "--allow-destroy"})
		}
	case !s.Backend.Complete:
		mp.Resource = ResourceMend
	case len(mp.Steps) > 0 && s.Backend.State == StateRunning:
		mp.Resource = ResourceChange
	case len(mp.Steps) > 0:
		mp.Resource = ResourceStart
	}
	if mp.Resource != ResourceKeep {
		mp.Address, mp.SSHPort, mp.MACs = ms.Address.String(), ms.SSHPort, []string{ms.ControlMAC, ms.ClusterMAC}
		if ms.HostAddr.IsValid() {
			mp.HostAddr = ms.HostAddr.String()
		}
	}
	if mp.Resource == ResourceCreate || mp.Resource == ResourceReplace {
		mp.System = SystemBoot
		planContents(mp, nil, om.manifest, want, p)
		return mp, nil
	}
	if err := planSystem(p, d, want, om, ms, s, mp); err != nil {
		return nil, err
	}
	if _, ok := b.(Snapshotter); ok && mp.System == SystemSwitch && len(mp.Crosses) > 0 {
		mp.Snapshot = snapshotBefore(p.Generation)
		g := d.generation(p.Generation)
		mp.Again = g != nil && g.State == GenerationConfirmed
	}
	return mp, nil
}

// ModeError says that a machine's next start is not ours to decide.
type ModeError struct{}

func (*ModeError) Error() string {
	return "it is started by its own boot loader, which tool leaves alone, so a generation cannot wait for its next start: leave --mode=boot out"
}

// planSystem decides what happens to the system of a machine that is there.
func planSystem(p *Plan, d *Deployment, want *Desired, om *ObjectMachine, ms *MachineState, s *Sight, mp *MachinePlan) error {
	have := d.Machines[om.Name]
	if s.Hello == nil {
		mp.System, mp.From = SystemUnseen, have.Confirmed
		mp.Why = "it does not run; what it has is seen once it does"
		if s.Err != nil {
			mp.Why = firstLine(s.Err.Error())
		}
		return nil
	}
	f, err := factsOf(d, ms, want.Machines).Digest()
	if err != nil {
		return err
	}
	mp.Facts = f != s.Hello.FactsDigest
	mp.From = s.active()
	confirmed := s.confirmed()
	switch {
	case confirmed == om.ref && mp.From == om.ref && !busy(s.Hello):
		mp.SendBytes, mp.SendBlobs = 0, 0
		return nil
	case mp.From == om.ref && s.Hello.Active == want.Generation && busy(s.Hello) && s.Hello.Switch.Generation == want.Generation:
		mp.System, mp.Why = SystemResume, "it has the system, and nobody has confirmed that it works"
	case mp.From == om.ref && s.Hello.Confirmed == 0:
		mp.System, mp.Why = SystemBoot, "it has booted the system, and nobody has confirmed that it works"
	default:
		mp.System = SystemSwitch
		if ms.Adopted && want.Mode == string(activate.ModeBoot) {
			return &ModeError{}
		}
	}
	if st := s.Hello.Switch; st != nil && st.Over() && st.Generation == want.Generation && st.Result == activate.ResultReverted {
		mp.Why = "the last attempt failed: " + firstLine(Printable(st.Why)) // perhaps at a start that nobody here saw
	}
	if have != nil && have.Failure != "" {
		mp.Why = "the last attempt failed: " + have.Failure
	}
	planContents(mp, s.Active, om.manifest, want, p)
	return nil
}

// busy reports whether a switch is under way.
func busy(h *agent.Hello) bool { return !h.Switch.Over() }

// planContents fills in packages, units and what cannot be undone.
func planContents(mp *MachinePlan, from, to *system.Manifest, want *Desired, p *Plan) {
	c := system.Diff(from, to)
	mp.Units, mp.Packages = c.Units, c.Packages
	if from == nil {
		return
	}
	if c.RebootNeeded != nil {
		mp.Reboot = c.RebootNeeded.Reason
	}
	mp.Crosses = c.Irreversible
	for _, u := range system.Diff(to, from).Irreversible {
		if !want.Epochs {
			p.Refusals = append(p.Refusals, Refusal{mp.Name, fmt.Sprintf("%s: its data has a newer state epoch than the system it goes to can read", u), "--allow-epoch"})
		}
	}
}

func planRemoval(p *Plan, d *Deployment, want *Desired, ms *MachineState, s *Sight, backends map[string]Backend) (*MachinePlan, error) {
	mp := &MachinePlan{Name: ms.Name, Backend: ms.Backend, Adopted: ms.Adopted, Resource: ResourceDestroy, System: SystemNone, Hardware: ms.Hardware, From: ms.Confirmed, Why: "the deployment has no such machine any more"}
	b := backends[ms.Backend]
	if b == nil {
		return nil, fmt.Errorf("there is no backend %q", ms.Backend)
	}
	var err error
	if mp.Steps, err = b.Plan(d.machine(ms), s.Backend, Absent); err != nil {
		return nil, err
	}
	if ms.Made && !want.Destroy {
		what := "is destroyed, and the data on its disk is lost"
		if ms.Adopted {
			what = "is given back as it was before, without what the deployment runs on it"
		}
		p.Refusals = append(p.Refusals, Refusal{ms.Name, what, "--allow-destroy"})
	}
	return mp, nil
}

// Allocations gives every machine of the object its state: the one it has, or
// a new one. It does not change d.
func Allocations(a *Allocator, d *Deployment, o *Object, backends map[string]Backend) (map[string]*MachineState, error) {
	out := map[string]*MachineState{}
	taken := map[string]*MachineState{}
	maps.Copy(taken, d.Machines)
	for i := range o.Machines {
		m := &o.Machines[i]
		backend := d.Backend
		if have := d.Machines[m.Name]; have != nil {
			backend = have.Backend
		}
		adopter, _ := backends[backend].(Adopter)
		ms, err := a.Allocate(d, o, m, backend, adopter, taken)
		if err != nil {
			return nil, err
		}
		out[m.Name], taken[m.Name] = ms, ms
	}
	return out, nil
}
