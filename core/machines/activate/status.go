package activate

import (
	"fmt"
	"slices"
	"time"

	"tool/core/machines/system"
)

// Mode is how a generation is switched to.
type Mode string

// The modes.
const (
	ModeSwitch Mode = "switch" // now, and at the next start once it is confirmed
	ModeBoot   Mode = "boot"   // at the next start, once, and for good once it is confirmed
	ModeTest   Mode = "test"   // now; the next start goes to the confirmed generation all the same
)

// SwitchRequest asks for a switch. Zero seconds mean the usual.
type SwitchRequest struct {
	Generation       int  `json:"generation"`
	Mode             Mode `json:"mode"`
	ConfirmSeconds   int  `json:"confirm_seconds,omitempty"`   // how long the controller may take to confirm; usually 60
	StabilitySeconds int  `json:"stability_seconds,omitempty"` // how long units must stay well; usually 5
	Patience         int  `json:"patience,omitempty"`          // checks may take so many times longer: the machine is slow
	Auto             bool `json:"auto,omitempty"`              // confirm without a controller, once all is well
}

// Phase is what a switch is doing.
type Phase string

// The phases, in their usual order. A switch that ends has PhaseDone and a Result.
const (
	PhasePrepared  Phase = "prepared"
	PhaseApplying  Phase = "applying"  // the forward pass
	PhaseTrial     Phase = "trial"     // the generation waits for the machine's next start
	PhaseBooted    Phase = "booted"    // the machine has started into the generation on trial
	PhaseChecking  Phase = "checking"  // health checks
	PhaseWatching  Phase = "watching"  // units must stay well for a while
	PhaseWaiting   Phase = "waiting"   // for the controller to confirm
	PhaseReverting Phase = "reverting" // the backward pass
	PhaseRebooting Phase = "rebooting" // into the confirmed generation
	PhaseDone      Phase = "done"
)

// Result is how a switch ended.
type Result string

// The results.
const (
	ResultNone         Result = ""              // it has not ended
	ResultConfirmed    Result = "confirmed"     //
	ResultReverted     Result = "reverted"      // the generation before is active again
	ResultRevertFailed Result = "revert-failed" // it is active again and not all of its units are well
	ResultFailed       Result = "failed"        // there was no generation to go back to
)

// Step is how far a pass is.
type Step string

// The steps, in order.
const (
	StepStop   Step = "stop"   // units that go, and those that must not see the switch
	StepFlip   Step = "flip"   // the link, /etc
	StepReload Step = "reload" // systemd's view, modules, tmpfiles
	StepStart  Step = "start"  // reload, restart and start units
	StepDone   Step = "done"
)

// UnitState of a pass.
const (
	Pending = "pending"
	Doing   = "doing"
	Done    = "done"
	Broken  = "failed"
)

// UnitProgress is one unit of a pass.
type UnitProgress struct {
	system.UnitChange
	State string `json:"state"` // pending, doing, done, failed
	Error string `json:"error,omitempty"`
}

// Pass takes a machine from one generation to another.
type Pass struct {
	From    int            `json:"from"`
	To      int            `json:"to"`
	Step    Step           `json:"step"`
	Systemd bool           `json:"systemd,omitempty"` // its program changed
	Modules bool           `json:"modules,omitempty"` // some must be loaded
	Units   []UnitProgress `json:"units"`
}

// with returns the units that have one of the actions.
func (p *Pass) with(actions ...system.Action) []*UnitProgress {
	var out []*UnitProgress
	for i := range p.Units {
		if slices.Contains(actions, p.Units[i].Action) {
			out = append(out, &p.Units[i])
		}
	}
	return out
}

// SwitchStatus is a switch, under way or ended: what is kept in switch.json.
type SwitchStatus struct {
	SwitchRequest
	From   int    `json:"from"` // the generation that was active
	Seq    int    `json:"seq"`  // counts the changes of this status
	Phase  Phase  `json:"phase"`
	Result Result `json:"result,omitempty"`
	Why    string `json:"why,omitempty"` // it was reverted, or failed
	// Abandoned is why the controller will not confirm it.
	Abandoned string `json:"abandoned,omitempty"`
	BootID    string `json:"boot_id"`
	Runners   int    `json:"runners"` // how often it was begun or continued

	Started  time.Time `json:"started"`
	Deadline time.Time `json:"deadline,omitzero"` // of the phase, where it has one; for people
	Ended    time.Time `json:"ended,omitzero"`
	// Machine.Uptime when all units had been started, and of the deadline: the
	// clock may be set meanwhile.
	SwitchedUptime time.Duration `json:"switched_uptime,omitzero"`
	DeadlineUptime time.Duration `json:"deadline_uptime,omitzero"`

	// First is set where no generation was ever confirmed: nothing there is worth
	// going back to, and no failure is older than the deployment.
	First   bool `json:"first,omitempty"`
	Retries int  `json:"retries,omitempty"` // how often units that failed were started again

	FailedBefore []string       `json:"failed_before,omitempty"` // units that were failing: they do not count
	ActiveBefore []string       `json:"active_before,omitempty"` // units that must be well after a revert
	Forward      *Pass          `json:"forward,omitempty"`
	Back         *Pass          `json:"back,omitempty"`
	RebootNeeded *system.Kernel `json:"reboot_needed,omitempty"`
	Failures     []Failure      `json:"failures,omitempty"`
	AlsoFailed   []string       `json:"also_failed,omitempty"` // units that failed and did not count
	Waits        []string       `json:"waits,omitempty"`       // what the checks still wait for
}

// Over reports whether nothing more happens.
func (s *SwitchStatus) Over() bool { return s == nil || s.Phase == PhaseDone }

func (s *SwitchStatus) String() string {
	if s.Over() {
		if s.Why != "" {
			return fmt.Sprintf("generation %d: %s: %s", s.Generation, s.Result, s.Why)
		}
		return fmt.Sprintf("generation %d: %s", s.Generation, s.Result)
	}
	return fmt.Sprintf("generation %d: %s", s.Generation, s.Phase)
}

// Status returns the switch that is under way or ended last; nil where there
// has been none.
func (m *Machine) Status() (*SwitchStatus, error) {
	var s SwitchStatus
	ok, err := readJSON(m.state("switch.json"), &s)
	if err != nil || !ok {
		return nil, err
	}
	return &s, nil
}

// save writes the status down, durably: it is the journal by which a switch is
// continued.
func (m *Machine) save(s *SwitchStatus) error {
	s.Seq++
	if m.journalled != nil {
		m.journalled(s)
	}
	if err := writeJSON(m.state("switch.json"), s); err != nil {
		return fmt.Errorf("write down the switch: %w", m.explainFull(err))
	}
	return nil
}
