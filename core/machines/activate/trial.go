package activate

import (
	"context"
	"fmt"
	"time"
)

// startTrial makes the machine's next start be into the generation, once.
func (m *Machine) startTrial(s *SwitchStatus) error {
	if m.Adopted() {
		return m.end(s, ResultFailed, "an adopted machine is started by its own boot loader, which tool leaves alone: use the mode switch")
	}
	if err := m.oneShot(s.Generation); err != nil {
		return err
	}
	if err := writeJSON(m.state("trial.json"), trialFile{s.Generation, time.Now().UTC()}); err != nil {
		return err
	}
	s.Phase = PhaseTrial
	return m.save(s)
}

// endInterrupted ends a switch that the machine went down in. trial is the
// generation that this start is for, or 0.
func (m *Machine) endInterrupted(trial int) error {
	s, err := m.Status()
	if err != nil {
		m.log("%v", err)
		return removeIfThere(m.state("switch.json"))
	}
	if s.Over() || s.Phase == PhaseTrial && s.Generation == trial {
		return nil
	}
	why := s.Why
	switch {
	case s.Phase == PhaseTrial:
		why = "the machine started, and not into it: its boot loader or its command line chose otherwise, or its kernel was not loaded (`tool reboot` sees to that)"
	case s.Phase != PhaseRebooting && s.Phase != PhaseReverting:
		why = fmt.Sprintf("the machine went down before it was confirmed (%s)", s.Phase)
	}
	back, err := m.Pointer(Confirmed)
	if err != nil {
		return err
	}
	if back == 0 {
		back = s.From
	}
	if back == 0 || back == s.Generation {
		return m.end(s, ResultFailed, why+"; there is no generation to go back to")
	}
	if err := m.setPointer(Active, back); err != nil {
		return err
	}
	return m.end(s, ResultReverted, why)
}

// bootedTrial notes that the machine is starting into the generation on trial,
// and sees to it that somebody checks its health.
func (m *Machine) bootedTrial(n int) error {
	s, err := m.Status()
	if err != nil {
		return err
	}
	if s.Over() || s.Generation != n {
		return nil // a start by hand: nothing waits for it
	}
	s.Phase, s.BootID = PhaseBooted, m.bootID
	if err := m.save(s); err != nil {
		return err
	}
	return m.writeSettleUnit()
}

// Settle goes on with the switch that this start of the machine is part of.
//
// Where the machine's own system started it, nobody has seen to it yet that the
// active generation is whole: a loss of power may have taken it.
func (m *Machine) Settle(ctx context.Context) error {
	if err := m.keepActive(ctx); err != nil {
		m.log("the active generation is not whole: %v", err)
	}
	return m.RunSwitch(ctx, -1)
}

// keepActive lays the active generation out where it is not.
func (m *Machine) keepActive(ctx context.Context) error {
	n, err := m.Pointer(Active)
	if err != nil || n == 0 {
		return err
	}
	g, err := m.Generation(n)
	if err != nil {
		return err
	}
	_, err = m.Store.Realise(ctx, g.Ref)
	return err
}

// Rollback switches to generation n without a controller: it is confirmed once
// its units are well. n of -1 means the newest one before the active that was
// ever confirmed. It returns when the switch has begun.
func (m *Machine) Rollback(ctx context.Context, n int) (*SwitchStatus, error) {
	if n < 0 {
		var err error
		if n, err = m.previous(); err != nil {
			return nil, err
		}
	}
	return m.StartSwitch(ctx, SwitchRequest{Generation: n, Mode: ModeSwitch, Auto: true})
}

func (m *Machine) previous() (int, error) {
	active, err := m.Pointer(Active)
	if err != nil {
		return 0, err
	}
	if confirmed, err := m.Pointer(Confirmed); err == nil && confirmed != 0 && confirmed != active {
		return confirmed, nil
	}
	all, err := m.Generations()
	if err != nil {
		return 0, err
	}
	best := -1
	for _, g := range all {
		if g.Number < active && !g.Confirmed.IsZero() {
			best = g.Number
		}
	}
	if best < 0 && m.Adopted() && active != 0 {
		best = 0
	}
	if best < 0 {
		return 0, fmt.Errorf("no generation before %d was ever confirmed; name one that `tool agent generations` lists", active)
	}
	return best, nil
}
