package activate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"tool/core/machines/system"
)

// maxRunners is how often a switch is continued before it is taken back, and
// twice that how often before it is given up.
const maxRunners = 5

// BusyError says that another switch is under way.
type BusyError struct{ Status *SwitchStatus }

func (e *BusyError) Error() string {
	return fmt.Sprintf("a switch to generation %d is under way (%s); wait for its end", e.Status.Generation, e.Status.Phase)
}

// SwitchUnit returns the name of the transient unit that switches to a generation.
func SwitchUnit(n int) string { return "tool-switch-" + strconv.Itoa(n) }

// agentPath is where the agent in use is, on every machine.
const agentPath = "/tool/agent/current/tool"

// StartSwitch begins a switch, in a unit of its own that no lost connection
// ends, and returns at once. The same request again, while it is under way,
// changes nothing.
func (m *Machine) StartSwitch(ctx context.Context, r SwitchRequest) (*SwitchStatus, error) {
	s, err := m.prepare(ctx, r)
	if err == nil {
		err = m.run(ctx, s)
	}
	if err != nil {
		return nil, fmt.Errorf("switch to generation %d: %w", r.Generation, err)
	}
	return s, nil
}

func (m *Machine) run(ctx context.Context, s *SwitchStatus) error {
	return m.Systemd.Run(ctx, Transient{SwitchUnit(s.Generation), []string{agentPath, "agent", "switch", strconv.Itoa(s.Generation)}})
}

// prepare writes down what is to be done before anything is.
func (m *Machine) prepare(ctx context.Context, r SwitchRequest) (*SwitchStatus, error) {
	switch r.Mode {
	case "":
		r.Mode = ModeSwitch
	case ModeSwitch, ModeBoot, ModeTest:
	default:
		return nil, fmt.Errorf("mode %q is none of switch, boot, test", r.Mode)
	}
	unlock, err := m.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	old, err := m.Status()
	if err != nil {
		m.log("%v", err) // a damaged journal must not keep the machine from being mended
		old = nil
	}
	if !old.Over() && old.Phase != PhaseTrial {
		if old.Generation == r.Generation && old.Mode == r.Mode {
			return old, nil
		}
		return nil, &BusyError{old}
	}
	s := &SwitchStatus{SwitchRequest: r, Phase: PhasePrepared, BootID: m.bootID, Started: time.Now().UTC()}
	if s.From, err = m.Pointer(Active); err != nil {
		return nil, err
	}
	if old != nil && old.Phase == PhaseTrial { // the other trial will not be
		if err := removeIfThere(m.state("trial.json")); err != nil {
			return nil, err
		}
	}
	if err := m.CheckSpace(0); err != nil {
		return nil, err
	}
	if err := m.plan(ctx, s); err != nil {
		return nil, err
	}
	return s, m.save(s)
}

// plan compares the two systems and looks at the units as they are now.
func (m *Machine) plan(ctx context.Context, s *SwitchStatus) error {
	if s.Generation == 0 && !m.Adopted() {
		return errors.New("there is no generation 0: this machine had no system before")
	}
	to, err := m.manifestOf(s.Generation)
	if err != nil {
		return err
	}
	from, err := m.manifestOf(s.From)
	if err != nil {
		return fmt.Errorf("the active generation: %w", err)
	}
	changes := system.Diff(from, to)
	if err := m.respectOrigin(ctx, s.From, s.Generation, cmp.Or(to, from), changes); err != nil {
		return err
	}
	if s.From == 0 && s.Generation != 0 && m.Adopted() {
		if err := m.keepsNetwork(ctx, s.Generation); err != nil {
			return err
		}
	}
	s.RebootNeeded = changes.RebootNeeded
	if s.Mode != ModeBoot {
		s.Forward = newPass(s.From, s.Generation, changes)
	}
	confirmed, err := m.Pointer(Confirmed)
	if err != nil {
		return err
	}
	failed, err := m.Systemd.List(ctx, "failed")
	if err != nil {
		return fmt.Errorf("look at the units: %w", err)
	}
	if s.First = confirmed == 0 && !m.Adopted(); !s.First {
		s.FailedBefore = failed
	} else if s.Forward != nil {
		s.Forward.start(failed, to)
	}
	var units []string
	if from != nil {
		for _, service := range from.Services {
			units = append(units, service.Unit)
		}
		units = append(units, from.Enabled...)
	}
	if s.From == 0 && m.Adopted() {
		var own []string
		if _, err := readJSON(m.originUnits(), &own); err != nil {
			return err
		}
		units = own
	}
	states, err := m.Systemd.Show(ctx, units...)
	if err != nil {
		return fmt.Errorf("look at the units: %w", err)
	}
	for _, u := range states {
		if u.Well() {
			s.ActiveBefore = append(s.ActiveBefore, u.Unit)
		}
	}
	return nil
}

