package deploy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"tool/core/model/digest"
	"tool/core/model/event"
	"tool/core/storage/store"
)

// Images is what new machines are made from: paths in the store.
type Images struct {
	Root string
	ESP  map[string]string // by the names that the object has for them
}

// applier executes one plan.
type applier struct {
	*Session
	plan   *Plan
	object *Object
	alloc  map[string]*MachineState
	images *Images
	conns  *Connections
	result *Result

	filesOnce sync.Once
	files     map[digest.Digest]bool // of the base image
	filesErr  error
}

// moved tells how far a copy is.
func (a *applier) moved(machine, text string, done, total int64) {
	a.Events.Send(event.MachineDoing{Machine: machine, Text: text, Done: done, Total: total, At: time.Now()})
}

// begin writes down what is about to be done, before anything is: whoever
// comes after a kill -9 goes on from there.
func (a *applier) begin() error {
	d := a.D
	for name, ms := range a.alloc {
		if ms.HostKey == "" && !ms.Adopted {
			var err error
			if ms.HostKey, ms.HostKeyPub, err = newKey(name); err != nil {
				return err
			}
		}
		if a.plan.Machine(name) != nil {
			d.Machines[name] = ms
		}
	}
	refs := map[string]store.Ref{}
	for name, m := range d.Machines {
		if m.Confirmed != "" {
			refs[name] = m.Confirmed
		}
	}
	for _, m := range a.plan.Machines {
		delete(refs, m.Name)
		if m.To != "" {
			refs[m.Name] = m.To
		}
	}
	g := d.generation(a.plan.Generation)
	if g == nil {
		d.Generations = append(d.Generations, Generation{
			Number: a.plan.Generation, Object: a.object.Ref, Label: a.object.Label, Created: time.Now().UTC().Truncate(time.Second), Machines: refs, State: GenerationBegun,
		})
		g = &d.Generations[len(d.Generations)-1]
	}
	// One that was begun with some of the machines is gone on with.
	for _, m := range a.plan.Machines {
		if m.To != "" && g.Machines != nil {
			g.Machines[m.Name] = m.To
		}
	}
	d.Next = max(d.Next, a.plan.Generation+1)
	d.Target = a.plan.Generation
	d.Description = a.object.Description
	// The root first: a collection between the two must find it.
	if err := a.keepGeneration(g); err != nil {
		return err
	}
	return d.Save()
}

// RootPrefix names the roots of a deployment's generations.
func (d *Deployment) RootPrefix() string { return "deployment/" + d.UUID }

func (d *Deployment) rootOf(generation int) string {
	return fmt.Sprintf("%s#%d", d.RootPrefix(), generation)
}

func (s *Session) keepGeneration(g *Generation) error {
	refs := g.refs()
	if s.D.Emulator != "" {
		refs = append(refs, s.D.Emulator) // machines are started in it again
	}
	r := store.Root{Name: s.D.rootOf(g.Number), Kind: "generation", Refs: refs, Label: g.Label, Created: g.Created, Workspace: s.D.Workspace}
	if err := s.Store.AddRoot(r); err != nil {
		return err
	}
	return s.Store.CAS().Flush()
}

// apply does what the plan says. Machines that fail are in the result; an
// error is something that concerns all of them.
func (a *applier) apply(ctx context.Context) error {
	if err := a.begin(); err != nil {
		return err
	}
	for _, phase := range []func(context.Context) error{a.resources, a.boots, a.facts, a.copies, a.rollout, a.removals} {
		if err := phase(ctx); err != nil {
			return err
		}
	}
	return nil
}

// having returns the names of machines whose plan says so and that have not
// failed.
func (a *applier) having(f func(*MachinePlan) bool) []string {
	var names []string
	for i := range a.plan.Machines {
		if m := &a.plan.Machines[i]; f(m) && !a.failed(m.Name) {
			names = append(names, m.Name)
		}
	}
	return names
}

func (a *applier) failed(name string) bool {
	o := a.result.of(name)
	return o != nil && (o.State == Failed || o.State == RolledBack || o.State == RevertFailed)
}

// perMachine runs f for machines at once; those that fail are in the result.
func (a *applier) perMachine(ctx context.Context, names []string, f func(ms *MachineState, mp *MachinePlan) error) error {
	_, errs := each(names, func(name string) (struct{}, error) {
		defer a.idle(name)
		return struct{}{}, f(a.D.Machines[name], a.plan.Machine(name))
	})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, name := range slices.Sorted(maps.Keys(errs)) {
		a.fail(name, Failed, errs[name])
	}
	return a.D.Save()
}

func (a *applier) fail(name string, state OutcomeState, err error) {
	a.result.set(name, state, err)
	a.D.Machines[name].Failure = firstLine(err.Error())
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(s, "\n")
	return s
}

