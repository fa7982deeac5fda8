package activate

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"tool/core/machines/system"
)

// probeTime bounds one try of a check on a machine that is not slow; checkTime
// is how long a check may take to come true that does not say.
const (
	probeTime = 15 * time.Second
	checkTime = 120 * time.Second
)

// gate is a check that decides about a switch.
type gate struct {
	service *system.Service
	check   system.Check
	slow    int   // how many times longer than usual things take here
	err     error // of the last try; nil: not tried yet
	passed  bool
}

// limit returns how long the check may take.
func (g *gate) limit() time.Duration {
	limit := checkTime
	if g.check.Seconds > 0 {
		limit = time.Duration(g.check.Seconds) * time.Second
	}
	return limit * time.Duration(max(g.slow, 1))
}

// what words a check for people.
func (g *gate) what() string {
	switch g.check.Kind {
	case "unit":
		return fmt.Sprintf("%s is %s", g.check.Target, g.expect())
	case "tcp":
		return "port " + g.check.Target + " accepts connections"
	case "http":
		return fmt.Sprintf("%s answers %s", g.check.Target, g.expect())
	}
	return fmt.Sprintf("%q succeeds", g.check.Target)
}

func (g *gate) expect() string {
	return cmp.Or(g.check.Expect, map[string]string{"unit": "active", "http": "200"}[g.check.Kind])
}

// gates returns the checks of a generation's services. Those of units that were
// failing before do not count.
func (m *Machine) gates(s *SwitchStatus) ([]*gate, error) {
	manifest, err := m.manifestOf(s.Generation)
	if err != nil || manifest == nil {
		return nil, err
	}
	var out []*gate
	for i := range manifest.Services {
		service := &manifest.Services[i]
		if slices.Contains(s.FailedBefore, service.Unit) {
			continue
		}
		for _, c := range service.Health {
			out = append(out, &gate{service: service, check: c, slow: s.Patience})
		}
	}
	return out, nil
}

// watched returns the units whose failure is the switch's: those with checks,
// those that it started and, where the machine itself started for it, those that
// the system enables.
func (m *Machine) watched(s *SwitchStatus, gates []*gate) ([]string, error) {
	set := map[string]bool{}
	for _, g := range gates {
		set[g.service.Unit] = true
	}
	if s.Forward != nil {
		for _, u := range s.Forward.Units {
			if u.Action != system.Stop && u.Action != system.None {
				set[u.Unit] = true
			}
		}
	}
	if s.Forward == nil || s.First {
		manifest, err := m.manifestOf(s.Generation)
		if err != nil {
			return nil, err
		}
		if manifest != nil {
			for _, u := range manifest.Enabled {
				set[u] = true
			}
		}
	}
	for _, u := range s.FailedBefore {
		delete(set, u)
	}
	return slices.Sorted(maps.Keys(set)), nil
}

// checkHealth waits until every check has passed, or one cannot any more.
func (m *Machine) checkHealth(ctx context.Context, s *SwitchStatus) error {
	gates, err := m.gates(s)
	if err != nil {
		return err
	}
	units, err := m.watched(s, gates)
	if err != nil {
		return err
	}
	wait := m.times.poll
	for {
		states, err := m.states(ctx, units)
		if err != nil {
			return err
		}
		m.probe(ctx, gates, states, probeTime*time.Duration(max(s.Patience, 1)))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		failures, late, pending := judge(gates, states, m.Uptime()-s.SwitchedUptime)
		if len(late) > 0 {
			failures = append(failures, late...)
			return m.giveUp(ctx, s, summary(failures), failures)
		}
		if len(failures) > 0 {
			return m.failed(ctx, s, failures)
		}
		if len(pending) == 0 {
			break
		}
		if !slices.Equal(pending, s.Waits) {
			s.Waits = pending
			if err := m.save(s); err != nil {
				return err
			}
		}
		if err := sleep(ctx, wait); err != nil {
			return err
		}
		wait = min(wait*3/2, 4*m.times.poll)
	}
	failures, err := m.newlyFailed(ctx, s, units)
	if err != nil {
		return err
	}
	if len(failures) > 0 {
		return m.failed(ctx, s, failures)
	}
	s.Phase, s.Waits = PhaseWatching, nil
	return m.save(s)
}

// Unwell tries every check of the active generation once and tells which do not
// hold, in the order of its services. patience is how many times longer than on
// hardware things take here.
func (m *Machine) Unwell(ctx context.Context, patience int) ([]string, error) {
	n, err := m.Pointer(Active)
	if err != nil || n == 0 {
		return nil, err
	}
	gates, err := m.gates(&SwitchStatus{SwitchRequest: SwitchRequest{Generation: n, Patience: patience}})
	if err != nil {
		return nil, err
	}
	m.probe(ctx, gates, nil, probeTime*time.Duration(max(patience, 1)))
	var out []string
	for _, g := range gates {
		if !g.passed {
			out = append(out, fmt.Sprintf("%s: not true: %s (%v)", g.service.Unit, g.what(), g.err))
		}
	}
	return out, ctx.Err()
}

func (m *Machine) states(ctx context.Context, units []string) (map[string]UnitState, error) {
	list, err := m.Systemd.Show(ctx, units...)
	if err != nil {
		return nil, fmt.Errorf("look at the units: %w", err)
	}
	out := make(map[string]UnitState, len(list))
	for _, u := range list {
		out[u.Unit] = u
	}
	return out, nil
}

