package deploy

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// snapper is the fake backend with snapshots, and hardware of its own mind. A
// snapshot is what systemd was told until then.
type snapper struct {
	*fakeBackend
	names    map[string][]string
	units    map[string]string // of m0, when each snapshot was taken
	refusals atomic.Int32      // how many connections are still refused
	patience int
}

func newSnapper(f *fleet) *snapper {
	b := &snapper{fakeBackend: f.backend, names: map[string][]string{}, units: map[string]string{}}
	f.session.Backends = map[string]Backend{"fake": b}
	return b
}

func (b *snapper) Shape(h Hardware) Hardware {
	h.Memory = max(h.Memory, 1024)
	return h
}

func (b *snapper) Snapshots(_ context.Context, m *Machine) ([]Snapshot, error) {
	var out []Snapshot
	for _, n := range b.names[m.Name] {
		out = append(out, Snapshot{Name: n})
	}
	return out, nil
}

func (b *snapper) TakeSnapshot(_ context.Context, m *Machine, s Snapshot) error {
	if slices.Contains(b.names[m.Name], s.Name) {
		return ErrSnapshotExists
	}
	b.names[m.Name] = append(b.names[m.Name], s.Name)
	b.units[m.Name+" "+s.Name] = strings.Join(b.machine(m.Name).sd.restarted(), ",")
	return nil
}

func (b *snapper) RestoreSnapshot(_ context.Context, m *Machine, name string) error {
	if !slices.Contains(b.names[m.Name], name) {
		return ErrNoSnapshot
	}
	if b.machine(m.Name).state == StateRunning {
		return errors.New("it runs")
	}
	return nil
}

func (b *snapper) DeleteSnapshot(_ context.Context, m *Machine, name string) error {
	i := slices.Index(b.names[m.Name], name)
	if i < 0 {
		return ErrNoSnapshot
	}
	b.names[m.Name] = slices.Delete(b.names[m.Name], i, i+1)
	return nil
}

func (b *snapper) Observe(ctx context.Context, m *Machine) (*Observed, error) {
	o, err := b.fakeBackend.Observe(ctx, m)
	if err == nil {
		o.Patience = b.patience
	}
	return o, err
}

func (b *snapper) Dial(ctx context.Context, m *Machine) (net.Conn, error) {
	if b.refusals.Add(-1) >= 0 {
		return nil, errors.New("connection refused")
	}
	return b.fakeBackend.Dial(ctx, m)
}

// TestSnapshotBeforeEpoch: a machine that crosses a state epoch has a snapshot
// of what it was just before, and only then.
func TestSnapshotBeforeEpoch(t *testing.T) {
	inFleet(t, func(f *fleet) {
		b := newSnapper(f)
		of := func(content string, epoch int) *Object {
			return f.object(map[string]sys{"m0": {units: map[string]string{"a.service": content}, epoch: epoch}}, nil)
		}
		f.deploy(of("one", 1))
		f.deploy(of("two", 1))
		if got := f.d.Machines["m0"].Hardware.Memory; got != 1024 {
			t.Errorf("the memory is %d", got)
		}
		if len(b.names) > 0 {
			t.Errorf("snapshots: %v", b.names)
		}
		three := of("three", 2)
		p := f.plan(three)
		if m := p.Machine("m0"); m.Snapshot != "before-generation-3" || !slices.Equal(m.Crosses, []string{"a.service"}) {
			t.Errorf("the plan has %q, %q", m.Snapshot, m.Crosses)
		}
		b.machine("m0").sd.restarted()
		// An attempt that fails changes the data perhaps: the next one keeps what
		// the first took.
		r, err := f.try(f.t.Context(), of("three, to fail", 2))
		f.must(err)
		if r.Bad() != 1 {
			t.Fatal(outcomes(r))
		}
		if got := b.units["m0 before-generation-3"]; got != "" {
			t.Errorf("before the snapshot systemd was told %s", got)
		}
		f.deploy(three)
		if got := strings.Join(b.names["m0"], ","); got != "before-generation-3,before-generation-4" {
			t.Errorf("snapshots: %s", got)
		}
		// It goes back and crosses once more: what it wrote meanwhile is in no
		// snapshot yet.
		f.deploy(of("two", 1), func(o *Options) { o.Generation, o.AllowEpoch = 2, true })
		f.deploy(three)
		if got := strings.Join(b.names["m0"], ","); got != "before-generation-3,before-generation-4,before-generation-4-2" {
			t.Errorf("snapshots: %s", got)
		}
		// Without a backend that takes any there are none in the plan.
		f.session.Backends = map[string]Backend{"fake": f.backend}
		if m := f.plan(of("four", 3)).Machine("m0"); m.Snapshot != "" || len(m.Crosses) != 1 {
			t.Errorf("the plan has %q, %q", m.Snapshot, m.Crosses)
		}
		if _, err := f.session.Snapshots(f.t.Context(), "m0"); err == nil || !strings.Contains(err.Error(), "takes no snapshots") {
			t.Error(err)
		}
	})
}

