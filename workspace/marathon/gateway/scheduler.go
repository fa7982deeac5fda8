package gateway

import (
	"context"
	"fmt"
	"log"
	"slices"
	"sync"
	"time"

	"marathon-gateway/app"
	"marathon-gateway/docker"
)

const (
	passInterval  = time.Second
	passTimeout   = 30 * time.Second
	launchTimeout = 10 * time.Minute // of a task that a node accepted
	settledAfter  = 10 * time.Second // a task that ran so long counts as started
	maxLaunches   = 20               // of an app in one pass
)

// scheduler makes the swarm run what the apps want, pass by pass: each looks
// at everything afresh, so that nothing depends on what an earlier one, or an
// earlier leader, left undone.
type scheduler struct {
	settings *settings
	state    *state
	members  *membership
	health   *health
	ports    *portPool
	kicked   chan struct{}

	mu      sync.Mutex
	backoff *backoff
	seen    *cluster // nil: the swarm was not seen yet
	trouble string   // what was logged last
}

func newScheduler(s *settings, st *state, m *membership) *scheduler {
	return &scheduler{settings: s, state: st, members: m, health: newHealth(), ports: newPool(s.ports), kicked: make(chan struct{}, 1), backoff: newBackoff()}
}

// kick makes the next pass come at once.
func (s *scheduler) kick() {
	select {
	case s.kicked <- struct{}{}:
	default:
	}
}

func (s *scheduler) run(ctx context.Context) {
	for ctx.Err() == nil {
		pass, cancel := context.WithTimeout(ctx, passTimeout)
		err := s.pass(pass, time.Now())
		cancel()
		s.report(ctx, err)
		s.health.check(ctx, s.tasks(""), s.appOf, time.Now()) // goes on after the pass
		select {
		case <-ctx.Done():
		case <-s.kicked:
		case <-time.After(s.members.hosts.options.pace(passInterval)):
		}
	}
}

// report logs a trouble when it begins and when it ends.
func (s *scheduler) report(ctx context.Context, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text == s.trouble || ctx.Err() != nil {
		return
	}
	s.trouble = text
	if text == "" {
		text = "working again"
	}
	log.Printf("scheduler: %s", text)
}

// tasks are those that were seen last, of one app, or of all if id is empty.
func (s *scheduler) tasks(id string) []*task {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		return nil
	}
	var out []*task
	for _, t := range s.seen.tasks {
		if id == "" || t.appID == id {
			out = append(out, t)
		}
	}
	return out
}

// wait is how long an app has to wait for its next launch.
func (s *scheduler) wait(a *app.App, now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.backoff.left(a, now)
}

func (s *scheduler) resetWait(id string) {
	s.mu.Lock()
	s.backoff.reset(id)
	s.mu.Unlock()
	s.kick()
}

// kill ends tasks; new ones take their places if the app still wants them.
func (s *scheduler) kill(ctx context.Context, tasks []*task, why string) error {
	m := s.members.manager()
	if m == nil {
		return &apiError{status: 503, Message: "There is no swarm yet"}
	}
	for _, t := range tasks {
		if err := s.remove(ctx, m, t, why); err != nil {
			return err
		}
	}
	s.kick()
	return nil
}

func (s *scheduler) remove(ctx context.Context, m *docker.Client, t *task, why string) error {
	if err := m.RemoveService(ctx, t.service); err != nil && !docker.IsStatus(err, 404) {
		return err
	}
	log.Printf("task %s: removed: %s", t.id, why)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ports.release(t.ports, time.Now())
	if s.seen != nil { // a copy: others read what was handed out
		seen := *s.seen
		seen.tasks = slices.DeleteFunc(slices.Clone(seen.tasks), func(o *task) bool { return o.id == t.id })
		s.seen = &seen
	}
	return nil
}

func (s *scheduler) pass(ctx context.Context, now time.Time) error {
	m := s.members.manager()
	if m == nil {
		return s.members.problem()
	}
	c, err := observe(ctx, m)
	if err != nil {
		return err
	}
	s.judge(c.tasks, now)
	s.mu.Lock()
	s.seen = c
	s.mu.Unlock()
	byApp := map[string][]*task{}
	for _, t := range c.tasks {
		byApp[t.appID] = append(byApp[t.appID], t)
	}
	apps := map[string]*app.App{}
	for _, r := range s.state.list() {
		apps[r.App.ID] = r.App
		for _, p := range r.App.HostPorts() {
			c.ports[p.HostPort] = true // fixed ones are not to be chosen
		}
	}
	for id, tasks := range byApp {
		if apps[id] != nil {
			continue
		}
		for _, t := range tasks {
			if err := s.remove(ctx, m, t, "its app is gone"); err != nil {
				return err
			}
		}
	}
	settled := map[string]bool{}
	var first error
	for id, a := range apps {
		done, err := s.tend(ctx, m, c, a, byApp[id], now)
		settled[id] = done
		if err != nil && first == nil {
			first = fmt.Errorf("%s: %w", id, err) // the others are tended all the same
		}
	}
	for _, d := range s.state.deploymentList() {
		a := apps[d.AppID]
		// An app that was changed since is not what was looked at.
		if a != nil && (!settled[d.AppID] || a.Version != d.Version) || a == nil && (len(byApp[d.AppID]) > 0 || s.state.app(d.AppID) != nil) {
			continue
		}
		if err := s.state.finish(ctx, d.ID); err != nil {
			return err
		}
		log.Printf("deployment %s of %s: finished", d.ID, d.AppID)
	}
	return first
}

