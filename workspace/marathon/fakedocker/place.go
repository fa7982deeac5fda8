package fakedocker

import (
	"strings"
	"time"

	"marathon-gateway/docker"
)

const step = 20 * time.Millisecond

// run lets time pass.
func (w *World) run() {
	t := time.NewTicker(step)
	defer t.Stop()
	for {
		select {
		case <-w.done:
			return
		case <-t.C:
			w.mu.Lock()
			seen := map[*swarm]bool{}
			for _, e := range w.engines {
				if s := e.swarm; s != nil && !seen[s] {
					seen[s] = true
					w.advance(s)
				}
			}
			w.mu.Unlock()
		}
	}
}

// advance is one moment in the life of a swarm.
func (w *World) advance(s *swarm) {
	for _, n := range s.nodes {
		n.Status.State = docker.NodeReady
		there := w.engineOf(s, n.ID) != nil
		if !there {
			n.Status.State = docker.NodeDown
		}
		if n.ManagerStatus != nil {
			n.ManagerStatus.Reachability = "reachable"
			if !there {
				n.ManagerStatus.Reachability = "unreachable"
			}
		}
	}
	if !w.led(s) {
		return
	}
	for _, sv := range s.services {
		if !s.has(sv.ID) {
			t := &task{spec: &sv.Spec}
			t.ID, t.ServiceID, t.CreatedAt, t.DesiredState = w.id(), sv.ID, time.Now(), "running"
			t.Status.State, t.Status.Timestamp = "pending", time.Now()
			s.tasks = append(s.tasks, t)
		}
	}
	kept := s.tasks[:0]
	for _, t := range s.tasks {
		if w.attend(s, t) {
			kept = append(kept, t)
		}
	}
	s.tasks = kept
}

func (s *swarm) has(service string) bool {
	for _, t := range s.tasks {
		if t.ServiceID == service {
			return true
		}
	}
	return false
}

// attend moves one task on; false: it is forgotten.
func (w *World) attend(s *swarm, t *task) bool {
	wanted := false
	for _, sv := range s.services {
		wanted = wanted || sv.ID == t.ServiceID
	}
	e := w.engineOf(s, t.NodeID)
	if !wanted {
		if e != nil && e.running[t.ID] != nil {
			_ = e.running[t.ID].Close()
			delete(e.running, t.ID)
		}
		return false
	}
	switch {
	case t.NodeID == "":
		if n := w.choose(s, t); n != nil {
			t.NodeID, t.Status.State, t.Status.Err, t.Status.Timestamp = n.ID, "preparing", "", time.Now()
		} else {
			t.Status.Err = "no suitable node (scheduling constraints not satisfied)"
		}
	case e == nil:
		t.DesiredState = "shutdown" // restarts are for services that want them
	case t.Status.State == "preparing":
		image := t.spec.TaskTemplate.ContainerSpec.Image
		there := false
		for name, id := range e.images {
			there = there || name == image || id == image
		}
		if !there {
			t.finish("rejected", "No such image: "+image)
		} else if err := e.listen(t); err != nil {
			t.finish("failed", err.Error())
		} else {
			t.Status.State, t.Status.Message, t.Status.Timestamp = "running", "started", time.Now()
			if ep := t.spec.EndpointSpec; ep != nil {
				t.Status.PortStatus.Ports = ep.Ports
			}
		}
	case t.Status.State == "running" && e.running[t.ID] == nil:
		t.finish("failed", "task: non-zero exit (137)")
	}
	return true
}

// choose finds the node with the fewest tasks that meets the constraints.
func (w *World) choose(s *swarm, t *task) *docker.Node {
	var best *docker.Node
	least := 0
	for _, n := range s.nodes {
		if n.Status.State != docker.NodeReady || n.Spec.Availability != "active" || !meets(n, t.spec.TaskTemplate.Placement) {
			continue
		}
		count, taken := 0, false
		for _, o := range s.tasks {
			if o.NodeID == n.ID && o.DesiredState == "running" {
				count++
				taken = taken || clash(o.spec, t.spec)
			}
		}
		if !taken && (best == nil || count < least) {
			best, least = n, count
		}
	}
	return best
}

func clash(a, b *docker.ServiceSpec) bool {
	if a.EndpointSpec == nil || b.EndpointSpec == nil {
		return false
	}
	for _, p := range a.EndpointSpec.Ports {
		for _, q := range b.EndpointSpec.Ports {
			if p.PublishedPort == q.PublishedPort && p.Protocol == q.Protocol {
				return true
			}
		}
	}
	return false
}

func meets(n *docker.Node, p *docker.Placement) bool {
	if p == nil {
		return true
	}
	for _, c := range p.Constraints {
		k, v, equal := strings.Cut(c, "==")
		if !equal {
			k, v, _ = strings.Cut(c, "!=")
		}
		have := map[string]string{"node.role": n.Spec.Role, "node.id": n.ID, "node.hostname": n.Description.Hostname}[k]
		if (have == v) != equal {
			return false
		}
	}
	return true
}
