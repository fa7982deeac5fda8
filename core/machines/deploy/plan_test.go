package deploy

import (
	"bytes"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

var hashes = regexp.MustCompile(`\b[0-9a-z]{32}-`)

// words tells a plan in short.
func words(p *Plan) string {
	var b strings.Builder
	for i := range p.Machines {
		m := &p.Machines[i]
		fmt.Fprintf(&b, "%s: %s, %s", m.Name, m.Resource, m.System)
		if m.Facts {
			b.WriteString(", facts")
		}
		if m.SendBlobs > 0 {
			b.WriteString(", sends")
		}
		if m.Why != "" {
			fmt.Fprintf(&b, " (%s)", m.Why)
		}
		b.WriteString("\n")
		for _, s := range m.Steps {
			fmt.Fprintf(&b, "  step %s\n", s.Kind)
		}
		for _, c := range m.Packages {
			fmt.Fprintf(&b, "  package %s %q → %q\n", c.Name, c.Old, c.New)
		}
		for _, u := range m.Units {
			fmt.Fprintf(&b, "  %s %s", u.Action, u.Unit)
			for _, r := range u.Reasons {
				fmt.Fprintf(&b, "; %s", hashes.ReplaceAllString(r.String(), ""))
			}
			b.WriteString("\n")
		}
		if m.Reboot != "" {
			fmt.Fprintf(&b, "  reboot: %s\n", m.Reboot)
		}
	}
	for _, r := range p.Refusals {
		fmt.Fprintf(&b, "refused: %s %s; %s\n", r.Machine, r.Text, r.Flag)
	}
	return b.String()
}

// a machine with two units, one of them with a package, and a package of no unit.
func base() sys {
	return sys{
		units:    map[string]string{"a.service": "a", "b.service": "b"},
		packages: map[string]string{"base": "1", "extra": "1"},
		hardware: Hardware{Memory: 512, CPUs: 1, Disk: 4096},
	}
}

func with(change func(*sys)) sys {
	s := base()
	change(&s)
	return s
}

// TestPlans makes the plan of a change to machines that run, executes it, and
// finds nothing left to do.
func TestPlans(t *testing.T) {
	destroy := func(o *Options) { o.AllowDestroy = true }
	epoch := func(o *Options) { o.AllowEpoch = true }
	for _, c := range []struct {
		name     string
		from, to map[string]sys
		before   func(*fleet)
		want     string
		allow    func(*Options)
	}{
		{
			name: "create", to: map[string]sys{"m": base()},
			want: `m: create, boot
  step disk
  step seed
  step start
  package base "" → "1"
  package extra "" → "1"
  start a.service; added (//c:a.service)
  start b.service; added (//c:b.service)
`,
		},
		{
			name: "nothing", from: map[string]sys{"m": base()}, to: map[string]sys{"m": base()},
			want: "m: keep, keep\n",
		},
		{
			name: "one unit", from: map[string]sys{"m": base()},
			to: map[string]sys{"m": with(func(s *sys) { s.units["a.service"] = "new" })},
			want: `m: keep, switch, sends
  restart a.service; /usr/lib/systemd/system/a.service changed (//c:a.service)
`,
		},
		{
			name: "units come and go", from: map[string]sys{"m": base()},
			to: map[string]sys{"m": with(func(s *sys) { s.units = map[string]string{"b.service": "b", "c.service": "c"} })},
			want: `m: keep, switch, sends
  stop a.service; removed (//c:a.service)
  start c.service; added (//c:c.service)
`,
		},
		{
			name: "packages", from: map[string]sys{"m": base()},
			to: map[string]sys{"m": with(func(s *sys) { s.packages = map[string]string{"base": "2", "more": "1"} })},
			want: `m: keep, switch, sends
  package base "1" → "2"
  package extra "1" → ""
  package more "" → "1"
`,
		},
		{
			name: "more memory", from: map[string]sys{"m": base()},
			to: map[string]sys{"m": with(func(s *sys) { s.hardware.Memory = 1024 })},
			want: `m: change, keep
  step stop
  step shape
  step start
`,
		},
		{
			name: "a smaller disk", from: map[string]sys{"m": base()}, allow: destroy,
			to: map[string]sys{"m": with(func(s *sys) { s.hardware.Disk = 1024 })},
			want: `m: replace, boot
  step remove
  step disk
  step seed
  step start
  package base "" → "1"
  package extra "" → "1"
  start a.service; added (//c:a.service)
  start b.service; added (//c:b.service)
refused: m is replaced, and the data on its disk is lost; --allow-destroy
`,
		},
		{
			name: "a machine comes", from: map[string]sys{"m": base()}, to: map[string]sys{"m": base(), "n": {}},
			want: `m: keep, keep, facts
n: create, boot
  step disk
  step seed
  step start
`,
		},
		{
			name: "a machine goes", from: map[string]sys{"m": base(), "n": {}}, to: map[string]sys{"m": base()}, allow: destroy,
			want: `m: keep, keep, facts
n: destroy, none (the deployment has no such machine any more)
  step remove
refused: n is destroyed, and the data on its disk is lost; --allow-destroy
`,
		},
		{
			name: "stopped", from: map[string]sys{"m": base()}, to: map[string]sys{"m": base()},
			before: func(f *fleet) { f.backend.machine("m").stop(StateStopped) },
			want: `m: start, unseen (it does not run; what it has is seen once it does)
  step start
`,
		},
		{
			name: "stopped, and a new system", from: map[string]sys{"m": base()}, to: map[string]sys{"m": with(func(s *sys) { s.units["a.service"] = "new" })},
			before: func(f *fleet) { f.backend.machine("m").stop(StateCrashed) },
			want: `m: start, unseen (it does not run; what it has is seen once it does)
  step start
`,
		},
		{
			name: "it is gone", from: map[string]sys{"m": base()}, to: map[string]sys{"m": base()},
			before: func(f *fleet) {
				f.must(f.backend.Do(f.t.Context(), &Machine{Name: "m"}, Step{Kind: "remove"}))
			},
			want: `m: create, boot (it was made before and is gone)
  step disk
  step seed
  step start
  package base "" → "1"
  package extra "" → "1"
  start a.service; added (//c:a.service)
  start b.service; added (//c:b.service)
`,
		},
		{
			name: "an older state epoch", from: map[string]sys{"m": with(func(s *sys) { s.epoch = 2 })}, allow: epoch,
			to:   map[string]sys{"m": with(func(s *sys) { s.epoch = 1; s.units["a.service"] = "old" })},
			want: "epoch",
		},
		{
			name: "another kernel", from: map[string]sys{"m": with(func(s *sys) { s.kernel = "6.1" })},
			to:   map[string]sys{"m": with(func(s *sys) { s.kernel = "6.2" })},
			want: "reboot: ",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			inFleet(t, func(f *fleet) {
				if c.from != nil {
					f.deploy(f.object(c.from, nil))
				}
				if c.before != nil {
					c.before(f)
				}
				o := f.object(c.to, nil)
				f.open()
				p := f.plan(o)
				got := words(p)
				if strings.Contains(c.want, "\n") && got != c.want || !strings.Contains(got, c.want) {
					t.Errorf("got\n%swant\n%s", got, c.want)
				}
				a, err := p.Encode()
				f.must(err)
				b, err := f.plan(o).Encode()
				f.must(err)
				if !bytes.Equal(a, b) {
					t.Errorf("a second plan is another:\n%s\n%s", a, b)
				}
				if c.allow != nil {
					f.backend.done()
					_, err := f.try(f.t.Context(), o)
					var refused *RefusedError
					if !errors.As(err, &refused) || !strings.Contains(err.Error(), refused.Flag) {
						t.Fatalf("without the flag: %v", err)
					}
					if s := f.backend.done(); len(s) > 0 {
						t.Fatalf("the backend did %v", s)
					}
					f.open()
					f.deploy(o, c.allow)
				} else {
					f.deploy(o)
				}
				f.settled(o, f.d.Active)
			})
		})
	}
}

