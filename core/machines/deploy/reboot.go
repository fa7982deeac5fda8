package deploy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tool/core/machines/activate"
	"tool/core/storage/store"
)

// Reboot restarts a machine and waits until it is up again: hard by its backend,
// else by itself. A generation that waits for this start is watched as in a
// deploy, and confirmed when it is well; a *SwitchError tells that it is not and
// that the machine went back.
func (s *Session) Reboot(ctx context.Context, name string, hard bool) error {
	ms := s.D.Machines[name]
	var trial int
	var ref store.Ref
	if _, err := s.Observe(ctx, name); err != nil { // how slow it is
		return err
	}
	deadline := s.patient(name, s.Deadlines.Connect)
	if hard {
		deadline = 0 // for one that does not answer it is meant
	}
	c, err := s.connect(ctx, ms, deadline)
	switch {
	case err == nil:
		if st := c.Hello.Switch; st != nil && st.Phase == activate.PhaseTrial {
			trial, ref = st.Generation, refOf(c.Hello, st.Generation)
		}
	case !hard || ctx.Err() != nil:
		return err
	}
	with := ms.Confirmed
	if ref != "" {
		with = ref
	}
	// Where the backend loads the kernel, another one takes another start.
	loads := !ms.Adopted && ms.Hardware.Firmware != FirmwareUEFI
	if hard || loads && ms.Boot != with {
		if c != nil {
			c.Close()
		}
		if err = s.Stop(ctx, name); err == nil {
			err = s.start(ctx, name, with)
		}
	} else {
		err = s.restart(ctx, ms, c)
	}
	if trial == 0 {
		return err
	}
	if err == nil {
		err = s.finishTrial(ctx, ms, trial, ref)
	}
	// What keeps the machine from starting, it starts with again and again.
	if err != nil && ctx.Err() == nil && loads && ms.Boot != ms.Confirmed && ms.Confirmed != "" {
		s.said(name, "it is started with the kernel of what was confirmed: %s", firstLine(err.Error()))
		if serr := s.Stop(ctx, name); serr != nil {
			return errors.Join(err, serr)
		}
		if serr := s.Start(ctx, name); serr != nil {
			return errors.Join(err, serr)
		}
		if !errors.As(err, new(*SwitchError)) {
			return s.finishTrial(ctx, ms, trial, ref)
		}
	}
	return err
}

// restart has a machine start again by itself, and waits until it has.
func (s *Session) restart(ctx context.Context, ms *MachineState, c *Connection) error {
	before := c.Hello.BootID
	err := c.Agent.Reboot(ctx)
	c.Close()
	if err != nil && !lost(err) {
		return err
	}
	s.doing(ms.Name, "restarting")
	limit := s.patient(ms.Name, s.Deadlines.Boot)
	end := time.Now().Add(limit)
	for {
		c, err := s.connect(ctx, ms, time.Until(end))
		if err != nil {
			return err
		}
		id := c.Hello.BootID
		c.Close()
		if id != before {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("it was told to restart and has not within %s", limit)
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// finishTrial follows the switch to a generation that a start was to try, to its end.
func (s *Session) finishTrial(ctx context.Context, ms *MachineState, generation int, ref store.Ref) error {
	a := &applier{Session: s, plan: &Plan{Generation: generation, Mode: string(activate.ModeBoot)}, conns: &Connections{}, result: &Result{}}
	defer a.conns.Close()
	if err := a.confirm(ctx, ms, &MachinePlan{Name: ms.Name, To: ref, System: SystemResume}); err != nil {
		return err
	}
	return a.result.of(ms.Name).Err
}

// Settled writes down what became of the generation that the last command led
// to, once its machines have started into it.
func (s *Session) Settled() {
	g := s.D.generation(s.D.Target)
	if g == nil || g.State == GenerationConfirmed {
		return
	}
	for name, ref := range g.Machines {
		ms := s.D.Machines[name]
		if ms == nil {
			return
		}
		if ms.Failure != "" {
			g.State, g.Note = GenerationFailed, name+": "+ms.Failure
			return
		}
		if ms.Confirmed != ref {
			return
		}
	}
	g.State, g.Note = GenerationConfirmed, ""
	s.D.Active = g.Number
}
