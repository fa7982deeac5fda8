package gateway

import (
	"time"

	"marathon-gateway/app"
)

// backoff makes an app whose tasks fail wait longer and longer between
// launches.
type backoff struct {
	waits map[string]*wait // by app
}

type wait struct {
	version string // of the configuration: a new one starts afresh
	delay   time.Duration
	until   time.Time
}

func newBackoff() *backoff { return &backoff{waits: map[string]*wait{}} }

// failed notes that a task ended by itself.
func (b *backoff) failed(a *app.App, now time.Time) {
	first := time.Duration(a.BackoffSeconds * float64(time.Second))
	w := b.waits[a.ID]
	if w == nil || w.version != a.VersionInfo.LastConfigChangeAt {
		w = &wait{version: a.VersionInfo.LastConfigChangeAt}
		b.waits[a.ID] = w
	}
	if w.delay == 0 {
		w.delay = first
	} else if now.After(w.until) || w.until.IsZero() { // several that fail together count once
		w.delay = time.Duration(float64(w.delay) * a.BackoffFactor)
	}
	w.delay = min(w.delay, time.Duration(a.MaxLaunchDelaySeconds*float64(time.Second)))
	w.until = now.Add(w.delay)
}

// settled notes that the app runs as it should.
func (b *backoff) settled(a *app.App) { delete(b.waits, a.ID) }

// reset lets the app launch at once.
func (b *backoff) reset(id string) { delete(b.waits, id) }

// left is how long the app has to wait.
func (b *backoff) left(a *app.App, now time.Time) time.Duration {
	w := b.waits[a.ID]
	if w == nil || w.version != a.VersionInfo.LastConfigChangeAt {
		return 0
	}
	return max(0, w.until.Sub(now))
}
