package deploy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"tool/core/storage/store"
)

// Options say how a deployment object is to be applied.
type Options struct {
	Generation   int    // to go back to an old one; 0: a new one, or the one that was begun
	Mode         string // switch, boot or test
	Parallel     int
	On           []string
	AllowDestroy bool
	AllowEpoch   bool
	CopyOnly     bool
	Note         string
	Saved        *Plan // execute this one, or refuse it as stale
	Allocator    *Allocator
	// Images brings what machines are made from; it is called before anything
	// is touched, and only if machines are made.
	Images func(ctx context.Context) (*Images, error)
	// Approve sees the plan before it is executed; an error stops there.
	Approve func(*Plan) error
}

// Preview makes the plan and touches nothing.
func (s *Session) Preview(ctx context.Context, o *Object, opt *Options) (*Plan, error) {
	s.Deadlines = s.Deadlines.withDefaults()
	conns := &Connections{}
	defer conns.Close()
	p, _, err := s.preview(ctx, o, opt, conns)
	return p, err
}

func (s *Session) preview(ctx context.Context, o *Object, opt *Options, conns *Connections) (*Plan, map[string]*MachineState, error) {
	o.shape(func(name string) Backend {
		if have := s.D.Machines[name]; have != nil {
			return s.Backends[have.Backend]
		}
		return s.Backends[s.D.Backend]
	})
	alloc, err := Allocations(opt.Allocator, s.D, o, s.Backends)
	if err != nil {
		return nil, nil, err
	}
	// The new forwards and hardware are what is looked for.
	all := map[string]*MachineState{}
	maps.Copy(all, s.D.Machines)
	maps.Copy(all, alloc)
	seen, err := s.Look(ctx, all, conns)
	if err != nil {
		return nil, nil, err
	}
	if err := s.Measure(ctx, o, seen, conns); err != nil {
		return nil, nil, err
	}
	makings, err := s.makings(ctx, o, alloc, seen)
	if err != nil {
		return nil, nil, err
	}
	p, err := MakePlan(s.D, &Desired{
		Object: o, Machines: alloc, Makings: makings, Generation: s.generationFor(o, opt.Generation), Mode: opt.Mode, Parallel: opt.Parallel,
		On: opt.On, Destroy: opt.AllowDestroy, Epochs: opt.AllowEpoch, Note: opt.Note,
	}, seen, s.Backends)
	return p, alloc, err
}

// toBeBuilt stands in a plan for what is built before the plan is executed.
const toBeBuilt = "(built before anything is touched)"

// makings tells what machines that do not run, or lack something, would be made
// from or started with. One that runs well is not told: a new kernel is for its
// next start, and no reason to start it again.
func (s *Session) makings(ctx context.Context, o *Object, alloc map[string]*MachineState, seen map[string]*Sight) (map[string]*Machine, error) {
	out := map[string]*Machine{}
	for name, ms := range alloc {
		m := s.D.machine(ms)
		out[name] = m
		if o := seen[name].Backend; ms.Adopted || o.State == StateRunning && o.Complete {
			continue
		}
		ref := ms.Confirmed
		if ref == "" || !seen[name].Backend.Exists {
			ref = o.Machine(name).ref
		}
		if err := s.bootFrom(ctx, m, ref); err != nil {
			return nil, fmt.Errorf("machine %s: %w", name, err)
		}
		if !seen[name].Backend.Complete {
			m.Root, m.Seed = toBeBuilt, toBeBuilt
			if o.Machine(name).ESP != "" {
				m.ESP = toBeBuilt
			}
		}
	}
	return out, nil
}

// generationFor returns the number that the machines are brought to: what was
// asked for, the newest or the current one where it is of the same object, else
// the next.
func (s *Session) generationFor(o *Object, asked int) int {
	if asked > 0 {
		return asked
	}
	if n := len(s.D.Generations); n > 0 {
		// One that went wrong is tried again under its own number; one that
		// went well stays what it is.
		if g := &s.D.Generations[n-1]; g.Object == o.Ref {
			return g.Number
		}
	}
	// After one that went wrong, what the machines have is still what it was.
	if g := s.D.Current(); g != nil && g.Object == o.Ref {
		return g.Number
	}
	return s.D.Next
}

