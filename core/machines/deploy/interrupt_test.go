package deploy

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// killer ends the controller at the nth point of a deploy: what it writes to
// its state after that is undone, as if it had been killed there.
type killer struct {
	f      *fleet
	at     int // 0: never
	cancel context.CancelFunc

	mu    sync.Mutex
	n     int
	point string
	state []byte
	cuts  sync.WaitGroup
}

func (k *killer) hook(point string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.n++
	if k.n != k.at {
		return
	}
	k.point = point
	b, err := os.ReadFile(k.f.d.file())
	if err != nil {
		k.f.t.Error(err)
	}
	k.state = b
	k.cancel()
	// Its connections end with it.
	for _, n := range k.f.backend.names() {
		k.cuts.Go(k.f.backend.machine(n).cut)
	}
}

// run deploys, with an end at the nth point; it reports whether it came to that.
func (k *killer) run(o *Object, change ...func(*Options)) bool {
	k.f.t.Helper()
	ctx, cancel := context.WithCancel(k.f.t.Context())
	defer cancel()
	k.cancel = cancel
	k.f.backend.setHook(k.hook)
	r, err := k.f.try(ctx, o, change...)
	k.f.backend.setHook(nil)
	k.cuts.Wait()
	// What was on its way when the controller ended is still done: a switch may
	// begin. Nobody starts the next controller that fast.
	synctest.Wait()
	if k.state == nil {
		k.f.must(err)
		if r.Bad() > 0 {
			k.f.t.Fatalf("%s: %s", k.point, outcomes(r))
		}
		return false
	}
	k.f.must(replaceFile(k.f.d.file(), k.state, 0o600))
	k.f.open()
	return true
}

// everyPoint runs a scenario with an end at each point of it, until there is
// none any more.
func everyPoint(t *testing.T, scenario func(f *fleet, at int) (killed bool, point string)) {
	t.Helper()
	step := 1
	if testing.Short() {
		step = 7
	}
	for at := 1; ; at += step {
		more := true
		var point string
		ok := t.Run(fmt.Sprint(at), func(t *testing.T) {
			inFleet(t, func(f *fleet) { more, point = scenario(f, at) })
		})
		if !ok {
			t.Fatalf("ended at point %d, %q", at, point)
		}
		if !more {
			t.Logf("%d points", at-1)
			if at < 10 {
				t.Errorf("a deploy of only %d points", at-1)
			}
			return
		}
	}
}

// TestKillWhileMaking ends a first deploy anywhere. The next one finishes it.
func TestKillWhileMaking(t *testing.T) {
	t.Parallel()
	everyPoint(t, func(f *fleet, at int) (bool, string) {
		o := f.plain(2, "one")
		k := &killer{f: f, at: at}
		killed := k.run(o)
		if killed {
			f.deploy(o)
		}
		f.settled(o, 1)
		for _, n := range f.backend.names() {
			if b := f.backend.machine(n).boots; b > 1 {
				t.Errorf("%s was started %d times", n, b)
			}
		}
		return killed, k.point
	})
}

// TestKillWhileSwitching ends a second deploy anywhere: the next one leads to
// the same, as one generation.
func TestKillWhileSwitching(t *testing.T) {
	t.Parallel()
	everyPoint(t, func(f *fleet, at int) (bool, string) {
		one, two := f.plain(2, "one"), f.plain(2, "two")
		f.deploy(one)
		k := &killer{f: f, at: at}
		killed := k.run(two)
		if killed {
			f.deploy(two)
		}
		f.settled(two, 2)
		if n := len(f.d.Generations); n != 2 {
			t.Errorf("there are %d generations", n)
		}
		return killed, k.point
	})
}

// TestKillAndGoBack ends a deploy anywhere, and then the old system is what is
// wanted.
func TestKillAndGoBack(t *testing.T) {
	t.Parallel()
	everyPoint(t, func(f *fleet, at int) (bool, string) {
		one, two := f.plain(2, "one"), f.plain(2, "two")
		f.deploy(one)
		k := &killer{f: f, at: at}
		killed := k.run(two)
		f.deploy(one, func(o *Options) { o.Generation = 1 })
		f.settledAt(one, 1)
		return killed, k.point
	})
}

// settledAt is settled for a generation that is not the newest.
func (f *fleet) settledAt(o *Object, generation int) {
	f.t.Helper()
	f.open()
	if p := f.plan(o, func(o *Options) { o.Generation = generation }); !p.Empty() {
		b, _ := p.Encode()
		f.t.Fatalf("there is something to do:\n%s", b)
	}
	if f.d.Active != generation || f.d.Target != generation {
		f.t.Errorf("the current generation is %d, the wanted one %d; want %d", f.d.Active, f.d.Target, generation)
	}
	for i := range o.Machines {
		f.onMachine(&o.Machines[i], generation)
	}
	f.roots()
}

// TestLostConnections cuts the connections at each message; the same deploy
// goes on.
func TestLostConnections(t *testing.T) {
	t.Parallel()
	everyPoint(t, func(f *fleet, at int) (bool, string) {
		one, two := f.plain(2, "one"), f.plain(2, "two")
		f.deploy(one)
		n, cut := 0, ""
		var mu sync.Mutex
		f.backend.setHook(func(point string) {
			mu.Lock()
			defer mu.Unlock()
			if n++; n == at {
				cut = point
				name, _, _ := strings.Cut(point, " ")
				f.backend.machine(name).cut()
			}
		})
		f.deploy(two)
		f.backend.setHook(nil)
		f.settled(two, 2)
		return cut != "", cut
	})
}
