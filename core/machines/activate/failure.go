package activate

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"tool/core/machines/system"
)

// Failure is one thing that made a switch fail.
type Failure struct {
	Unit    string          `json:"unit,omitempty"`
	Label   string          `json:"label,omitempty"`   // of the service
	What    string          `json:"what"`              // "port 2181 accepts no connection after 120 s"
	Result  string          `json:"result,omitempty"`  // systemd's: exit-code, timeout, …
	Exit    string          `json:"exit,omitempty"`    // of the unit's main process
	Journal []string        `json:"journal,omitempty"` // its last lines since the switch began
	Reasons []system.Reason `json:"reasons,omitempty"` // what had changed the unit
}

// failed goes back because of failures. A machine that was never well has nothing
// to go back to: what a unit needs, on this machine or another, may only be coming
// up, so that its units are started again before the switch is given up.
func (m *Machine) failed(ctx context.Context, s *SwitchStatus, failures []Failure) error {
	var units []string
	for _, f := range failures {
		if !slices.Contains(units, f.Unit) {
			units = append(units, f.Unit)
		}
	}
	if !s.First || s.Retries >= len(m.times.retries) {
		return m.giveUp(ctx, s, summary(failures), failures)
	}
	pause := m.times.retries[s.Retries] * time.Duration(max(s.Patience, 1))
	s.Phase, s.Waits = PhaseChecking, []string{strings.Join(units, ", ") + " to come up when started again"}
	if err := m.save(s); err != nil {
		return err
	}
	m.log("generation %d: %s; starting it again in %s", s.Generation, summary(failures), pause)
	if err := sleep(ctx, pause); err != nil {
		return err
	}
	// Start limits must not hinder.
	if err := m.Systemd.ResetFailed(ctx); err != nil {
		return err
	}
	if err := m.Systemd.Do(ctx, "start", units...); err != nil {
		m.log("%v", err) // the checks tell
	}
	s.Retries++ // only now: who is killed before has not tried
	s.SwitchedUptime = m.Uptime()
	return m.save(s)
}

func summary(failures []Failure) string {
	s := failures[0].What
	if n := len(failures) - 1; n > 0 {
		s += fmt.Sprintf(" (and %d more)", n)
	}
	return s
}

// journalLines is how much of a failing unit's journal is told.
const journalLines = 30

// explain adds to failures what is known of their units.
func (m *Machine) explain(ctx context.Context, s *SwitchStatus, failures []Failure) []Failure {
	if s.Forward != nil { // what systemd could not do counts too
		for _, u := range s.Forward.Units {
			if u.State == Broken && !slices.ContainsFunc(failures, func(f Failure) bool { return f.Unit == u.Unit }) {
				failures = append(failures, Failure{Unit: u.Unit, What: u.Unit + ": " + u.Error})
			}
		}
	}
	manifest, _ := m.manifestOf(s.Generation)
	for i := range failures {
		f := &failures[i]
		if f.Unit == "" {
			continue
		}
		if s.Forward != nil {
			if j := slices.IndexFunc(s.Forward.Units, func(u UnitProgress) bool { return u.Unit == f.Unit }); j >= 0 {
				f.Reasons, f.Label = s.Forward.Units[j].Reasons, s.Forward.Units[j].Label
			}
		}
		if v := manifest.Service(f.Unit); v != nil && f.Label == "" {
			f.Label = v.Label
		}
		if states, err := m.Systemd.Show(ctx, f.Unit); err == nil && len(states) == 1 {
			f.Result, f.Exit = states[0].Result, states[0].Exit
		}
		if lines, err := m.Systemd.Journal(ctx, f.Unit, s.Started, journalLines); err == nil {
			f.Journal = lines
		}
	}
	return failures
}
