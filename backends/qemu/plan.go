package qemu

import (
	"slices"
	"strings"

	"tool/backends/local"
	"tool/core/machines/deploy"
)

var kind = local.Kind{Name: "qemu", Loses: "its disk", Settings: "deploy.disk_tools and deploy.emulator"}

// Plan implements deploy.Backend.
func (b *Backend) Plan(m *deploy.Machine, o *deploy.Observed, g deploy.Goal) ([]deploy.Step, error) {
	if g != deploy.Running {
		return kind.End(o, g)
	}
	want := configOf(m)
	if err := want.check(); err != nil {
		return nil, err
	}
	p, err := kind.Running(m, o, want.Hardware)
	if err != nil {
		return nil, err
	}
	firmware := o.Hardware != deploy.Hardware{} && o.Hardware.Firmware != want.Hardware.Firmware
	if p.Lacks(local.PartBoot) || firmware || slices.ContainsFunc(o.Drift, func(d string) bool { return strings.HasPrefix(d, "kernel: ") || strings.HasPrefix(d, "initrd: ") }) {
		if err := needsBoot(m, want.Hardware.Firmware); err != nil {
			return nil, err
		}
		p.Add(local.StepBoot, "place what it boots from")
	}
	p.Configure(want.forwards())
	if p.Lacks(local.PartNetwork) {
		p.Add(local.StepNetwork, "start the deployment's network")
	}
	p.Start()
	return p.Steps, nil
}

func needsBoot(m *deploy.Machine, firmware string) error {
	if firmware == uefi {
		return kind.Needs("an image of the EFI system partition", m.ESP)
	}
	if err := kind.Needs("a kernel", m.Kernel); err != nil {
		return err
	}
	return kind.Needs("an initrd", m.Initrd)
}
