package deploy

import (
	"fmt"
	"slices"
	"strconv"
)

// waves splits machines into sets that are switched one set after the other. In
// each, no rollout group loses more machines than its quorum allows, given those
// that are down already, and no more than parallel machines switch (0: any
// number). Machines of no group go first, for nothing waits for them.
//
// A group that is down to less than its quorum has nothing to lose: its
// machines go at once, or it could never be mended.
func waves(groups []Group, machines []string, down map[string]bool, parallel int) ([][]string, error) {
	spare := make([]int, len(groups)) // how many of each group may switch at once
	of := map[string][]int{}
	for i, g := range groups {
		quorum := len(g.Machines) - 1
		if g.Quorum != "" {
			q, err := strconv.Atoi(g.Quorum)
			if err != nil || q < 0 || q > len(g.Machines) {
				return nil, fmt.Errorf("rollout group %s: quorum %q is not a number up to %d", g.Name, g.Quorum, len(g.Machines))
			}
			quorum = q
		}
		up := len(g.Machines)
		for _, m := range g.Machines {
			of[m] = append(of[m], i)
			if down[m] {
				up--
			}
		}
		switch {
		case up < quorum:
			spare[i] = len(g.Machines)
		case quorum == len(g.Machines):
			spare[i] = 1 // none may be spared, and yet they must be changed: one at a time
		default:
			spare[i] = max(up-quorum, 1)
		}
	}
	left := slices.Clone(machines)
	slices.SortStableFunc(left, func(a, b string) int { return len(of[a]) - len(of[b]) })
	var out [][]string
	for len(left) > 0 {
		free := slices.Clone(spare)
		var wave, later []string
		for _, m := range left {
			fits := parallel <= 0 || len(wave) < parallel
			for _, g := range of[m] {
				// One that is down already takes nothing from its group.
				fits = fits && (free[g] > 0 || down[m])
			}
			if !fits {
				later = append(later, m)
				continue
			}
			for _, g := range of[m] {
				if !down[m] {
					free[g]--
				}
			}
			wave = append(wave, m)
		}
		if len(wave) == 0 { // cannot be: every spare is at least one
			return nil, fmt.Errorf("no order of %v keeps the rollout groups' quorums", later)
		}
		out, left = append(out, wave), later
	}
	return out, nil
}