// appOf is the app that a task belongs to, in the task's version if it is kept.
func (s *scheduler) appOf(t *task) *app.App {
	var newest *app.App
	for _, a := range s.state.history(t.appID) {
		if newest == nil {
			newest = a
		}
		if a.Version == t.version {
			return a
		}
	}
	return newest
}

// judge gives up tasks that the swarm is content with and the app is not.
func (s *scheduler) judge(tasks []*task, now time.Time) {
	for _, t := range tasks {
		why := ""
		if a := s.appOf(t); a != nil && t.state == taskRunning {
			why = s.health.failing(t, a)
		} else if t.node != nil && !t.over() && t.state != taskRunning && now.Sub(t.created) > launchTimeout {
			why = fmt.Sprintf("it did not start within %s: %s", launchTimeout, t.message)
		}
		if why != "" {
			t.state, t.message = taskFailed, why
		}
	}
}

// tend does for one app what is to be done now, and tells whether it is done.
func (s *scheduler) tend(ctx context.Context, m *docker.Client, c *cluster, a *app.App, tasks []*task, now time.Time) (bool, error) {
	p := makePlan(a, tasks, func(t *task) bool {
		of := s.appOf(t)
		return of != nil && s.health.healthy(t, of) // nil: it was deleted a moment ago
	})
	for _, t := range p.bury {
		if err := s.bury(ctx, m, a, t, now); err != nil {
			return false, err
		}
	}
	for _, t := range p.kill {
		if err := s.remove(ctx, m, t, "its app wants fewer tasks, or others"); err != nil {
			return false, err
		}
	}
	s.mu.Lock()
	if p.done && !slices.ContainsFunc(tasks, func(t *task) bool { return now.Sub(t.startedAt) < settledAfter }) {
		s.backoff.settled(a)
	}
	left := s.backoff.left(a, now)
	s.mu.Unlock()
	if left > 0 {
		return p.done, nil
	}
	gone := slices.Concat(p.bury, p.kill)
	stay := slices.DeleteFunc(slices.Clone(tasks), func(t *task) bool { return slices.Contains(gone, t) })
	return p.done, s.launch(ctx, m, c, a, stay, min(p.launch, maxLaunches), now)
}

// bury removes a task that ended by itself.
func (s *scheduler) bury(ctx context.Context, m *docker.Client, a *app.App, t *task, now time.Time) error {
	f := &failure{AppID: a.ID, Host: t.host(), Message: t.message, State: t.state, TaskID: t.id, Timestamp: now.UTC().Format(timeFormat), Version: t.version}
	if t.node != nil {
		f.SlaveID = t.node.ID
	}
	if err := s.state.failed(ctx, f); err != nil {
		return err
	}
	if t.state != taskLost {
		s.mu.Lock()
		s.backoff.failed(a, now)
		s.mu.Unlock()
	}
	return s.remove(ctx, m, t, t.state+": "+t.message)
}

// launch starts tasks of an app.
func (s *scheduler) launch(ctx context.Context, m *docker.Client, c *cluster, a *app.App, tasks []*task, count int, now time.Time) error {
	if count == 0 {
		return nil
	}
	image, lacking := s.members.image(ctx, a.Container.Docker)
	for range count {
		// The app may have been changed or deleted a moment ago.
		if r := s.state.app(a.ID); r == nil || r.App.Version != a.Version {
			return nil
		}
		nodes, err := s.placement(c, a, tasks, lacking)
		if err != nil {
			return err
		}
		s.mu.Lock()
		ports, err := s.ports.take(a.HostPorts(), c.ports, now)
		s.mu.Unlock()
		if err != nil {
			return err
		}
		l := &launch{app: a, id: app.TaskPrefix(a.ID) + "." + newID(), image: image, ports: ports, nodes: nodes, now: now}
		spec, err := l.spec()
		if err != nil {
			return err
		}
		id, err := m.CreateService(ctx, spec)
		if err != nil {
			return err
		}
		log.Printf("task %s: launched with ports %v", l.id, ports)
		t := newTask(&docker.Service{ID: id, CreatedAt: now, Spec: *spec})
		t.node = pinned(c, nodes)
		tasks = append(tasks, t)
		s.mu.Lock()
		seen := *s.seen
		seen.tasks = append(slices.Clone(seen.tasks), t)
		s.seen = &seen
		s.mu.Unlock()
	}
	return nil
}
