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
