package deploy

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"tool/core/model/event"
)

func TestDeploy(t *testing.T) {
	inFleet(t, func(f *fleet) {
		one := f.plain(3, "one")
		if got := outcomes(f.deploy(one)); got != "m0 confirmed; m1 confirmed; m2 confirmed" {
			t.Error(got)
		}
		f.settled(one, 1)
		if got := strings.Join(f.backend.done(), ","); got != "m0 disk,m0 seed,m0 start,m1 disk,m1 seed,m1 start,m2 disk,m2 seed,m2 start" {
			t.Error(got)
		}
		// Again: nothing is done.
		if r := f.deploy(one); !r.Plan.Empty() || outcomes(r) != "m0 up to date; m1 up to date; m2 up to date" {
			t.Error(outcomes(r))
		}
		f.settled(one, 1)
		two := f.plain(3, "two")
		r := f.deploy(two)
		if len(r.Plan.Waves) != 3 || r.Sent == 0 {
			t.Errorf("waves %v, %d bytes sent", r.Plan.Waves, r.Sent)
		}
		f.settled(two, 2)
		if got := f.backend.machine("m1").sd.restarted(); len(got) != 1 || got[0] != "restart a.service" {
			t.Errorf("what systemd was told: %q", got)
		}
		if got := f.backend.done(); len(got) > 0 {
			t.Errorf("the backend did %q", got)
		}
	})
}

// TestEnded: a deploy that is ended tells of every machine what became of it.
func TestEnded(t *testing.T) {
	inFleet(t, func(f *fleet) {
		f.deploy(f.plain(3, "one"))
		ctx, cancel := context.WithCancel(f.t.Context())
		f.session.Events = sink(func(e event.Event) {
			if d, ok := e.(event.MachineDoing); ok && d.Machine == "m1" && d.Text == "switching" {
				cancel()
			}
		})
		two := f.plain(3, "two")
		r, err := f.try(ctx, two)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("error %v", err)
		}
		if got := outcomes(r); got != "m0 confirmed; m1 unfinished; m2 unfinished" {
			t.Error(got)
		}
		f.session.Events = event.Discard
		f.deploy(two)
		f.settled(two, 2)
	})
}

type sink func(event.Event)

func (f sink) Send(e event.Event) { f(e) }

// TestSettle: a machine that falls over after it was confirmed holds up the
// next one of its group, which is not touched if it does not recover.
func TestSettle(t *testing.T) {
	for name, recovers := range map[string]bool{"recovers": true, "stays down": false} {
		t.Run(name, func(t *testing.T) {
			inFleet(t, func(f *fleet) {
				f.deploy(f.plain(3, "one"))
				fallen := false
				f.session.Events = sink(func(e event.Event) {
					d, ok := e.(event.MachineDoing)
					if !ok || d.Machine != "m0" || d.Text != "confirming" || fallen {
						return
					}
					fallen = true
					sd := f.backend.machine("m0").sd
					sd.set("b.service", "activating")
					if recovers {
						time.AfterFunc(time.Minute, func() { sd.set("b.service", "active") })
					}
				})
				two := f.plain(3, "two")
				began := time.Now()
				r, err := f.try(f.t.Context(), two)
				f.must(err)
				got, took := outcomes(r), time.Since(began)
				if recovers {
					if got != "m0 confirmed; m1 confirmed; m2 confirmed" || took < time.Minute {
						t.Errorf("%s after %s", got, took)
					}
					f.settled(two, 2)
					return
				}
				why := "the rollout stopped before it: m0 was switched and is not well any more: b.service: not true: b.service is active (it is activating ())"
				if want := "m0 confirmed; m1 untouched: " + why + "; m2 untouched: " + why; got != want {
					t.Errorf("%s\nwant %s", got, want)
				}
				f.backend.machine("m0").sd.set("b.service", "active")
				f.session.Events = event.Discard
				f.deploy(two)
				f.settled(two, 2)
			})
		})
	}
}
