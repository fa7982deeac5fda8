package deploy

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"tool/core/machines/activate"
	"tool/core/machines/agent"
)

// TestUnitFails: the machine goes back, those of its wave do too, later waves
// are left alone, and after the mistake is mended a deploy comes through.
func TestUnitFails(t *testing.T) {
	inFleet(t, func(f *fleet) {
		three := func(content map[string]string) *Object {
			all := map[string]sys{}
			for _, n := range []string{"m0", "m1", "m2", "m3"} {
				all[n] = sys{units: map[string]string{"a.service": content[n], "b.service": "b"}}
			}
			return f.object(all, func(o *Object) { o.RolloutGroups = []Group{{"g", []string{"m0", "m1", "m2", "m3"}, "2"}} })
		}
		one := three(map[string]string{})
		f.deploy(one)
		bad := three(map[string]string{"m0": "two", "m1": "two, to fail", "m2": "two", "m3": "two"})
		r, err := f.try(f.t.Context(), bad)
		f.must(err)
		if got := outcomes(r); got != "m0 rolled back: another machine of its wave failed; m1 rolled back: a.service has failed; m2 untouched: the rollout stopped before it; m3 untouched: the rollout stopped before it" {
			t.Error(got)
		}
		if r.Bad() != 2 || r.Count(Waiting) != 2 {
			t.Errorf("%d bad, %d waiting", r.Bad(), r.Count(Waiting))
		}
		text := r.of("m1").Err.Error()
		for _, want := range []string{"exit-code", "status 1", "a.service said so", "it changed: "} {
			if !strings.Contains(text, want) {
				t.Errorf("%q has no %q", text, want)
			}
		}
		if strings.Contains(text, "\x1b") {
			t.Errorf("a machine's escape sequence comes through: %q", text)
		}
		f.open()
		g := f.d.generation(2)
		if g == nil || g.State != GenerationFailed || !strings.Contains(g.Note, "a.service has failed") && !strings.Contains(g.Note, "another machine") {
			t.Fatalf("generation 2: %+v", g)
		}
		if f.d.Active != 1 || f.d.Target != 2 {
			t.Errorf("current %d, wanted %d", f.d.Active, f.d.Target)
		}
		for i := range one.Machines {
			m := &one.Machines[i]
			if f.d.Machines[m.Name].Confirmed != m.ref {
				t.Errorf("%s: %+v", m.Name, f.d.Machines[m.Name])
			}
			if got := f.backend.machine(m.Name).sd.state["a.service"]; got != "active" {
				t.Errorf("%s: a.service is %s", m.Name, got)
			}
		}
		if f.d.Machines["m1"].Failure == "" || f.d.Machines["m2"].Failure != "" {
			t.Error("whose attempt failed is not remembered")
		}
		// The same again is not up to date: it fails again.
		if r, err = f.try(f.t.Context(), bad); err != nil || r.of("m1").State != RolledBack || r.Plan.Generation != 2 {
			t.Errorf("again: %s, %v", outcomes(r), err)
		}
		// What they have, deployed again, is no new generation.
		f.deploy(one)
		if f.d.Active != 1 || f.d.Target != 1 || f.d.Machines["m1"].Failure != "" {
			t.Errorf("current %d, wanted %d, failure %q", f.d.Active, f.d.Target, f.d.Machines["m1"].Failure)
		}
		good := three(map[string]string{"m0": "two", "m1": "two", "m2": "two", "m3": "two"})
		f.deploy(good)
		f.settled(good, 3)
	})
}

// TestUnreachable: one machine without a network. The others go on, and it
// follows when it can.
func TestUnreachable(t *testing.T) {
	inFleet(t, func(f *fleet) {
		f.deploy(f.plain(2, "one"))
		m := f.backend.machine("m1")
		m.setDeaf(true)
		m.cut()
		two := f.plain(2, "two")
		start := time.Now()
		r, err := f.try(f.t.Context(), two)
		f.must(err)
		t.Log(outcomes(r))
		if o := r.of("m1"); o == nil || o.State == Confirmed || o.State == Unchanged {
			t.Errorf("m1: %+v", o)
		}
		if took := time.Since(start); took > 2*time.Minute {
			t.Errorf("it took %s to give up", took)
		}
		f.open()
		if g := f.d.generation(2); g == nil || g.State == GenerationConfirmed {
			t.Errorf("generation 2: %+v", g)
		}
		m.setDeaf(false)
		f.deploy(two)
		f.settled(two, 2)
	})
}

