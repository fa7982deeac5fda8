package deploy

import (
	"context"
	"fmt"
	"os"

	"tool/core/storage/store"
)

// Reach returns the address at which this host reaches the machine.
func (m *MachineState) Reach() string {
	if m.Host != "" {
		return m.Host
	}
	if m.HostAddr.IsValid() {
		return m.HostAddr.String()
	}
	return m.Address.Addr().String()
}

// Wanted returns the system that a machine should have: that of the generation
// which the last command led to.
func (s *Deployment) Wanted(machine string) store.Ref {
	if g := s.generation(s.Target); g != nil {
		return g.Machines[machine]
	}
	return ""
}

// Before returns the confirmed generation before the current one, or nil.
func (s *Deployment) Before() *Generation {
	for i := len(s.Generations) - 1; i >= 0; i-- {
		if g := &s.Generations[i]; g.Number < s.Active && g.State == GenerationConfirmed {
			return g
		}
	}
	return nil
}

// WithoutKeys returns a copy without private keys.
func (s *Deployment) WithoutKeys() *Deployment {
	c := *s
	c.KeyPrivate = ""
	c.Machines = map[string]*MachineState{}
	for n, m := range s.Machines {
		mc := *m
		mc.HostKey = ""
		c.Machines[n] = &mc
	}
	return &c
}

// Each does something with several machines at once and returns what failed.
func (s *Session) Each(names []string, f func(name string) error) map[string]error {
	s.Deadlines = s.Deadlines.withDefaults()
	_, errs := each(names, func(name string) (struct{}, error) {
		defer s.idle(name)
		return struct{}{}, f(name)
	})
	return errs
}

// Observe looks at a machine's resources.
func (s *Session) Observe(ctx context.Context, name string) (*Observed, error) {
	ms := s.D.Machines[name]
	b, err := s.backend(ms)
	if err != nil {
		return nil, err
	}
	return s.observe(ctx, b, s.D.machine(ms))
}

// Console returns the path of a machine's console log, or "".
func (s *Session) Console(name string) string {
	ms := s.D.Machines[name]
	b, err := s.backend(ms)
	if err != nil {
		return ""
	}
	return b.Console(s.D.machine(ms))
}

// Start starts a machine that is there and waits until its agent answers.
func (s *Session) Start(ctx context.Context, name string) error {
	return s.start(ctx, name, s.D.Machines[name].Confirmed)
}

// start is Start with the kernel of a certain system, where the backend loads it.
func (s *Session) start(ctx context.Context, name string, with store.Ref) error {
	ms := s.D.Machines[name]
	b, err := s.backend(ms)
	if err != nil {
		return err
	}
	m := s.D.machine(ms)
	o, err := s.observe(ctx, b, m)
	if err != nil {
		return err
	}
	if !o.Exists {
		return fmt.Errorf("it does not exist; `tool deploy -d %s` makes it", s.D.Name)
	}
	if !o.Complete {
		return fmt.Errorf("it is not whole: %v; `tool deploy -d %s` makes it again", o.Problems, s.D.Name)
	}
	if with != "" && !ms.Adopted {
		if err := s.bootFrom(ctx, m, with); err != nil {
			return err
		}
		ms.Boot = with
	}
	if err := s.steps(ctx, b, m, Running); err != nil {
		return err
	}
	s.doing(name, "booting")
	c, err := s.connect(ctx, ms, s.patient(name, s.Deadlines.Boot))
	if err != nil {
		return err
	}
	c.Close()
	return nil
}

// Stop shuts a machine down.
func (s *Session) Stop(ctx context.Context, name string) error {
	ms := s.D.Machines[name]
	b, err := s.backend(ms)
	if err != nil {
		return err
	}
	return s.steps(ctx, b, s.D.machine(ms), Stopped)
}

// DestroyAll removes machines with all that belongs to them; those that fail
// stay in the state, for the next attempt. With forget, adopted ones are not
// given back.
func (s *Session) DestroyAll(ctx context.Context, names []string, forget bool) map[string]error {
	s.Deadlines = s.Deadlines.withDefaults()
	errs := map[string]error{}
	for _, n := range names {
		destroy := s.Destroy
		if forget && s.D.Machines[n].Adopted {
			destroy = func(_ context.Context, n string) error { return s.Forget(n) }
		}
		if err := destroy(ctx, n); err != nil {
			errs[n] = err
			if ctx.Err() != nil {
				return errs
			}
		}
	}
	if len(s.D.Machines) == 0 && len(names) > 0 {
		// The next machines begin anew; the generations stay, to go back to.
		s.D.Active, s.D.Target = 0, 0
		if err := os.RemoveAll(s.D.NetDir()); err != nil {
			errs[names[0]] = err
		}
		if err := s.D.Save(); err != nil {
			errs[names[0]] = err
		}
	}
	return errs
}

// Cut ends a machine as if its power were cut.
func (s *Session) Cut(ctx context.Context, name string) error {
	ms := s.D.Machines[name]
	b, err := s.backend(ms)
	if err != nil {
		return err
	}
	c, ok := b.(Cutter)
	if !ok {
		return fmt.Errorf("the power of machines of backend %s cannot be cut from here", b.Name())
	}
	return c.Cut(ctx, s.D.machine(ms))
}
