package qemu

import (
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
		return []deploy.Step{{Kind: local.StepDestroy, Text: "destroy it with its disk", Destructive: true}}, nil
	case deploy.Stopped:
		if o.State == deploy.StateMissing || o.State == deploy.StateStopped {
			return nil, nil
		}
		return []deploy.Step{local.Stop(o)}, nil
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
		add(local.StepDisk, text)
	} else if known && want.Hardware.Disk > o.Hardware.Disk {
		add(local.StepResize, fmt.Sprintf("grow its disk from %d to %d MiB", o.Hardware.Disk, want.Hardware.Disk))
	}
	if m.Seed != "" && (lacks(partDisk) || lacks(partSeed)) {
		add(local.StepSeed, "attach its seed")
	}
	changes := slices.Clone(o.Drift)
	firmware := known && o.Hardware.Firmware != want.Hardware.Firmware
	if known {
		changes = append(o.Hardware.Changes(want.Hardware), changes...)
	}
	if lacks(partBoot) || firmware || slices.ContainsFunc(o.Drift, func(d string) bool { return strings.HasPrefix(d, "kernel: ") || strings.HasPrefix(d, "initrd: ") }) {
		if err := needsBoot(m, want.Hardware.Firmware); err != nil {
			return nil, err
		}
		add(local.StepBoot, "place what it boots from")
	}
	switch {
	case lacks(partConfig):
		add(local.StepConfigure, fmt.Sprintf("configure it: %d MiB, %s", want.Hardware.Memory, want.Hardware.Processors()))
	case len(changes) > 0:
		add(local.StepConfigure, "configure it: "+strings.Join(changes, "; "))
	case len(steps) > 0:
		add(local.StepConfigure, "configure it")
	}
	if lacks(partForwards) && len(steps) == 0 {
		add(local.StepForward, "forward its ports as wanted: "+want.forwards())
	}
	restart := len(steps) > 0 && steps[0].Kind != local.StepForward
	live := o.State == deploy.StateRunning || o.State == deploy.StatePaused || o.State == deploy.StateCrashed
	if live && (restart || o.State == deploy.StateCrashed) {
		steps = append([]deploy.Step{local.Stop(o)}, steps...)
		live = false
	}
	if lacks(partNetwork) {
		add(local.StepNetwork, "start the deployment's network")
	}
	switch {
	case !live:
		add(local.StepStart, "start it")
	case o.State == deploy.StatePaused:
		add(local.StepResume, "let it go on")
	}
	return steps, nil
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