// TestLostForGood: a machine whose new system has no network goes back by itself.
func TestLostForGood(t *testing.T) {
	inFleet(t, func(f *fleet) {
		one := f.plain(1, "one")
		f.deploy(one)
		m := f.backend.machine("m0")
		f.backend.setHook(func(point string) {
			if point == "m0 answer switch" {
				m.setDeaf(true)
				m.cut()
			}
		})
		r, err := f.try(f.t.Context(), f.plain(1, "two"))
		f.must(err)
		if o := r.of("m0"); o.State != Failed || !errors.As(o.Err, new(*UnreachableError)) {
			t.Errorf("%s", outcomes(r))
		}
		a, err := m.open()
		f.must(err)
		defer a.Close()
		for st, _ := a.Status(); !st.Over(); st, _ = a.Status() {
			time.Sleep(time.Second)
		}
		st, err := a.Status()
		f.must(err)
		if st.Result != activate.ResultReverted || !strings.Contains(st.Why, "nobody confirmed it") {
			t.Errorf("%s", st)
		}
		m.setDeaf(false)
		f.backend.setHook(nil)
		if p := f.plan(one, func(o *Options) { o.Generation = 1 }); !p.Empty() {
			t.Errorf("it did not come back to generation 1: %+v", p.Machines)
		}
	})
}

// TestWaveIsOne: a machine that cannot be connected to anew after its switch keeps
// the others of its wave from being confirmed.
func TestWaveIsOne(t *testing.T) {
	inFleet(t, func(f *fleet) {
		one := f.plain(2, "one")
		f.deploy(one)
		m := f.backend.machine("m0")
		f.backend.setHook(func(point string) {
			if point == "m0 answer switch" { // over the connection that there is, it is heard
				m.setDeaf(true)
			}
		})
		two := f.plain(2, "two")
		two.RolloutGroups = nil
		if p := f.plan(two); len(p.Waves) != 1 || len(p.Waves[0]) != 2 {
			t.Fatalf("waves %q", p.Waves)
		}
		r, err := f.try(f.t.Context(), two)
		f.must(err)
		if o := r.of("m0"); o.State != Failed || !errors.As(o.Err, new(*UnreachableError)) {
			t.Errorf("%s", outcomes(r))
		}
		if o := r.of("m1"); o.State != RolledBack {
			t.Errorf("%s", outcomes(r))
		}
	})
}

// TestFailingStep: a machine that cannot be made is named; the others are made.
func TestFailingStep(t *testing.T) {
	inFleet(t, func(f *fleet) {
		o := f.plain(2, "one")
		f.backend.fail["m1 start"] = errors.New("no memory left")
		r, err := f.try(f.t.Context(), o)
		f.must(err)
		if got := outcomes(r); got != "m0 confirmed; m1 failed: start it: no memory left" {
			t.Error(got)
		}
		if g := f.d.generation(1); g.State != GenerationFailed || g.Note != "m1: start it: no memory left" {
			t.Errorf("%+v", g)
		}
		delete(f.backend.fail, "m1 start")
		f.open()
		f.deploy(o)
		f.settled(o, 1)
	})
}

func TestRollback(t *testing.T) {
	inFleet(t, func(f *fleet) {
		one, two := f.plain(2, "one"), f.plain(2, "two")
		f.deploy(one)
		f.deploy(two)
		if g := f.d.Before(); g == nil || g.Number != 1 {
			t.Fatalf("the generation before: %+v", g)
		}
		r := f.deploy(one, func(o *Options) { o.Generation = 1 })
		if r.Sent != 0 {
			t.Errorf("%d bytes were sent", r.Sent)
		}
		f.settledAt(one, 1)
		// And forward again, and to something new.
		f.deploy(two)
		f.settled(two, 2)
		three := f.plain(2, "three")
		f.deploy(three)
		f.settled(three, 3)
	})
}

