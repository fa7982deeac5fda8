package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"tool/backends/local"
	"tool/backends/qemu/vswitch"
	"tool/core/machines/deploy"
)

// Observe implements deploy.Backend.
func (b *Backend) Observe(ctx context.Context, m *deploy.Machine) (*deploy.Observed, error) {
	o := &deploy.Observed{ID: uuidOf(m), State: deploy.StateMissing}
	p, err := findProcess(m.Dir, o.ID)
	if err != nil {
		return nil, err
	}
	defer p.close()
	for _, f := range []string{diskFile, rootFile, seedFile, kernelFile, initrdFile, espFile, espDisk, varsFile, configFile, runningFile} {
		if local.Exists(filepath.Join(m.Dir, f)) {
			o.Exists = true
			break
		}
	}
	if !o.Exists && p == nil {
		return o, nil
	}
	o.Exists = true
	c, err := readConfig(m.Dir)
	if err != nil {
		// A file that cannot be read is made again; until then nothing is known.
		o.Problems = append(o.Problems, err.Error())
		c = nil
	}
	o.Missing = missing(m, c)
	o.Complete = len(o.Missing) == 0
	if pid, err := vswitch.Running(m.NetDir); err != nil {
		o.Problems = append(o.Problems, err.Error())
	} else if pid == 0 {
		o.Missing = append(o.Missing, local.PartNetwork)
	}
	if c != nil {
		if want := configOf(m); !c.sameForwards(&want) {
			o.Missing = append(o.Missing, local.PartForwards)
		}
		o.Hardware = c.Hardware
		if o.Drift, err = drift(m, c); err != nil {
			return nil, err
		}
	}
	o.State = deploy.StateStopped
	if p != nil {
		b.observeProcess(ctx, m, p, o)
	} else if local.Exists(filepath.Join(m.Dir, runningFile)) {
		o.State = deploy.StateCrashed
		o.Problems = append(o.Problems, "its process ended without being told to")
	}
	return o, nil
}

// missing lists the parts that m lacks to be started.
func missing(m *deploy.Machine, c *config) []string {
	var parts []string
	lacks := func(files ...string) bool {
		for _, f := range files {
			if !local.Exists(filepath.Join(m.Dir, f)) {
				return true
			}
		}
		return false
	}
	noDisk := lacks(rootFile, diskFile)
	if noDisk {
		parts = append(parts, local.PartDisk)
	}
	// A machine that has taken its seed in does not need it any more, so it is
	// only missed where it is given: with a new disk, or an unfinished machine.
	if m.Seed != "" && lacks(seedFile) {
		parts = append(parts, local.PartSeed)
	}
	firmware := m.Hardware.Firmware
	if c != nil && firmware == "" {
		firmware = c.Hardware.Firmware
	}
	if firmware == uefi && lacks(espFile, espDisk, varsFile) || firmware != uefi && lacks(kernelFile, initrdFile) {
		parts = append(parts, local.PartBoot)
	}
	if c == nil {
		parts = append(parts, local.PartConfig)
	}
	return parts
}

// drift tells what is other than m wants it, beside hardware. What m does not
// tell it does not want.
func drift(m *deploy.Machine, c *config) ([]string, error) {
	want := configOf(m)
	if m.Kernel == "" {
		want.Cmdline = c.Cmdline
	}
	d := c.differences(&want)
	if want.Hardware.Firmware != direct {
		return d, nil
	}
	for _, f := range []struct{ what, want, have string }{
		{"kernel", m.Kernel, kernelFile}, {"initrd", m.Initrd, initrdFile},
	} {
		have := filepath.Join(m.Dir, f.have)
		if f.want == "" || !local.Exists(have) {
			continue
		}
		same, err := sameContent(f.want, have)
		if err != nil {
			return nil, err
		}
		if !same {
			d = append(d, f.what+": another one")
		}
	}
	return d, nil
}

// observeProcess asks the machine's process what it does.
func (b *Backend) observeProcess(ctx context.Context, m *deploy.Machine, p *process, o *deploy.Observed) {
	o.State = deploy.StateUnknown
	mon, err := openMonitor(ctx, m.Dir, 5*time.Second)
	var status string
	if err == nil {
		status, err = mon.status(o.ID)
		mon.close()
	}
	if err != nil {
		if !p.alive() {
			o.State = deploy.StateStopped
			if local.Exists(filepath.Join(m.Dir, runningFile)) {
				o.State = deploy.StateCrashed
			}
			return
		}
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("its control socket %s has been removed", filepath.Join(m.Dir, qmpFile))
		}
		o.Problems = append(o.Problems, fmt.Sprintf("process %d runs and does not answer: %v", p.pid, err))
		return
	}
	switch status {
	case "running":
		o.State = deploy.StateRunning
		if p.emulated() {
			o.Patience = emulatedPatience
		}
	case "paused", "suspended", "save-vm", "restore-vm", "finish-migrate":
		o.State = deploy.StatePaused
	case "io-error":
		o.State = deploy.StatePaused
		o.Problems = append(o.Problems, "it was paused because its disk could not be written: is the host's disk full?")
	case "prelaunch", "inmigrate":
		o.Problems = append(o.Problems, "it has not been started yet")
	default: // internal-error, guest-panicked, shutdown, watchdog, …
		o.State = deploy.StateCrashed
		o.Problems = append(o.Problems, fmt.Sprintf("QEMU says: %.64s", status))
	}
}