func newPass(from, to int, c *system.Changes) *Pass {
	p := &Pass{From: from, To: to, Step: StepStop, Systemd: c.Systemd, Modules: len(c.Modules.Added) > 0}
	for _, u := range c.Units {
		p.Units = append(p.Units, UnitProgress{UnitChange: u, State: Pending})
	}
	return p
}

// start makes the pass start units that failed when the machine started, where
// they are the system's.
func (p *Pass) start(failed []string, to *system.Manifest) {
	for _, unit := range failed {
		change := system.UnitChange{Unit: unit, Action: system.Start}
		if service := to.Service(unit); service != nil {
			change.Label = service.Label
		} else if to == nil || !slices.Contains(to.Enabled, unit) {
			continue
		}
		i := slices.IndexFunc(p.Units, func(u UnitProgress) bool { return u.Unit == unit })
		switch {
		case i < 0:
			p.Units = append(p.Units, UnitProgress{UnitChange: change, State: Pending})
		case p.Units[i].Action == system.None:
			p.Units[i].Action = system.Start
		}
	}
}

// RunSwitch does what switch.json says, from where it stands, to the end. It
// returns nil when the switch has ended, however it did, or when another
// process runs it; an error is for what kept it from going on, and it can then
// be called again. A generation of -1 means whichever is under way.
func (m *Machine) RunSwitch(ctx context.Context, generation int) error {
	lock, err := flock(m.state("switch.lock"), false)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	s, err := m.Status()
	if err != nil {
		return err
	}
	if s.Over() {
		return nil
	}
	if generation >= 0 && s.Generation != generation {
		return fmt.Errorf("switch to generation %d: the switch under way is to generation %d", generation, s.Generation)
	}
	s.Runners++
	if err := m.withBallast(func() error { return m.save(s) }); err != nil {
		return err
	}
	for !s.Over() {
		before := s.Phase
		if err := m.withBallast(func() error { return m.advance(ctx, s) }); err != nil {
			return fmt.Errorf("switch to generation %d, %s: %w", s.Generation, before, err)
		}
		if s.Phase == PhaseTrial || s.Phase == PhaseRebooting {
			return nil // it goes on after the machine's next start
		}
	}
	return nil
}

// Resume lets a switch go on whose runner died, unless it runs or waits for the
// machine's next start.
func (m *Machine) Resume(ctx context.Context) error {
	s, err := m.Status()
	if err != nil || s.Over() || s.Phase == PhaseTrial || s.Phase == PhaseRebooting {
		return err
	}
	lock, err := flock(m.state("switch.lock"), false)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return nil
	}
	if err != nil {
		return err
	}
	lock.Close()
	return m.run(ctx, s)
}

// advance does one phase.
func (m *Machine) advance(ctx context.Context, s *SwitchStatus) error {
	if s.Phase != PhaseReverting && s.Runners > maxRunners {
		return m.giveUp(ctx, s, fmt.Sprintf("what was to do it was ended %d times", s.Runners-1), nil)
	}
	if s.Phase == PhaseReverting && s.Runners > 2*maxRunners {
		return m.end(s, ResultRevertFailed, s.Why+"; and what was to go back was ended again and again")
	}
	// An adopted machine's own system starts it, and does not call Boot.
	if s.BootID != m.bootID && s.Phase != PhaseBooted && s.Phase != PhaseReverting {
		return m.giveUp(ctx, s, "the machine started again before it was confirmed", nil)
	}
	switch s.Phase {
	case PhasePrepared:
		if s.Mode == ModeBoot {
			return m.startTrial(s)
		}
		s.Phase = PhaseApplying
		return m.save(s)
	case PhaseApplying:
		return m.applyForward(ctx, s)
	case PhaseBooted:
		s.SwitchedUptime = m.Uptime()
		s.Phase = PhaseChecking
		return m.save(s)
	case PhaseChecking:
		return m.checkHealth(ctx, s)
	case PhaseWatching:
		return m.watch(ctx, s)
	case PhaseWaiting:
		return m.await(ctx, s)
	case PhaseReverting:
		return m.revert(ctx, s)
	}
	return fmt.Errorf("phase %q is not known to this agent", s.Phase)
}