func TestOn(t *testing.T) {
	inFleet(t, func(f *fleet) {
		f.deploy(f.plain(3, "one"))
		two := f.plain(3, "two")
		only := func(o *Options) { o.On = []string{"m1"} }
		if got := outcomes(f.deploy(two, only)); got != "m1 confirmed" {
			t.Error(got)
		}
		f.open()
		if g := f.d.generation(2); g.State == GenerationConfirmed || f.d.Active != 1 {
			t.Errorf("current %d; %+v", f.d.Active, g)
		}
		f.deploy(two)
		f.settled(two, 2)
		if _, err := f.try(f.t.Context(), two, func(o *Options) { o.On = []string{"mx"} }); err == nil || !strings.Contains(err.Error(), `no machine "mx"`) {
			t.Errorf("%v", err)
		}
	})
}

// TestOnWhileMaking: a part of a deployment that is not there yet.
func TestOnWhileMaking(t *testing.T) {
	inFleet(t, func(f *fleet) {
		o := f.plain(3, "one")
		if got := outcomes(f.deploy(o, func(o *Options) { o.On = []string{"m1"} })); got != "m1 confirmed" {
			t.Error(got)
		}
		if got := strings.Join(f.backend.names(), " "); got != "m1" {
			t.Errorf("there are %s", got)
		}
		f.open()
		if p := f.plan(o, func(o *Options) { o.On = []string{"m1"} }); !p.Empty() {
			t.Errorf("the same again does something:\n%s", words(p))
		}
		f.open()
		f.deploy(o)
		f.settled(o, 1)
	})
}

func TestCopyOnly(t *testing.T) {
	inFleet(t, func(f *fleet) {
		one, two := f.plain(2, "one"), f.plain(2, "two")
		f.deploy(one)
		r := f.deploy(two, func(o *Options) { o.CopyOnly = true })
		if got := outcomes(r); got != "m0 staged; m1 staged" || r.Sent == 0 {
			t.Errorf("%s, %d bytes", got, r.Sent)
		}
		for _, n := range f.backend.names() {
			if c := f.backend.machine(n).sd.restarted(); len(c) > 0 {
				t.Errorf("%s: %q", n, c)
			}
		}
		f.open()
		if r := f.deploy(two); r.Sent != 0 {
			t.Errorf("%d bytes were sent again", r.Sent)
		}
		f.settled(two, 2)
	})
}

// TestModeBoot: nothing happens before the next start, and then it is confirmed
// by the next deploy.
func TestModeBoot(t *testing.T) {
	inFleet(t, func(f *fleet) {
		f.deploy(f.plain(1, "one"))
		two := f.plain(1, "two")
		boot := func(o *Options) { o.Mode = "boot" }
		if got := outcomes(f.deploy(two, boot)); got != "m0 staged" {
			t.Error(got)
		}
		m := f.backend.machine("m0")
		if c := m.sd.restarted(); len(c) > 0 {
			t.Errorf("%q", c)
		}
		f.open()
		if f.d.Active != 1 {
			t.Errorf("the current generation is %d", f.d.Active)
		}
		m.stop(StateStopped)
		f.must(m.start())
		if got := outcomes(f.deploy(two, boot)); got != "m0 confirmed" {
			t.Error(got)
		}
		f.settled(two, 2)
	})
}

// TestModeBootThenSwitch: who does not want to wait for the next start after all
// deploys once more.
func TestModeBootThenSwitch(t *testing.T) {
	inFleet(t, func(f *fleet) {
		f.deploy(f.plain(1, "one"))
		two := f.plain(1, "two")
		if got := outcomes(f.deploy(two, func(o *Options) { o.Mode = "boot" })); got != "m0 staged" {
			t.Error(got)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
		defer cancel()
		r, err := f.try(ctx, two)
		f.must(err)
		if got := outcomes(r); got != "m0 confirmed" {
			t.Error(got)
		}
		f.settled(two, 2)
	})
}

// TestSwitchErrors words how a machine went back.
func TestSwitchErrors(t *testing.T) {
	e := &SwitchError{"m", &agent.SwitchStatus{Result: activate.ResultRevertFailed}}
	if e.Error() != "revert-failed" {
		t.Error(e)
	}
	e.Status.Why, e.Status.Failures = "why", []agent.Failure{{What: "port 1 accepts no connections", Journal: []string{"a\x1b[2J\x07b"}}}
	if got := e.Error(); got != "why\n  check: port 1 accepts no connections\n    | ab" {
		t.Errorf("%q", got)
	}
}
