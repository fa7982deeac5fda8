package deploy

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// TestDestroy: machines go with all that was allocated for them; the closures
// stay, and are deployed again as they are.
func TestDestroy(t *testing.T) {
	inFleet(t, func(f *fleet) {
		o := f.plain(2, "one")
		f.deploy(o)
		f.backend.fail["m1 remove"] = errors.New("busy")
		errs := f.session.DestroyAll(f.t.Context(), f.d.MachineNames(), false)
		if len(errs) != 1 || errs["m1"] == nil {
			t.Fatalf("%v", errs)
		}
		f.open()
		if got := strings.Join(f.d.MachineNames(), " "); got != "m1" {
			t.Errorf("what is left: %s", got)
		}
		delete(f.backend.fail, "m1 remove")
		if errs := f.session.DestroyAll(f.t.Context(), f.d.MachineNames(), false); len(errs) > 0 {
			t.Fatal(errs)
		}
		f.open()
		if len(f.d.Machines) > 0 || f.d.Active != 0 || f.d.Target != 0 || len(f.backend.names()) > 0 {
			t.Errorf("%+v", f.d)
		}
		for _, dir := range []string{f.d.MachineDir("m0"), f.d.MachineDir("m1"), f.d.NetDir()} {
			if exists(dir) {
				t.Errorf("%s is there", dir)
			}
		}
		f.roots()
		f.deploy(o)
		f.settled(o, 1)
	})
}

func TestPrune(t *testing.T) {
	inFleet(t, func(f *fleet) {
		var all []*Object
		for n := range 5 {
			o := f.plain(1, fmt.Sprint("content ", n))
			all = append(all, o)
			f.deploy(o)
		}
		f.deploy(all[1], func(o *Options) { o.Generation = 2 })
		f.open()
		gone, err := f.session.Prune(1)
		f.must(err)
		if fmt.Sprint(gone) != "[1 3 4]" {
			t.Errorf("gone: %v", gone)
		}
		f.settledAt(all[1], 2)
		if _, err := f.session.Prune(1); err != nil {
			t.Error(err)
		}
	})
}

// TestPower stops, starts and restarts machines from outside.
func TestPower(t *testing.T) {
	inFleet(t, func(f *fleet) {
		o := f.plain(2, "one")
		f.deploy(o)
		one := func(do func(name string) error) {
			t.Helper()
			for n, err := range f.session.Each([]string{"m0", "m1"}, do) {
				t.Errorf("%s: %v", n, err)
			}
		}
		one(func(n string) error { return f.session.Stop(f.t.Context(), n) })
		one(func(n string) error { return f.session.Stop(f.t.Context(), n) })
		one(func(n string) error { return f.session.Start(f.t.Context(), n) })
		one(func(n string) error { return f.session.Reboot(f.t.Context(), n, true) })
		one(func(n string) error { return f.session.Cut(f.t.Context(), n) })
		reports, err := f.session.Check(f.t.Context(), []string{"m0"})
		if err != nil || !reports[0].Exists || reports[0].Up {
			t.Errorf("%+v, %v", reports, err)
		}
		one(func(n string) error { return f.session.Start(f.t.Context(), n) })
		f.settled(o, 1)
		if reports, err = f.session.Check(f.t.Context(), []string{"m0", "m1"}); err != nil {
			t.Fatal(err)
		}
		for _, r := range reports {
			if !r.Up || !r.Reachable || len(r.FailedUnits) > 0 {
				t.Errorf("%+v", r)
			}
		}
	})
}

// TestInstallAgent: a machine that has another agent gets the controller's,
// without being switched.
func TestInstallAgent(t *testing.T) {
	inFleet(t, func(f *fleet) {
		o := f.plain(1, "one")
		f.deploy(o)
		m := f.backend.machine("m0")
		if m.install != "" {
			t.Errorf("its agent came with the seed, and was sent again")
		}
		f.session.Binary = &Binary{Find: func() (string, error) { return "/proc/self/exe", nil }}
		start := time.Now()
		if p := f.plan(o); !p.Empty() {
			t.Errorf("%s", words(p))
		}
		if time.Since(start) > time.Minute {
			t.Error("it took more than one attempt")
		}
		_, sum, err := f.session.Binary.Program()
		f.must(err)
		a, err := m.open()
		f.must(err)
		defer a.Close()
		if a.AgentSHA256() != sum || m.install == "" {
			t.Errorf("its agent is %s, want %s", a.AgentSHA256(), sum)
		}
	})
}

// TestMendRunning: a machine that runs and lacks something is planned with what it
// is made from, so that the plan has the restart that comes of it.
func TestMendRunning(t *testing.T) {
	inFleet(t, func(f *fleet) {
		o := f.plain(2, "one")
		f.deploy(o)
		f.must(os.Remove(f.backend.machine("m1").seed()))
		var steps []string
		for _, s := range f.plan(o).Machine("m1").Steps {
			steps = append(steps, s.Kind)
		}
		if got := strings.Join(steps, " "); got != "stop seed start" {
			t.Errorf("the plan has the steps %q", got)
		}
		f.backend.done()
		f.deploy(o)
		if got := strings.Join(f.backend.done(), ", "); got != "m1 seed, m1 start, m1 stop" {
			t.Errorf("done: %s", got)
		}
		f.settled(o, 1)
	})
}
