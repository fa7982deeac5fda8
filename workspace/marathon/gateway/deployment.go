package gateway

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"marathon-gateway/app"
)

// deployment is a change of one app that is under way. It is kept until the
// swarm runs what the app wants, so that a new leader carries on; what is left
// to do follows from comparing the two.
type deployment struct {
	ID        string   `json:"id"`
	Version   string   `json:"version"`
	AppID     string   `json:"appId"`
	Action    string   `json:"action"` // as Marathon calls its steps
	StartedAt string   `json:"startedAt"`
	Original  *app.App `json:"original,omitempty"` // nil: there was none
}

// Actions of deployments.
const (
	actionStart   = "StartApplication"
	actionScale   = "ScaleApplication"
	actionRestart = "RestartApplication"
	actionStop    = "StopApplication"
)

// wish is one for an app: what turns the current one, nil if there is
// none, into another; nil to remove it.
type wish struct {
	id      string
	action  string // empty: what follows from comparing
	force   bool
	restart bool // replace tasks even if nothing changed
	next    func(current *record) (*app.App, error)
}

// want changes an app and starts a deployment of it.
func (s *state) want(ctx context.Context, w wish, now time.Time) (*deployment, *app.App, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	current := s.apps[w.id]
	next, err := w.next(current)
	if err != nil {
		return nil, nil, err
	}
	var changes []change
	var apply []func()
	for _, d := range s.deployments {
		if d.AppID != w.id {
			continue
		}
		if !w.force {
			return nil, nil, s.locked(w.id)
		}
		changes = append(changes, change{path: deploymentDoc(d.ID)})
		apply = append(apply, func() { delete(s.deployments, d.ID) })
	}
	d := &deployment{ID: newID(), Version: s.nextVersion(w.id, now), AppID: w.id, StartedAt: now.UTC().Format(timeFormat), Action: actionStop}
	if current != nil {
		d.Original = current.App
	}
	if next == nil {
		more, done := s.unsetApp(w.id)
		changes, apply = append(changes, more...), append(apply, done)
	} else {
		if err := s.servicePorts(next); err != nil {
			return nil, nil, err
		}
		next.Version = d.Version
		next.VersionInfo = &app.VersionInfo{LastScalingAt: d.Version, LastConfigChangeAt: d.Version}
		d.Action = actionStart
		if current != nil {
			d.Action = actionRestart
			if !w.restart && sameConfig(current.App, next) {
				d.Action = actionScale
				next.VersionInfo.LastConfigChangeAt = current.App.VersionInfo.LastConfigChangeAt
			} else if next.Instances == current.App.Instances {
				next.VersionInfo.LastScalingAt = current.App.VersionInfo.LastScalingAt
			}
		}
		more, done, err := s.setApp(next)
		if err != nil {
			return nil, nil, err
		}
		changes, apply = append(changes, more...), append(apply, done)
	}
	doc, err := put(deploymentDoc(d.ID), d)
	if err != nil {
		return nil, nil, err
	}
	if err := s.commit(ctx, append(changes, doc)); err != nil {
		return nil, nil, err
	}
	for _, f := range apply {
		f()
	}
	s.deployments[d.ID] = d
	return d, next, nil
}

// sameConfig tells whether two versions of an app differ in nothing that
// running tasks would show.
func sameConfig(a, b *app.App) bool {
	plain := func(x *app.App) string {
		c := *x
		c.Instances, c.Version, c.VersionInfo = 0, "", nil
		c.UpgradeStrategy, c.BackoffFactor, c.BackoffSeconds, c.MaxLaunchDelaySeconds, c.KillSelection = app.UpgradeStrategy{}, 0, 0, 0, ""
		data, err := json.Marshal(c)
		if err != nil {
			return err.Error()
		}
		return string(data)
	}
	return plain(a) == plain(b)
}

// firstServicePort is where Marathon's own range begins.
const firstServicePort = 10000

// servicePorts chooses the service ports that an app leaves open. s.mu is held.
func (s *state) servicePorts(a *app.App) error {
	taken := map[int]bool{}
	for id, r := range s.apps {
		if id == a.ID {
			continue
		}
		for _, p := range r.App.HostPorts() {
			taken[p.ServicePort] = true
		}
	}
	ports := a.HostPorts()
	for _, p := range ports {
		taken[p.ServicePort] = true
	}
	next := firstServicePort
	for i, p := range ports {
		if p.ServicePort != 0 {
			continue
		}
		for taken[next] {
			next++
		}
		if next > 65535 {
			return fmt.Errorf("all service ports are taken")
		}
		taken[next] = true
		a.SetServicePort(i, next)
	}
	return nil
}

// locked is the answer to who wants to change an app that is being deployed.
// s.mu is held.
func (s *state) locked(id string) error {
	e := &apiError{status: 409, Message: "App is locked by one or more deployments. Override with the option '?force=true'. View details at '/v2/deployments/<DEPLOYMENT_ID>'."}
	for _, d := range s.deployments {
		if d.AppID == id {
			e.Deployments = append(e.Deployments, deploymentRef{d.ID})
		}
	}
	return e
}

// deploymentList has all deployments, the oldest first.
func (s *state) deploymentList() []*deployment {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.Collect(maps.Values(s.deployments))
	slices.SortFunc(out, func(a, b *deployment) int { return strings.Compare(a.StartedAt+a.ID, b.StartedAt+b.ID) })
	return out
}

// finish ends a deployment.
func (s *state) finish(ctx context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.deployments[id] == nil {
		return nil
	}
	if err := s.commit(ctx, []change{{path: deploymentDoc(id)}}); err != nil {
		return err
	}
	delete(s.deployments, id)
	return nil
}

// newID is a random UUID.
func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}