func (m *Machine) applyForward(ctx context.Context, s *SwitchStatus) error {
	if err := m.apply(ctx, s, s.Forward); err != nil {
		if ctx.Err() != nil {
			return err
		}
		return m.giveUp(ctx, s, err.Error(), nil)
	}
	s.SwitchedUptime = m.Uptime()
	s.Phase = PhaseChecking
	return m.save(s)
}

// giveUp makes the machine go back, because of why.
func (m *Machine) giveUp(ctx context.Context, s *SwitchStatus, why string, failures []Failure) error {
	m.log("generation %d: %s", s.Generation, why)
	s.Why, s.Waits, s.Deadline = why, nil, time.Time{}
	s.Failures = m.explain(ctx, s, failures)
	booted := s.Mode == ModeBoot && (s.Phase == PhaseBooted || s.Phase == PhaseChecking || s.Phase == PhaseWatching || s.Phase == PhaseWaiting)
	confirmed, err := m.Pointer(Confirmed)
	if err != nil {
		return err
	}
	switch {
	case s.Phase == PhasePrepared:
		return m.end(s, ResultReverted, why)
	case booted && s.BootID == m.bootID && (confirmed != 0 && confirmed != s.Generation || s.From != 0 && s.From != s.Generation):
		s.Phase = PhaseRebooting
		if err := m.save(s); err != nil {
			return err
		}
		return m.Systemd.Reboot(ctx)
	case s.From == s.Generation || s.From == 0 && !m.Adopted():
		return m.end(s, ResultFailed, why+"; there is no generation to go back to")
	}
	if s.Back, err = m.wayBack(ctx, s); err != nil {
		return err
	}
	s.Phase = PhaseReverting
	return m.save(s)
}

// wayBack is the pass that undoes as much as has been done.
func (m *Machine) wayBack(ctx context.Context, s *SwitchStatus) (*Pass, error) {
	from, err := m.manifestOf(s.Generation)
	if err != nil {
		return nil, err
	}
	to, err := m.manifestOf(s.From)
	if err != nil {
		return nil, err
	}
	changes := system.Diff(from, to)
	if err := m.respectOrigin(ctx, s.Generation, s.From, cmp.Or(to, from), changes); err != nil {
		return nil, err
	}
	p := newPass(s.Generation, s.From, changes)
	if s.Forward == nil {
		return p, nil
	}
	p.Systemd = s.Forward.Systemd && (s.Forward.Step == StepReload || s.Forward.Step == StepStart || s.Forward.Step == StepDone)
	p.Units = slices.DeleteFunc(p.Units, func(u UnitProgress) bool {
		i := slices.IndexFunc(s.Forward.Units, func(f UnitProgress) bool { return f.Unit == u.Unit })
		return i >= 0 && s.Forward.Units[i].State == Pending
	})
	return p, nil
}

// revert goes back to the generation that was active before.
func (m *Machine) revert(ctx context.Context, s *SwitchStatus) error {
	if err := m.bootDefault(); err != nil {
		m.log("%v", err)
	}
	err := m.apply(ctx, s, s.Back)
	if err == nil {
		err = m.recovered(ctx, s)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return m.end(s, ResultRevertFailed, fmt.Sprintf("%s; and after going back to generation %d: %v", s.Why, s.From, err))
	}
	return m.end(s, ResultReverted, s.Why)
}

// recovered waits until the units that were well before the switch are again.
func (m *Machine) recovered(ctx context.Context, s *SwitchStatus) error {
	deadline := time.Now().Add(m.times.recover * time.Duration(max(s.Patience, 1)))
	for {
		states, err := m.Systemd.Show(ctx, s.ActiveBefore...)
		if err != nil {
			return err
		}
		var ill []string
		for _, u := range states {
			if !u.Well() {
				ill = append(ill, u.Unit+" is "+u.Active)
			}
		}
		if len(ill) == 0 {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%v", ill)
		}
		if err := sleep(ctx, m.times.poll); err != nil {
			return err
		}
	}
}

// end writes the result down.
func (m *Machine) end(s *SwitchStatus, r Result, why string) error {
	s.Phase, s.Result, s.Why, s.Ended, s.Deadline, s.Waits = PhaseDone, r, why, time.Now().UTC(), time.Time{}, nil
	m.log("%s", s)
	return m.save(s)
}

// removeIfThere is os.Remove for what may be gone.
func removeIfThere(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
