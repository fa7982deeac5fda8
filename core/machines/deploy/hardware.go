package deploy

import (
	"fmt"

	"tool/core/machines/facts"
)

// Hardware is what a machine has.
type Hardware struct {
	Memory   int    `json:"memory"` // MiB
	CPUs     int    `json:"cpus"`
	Disk     int    `json:"disk"`               // MiB
	Firmware string `json:"firmware,omitempty"` // FirmwareDirect or FirmwareUEFI
}

// How a machine starts, in Hardware.Firmware.
const (
	FirmwareDirect = facts.FirmwareDirect
	FirmwareUEFI   = facts.FirmwareUEFI
)

// Changes tells people in what want is other than h. A disk of 0 is one of which
// nothing is known.
func (h Hardware) Changes(want Hardware) []string {
	var d []string
	if h.Memory != want.Memory {
		d = append(d, fmt.Sprintf("memory: %d → %d MiB", h.Memory, want.Memory))
	}
	if h.CPUs != want.CPUs {
		d = append(d, fmt.Sprintf("processors: %d → %d", h.CPUs, want.CPUs))
	}
	if h.Disk > 0 && h.Disk != want.Disk {
		d = append(d, fmt.Sprintf("disk: %d → %d MiB", h.Disk, want.Disk))
	}
	if h.Firmware != want.Firmware {
		d = append(d, fmt.Sprintf("firmware: %s → %s", h.Firmware, want.Firmware))
	}
	return d
}

// Processors words their number.
func (h Hardware) Processors() string {
	if h.CPUs == 1 {
		return "1 processor"
	}
	return fmt.Sprintf("%d processors", h.CPUs)
}