// rounds bounds how often a deploy plans again, for machines whose system could
// only be seen after they were started.
const rounds = 3

// Deploy plans, asks, and executes.
func (s *Session) Deploy(ctx context.Context, o *Object, opt *Options) (*Result, error) {
	s.Deadlines = s.Deadlines.withDefaults()
	conns := &Connections{}
	defer conns.Close()
	result := &Result{}
	var last *Plan
	for round := range rounds {
		p, alloc, err := s.preview(ctx, o, opt, conns)
		if err != nil {
			return result, err
		}
		last = p
		if round == 0 {
			result.Plan = p
			if err := approve(p, opt); err != nil {
				return result, err
			}
		}
		for i := range p.Machines {
			if m := &p.Machines[i]; m.Empty() && result.of(m.Name) == nil {
				result.set(m.Name, Unchanged, nil)
			}
		}
		s.upToDate(p, alloc)
		if p.Empty() {
			break
		}
		a := &applier{Session: s, plan: p, object: o, alloc: alloc, conns: conns, result: result}
		// What machines get is made before any is touched.
		if _, _, err := s.Binary.Program(); err != nil {
			return result, err
		}
		if p.Creates() {
			if a.images, err = opt.Images(ctx); err != nil {
				return result, err
			}
		}
		if opt.CopyOnly {
			return result, a.copyOnly(ctx)
		}
		if err := a.apply(ctx); err != nil {
			result.leave(p)
			return result, errors.Join(err, s.D.Save())
		}
		if result.Bad() > 0 || !a.unfinished() {
			break
		}
	}
	s.unreached(last, result)
	return result, s.finish(o, result)
}

// unreached finds machines that nothing could be done with.
func (s *Session) unreached(p *Plan, r *Result) {
	for i := range p.Machines {
		m := &p.Machines[i]
		if m.System != SystemUnseen && m.System != SystemBoot || r.of(m.Name) != nil {
			continue
		}
		if r.Bad() > 0 && m.Resource != ResourceKeep {
			r.set(m.Name, Waiting, errors.New("the rollout stopped before it"))
			continue
		}
		err := errors.New(cmp.Or(m.Why, "it does not come up with what it should have"))
		r.set(m.Name, Failed, err)
		s.D.Machines[m.Name].Failure = firstLine(err.Error())
	}
}

// upToDate takes over what the machines say: an interrupted deploy may have
// confirmed them and not have written it down.
func (s *Session) upToDate(p *Plan, alloc map[string]*MachineState) {
	for i := range p.Machines {
		m := &p.Machines[i]
		if !m.Empty() || m.To == "" {
			continue
		}
		// The allocated one replaces the other if the plan is executed.
		for _, ms := range []*MachineState{s.D.Machines[m.Name], alloc[m.Name]} {
			if ms == nil {
				continue
			}
			if ms.Generation == 0 || ms.Confirmed != m.To {
				ms.Generation = p.Generation
			}
			ms.Confirmed, ms.Failure, ms.Made = m.To, "", true
		}
	}
}

func approve(p *Plan, opt *Options) error {
	if opt.Saved != nil {
		if err := opt.Saved.same(p); err != nil {
			return err
		}
	}
	if opt.Approve != nil {
		if err := opt.Approve(p); err != nil {
			return err
		}
	}
	if len(p.Refusals) > 0 {
		return &RefusedError{p.Refusals[0]}
	}
	return nil
}

// RefusedError says that a plan needs a flag to be executed.
type RefusedError struct{ Refusal }

func (e *RefusedError) Error() string {
	return fmt.Sprintf("nothing was done: machine %s: %s; if that is what you want, say %s", e.Machine, e.Text, e.Flag)
}