// resources makes, starts and changes machines.
func (a *applier) resources(ctx context.Context) error {
	names := a.having(func(m *MachinePlan) bool { return m.Resource != ResourceKeep && m.Resource != ResourceDestroy })
	return a.perMachine(ctx, names, func(ms *MachineState, mp *MachinePlan) error {
		b, err := a.backend(ms)
		if err != nil {
			return err
		}
		m := a.D.machine(ms)
		for _, dir := range []string{m.Dir, m.NetDir} {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				return err
			}
		}
		if err := a.material(ctx, m, ms, a.object.Machine(ms.Name), mp); err != nil {
			return err
		}
		if err := a.steps(ctx, b, m, Running); err != nil {
			return err
		}
		ms.Made = ms.Made || ms.Adopted // it has something of ours from here on
		if m.Seed != "" {
			os.Remove(m.Seed) // the backend has its own
		}
		a.conns.drop(ms.Name)
		return nil
	})
}

// steps observes, plans and does until the goal is reached.
func (s *Session) steps(ctx context.Context, b Backend, m *Machine, g Goal) error {
	for range 4 {
		o, err := s.observe(ctx, b, m)
		if err != nil {
			return err
		}
		steps, err := b.Plan(m, o, g)
		if err != nil {
			return err
		}
		if len(steps) == 0 {
			if ms := s.D.Machines[m.Name]; ms != nil && o.Exists {
				ms.ID = o.ID
			}
			return nil
		}
		for _, st := range steps {
			s.doing(m.Name, "%s", st.Text)
			if st.Kind == StepStart {
				if fi, err := os.Stat(b.Console(m)); err == nil {
					s.consoles.Store(m.Name, fi.Size())
				}
			}
			if err := b.Do(ctx, m, st); err != nil {
				return fmt.Errorf("%s: %w", st.Text, err)
			}
		}
	}
	return fmt.Errorf("the %s backend still has steps to do after all were done: this is a mistake in tool", b.Name())
}

// boots waits for machines that were made and confirms what they booted.
func (a *applier) boots(ctx context.Context) error {
	names := a.having(func(m *MachinePlan) bool { return m.System == SystemBoot })
	return a.perMachine(ctx, names, func(ms *MachineState, mp *MachinePlan) error {
		a.doing(ms.Name, "booting")
		c, err := a.conns.get(ctx, a.Session, ms, a.patient(ms.Name, a.Deadlines.Boot))
		if err != nil {
			return err
		}
		ms.Made = true
		if refOf(c.Hello, c.Hello.Active) != mp.To {
			return nil // made before, by another plan: the next round switches it
		}
		// Another generation may have brought the same system.
		if c.Hello.Active != a.plan.Generation {
			if err := a.stage(ctx, c, ms, mp); err != nil {
				return err
			}
		}
		// A start that no switch led to has been checked by nobody yet.
		if err := a.switchTo(ctx, ms, mp); err != nil || a.failed(ms.Name) {
			return err
		}
		if err := a.reach(ctx, ms); err != nil || a.failed(ms.Name) {
			return err
		}
		return a.confirm(ctx, ms, mp)
	})
}

// facts tells machines that do not switch their new names and addresses.
func (a *applier) facts(ctx context.Context) error {
	names := a.having(func(m *MachinePlan) bool { return m.Facts && m.System == SystemKeep })
	return a.perMachine(ctx, names, func(ms *MachineState, _ *MachinePlan) error {
		a.doing(ms.Name, "writing names and addresses")
		err := a.retry(ctx, ms, func(c *Connection) error { return c.Agent.Facts(ctx, factsOf(a.D, ms, a.alloc)) })
		if err == nil {
			a.result.set(ms.Name, Confirmed, nil)
		}
		return err
	})
}

// removals destroys machines that the deployment no longer has, once all
// others are well.
func (a *applier) removals(ctx context.Context) error {
	names := a.having(func(m *MachinePlan) bool { return m.Resource == ResourceDestroy })
	if a.result.Bad() > 0 {
		for _, n := range names {
			a.result.set(n, Waiting, errors.New("it is destroyed once all others are well"))
		}
		return nil
	}
	for _, n := range names {
		if err := a.Destroy(ctx, n); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			a.fail(n, Failed, err)
			continue
		}
		a.result.set(n, Destroyed, nil)
	}
	return nil
}

// Destroy removes a machine with all that belongs to it, and forgets it.
func (s *Session) Destroy(ctx context.Context, name string) error {
	ms := s.D.Machines[name]
	b, err := s.backend(ms)
	if err != nil {
		return err
	}
	defer s.idle(name)
	if err := s.steps(ctx, b, s.D.machine(ms), Absent); err != nil {
		return err
	}
	return s.Forget(name)
}

// Forget takes a machine out of the state and leaves it as it is.
func (s *Session) Forget(name string) error {
	if err := os.RemoveAll(s.D.MachineDir(name)); err != nil {
		return err
	}
	delete(s.D.Machines, name)
	return s.D.Save()
}