func TestRestoreSnapshot(t *testing.T) {
	inFleet(t, func(f *fleet) {
		b := newSnapper(f)
		f.deploy(f.plain(1, "one"))
		ctx := f.t.Context()
		f.must(f.session.TakeSnapshot(ctx, "m0", Snapshot{Name: "first"}))
		for _, bad := range []string{"", "a b", "-x", ".x", "a/b", strings.Repeat("x", 65)} {
			if err := f.session.TakeSnapshot(ctx, "m0", Snapshot{Name: bad}); err == nil {
				t.Errorf("%q is a name", bad)
			}
		}
		b.done()
		if err := f.session.RestoreSnapshot(ctx, "m0", "second"); !errors.Is(err, ErrNoSnapshot) || len(b.done()) > 0 {
			t.Error(err)
		}
		f.must(f.session.RestoreSnapshot(ctx, "m0", "first"))
		if got := strings.Join(b.done(), ","); got != "m0 start,m0 stop" {
			t.Error(got)
		}
		f.must(f.session.Stop(ctx, "m0"))
		b.done()
		f.must(f.session.RestoreSnapshot(ctx, "m0", "first"))
		if got := b.done(); len(got) > 0 {
			t.Errorf("a machine that did not run: %v", got)
		}
		f.must(f.session.DeleteSnapshot(ctx, "m0", "first"))
		if err := f.session.DeleteSnapshot(ctx, "m0", "first"); !errors.Is(err, ErrNoSnapshot) {
			t.Error(err)
		}
	})
}

// TestSlowGuest: a machine that is slow to come up, and whose unit is not well at
// first, is deployed in one run.
func TestSlowGuest(t *testing.T) {
	inFleet(t, func(f *fleet) {
		b := newSnapper(f)
		b.refusals.Store(8)
		f.backend.setHook(func(point string) {
			if point != "after m0 start" {
				return
			}
			sd := b.machine("m0").sd
			sd.set("a.service", "activating")
			time.AfterFunc(6*time.Second, func() { sd.set("a.service", "active") })
		})
		one := f.plain(1, "one")
		if got := outcomes(f.deploy(one)); got != "m0 confirmed" {
			t.Error(got)
		}
		newSnapper(f)
		if p := f.plan(one); !p.Empty() {
			t.Error("there is something to do after the first run")
		}
	})
}

// TestPatience: deadlines are longer for machines that are slower than usual,
// and no shorter for others.
func TestPatience(t *testing.T) {
	inFleet(t, func(f *fleet) {
		b := newSnapper(f)
		f.deploy(f.plain(1, "one"))
		for patience, want := range map[int]time.Duration{0: time.Minute, 1: time.Minute, 6: time.Minute, 60: 10 * time.Minute} {
			f.session.pace = pace{}
			b.patience = patience
			if _, err := f.session.Observe(f.t.Context(), "m0"); err != nil {
				t.Fatal(err)
			}
			if got := f.session.patient("m0", time.Minute); got != want {
				t.Errorf("patience %d makes a minute %s", patience, got)
			}
		}
	})
}
