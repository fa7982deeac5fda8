package query

import (
	"context"
	"slices"
)

// unbounded is the depth of a search without a limit.
const unbounded = -1

// deps returns start and what it depends on, at most depth steps away. Each
// level's packages are loaded side by side.
func (w *world) deps(ctx context.Context, start set, depth int) (set, error) {
	seen := append(set(nil), start...)
	front := w.sorted(start)
	for d := 0; len(front) > 0 && d != depth; d++ {
		var next []int
		for _, id := range front {
			es, err := w.expand(ctx, id)
			if err != nil {
				return nil, err
			}
			for _, to := range es {
				if !seen.has(to) {
					seen.add(to)
					next = append(next, to)
				}
			}
		}
		if err := w.resolve(ctx, next); err != nil {
			return nil, err
		}
		front = slices.DeleteFunc(next, w.missing.has)
	}
	return seen.except(w.missing), nil
}

// rdeps returns those of within, which must be closed under deps, that depend
// on a target of start, at most depth steps away, and start itself.
func (w *world) rdeps(ctx context.Context, within, start set, depth int) (set, error) {
	back := make([][]int, len(w.labels))
	for id := range within.all() {
		es, err := w.expand(ctx, id)
		if err != nil {
			return nil, err
		}
		for _, to := range es {
			if within.has(to) {
				back[to] = append(back[to], id)
			}
		}
	}
	seen := within.intersect(start)
	front := w.sorted(seen)
	for d := 0; len(front) > 0 && d != depth; d++ {
		var next []int
		for _, id := range front {
			for _, from := range back[id] {
				if !seen.has(from) {
					seen.add(from)
					next = append(next, from)
				}
			}
		}
		front = next
	}
	return seen, nil
}

// allPaths returns all that is on a path from a target of from to one of to.
func (w *world) allPaths(ctx context.Context, from, to set) (set, error) {
	within, err := w.deps(ctx, from, unbounded)
	if err != nil {
		return nil, err
	}
	return w.rdeps(ctx, within, to, unbounded)
}

// somePath returns a shortest path, or nil. Among several it takes the one
// that starts at the first label and follows attributes in their order.
func (w *world) somePath(ctx context.Context, from, to set) ([]int, error) {
	w.lastPath = nil
	came := map[int]int{}
	front := w.sorted(from)
	for _, id := range front {
		came[id] = -1
	}
	for len(front) > 0 {
		for _, id := range front {
			if !to.has(id) {
				continue
			}
			for ; id >= 0; id = came[id] {
				w.lastPath = append(w.lastPath, id)
			}
			slices.Reverse(w.lastPath)
			return w.lastPath, nil
		}
		var next []int
		for _, id := range front {
			es, err := w.expand(ctx, id)
			if err != nil {
				return nil, err
			}
			for _, t := range es {
				if _, ok := came[t]; !ok {
					came[t] = id
					next = append(next, t)
				}
			}
		}
		if err := w.resolve(ctx, next); err != nil {
			return nil, err
		}
		front = slices.DeleteFunc(next, w.missing.has)
	}
	return nil, nil
}
