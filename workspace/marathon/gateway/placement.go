package gateway

import (
	"fmt"
	"slices"
	"strings"

	"marathon-gateway/app"
	"marathon-gateway/docker"
)

const onNode = "node.id=="

// placement says where a task may run. Where it does run is Swarm's choice,
// unless the app's tasks must all be on different hosts: Swarm has no such
// constraint between services, so the gateway chooses the host. lacking are
// hosts without the image.
func (s *scheduler) placement(c *cluster, a *app.App, tasks []*task, lacking []string) ([]string, error) {
	var out []string
	if len(s.settings.workers) > 0 {
		out = append(out, "node.role==worker")
	}
	for _, host := range lacking {
		out = append(out, "node.hostname!="+host)
	}
	if len(a.Constraints) == 0 {
		return out, nil
	}
	used := map[string]int{} // tasks on each node
	for _, t := range c.tasks {
		if t.node != nil {
			used[t.node.ID]++
		}
	}
	var free []docker.Node
	for _, n := range c.nodes {
		ok := n.Status.State == docker.NodeReady && n.Spec.Availability == "active" && (n.Spec.Role == docker.RoleWorker || len(s.settings.workers) == 0)
		ok = ok && !slices.Contains(lacking, n.Description.Hostname)
		if ok && !slices.ContainsFunc(tasks, func(t *task) bool { return t.node != nil && t.node.ID == n.ID }) {
			free = append(free, n)
		}
	}
	if len(free) == 0 {
		return nil, fmt.Errorf("no host is left that has no task of the app yet, as its constraint hostname UNIQUE wants")
	}
	slices.SortFunc(free, func(x, y docker.Node) int {
		if d := used[x.ID] - used[y.ID]; d != 0 {
			return d
		}
		return strings.Compare(x.Description.Hostname, y.Description.Hostname)
	})
	return append(out, onNode+free[0].ID), nil
}

// pinned is the node that a placement names, or nil.
func pinned(c *cluster, placement []string) *docker.Node {
	for _, p := range placement {
		if id, ok := strings.CutPrefix(p, onNode); ok {
			for i := range c.nodes {
				if c.nodes[i].ID == id {
					return &c.nodes[i]
				}
			}
		}
	}
	return nil
}