// unfinished reports whether the plan left machines of which nothing was known.
func (a *applier) unfinished() bool {
	for i := range a.plan.Machines {
		m := &a.plan.Machines[i]
		// One that runs and cannot be asked will not be either in the next round.
		unseen := m.System == SystemUnseen && m.Resource != ResourceKeep
		if (unseen || m.System == SystemBoot || m.Resource == ResourceChange) && a.result.of(m.Name) == nil {
			return true
		}
	}
	return false
}

// copyOnly sends closures and switches nothing.
func (a *applier) copyOnly(ctx context.Context) error {
	if err := a.begin(); err != nil {
		return err
	}
	if err := a.copies(ctx); err != nil {
		return err
	}
	for _, n := range a.having(func(m *MachinePlan) bool { return m.System == SystemSwitch }) {
		a.result.set(n, Staged, nil)
	}
	return a.D.Save()
}

// finish records what became of the generation.
func (s *Session) finish(o *Object, r *Result) error {
	g := s.D.generation(r.Plan.Generation)
	if g == nil {
		return nil
	}
	switch {
	case r.Count(Failed, RolledBack, RevertFailed, Waiting) > 0:
		if g.State != GenerationConfirmed { // what once was well does not become bad by a failed way back
			g.State = GenerationFailed
		}
		for _, oc := range r.Outcomes {
			if oc.Err != nil {
				g.Note = oc.Machine + ": " + firstLine(oc.Err.Error())
				break
			}
		}
	case s.everywhere(o):
		g.State, g.Note = GenerationConfirmed, ""
		s.D.Active, s.D.Target = g.Number, g.Number
	}
	return s.D.Save()
}

// everywhere reports whether all machines of the object have been confirmed
// with it: a deploy --on some does not make a generation.
func (s *Session) everywhere(o *Object) bool {
	for i := range o.Machines {
		m := &o.Machines[i]
		if ms := s.D.Machines[m.Name]; ms == nil || ms.Confirmed != m.ref || ms.Failure != "" {
			return false
		}
	}
	return true
}

// material gives m what its backend makes it from. A machine that is there
// already needs none of it but what boots it.
func (a *applier) material(ctx context.Context, m *Machine, ms *MachineState, om *ObjectMachine, mp *MachinePlan) error {
	ref := om.ref
	if mp.System != SystemBoot && ms.Confirmed != "" {
		ref = ms.Confirmed // a start boots what was confirmed, not what comes next
	}
	// One that goes on running is not told of a kernel: it would be a reason to
	// start it again.
	if ms.Adopted || !restarts(mp) {
		return nil
	}
	if err := a.bootFrom(ctx, m, ref); err != nil {
		return err
	}
	ms.Boot = ref
	if a.images == nil {
		return nil
	}
	m.Root, m.ESP = a.images.Root, a.images.ESP[om.ESP]
	if mp.System != SystemBoot && mp.Resource != ResourceMend {
		return nil
	}
	a.doing(ms.Name, "preparing its seed")
	dir := filepath.Join(a.D.dir, "seeds")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	m.Seed = filepath.Join(dir, ms.Name)
	return a.writeSeed(ctx, m.Seed, ms, om)
}

// restarts reports whether the machine starts by what is planned for it.
func restarts(mp *MachinePlan) bool {
	return mp.Resource != ResourceChange || slices.ContainsFunc(mp.Steps, func(s Step) bool { return s.Kind == StepStart })
}

// bootFrom names the kernel, initrd and command line of a system.
func (s *Session) bootFrom(ctx context.Context, m *Machine, ref store.Ref) error {
	man, err := LoadManifest(s.Store, ref)
	if err != nil {
		return fmt.Errorf("what it boots: %w", err)
	}
	if s.D.Emulator != "" {
		if m.Emulator, err = s.Store.Realise(ctx, s.D.Emulator); err != nil {
			return fmt.Errorf("the emulator: %w", err)
		}
	}
	if man.Boot == nil {
		return nil // nothing that a backend could load
	}
	dir, err := s.Store.Realise(ctx, ref)
	if err != nil {
		return err
	}
	m.Kernel, m.Initrd, m.Cmdline = filepath.Join(dir, man.Boot.Kernel), filepath.Join(dir, man.Boot.Initrd), man.Boot.Cmdline
	return nil
}
