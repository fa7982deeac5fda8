package deploy

import (
	"context"
	"sync"
	"time"
)

// handshake is how long an SSH connection may take to be made.
const handshake = 30 * time.Second

// usualPatience is that of machines for which the deadlines are made: emulated
// ones that share a host.
const usualPatience = 6

// pace keeps how slow machines were when they were looked at last.
type pace struct {
	mu sync.Mutex
	by map[string]int
}

// observe looks at a machine and remembers how slow it is.
func (s *Session) observe(ctx context.Context, b Backend, m *Machine) (*Observed, error) {
	o, err := b.Observe(ctx, m)
	if err == nil {
		s.pace.mu.Lock()
		if s.pace.by == nil {
			s.pace.by = map[string]int{}
		}
		if o.Patience > 0 || s.pace.by[m.Name] == 0 { // what is off tells nothing
			s.pace.by[m.Name] = max(1, o.Patience)
		}
		s.pace.mu.Unlock()
	}
	return o, err
}

// patient returns a deadline for a machine, longer where it is slower than usual.
func (s *Session) patient(machine string, d time.Duration) time.Duration {
	s.pace.mu.Lock()
	defer s.pace.mu.Unlock()
	return d * time.Duration(max(1, s.pace.by[machine]/usualPatience))
}

// knowPace sees to it that patient can tell how slow a machine is.
func (s *Session) knowPace(ctx context.Context, b Backend, m *Machine) {
	s.pace.mu.Lock()
	known := s.pace.by[m.Name] > 0
	s.pace.mu.Unlock()
	if !known {
		_, _ = s.observe(ctx, b, m) // who connects next says better what is wrong
	}
}
