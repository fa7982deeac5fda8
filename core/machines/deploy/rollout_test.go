package deploy

import (
	"strings"
	"testing"
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
