package deploy

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"tool/core/machines/agent"
)

// Outcome is what became of one machine.
type Outcome struct {
	Machine string
	State   OutcomeState
	Err     error // why it is not confirmed
}

// OutcomeState tells the outcomes apart.
type OutcomeState string

// The outcomes.
const (
	Unchanged    OutcomeState = "up to date"
	Confirmed    OutcomeState = "confirmed"
	Staged       OutcomeState = "staged"     // after the next reboot, or the next deploy
	Waiting      OutcomeState = "untouched"  // the rollout stopped before it
	Unfinished   OutcomeState = "unfinished" // the deploy was ended first; the next one goes on
	Failed       OutcomeState = "failed"
	RolledBack   OutcomeState = "rolled back"
	RevertFailed OutcomeState = "roll-back failed"
	Destroyed    OutcomeState = "destroyed"
)

// Result is what became of a deploy.
type Result struct {
	Plan     *Plan
	Outcomes []Outcome
	Sent     int64 // bytes of closures that crossed the network

	mu sync.Mutex
}

func (r *Result) set(machine string, state OutcomeState, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.Outcomes {
		if r.Outcomes[i].Machine == machine {
			r.Outcomes[i] = Outcome{machine, state, err}
			return
		}
	}
	r.Outcomes = append(r.Outcomes, Outcome{machine, state, err})
}

func (r *Result) addSent(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Sent += n
}

// of returns the machine's outcome, or nil.
func (r *Result) of(machine string) *Outcome {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.Outcomes {
		if r.Outcomes[i].Machine == machine {
			o := r.Outcomes[i]
			return &o
		}
	}
	return nil
}

// leave says of the plan's machines that nothing became of them.
func (r *Result) leave(p *Plan) {
	for i := range p.Machines {
		if n := p.Machines[i].Name; r.of(n) == nil {
			r.set(n, Unfinished, nil)
		}
	}
}

// Count returns how many machines have one of the outcomes.
func (r *Result) Count(states ...OutcomeState) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, o := range r.Outcomes {
		if slices.Contains(states, o.State) {
			n++
		}
	}
	return n
}

// Bad returns how many machines are not as they should be.
func (r *Result) Bad() int { return r.Count(Failed, RolledBack, RevertFailed) }

// SwitchError tells why a machine went back.
type SwitchError struct {
	Machine string
	Status  *agent.SwitchStatus
}

// Error tells the unit, how it ended, its last words, and what had changed it.
func (e *SwitchError) Error() string {
	s := e.Status.Why
	if s == "" {
		s = string(e.Status.Result)
	}
	for _, f := range e.Status.Failures {
		s += "\n  " + cmp.Or(f.Unit, "check") + ": " + f.What
		if f.Result != "" || f.Exit != "" {
			s += " (" + strings.TrimSpace(f.Result+" "+f.Exit) + ")"
		}
		for _, r := range f.Reasons {
			s += "\n    it changed: " + r.String()
		}
		for _, line := range f.Journal {
			s += "\n    | " + line
		}
	}
	return Printable(s)
}
