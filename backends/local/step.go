// Package local is what backends share that make machines on this host: their
// steps, their folders' files and locks, the ports that lead to them.
package local

import "tool/core/machines/deploy"

// The kinds of steps.
const (
	StepDisk      = "disk"
	StepSeed      = "seed"
	StepBoot      = "boot"
	StepResize    = "resize"
	StepConfigure = "configure"
	StepNetwork   = "network"
	StepForward   = "forward"
	StepStart     = deploy.StepStart
	StepResume    = "resume"
	StepStop      = "stop"
	StepDestroy   = "destroy"
)

// Stop is the step that ends a machine, or what a crashed one left.
func Stop(o *deploy.Observed) deploy.Step {
	if o.State == deploy.StateCrashed {
		// It may have left a process that does nothing any more.
		return deploy.Step{Kind: StepStop, Text: "clear away what is left of its process"}
	}
	return deploy.Step{Kind: StepStop, Text: "shut it down"}
}
