package activate

import (
	"context"
	"fmt"
	"time"
)

// startWaiting begins the time in which the controller may confirm.
func (m *Machine) startWaiting(s *SwitchStatus) error {
	wait := m.times.confirm
	if s.ConfirmSeconds > 0 {
		wait = time.Duration(s.ConfirmSeconds) * time.Second
	}
	s.Phase, s.Waits = PhaseWaiting, nil
	s.Deadline = time.Now().Add(wait).UTC()
	s.DeadlineUptime = m.Uptime() + wait
	return m.save(s)
}

// await ends with the controller's confirmation, or with its failing to come.
func (m *Machine) await(ctx context.Context, s *SwitchStatus) error {
	for {
		over, err := m.awaitOnce(ctx, s)
		if over || err != nil {
			return err
		}
		if err := sleep(ctx, m.times.poll); err != nil {
			return err
		}
	}
}

func (m *Machine) awaitOnce(ctx context.Context, s *SwitchStatus) (bool, error) {
	unlock, err := m.lock()
	if err != nil {
		return false, err
	}
	defer unlock()
	now, err := m.Status()
	if err != nil {
		return false, err
	}
	*s = *now
	if s.Phase != PhaseWaiting {
		return true, nil
	}
	if s.Auto {
		return true, m.confirm(s)
	}
	confirmed, err := m.Pointer(Confirmed)
	if err != nil {
		return false, err
	}
	if s.Mode != ModeTest && confirmed == s.Generation && m.confirmedSince(s) {
		return true, m.confirm(s) // who confirmed died before writing so
	}
	if m.Uptime() < s.DeadlineUptime {
		return false, nil
	}
	if s.Abandoned != "" {
		return true, m.giveUp(ctx, s, s.Abandoned, nil)
	}
	return true, m.giveUp(ctx, s, fmt.Sprintf("nobody confirmed it until %s: the controller could not reach the machine any more, or was ended", s.Deadline.Format(time.TimeOnly)), nil)
}

func (m *Machine) confirmedSince(s *SwitchStatus) bool {
	g, err := m.Generation(s.Generation)
	return err == nil && g.Confirmed.After(s.Started)
}

// NotWaitingError says that there is nothing to confirm.
type NotWaitingError struct {
	Generation int
	Status     *SwitchStatus // may be nil
}

func (e *NotWaitingError) Error() string {
	if e.Status == nil {
		return fmt.Sprintf("generation %d cannot be confirmed: it was not switched to", e.Generation)
	}
	return fmt.Sprintf("generation %d cannot be confirmed: %s", e.Generation, e.Status)
}

// Confirm makes generation n the one that the machine starts into. It is for
// the controller, who has just proved that it can reach the machine. To confirm
// again what is confirmed does nothing.
func (m *Machine) Confirm(n int) error {
	unlock, err := m.lock()
	if err != nil {
		return err
	}
	defer unlock()
	s, err := m.Status()
	if err != nil {
		return err
	}
	if s == nil || s.Generation != n || s.Phase != PhaseWaiting {
		if s != nil && s.Generation == n && s.Result == ResultConfirmed {
			return nil
		}
		return &NotWaitingError{n, s}
	}
	return m.confirm(s)
}

// confirm commits the switch. The pointer is what counts: what stands before it
// here is undone where it does not come to be set.
func (m *Machine) confirm(s *SwitchStatus) error {
	if s.Mode != ModeTest && s.Generation != 0 {
		g, err := m.Generation(s.Generation)
		if err != nil {
			return err
		}
		if err := m.setBootDefault(s.Generation); err != nil {
			return err
		}
		g.Confirmed = time.Now().UTC()
		if err := writeJSON(m.generationFile(g.Number), g); err != nil {
			return fmt.Errorf("write down that generation %d is confirmed: %w", g.Number, err)
		}
	}
	if s.Mode != ModeTest {
		if err := m.setPointer(Confirmed, s.Generation); err != nil {
			return err
		}
	}
	return m.end(s, ResultConfirmed, "")
}
