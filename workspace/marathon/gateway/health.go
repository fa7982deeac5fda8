package gateway

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"marathon-gateway/app"
)

// healthResult is what is known of one check of one task.
type healthResult struct {
	Alive               bool    `json:"alive"`
	ConsecutiveFailures int     `json:"consecutiveFailures"`
	FirstSuccess        *string `json:"firstSuccess"`
	LastFailure         *string `json:"lastFailure"`
	LastFailureCause    *string `json:"lastFailureCause"`
	LastSuccess         *string `json:"lastSuccess"`
	TaskID              string  `json:"taskId"`
	InstanceID          string  `json:"instanceId"`
}

// health performs the health checks of running tasks, a few at a time.
// COMMAND checks are the engine's: a task with one runs when it is healthy.
type health struct {
	client *http.Client
	slots  chan struct{}

	mu      sync.Mutex
	results map[checkKey]*checkState
}

type checkKey struct {
	task  string
	index int
}

type checkState struct {
	result healthResult
	due    time.Time
	busy   bool
}

const healthSlots = 8

func newHealth() *health {
	// A task's certificate proves nothing: its name is a host and a port that
	// were made up a moment ago.
	t := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	return &health{
		client:  &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		slots:   make(chan struct{}, healthSlots),
		results: map[checkKey]*checkState{},
	}
}

// of has the results of a task's checks; nil for one that has none yet.
func (h *health) of(t *task, a *app.App) []*healthResult {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]*healthResult, 0, len(a.HealthChecks))
	for i := range a.HealthChecks {
		c := h.results[checkKey{t.id, i}]
		switch {
		case a.HealthChecks[i].Kind() == "COMMAND":
			if t.state == taskRunning {
				at := t.startedAt.UTC().Format(timeFormat)
				out = append(out, &healthResult{Alive: true, FirstSuccess: &at, LastSuccess: &at, TaskID: t.id, InstanceID: t.id})
			}
		case c != nil && (c.result.LastFailure != nil || c.result.LastSuccess != nil):
			r := c.result
			out = append(out, &r)
		}
	}
	return out
}

// healthy tells whether a task runs and passes all of its checks.
func (h *health) healthy(t *task, a *app.App) bool {
	if t.state != taskRunning {
		return false
	}
	rs := h.of(t, a)
	for _, r := range rs {
		if !r.Alive {
			return false
		}
	}
	return len(rs) == len(a.HealthChecks)
}

// failing says why a task has to be replaced; empty: it has not.
func (h *health) failing(t *task, a *app.App) string {
	for i, r := range h.of(t, a) {
		most := a.HealthChecks[i].MaxConsecutiveFailures
		if most > 0 && r.ConsecutiveFailures >= most {
			return fmt.Sprintf("health check %d failed %d times: %s", i, r.ConsecutiveFailures, *r.LastFailureCause)
		}
	}
	return ""
}

// check starts what is due and forgets tasks that are gone. apps has the
// version of the app that each task was started with, as far as it is known.
func (h *health) check(ctx context.Context, tasks []*task, appOf func(*task) *app.App, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	there := map[checkKey]bool{}
	for _, t := range tasks {
		a := appOf(t)
		if a == nil || t.state != taskRunning || t.address() == "" {
			continue
		}
		for i := range a.HealthChecks {
			if a.HealthChecks[i].Kind() == "COMMAND" {
				continue
			}
			key := checkKey{t.id, i}
			there[key] = true
			c := h.results[key]
			if c == nil {
				c = &checkState{result: healthResult{TaskID: t.id, InstanceID: t.id}}
				h.results[key] = c
			}
			if c.busy || now.Before(c.due) {
				continue
			}
			select {
			case h.slots <- struct{}{}:
			default:
				return // all slots are busy: the next round comes soon
			}
			c.busy, c.due = true, now.Add(seconds(a.HealthChecks[i].IntervalSeconds))
			go func() {
				defer func() { <-h.slots }()
				err := h.perform(ctx, &a.HealthChecks[i], t)
				h.note(c, &a.HealthChecks[i], t, err, time.Now())
			}()
		}
	}
	for key := range h.results {
		if !there[key] {
			delete(h.results, key)
		}
	}
}

func (h *health) note(c *checkState, hc *app.HealthCheck, t *task, err error, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	c.busy = false
	at := now.UTC().Format(timeFormat)
	r := &c.result
	if err == nil {
		r.Alive, r.ConsecutiveFailures, r.LastSuccess = true, 0, &at
		if r.FirstSuccess == nil {
			r.FirstSuccess = &at
		}
		return
	}
	if r.FirstSuccess == nil && now.Sub(t.startedAt) < seconds(hc.GracePeriodSeconds) {
		return // still starting
	}
	cause := err.Error()
	r.Alive, r.LastFailure, r.LastFailureCause = false, &at, &cause
	r.ConsecutiveFailures++
}

func (h *health) perform(ctx context.Context, hc *app.HealthCheck, t *task) error {
	ctx, cancel := context.WithTimeout(ctx, seconds(hc.TimeoutSeconds))
	defer cancel()
	port := 0
	switch {
	case hc.Port != nil:
		port = *hc.Port
	case hc.PortIndex != nil && *hc.PortIndex < len(t.ports):
		port = t.ports[*hc.PortIndex]
	default:
		return fmt.Errorf("the task has no such port")
	}
	target := net.JoinHostPort(t.address(), strconv.Itoa(port))
	if hc.Kind() == "TCP" {
		c, err := (&net.Dialer{}).DialContext(ctx, "tcp", target)
		if err != nil {
			return err
		}
		return c.Close()
	}
	scheme, path := "http://", hc.Path
	if hc.Kind() == "HTTPS" {
		scheme = "https://"
	}
	if len(path) == 0 || path[0] != '/' {
		path = "/" + path
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+target+path, nil)
	if err != nil {
		return err
	}
	res, err := h.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	_, _ = io.CopyN(io.Discard, res.Body, 64<<10)
	if res.StatusCode < 200 || res.StatusCode > 399 {
		return fmt.Errorf("%s answered %s", path, res.Status)
	}
	return nil
}
