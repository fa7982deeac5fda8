package virtualbox

import (
	"fmt"
	"slices"
	"strings"

	"tool/core/machines/deploy"
)

// Plan implements deploy.Backend.
func (b *Backend) Plan(m *deploy.Machine, o *deploy.Observed, g deploy.Goal) ([]deploy.Step, error) {
	switch g {
	case deploy.Absent:
		if !o.Exists {
			return nil, nil
		}
		return []deploy.Step{{Kind: stepDestroy, Text: "destroy it with its disks and snapshots", Destructive: true}}, nil
	case deploy.Stopped:
		if o.State == deploy.StateMissing || o.State == deploy.StateStopped {
			return nil, nil
		}
		return []deploy.Step{stopStep(o)}, nil
	case deploy.Running:
		steps, err := planRunning(m, o)
		if err != nil {
			return nil, fmt.Errorf("machine %s: %w", m.Name, err)
		}
		return steps, nil
	}
	return nil, fmt.Errorf("machine %s: the virtualbox backend knows no goal %q", m.Name, g)
}

func planRunning(m *deploy.Machine, o *deploy.Observed) ([]deploy.Step, error) {
	want := configOf(m)
	if err := want.check(); err != nil {
		return nil, err
	}
	for _, p := range o.Problems {
		if why, ok := strings.CutPrefix(p, blocker); ok {
			return nil, fmt.Errorf("%s", why)
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
		add(stepDisk, text)
	} else if o.Hardware.Disk > 0 && want.hardware.Disk > o.Hardware.Disk {
		add(stepResize, fmt.Sprintf("grow its disk from %d to %d MiB", o.Hardware.Disk, want.hardware.Disk))
	}
	if m.Seed != "" && (lacks(partDisk) || lacks(partSeed)) {
		add(stepSeed, "attach its seed")
	}
	if lacks(partBoot) {
		if err := needs("an image of the EFI system partition", m.ESP); err != nil {
			return nil, err
		}
		add(stepBoot, "place what it boots from")
	}
	if lacks(partNetwork) && want.network == networkHostonly {
		add(stepNetwork, "make its network with this host")
	}
	changes := slices.Clone(o.Drift)
	if known {
		changes = append(hardwareChanges(o.Hardware, want.hardware), changes...)
	}
	switch {
	case lacks(partConfig):
		add(stepConfigure, fmt.Sprintf("configure it: %d MiB, %s", want.hardware.Memory, processors(want.hardware.CPUs)))
	case len(changes) > 0:
		add(stepConfigure, "configure it: "+strings.Join(changes, "; "))
	case len(steps) > 0:
		add(stepConfigure, "configure it")
	}
	live := o.State == deploy.StateRunning || o.State == deploy.StatePaused || o.State == deploy.StateCrashed
	if live && len(steps) > 0 || o.State == deploy.StateCrashed {
		// A crashed machine may have left a process that does nothing any more.
		steps = append([]deploy.Step{stopStep(o)}, steps...)
		live = false
	}
	if lacks(partForwards) && len(steps) == 0 {
		add(stepForward, "forward its ports as wanted: "+describe(want.rules))
	}
	switch {
	case !live:
		add(stepStart, "start it")
	case o.State == deploy.StatePaused:
		add(stepResume, "let it go on")
	}
	return steps, nil
}

func stopStep(o *deploy.Observed) deploy.Step {
	if o.State == deploy.StateCrashed {
		return deploy.Step{Kind: stepStop, Text: "clear away what is left of its process"}
	}
	return deploy.Step{Kind: stepStop, Text: "shut it down"}
}

func hardwareChanges(have, want deploy.Hardware) []string {
	var d []string
	if have.Memory != want.Memory {
		d = append(d, fmt.Sprintf("memory: %d → %d MiB", have.Memory, want.Memory))
	}
	if have.CPUs != want.CPUs {
		d = append(d, fmt.Sprintf("processors: %d → %d", have.CPUs, want.CPUs))
	}
	if have.Disk > 0 && have.Disk != want.Disk {
		d = append(d, fmt.Sprintf("disk: %d → %d MiB", have.Disk, want.Disk))
	}
	return d
}

func processors(n int) string {
	if n == 1 {
		return "1 processor"
	}
	return fmt.Sprintf("%d processors", n)
}

func needs(what, path string) error {
	if path != "" {
		return nil
	}
	return fmt.Errorf("it cannot be made without %s: is deploy.disk_tools set in tool.toml, and does the machine have a kernel with an init?", what)
}
