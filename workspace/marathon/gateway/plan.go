package gateway

import (
	"math"
	"slices"

	"marathon-gateway/app"
)

// plan is what is to be done about one app now.
type plan struct {
	launch int
	kill   []*task
	bury   []*task // tasks that ended by themselves
	done   bool    // the swarm runs what the app wants
}

// makePlan compares what an app wants with its tasks, the oldest first.
// Tasks of an older configuration are replaced a few at a time, so that at
// least minimumHealthCapacity of the instances stay healthy and at most
// maximumOverCapacity are there in addition.
func makePlan(a *app.App, tasks []*task, healthy func(*task) bool) plan {
	var p plan
	var current, old []*task
	for _, t := range tasks {
		switch {
		case t.over():
			p.bury = append(p.bury, t)
		case t.version < a.VersionInfo.LastConfigChangeAt:
			old = append(old, t)
		default:
			current = append(current, t)
		}
	}
	surplus := len(current) - a.Instances
	if surplus > 0 {
		// First those that do nothing yet, then the youngest.
		byUse := slices.Clone(current)
		slices.Reverse(byUse)
		slices.SortStableFunc(byUse, func(x, y *task) int { return order(healthy(x)) - order(healthy(y)) })
		p.kill = append(p.kill, byUse[:surplus]...)
		current = slices.DeleteFunc(current, func(t *task) bool { return slices.Contains(byUse[:surplus], t) })
	}
	ready := 0
	for _, t := range current {
		if healthy(t) {
			ready++
		}
	}
	if len(old) == 0 {
		p.launch = max(0, a.Instances-len(current))
		p.done = surplus <= 0 && len(p.bury) == 0 && p.launch == 0 && ready == a.Instances
		return p
	}
	keep := int(math.Ceil(a.UpgradeStrategy.MinimumHealthCapacity * float64(a.Instances)))
	most := a.Instances + int(math.Floor(a.UpgradeStrategy.MaximumOverCapacity*float64(a.Instances)))
	if keep == most { // or nothing could ever be replaced
		most++
	}
	for _, t := range old {
		if healthy(t) {
			ready++
		}
	}
	left := len(old)
	for _, t := range old {
		switch {
		case !healthy(t):
		case ready > keep:
			ready--
		default:
			continue
		}
		p.kill = append(p.kill, t)
		left--
	}
	p.launch = max(0, min(a.Instances-len(current), most-len(current)-left))
	return p
}

func order(b bool) int {
	if b {
		return 1
	}
	return 0
}
