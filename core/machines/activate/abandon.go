package activate

import "fmt"

// Abandon has the switch to generation n, which waits to be confirmed, go back
// instead. To abandon again does nothing.
func (m *Machine) Abandon(n int, why string) error {
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
		if s != nil && s.Generation == n && (s.Phase == PhaseReverting || s.Result == ResultReverted) {
			return nil
		}
		return &NotWaitingError{n, s}
	}
	// Its runner finds the time over, and goes back as if nobody had come.
	s.Abandoned = why
	s.DeadlineUptime = m.Uptime()
	if err := m.save(s); err != nil {
		return fmt.Errorf("abandon generation %d: %w", n, err)
	}
	return nil
}
