package activate

import (
	"slices"
	"strings"
	"testing"

	"tool/core/machines/system"
)

// TestFailedReload: a unit that does not take its new files goes on with the
// old ones. It looks well, and would not come up at the next start.
func TestFailedReload(t *testing.T) {
	reloads := func(m *system.Manifest) {
		for i := range m.Services {
			m.Services[i].OnChange = "reload"
		}
	}
	r := newRig(t)
	r.first(r.system(map[string]string{"a.service": "a", "b.service": "b"}, nil, reloads))
	r.stage(2, r.system(map[string]string{"a.service": "a2", "b.service": "b2 unread"}, nil, reloads))
	s := r.do(SwitchRequest{Generation: 2, Auto: true})
	if s.Result != ResultReverted || !strings.Contains(s.Why, "b.service does not reload") {
		t.Fatalf("%s", s)
	}
	r.check(1, 1)
	if len(s.Failures) != 1 || s.Failures[0].Unit != "b.service" || len(s.Failures[0].Journal) == 0 {
		t.Errorf("the report: %+v", s.Failures)
	}
	for _, u := range []string{"a.service", "b.service"} {
		if !slices.Contains(r.sd.calls[len(r.sd.calls)-4:], reloadVerb+" "+u) {
			t.Errorf("%s is not reloaded on the way back: %v", u, r.sd.calls)
		}
	}
	// The way out of a system whose units cannot reload is open.
	r.stage(3, r.system(map[string]string{"a.service": "a3", "b.service": "b3"}, nil, reloads))
	if s := r.do(SwitchRequest{Generation: 3, Auto: true}); s.Result != ResultConfirmed {
		t.Fatalf("%s %+v", s, s.Failures)
	}
}
