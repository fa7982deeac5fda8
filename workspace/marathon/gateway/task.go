package gateway

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"marathon-gateway/docker"
)

// task is one of an app's tasks. In the swarm it is a service with one
// replica, which the swarm places and never restarts; what Marathon tells of a
// task and Swarm does not know is in the service's labels.
type task struct {
	id       string
	appID    string
	version  string
	ports    []int // on the host
	services []int
	stagedAt string

	service   string // the service's id
	created   time.Time
	state     string
	message   string
	startedAt time.Time
	node      *docker.Node // nil: not placed yet
}

// Labels of services.
const (
	labelTask    = "marathon.task"
	labelApp     = "marathon.app"
	labelVersion = "marathon.version"
	labelPorts   = "marathon.ports"
	labelService = "marathon.service_ports"
	labelStaged  = "marathon.staged_at"
)

// States of tasks, as Mesos names them.
const (
	taskStaging  = "TASK_STAGING"
	taskStarting = "TASK_STARTING"
	taskRunning  = "TASK_RUNNING"
	taskFinished = "TASK_FINISHED"
	taskFailed   = "TASK_FAILED"
	taskLost     = "TASK_LOST"
)

func (t *task) over() bool {
	return t.state == taskFinished || t.state == taskFailed || t.state == taskLost
}

func (t *task) host() string {
	if t.node == nil {
		return ""
	}
	return t.node.Description.Hostname
}

func (t *task) address() string {
	if t.node == nil {
		return ""
	}
	return t.node.Status.Addr
}

// cluster is what was seen of the swarm at one time.
type cluster struct {
	tasks []*task
	nodes []docker.Node
	ports map[int]bool // on some host, taken or about to be free
}

// observe asks a manager what the swarm does.
func observe(ctx context.Context, m *docker.Client) (*cluster, error) {
	nodes, err := m.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	services, err := m.Services(ctx)
	if err != nil {
		return nil, err
	}
	tasks, err := m.Tasks(ctx)
	if err != nil {
		return nil, err
	}
	c := &cluster{nodes: nodes, ports: map[int]bool{}}
	newest := map[string]*docker.Task{}
	for i := range tasks {
		t := &tasks[i]
		for _, p := range t.Status.PortStatus.Ports {
			c.ports[p.PublishedPort] = true
		}
		if old := newest[t.ServiceID]; old == nil || t.CreatedAt.After(old.CreatedAt) {
			newest[t.ServiceID] = t
		}
	}
	for i := range services {
		s := &services[i]
		if s.Spec.EndpointSpec != nil {
			for _, p := range s.Spec.EndpointSpec.Ports {
				c.ports[p.PublishedPort] = true
			}
		}
		if t := newTask(s); t != nil {
			t.see(newest[s.ID], nodes)
			if p := s.Spec.TaskTemplate.Placement; p != nil && t.node == nil {
				t.node = pinned(c, p.Constraints)
			}
			if t.node != nil && t.node.Status.State == docker.NodeDown && !t.over() {
				t.state, t.message = taskLost, "the node is down"
			}
			for _, p := range t.ports {
				c.ports[p] = true
			}
			c.tasks = append(c.tasks, t)
		}
	}
	slices.SortFunc(c.tasks, func(a, b *task) int {
		return cmp.Or(a.created.Compare(b.created), strings.Compare(a.id, b.id))
	})
	return c, nil
}

// newTask reads a service's labels; nil: it is not one of the gateway's.
func newTask(s *docker.Service) *task {
	l := s.Spec.Labels
	t := &task{id: l[labelTask], appID: l[labelApp], version: l[labelVersion], stagedAt: l[labelStaged], service: s.ID, created: s.CreatedAt, state: taskStaging}
	if t.id == "" || t.appID == "" {
		return nil
	}
	// Labels that somebody spoilt: the task has no ports, and is replaced with
	// the next change.
	_ = json.Unmarshal([]byte(l[labelPorts]), &t.ports)
	_ = json.Unmarshal([]byte(l[labelService]), &t.services)
	return t
}

// see fills in how the swarm's only attempt at the task went.
func (t *task) see(st *docker.Task, nodes []docker.Node) {
	if st == nil {
		return
	}
	t.message = st.Status.Err
	if t.message == "" {
		t.message = st.Status.Message
	}
	lost := false
	if st.NodeID != "" {
		i := slices.IndexFunc(nodes, func(n docker.Node) bool { return n.ID == st.NodeID })
		lost = i < 0
		if i >= 0 {
			t.node = &nodes[i]
		}
	}
	switch st.Status.State {
	case "complete":
		t.state = taskFinished
	case "failed", "rejected", "shutdown", "orphaned", "remove":
		t.state = taskFailed
	case "running":
		t.state, t.startedAt = taskRunning, st.Status.Timestamp
	case "starting":
		t.state = taskStarting
	}
	switch {
	case t.over():
	case lost:
		t.state, t.message = taskLost, "the node is gone"
	case st.DesiredState == "shutdown" || st.DesiredState == "remove":
		t.state, t.message = taskLost, "the swarm gave the task up"
	}
}