// judge tells which units have failed, which gates have been waited for too long,
// and what the others still wait for. taken is the time since the units were started.
func judge(gates []*gate, states map[string]UnitState, taken time.Duration) (failures, late []Failure, pending []string) {
	failed := map[string]bool{}
	for _, unit := range slices.Sorted(maps.Keys(states)) {
		if states[unit].Failed() {
			failed[unit] = true
			failures = append(failures, Failure{Unit: unit, What: unit + " has failed"})
		}
	}
	for _, g := range gates {
		if g.passed || failed[g.service.Unit] {
			continue
		}
		if taken > g.limit() {
			late = append(late, Failure{Unit: g.service.Unit, What: fmt.Sprintf("not true within %d s: %s (%v)", int(g.limit().Seconds()), g.what(), g.err)})
			continue
		}
		pending = append(pending, g.what())
	}
	return failures, late, pending
}

// probe tries the gates that have not passed, side by side, each for at most limit.
func (m *Machine) probe(ctx context.Context, gates []*gate, states map[string]UnitState, limit time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var wg sync.WaitGroup
	for _, g := range gates {
		if g.passed {
			continue
		}
		if g.check.Kind == "unit" {
			g.err = nil
			state, ok := states[g.check.Target]
			if !ok {
				list, err := m.Systemd.Show(ctx, g.check.Target)
				if err != nil {
					g.err = err
					continue
				}
				state = list[0]
			}
			if g.passed = state.Active == g.expect() || g.expect() == "active" && state.Well(); !g.passed {
				g.err = fmt.Errorf("it is %s (%s)", state.Active, state.Sub)
			}
			continue
		}
		wg.Go(func() {
			g.err = tryCheck(ctx, g)
			g.passed = g.err == nil
		})
	}
	wg.Wait()
}

func tryCheck(ctx context.Context, g *gate) error {
	switch g.check.Kind {
	case "tcp":
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", g.check.Target))
		if err != nil {
			return err
		}
		return c.Close()
	case "http":
		return tryHTTP(ctx, g)
	case "command":
		_, err := command(ctx, "sh", "-c", g.check.Target)
		return err
	}
	return fmt.Errorf("a check of kind %q is not known to this agent", g.check.Kind)
}

// tryHTTP does not follow redirections: the first answer is what was asked for.
func tryHTTP(ctx context.Context, g *gate) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, g.check.Target, nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	client := &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	response.Body.Close()
	if got := fmt.Sprint(response.StatusCode); got != g.expect() {
		return fmt.Errorf("it answers %s", got)
	}
	return nil
}

// newlyFailed returns the units that fail and did not before the switch. After
// a start of the machine only those that the system itself asks for count: what
// else came up or not depends on much, such as how busy the host was.
func (m *Machine) newlyFailed(ctx context.Context, s *SwitchStatus, watched []string) ([]Failure, error) {
	units, err := m.Systemd.List(ctx, "failed")
	if err != nil {
		return nil, fmt.Errorf("look at the units: %w", err)
	}
	s.AlsoFailed = nil
	var out []Failure
	for _, u := range units {
		switch {
		case slices.Contains(s.FailedBefore, u):
		case strings.HasPrefix(u, "run-"), strings.HasPrefix(u, "session-"), strings.HasPrefix(u, "tool-switch-"):
			// Transient units are somebody's doing, not the system's.
		case (s.Mode == ModeBoot || s.First) && !slices.Contains(watched, u):
			s.AlsoFailed = append(s.AlsoFailed, u)
		default:
			out = append(out, Failure{Unit: u, What: u + " has failed"})
		}
	}
	return out, nil
}

// watch makes sure that the units stay well for a while: one that is started
// again and again looks active now and then.
func (m *Machine) watch(ctx context.Context, s *SwitchStatus) error {
	gates, err := m.gates(s)
	if err != nil {
		return err
	}
	units, err := m.watched(s, gates)
	if err != nil {
		return err
	}
	before, err := m.states(ctx, units)
	if err != nil {
		return err
	}
	window := m.times.stability
	if s.StabilitySeconds > 0 {
		window = time.Duration(s.StabilitySeconds) * time.Second
	}
	for end := time.Now().Add(window); ; {
		after, err := m.states(ctx, units)
		if err != nil {
			return err
		}
		if failures := unstable(units, before, after); len(failures) > 0 {
			return m.failed(ctx, s, failures)
		}
		left := time.Until(end)
		if left <= 0 {
			break
		}
		if err := sleep(ctx, min(left, 4*m.times.poll)); err != nil {
			return err
		}
	}
	failures, err := m.newlyFailed(ctx, s, units)
	if err != nil {
		return err
	}
	if len(failures) > 0 {
		return m.failed(ctx, s, failures)
	}
	return m.startWaiting(s)
}

func unstable(units []string, before, after map[string]UnitState) []Failure {
	var out []Failure
	for _, u := range units {
		a, b := before[u], after[u]
		switch {
		case b.Failed():
			out = append(out, Failure{Unit: u, What: u + " has failed"})
		case b.Restarts > a.Restarts:
			out = append(out, Failure{Unit: u, What: fmt.Sprintf("%s came up and went down again: systemd has restarted it %d times", u, b.Restarts)})
		case a.Well() && !b.Well():
			out = append(out, Failure{Unit: u, What: fmt.Sprintf("%s came up and is %s (%s) now", u, b.Active, b.Sub)})
		}
	}
	return out
}
