package qemu

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
		return []deploy.Step{{Kind: stepDestroy, Text: "destroy it with its disk", Destructive: true}}, nil
	case deploy.Stopped:
		if o.State == deploy.StateMissing || o.State == deploy.StateStopped {
			return nil, nil
		}
		return []deploy.Step{stopStep(o)}, nil
	case deploy.Running:
		return planRunning(m, o)
	}
	return nil, fmt.Errorf("the qemu backend knows no goal %q", g)
}

func planRunning(m *deploy.Machine, o *deploy.Observed) ([]deploy.Step, error) {
	want := configOf(m)
	if err := want.check(); err != nil {
		return nil, err
	}
	if o.State == deploy.StateUnknown {
		return nil, fmt.Errorf("it cannot be told what it does: %s; destroy it, or stop it first", strings.Join(o.Problems, "; "))
	}
	known := o.Hardware != deploy.Hardware{}
	if known && want.Hardware.Disk < o.Hardware.Disk {
		return nil, fmt.Errorf("its disk has %d MiB and cannot be made smaller (%d MiB): destroy it to have it made anew", o.Hardware.Disk, want.Hardware.Disk)
	}
	lacks := func(part string) bool { return !o.Exists || slices.Contains(o.Missing, part) }
	var steps []deploy.Step
	add := func(kind, text string) { steps = append(steps, deploy.Step{Kind: kind, Text: text}) }

	if lacks(partDisk) {
		if err := needs("a base image", m.Root); err != nil {
			return nil, err
		}
		text := fmt.Sprintf("make its disk of %d MiB", want.Hardware.Disk)
		if o.Exists && known {
			text = fmt.Sprintf("make its disk of %d MiB anew: it is gone", want.Hardware.Disk)
		}
		add(stepDisk, text)
	} else if known && want.Hardware.Disk > o.Hardware.Disk {
		add(stepResize, fmt.Sprintf("grow its disk from %d to %d MiB", o.Hardware.Disk, want.Hardware.Disk))
	}
	if m.Seed != "" && (lacks(partDisk) || lacks(partSeed)) {
		add(stepSeed, "attach its seed")
	}
	changes := slices.Clone(o.Drift)
	firmware := known && o.Hardware.Firmware != want.Hardware.Firmware
	if known {
		changes = append(hardwareChanges(o.Hardware, want.Hardware), changes...)
	}
	if lacks(partBoot) || firmware || slices.ContainsFunc(o.Drift, func(d string) bool { return strings.HasPrefix(d, "kernel: ") || strings.HasPrefix(d, "initrd: ") }) {
		if err := needsBoot(m, want.Hardware.Firmware); err != nil {
			return nil, err
		}
		add(stepBoot, "place what it boots from")
	}
	switch {
	case lacks(partConfig):
		add(stepConfigure, fmt.Sprintf("configure it: %d MiB, %s", want.Hardware.Memory, processors(want.Hardware.CPUs)))
	case len(changes) > 0:
		add(stepConfigure, "configure it: "+strings.Join(changes, "; "))
	case len(steps) > 0:
		add(stepConfigure, "configure it")
	}
	if lacks(partForwards) && len(steps) == 0 {
		add(stepForward, "forward its ports as wanted: "+want.forwards())
	}
	restart := len(steps) > 0 && steps[0].Kind != stepForward
	live := o.State == deploy.StateRunning || o.State == deploy.StatePaused || o.State == deploy.StateCrashed
	if live && (restart || o.State == deploy.StateCrashed) {
		// A crashed machine may have left a process that does nothing any more.
		steps = append([]deploy.Step{stopStep(o)}, steps...)
		live = false
	}
	if lacks(partNetwork) {
		add(stepNetwork, "start the deployment's network")
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
	if have.Disk != want.Disk {
		d = append(d, fmt.Sprintf("disk: %d → %d MiB", have.Disk, want.Disk))
	}
	if have.Firmware != want.Firmware {
		d = append(d, fmt.Sprintf("firmware: %s → %s", have.Firmware, want.Firmware))
	}
	return d
}

func processors(n int) string {
	if n == 1 {
		return "1 processor"
	}
	return fmt.Sprintf("%d processors", n)
}

func needsBoot(m *deploy.Machine, firmware string) error {
	if firmware == uefi {
		return needs("an image of the EFI system partition", m.ESP)
	}
	if err := needs("a kernel", m.Kernel); err != nil {
		return err
	}
	return needs("an initrd", m.Initrd)
}

func needs(what, path string) error {
	if path != "" {
		return nil
	}
	return fmt.Errorf("it cannot be made without %s: is deploy.disk_tools and deploy.emulator set in tool.toml, and does the machine have a kernel with an init?", what)
}
