package virtualbox

import (
	"errors"
	"strings"

	"tool/backends/local"
	"tool/core/machines/deploy"
)

var kind = local.Kind{Name: "virtualbox", Loses: "its disks and snapshots", Settings: "deploy.disk_tools"}

// Plan implements deploy.Backend.
func (b *Backend) Plan(m *deploy.Machine, o *deploy.Observed, g deploy.Goal) ([]deploy.Step, error) {
	if g != deploy.Running {
		return kind.End(o, g)
	}
	want := configOf(m)
	if err := want.check(); err != nil {
		return nil, err
	}
	for _, p := range o.Problems {
		if why, ok := strings.CutPrefix(p, blocker); ok {
			return nil, errors.New(why)
		}
	}
	p, err := kind.Running(m, o, want.hardware)
	if err != nil {
		return nil, err
	}
	if p.Lacks(local.PartBoot) {
		if err := kind.Needs("an image of the EFI system partition", m.ESP); err != nil {
			return nil, err
		}
		p.Add(local.StepBoot, "place what it boots from")
	}
	if p.Lacks(local.PartNetwork) && want.network == networkHostonly {
		p.Add(local.StepNetwork, "make its network with this host")
	}
	p.Configure(describe(want.rules))
	p.Start()
	return p.Steps, nil
}
