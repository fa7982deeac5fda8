package deploy

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"tool/core/storage/store"
)

// Checked is what Check found of a machine.
type Checked struct {
	Machine     string
	Exists      bool
	Up          bool
	Reachable   bool
	DiskOK      bool // where it is reachable: enough of its disk is free
	FailedUnits []string
	Unwell      []string // checks of its services that do not hold
	Drift       []string // how it differs from what was deployed
	Notes       []string
}

// minFree is how much of a machine's disk must be free, in bytes.
const minFree = 256 << 20

// Check looks at machines and compares them with what they were brought to.
func (s *Session) Check(ctx context.Context, names []string) ([]Checked, error) {
	s.Deadlines = s.Deadlines.withDefaults()
	found, errs := each(names, func(name string) (*Checked, error) {
		defer s.idle(name)
		return s.check(ctx, name)
	})
	var out []Checked
	for _, n := range names {
		if errs[n] != nil {
			return nil, fmt.Errorf("machine %s: %w", n, errs[n])
		}
		out = append(out, *found[n])
	}
	return out, ctx.Err()
}

func (s *Session) check(ctx context.Context, name string) (*Checked, error) {
	ms := s.D.Machines[name]
	r := &Checked{Machine: name}
	o, err := s.Observe(ctx, name)
	if err != nil {
		return nil, err
	}
	r.Exists, r.Up, r.Notes = o.Exists, o.State == StateRunning, o.Problems
	if !r.Up {
		return r, nil
	}
	s.doing(name, "connecting")
	c, err := s.connect(ctx, ms, 0)
	if err != nil {
		r.Notes = append(r.Notes, firstLine(err.Error()))
		return r, nil
	}
	defer c.Close()
	r.Reachable, r.FailedUnits, r.DiskOK = true, c.Hello.FailedUnits, c.Hello.FreeBytes >= minFree
	sight := &Sight{Hello: c.Hello}
	switch {
	case sight.confirmed() != ms.Confirmed:
		r.Drift = append(r.Drift, fmt.Sprintf("it has %s and should have %s", orNone(sight.confirmed()), orNone(ms.Confirmed)))
	case sight.active() != sight.confirmed():
		r.Drift = append(r.Drift, fmt.Sprintf("%s is active and not confirmed", orNone(sight.active())))
	case s.D.Wanted(name) != ms.Confirmed:
		r.Drift = append(r.Drift, "the last deploy did not reach it")
	}
	if r.Unwell, err = c.Agent.Unwell(ctx, o.Patience); err != nil {
		return nil, err
	}
	for i := range r.Unwell {
		r.Unwell[i] = Printable(r.Unwell[i])
	}
	drift, err := c.Agent.Drift(ctx)
	if err != nil {
		return nil, err
	}
	for _, d := range drift {
		r.Drift = append(r.Drift, Printable(strings.TrimSpace(d.Kind+" "+d.Path)+": "+d.Detail))
	}
	slices.Sort(r.FailedUnits)
	return r, nil
}

func orNone(r store.Ref) string {
	if r == "" {
		return "nothing"
	}
	return string(r)
}
