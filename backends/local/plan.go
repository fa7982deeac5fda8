package local

import (
	"fmt"
	"slices"
	"strings"

	"tool/core/machines/deploy"
)

// What a machine may lack, in Observed.Missing.
const (
	PartDisk   = "disk"
	PartSeed   = "seed"
	PartBoot   = "boot"
	PartConfig = "configuration"

	// What a complete machine may lack: networks run when machines do, and ports
	// can be forwarded while they run.
	PartNetwork  = "network"
	PartForwards = "forwarded ports"
)

// Kind is in what the plans of a backend differ from those of others.
type Kind struct {
	Name     string // of the backend
	Loses    string // what a machine is destroyed with
	Settings string // of tool.toml, without which there is nothing to make machines of
}

// End plans for every goal but deploy.Running.
func (k Kind) End(o *deploy.Observed, g deploy.Goal) ([]deploy.Step, error) {
	switch g {
	case deploy.Absent:
		if !o.Exists {
			return nil, nil
		}
		return []deploy.Step{{Kind: StepDestroy, Text: "destroy it with " + k.Loses, Destructive: true}}, nil
	case deploy.Stopped:
		if o.State == deploy.StateMissing || o.State == deploy.StateStopped {
			return nil, nil
		}
		return []deploy.Step{stop(o)}, nil
	}
	return nil, fmt.Errorf("the %s backend knows no goal %q", k.Name, g)
}

// Needs is an error where the caller has no file to make a part of.
func (k Kind) Needs(what, path string) error {
	if path != "" {
		return nil
	}
	return fmt.Errorf("it cannot be made without %s: that takes %s in tool.toml, and a kernel with an init in the machine", what, k.Settings)
}

// stop is the step that ends a machine, or what a crashed one left.
func stop(o *deploy.Observed) deploy.Step {
	if o.State == deploy.StateCrashed {
		// It may have left a process that does nothing any more.
		return deploy.Step{Kind: StepStop, Text: "clear away what is left of its process"}
	}
	return deploy.Step{Kind: StepStop, Text: "shut it down"}
}

// Planner collects the steps to a machine that runs, in the order in which its
// methods are called: disks, what the backend itself adds, Configure, Start.
type Planner struct {
	Steps []deploy.Step
	o     *deploy.Observed
	want  deploy.Hardware
}

// Running begins the plan for a machine that is to have the hardware and run. It
// plans the disks, and refuses what no steps lead to.
func (k Kind) Running(m *deploy.Machine, o *deploy.Observed, want deploy.Hardware) (*Planner, error) {
	p := &Planner{o: o, want: want}
	have := o.Hardware.Disk
	switch {
	case o.State == deploy.StateUnknown:
		return nil, fmt.Errorf("it cannot be told what it does: %s; destroy it, or stop it first", strings.Join(o.Problems, "; "))
	case have > 0 && want.Disk < have:
		return nil, fmt.Errorf("its disk has %d MiB and cannot be made smaller (%d MiB): destroy it to have it made anew", have, want.Disk)
	case p.Lacks(PartDisk):
		if err := k.Needs("a base image", m.Root); err != nil {
			return nil, err
		}
		text := fmt.Sprintf("make its disk of %d MiB", want.Disk)
		if o.Exists && p.known() {
			text += " anew: it is gone"
		}
		p.Add(StepDisk, text)
	case have > 0 && want.Disk > have:
		p.Add(StepResize, fmt.Sprintf("grow its disk from %d to %d MiB", have, want.Disk))
	}
	if m.Seed != "" && (p.Lacks(PartDisk) || p.Lacks(PartSeed)) {
		p.Add(StepSeed, "attach its seed")
	}
	return p, nil
}

// known reports whether the machine's hardware could be read.
func (p *Planner) known() bool { return p.o.Hardware != deploy.Hardware{} }

// Lacks reports whether a part of the machine is missing.
func (p *Planner) Lacks(part string) bool { return !p.o.Exists || slices.Contains(p.o.Missing, part) }

// Add adds a step.
func (p *Planner) Add(kind, text string) {
	p.Steps = append(p.Steps, deploy.Step{Kind: kind, Text: text})
}

// Configure plans the machine's configuration, where it changes or a step before
// wants it, and stops the machine first where there is anything to do: all but
// ports changes only while it is off. forwards words the ports that lead to it.
func (p *Planner) Configure(forwards string) {
	changes := slices.Clone(p.o.Drift)
	if p.known() {
		changes = append(p.o.Hardware.Changes(p.want), changes...)
	}
	configured := true
	switch {
	case p.Lacks(PartConfig):
		p.Add(StepConfigure, fmt.Sprintf("configure it: %d MiB, %s", p.want.Memory, p.want.Processors()))
	case len(changes) > 0:
		p.Add(StepConfigure, "configure it: "+strings.Join(changes, "; "))
	case len(p.Steps) > 0:
		p.Add(StepConfigure, "configure it")
	default:
		configured = false
	}
	if p.live() && configured || p.o.State == deploy.StateCrashed {
		p.Steps = append([]deploy.Step{stop(p.o)}, p.Steps...)
	}
	if p.Lacks(PartForwards) && !configured {
		p.Add(StepForward, "forward its ports as wanted: "+forwards)
	}
}

// live reports whether there is something of the machine that runs or has crashed.
func (p *Planner) live() bool {
	return slices.Contains([]deploy.State{deploy.StateRunning, deploy.StatePaused, deploy.StateCrashed}, p.o.State)
}

// Start makes the machine run at the end of the plan.
func (p *Planner) Start() {
	switch {
	case !p.live() || len(p.Steps) > 0 && p.Steps[0].Kind == StepStop:
		p.Add(StepStart, "start it")
	case p.o.State == deploy.StatePaused:
		p.Add(StepResume, "let it go on")
	}
}