// TestSavedPlan: a plan is executed as it was saved, or refused.
func TestSavedPlan(t *testing.T) {
	inFleet(t, func(f *fleet) {
		one, two, three := f.plain(2, "one"), f.plain(2, "two"), f.plain(2, "three")
		save := func(p *Plan) *Plan {
			b, err := p.Encode()
			f.must(err)
			p, err = ParsePlan(b)
			f.must(err)
			return p
		}
		first := save(f.plan(one))
		saved := func(p *Plan) func(*Options) { return func(o *Options) { o.Saved = p } }
		f.deploy(one, saved(first))
		f.settled(one, 1)
		var stale *StaleError
		if _, err := f.try(f.t.Context(), one, saved(first)); !errors.As(err, &stale) {
			t.Errorf("executed twice: %v", err)
		}
		second := save(f.plan(two))
		// Something happens meanwhile: a machine stops.
		f.backend.machine("m1").stop(StateStopped)
		f.backend.done()
		_, err := f.try(f.t.Context(), two, saved(second))
		if !errors.As(err, &stale) || stale.Machine != "m1" || !strings.Contains(err.Error(), "tool plan -o") {
			t.Errorf("%v", err)
		}
		if s := f.backend.done(); len(s) > 0 {
			t.Errorf("a stale plan did %v", s)
		}
		f.must(f.backend.machine("m1").start())
		f.open()
		f.deploy(two, saved(second))
		f.settled(two, 2)
		// The deployment has gone on.
		third := save(f.plan(three))
		f.deploy(one, func(o *Options) { o.Generation = 1 })
		f.open()
		if _, err := f.try(f.t.Context(), three, saved(third)); !errors.As(err, &stale) {
			t.Errorf("%v", err)
		}
	})
}

// TestApprove: what is not approved is not begun.
func TestApprove(t *testing.T) {
	inFleet(t, func(f *fleet) {
		no := errors.New("no")
		if _, err := f.try(f.t.Context(), f.plain(1, "one"), func(o *Options) { o.Approve = func(*Plan) error { return no } }); !errors.Is(err, no) {
			t.Error(err)
		}
		if s := f.backend.done(); len(s) > 0 || f.images > 0 {
			t.Errorf("done: %v, %d images", s, f.images)
		}
		f.open()
		if len(f.d.Machines) > 0 || len(f.d.Generations) > 0 {
			t.Errorf("%+v", f.d)
		}
		f.roots()
	})
}
