package virtualbox

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"tool/backends/local"
	"tool/core/machines/deploy"
)

// Plan implements deploy.Backend.
func (b *Backend) Plan(m *deploy.Machine, o *deploy.Observed, g deploy.Goal) ([]deploy.Step, error) {
	switch g {
	case deploy.Absent:
		if !o.Exists {
			return nil, nil
		}
		return []deploy.Step{{Kind: local.StepDestroy, Text: "destroy it with its disks and snapshots", Destructive: true}}, nil
	case deploy.Stopped:
		if o.State == deploy.StateMissing || o.State == deploy.StateStopped {
			return nil, nil
		}
		return []deploy.Step{local.Stop(o)}, nil
	case deploy.Running:
		return planRunning(m, o)
	}
	return nil, fmt.Errorf("the virtualbox backend knows no goal %q", g)
}

func planRunning(m *deploy.Machine, o *deploy.Observed) ([]deploy.Step, error) {
	want := configOf(m)
	if err := want.check(); err != nil {
		return nil, err
	}
	for _, p := range o.Problems {
		if why, ok := strings.CutPrefix(p, blocker); ok {
			return nil, errors.New(why)
		}
	}
	if o.State == deploy.StateUnknown {
		return nil, fmt.Errorf("it cannot be told what it does: %s; destroy it, or stop it first", strings.Join(o.Problems, "; "))
	}
	known := o.Hardware != deploy.Hardware{}
	if o.Hardware.Disk > 0 && want.hardware.Disk < o.Hardware.Disk {
		return nil, fmt.Errorf("its disk has %d MiB and cannot be made smaller (%d MiB): destroy it to have it made anew", o.Hardware.Disk, want.hardware.Disk)
	}
	lacks := func(part string) bool { return !o.Exists || slices.Contains(o.Missing, part) }
	var steps []deploy.Step
	add := func(kind, text string) { steps = append(steps, deploy.Step{Kind: kind, Text: text}) }

	if lacks(partDisk) {
		if err := needs("a base image", m.Root); err != nil {
			return nil, err
		}
		text := fmt.Sprintf("make its disk of %d MiB", want.hardware.Disk)
		if o.Exists && known {
			text = fmt.Sprintf("make its disk of %d MiB anew: it is gone", want.hardware.Disk)
		}
		add(local.StepDisk, text)
	} else if o.Hardware.Disk > 0 && want.hardware.Disk > o.Hardware.Disk {
		add(local.StepResize, fmt.Sprintf("grow its disk from %d to %d MiB", o.Hardware.Disk, want.hardware.Disk))
	}
	if m.Seed != "" && (lacks(partDisk) || lacks(partSeed)) {
		add(local.StepSeed, "attach its seed")
	}
	if lacks(partBoot) {
		if err := needs("an image of the EFI system partition", m.ESP); err != nil {
			return nil, err
		}
		add(local.StepBoot, "place what it boots from")
	}
	if lacks(partNetwork) && want.network == networkHostonly {
		add(local.StepNetwork, "make its network with this host")
	}
	changes := slices.Clone(o.Drift)
	if known {
		changes = append(o.Hardware.Changes(want.hardware), changes...)
	}
	switch {
	case lacks(partConfig):
		add(local.StepConfigure, fmt.Sprintf("configure it: %d MiB, %s", want.hardware.Memory, want.hardware.Processors()))
	case len(changes) > 0:
		add(local.StepConfigure, "configure it: "+strings.Join(changes, "; "))
	case len(steps) > 0:
		add(local.StepConfigure, "configure it")
	}
	live := o.State == deploy.StateRunning || o.State == deploy.StatePaused || o.State == deploy.StateCrashed
	if live && len(steps) > 0 || o.State == deploy.StateCrashed {
		steps = append([]deploy.Step{local.Stop(o)}, steps...)
		live = false
	}
	if lacks(partForwards) && len(steps) == 0 {
		add(local.StepForward, "forward its ports as wanted: "+describe(want.rules))
	}
	switch {
	case !live:
		add(local.StepStart, "start it")
	case o.State == deploy.StatePaused:
		add(local.StepResume, "let it go on")
	}
	return steps, nil
}

func needs(what, path string) error {
	if path != "" {
		return nil
	}
	return fmt.Errorf("it cannot be made without %s: is deploy.disk_tools set in tool.toml, and does the machine have a kernel with an init?", what)
}
