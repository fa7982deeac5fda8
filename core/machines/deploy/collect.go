package deploy

import (
	"context"
	"errors"
	"os"

	"tool/core/machines/agent"
)

// Prune forgets all but the newest keep generations, and those that a machine
// has or that are current. It returns the numbers of those that went.
func (s *Session) Prune(keep int) ([]int, error) {
	d := s.D
	var kept []Generation
	var gone []int
	for i, g := range d.Generations {
		used := i >= len(d.Generations)-keep || g.Number == d.Active || g.Number == d.Target
		for _, m := range d.Machines {
			used = used || m.Generation == g.Number
		}
		if used {
			kept = append(kept, g)
			continue
		}
		gone = append(gone, g.Number)
	}
	// The state first: a generation without a root must not be offered.
	d.Generations = kept
	if err := d.Save(); err != nil {
		return nil, err
	}
	for _, n := range gone {
		if err := s.Store.RemoveRoot(d.rootOf(n)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return gone, err
		}
	}
	return gone, nil
}

// Collect has machines remove what their newest keep generations, and all that
// runs, do not need.
func (s *Session) Collect(ctx context.Context, names []string, keep int) (map[string]*agent.Collected, map[string]error) {
	s.Deadlines = s.Deadlines.withDefaults()
	return each(names, func(name string) (*agent.Collected, error) {
		defer s.idle(name)
		c, err := s.connect(ctx, s.D.Machines[name], 0)
		if err != nil {
			return nil, err
		}
		defer c.Close()
		s.doing(name, "collecting")
		return c.Agent.GC(ctx, keep)
	})
}
