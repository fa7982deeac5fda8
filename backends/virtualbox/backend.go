// Package virtualbox makes machines with VirtualBox 7 or newer, by its own
// command VBoxManage.
//
// A machine's folder holds
//
//	root.vdi                 its disk: what differs from the deployment's base image
//	esp.vdi seed.vdi         the EFI system partition's disk, and the seed disk
//	NAME-DEPLOYMENT/         VirtualBox's own folder: settings, snapshots, logs, the firmware's variables
//	running                  there while the machine is meant to run: see power.go
//	console.log lock
//
// The network's folder holds the base images, base-KEY.vdi, which machines of a
// deployment share, and hostonly.json, where it has a network with the host.
//
// All is addressed by UUIDs that follow from the deployment and the machine, so
// that a step can be taken again whatever became of the one before, and what
// belongs to somebody else is never touched.
package virtualbox

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"tool/backends/local"
	"tool/core/machines/deploy"
)

// Options is what a Backend needs beside the machines.
type Options struct {
	// Program is VBoxManage; "": it is looked for where installers put it.
	Program string
	// Driver is the device of VirtualBox's kernel driver; "": /dev/vboxdrv.
	Driver string
	// StopTimeout is how long a machine may take to shut down before it is
	// ended; zero: 90 seconds.
	StopTimeout time.Duration
}

// Backend implements deploy.Backend.
type Backend struct {
	o Options
	m *manager
}

var (
	_ deploy.Backend     = (*Backend)(nil)
	_ deploy.Cutter      = (*Backend)(nil)
	_ deploy.Shaper      = (*Backend)(nil)
	_ deploy.Snapshotter = (*Backend)(nil)
)

// Name is what deployments call the backend.
const Name = "virtualbox"

// New returns the backend.
func New(o Options) *Backend {
	if o.StopTimeout == 0 {
		o.StopTimeout = 90 * time.Second
	}
	if o.Driver == "" {
		o.Driver = "/dev/vboxdrv"
	}
	return &Backend{o: o, m: &manager{program: o.Program}}
}

// Name implements deploy.Backend.
func (b *Backend) Name() string { return Name }

// Shape implements deploy.Shaper: VirtualBox loads no kernels, so its machines
// start from an EFI system partition of their own.
func (b *Backend) Shape(h deploy.Hardware) deploy.Hardware {
	h.Firmware = uefi
	return h
}

// Dial implements deploy.Backend.
func (b *Backend) Dial(ctx context.Context, m *deploy.Machine) (net.Conn, error) {
	return local.Dial(ctx, m)
}

// Console implements deploy.Backend.
func (b *Backend) Console(m *deploy.Machine) string { return filepath.Join(m.Dir, consoleFile) }

// Do implements deploy.Backend.
func (b *Backend) Do(ctx context.Context, m *deploy.Machine, s deploy.Step) error {
	do := map[string]func(context.Context, *deploy.Machine) error{
		local.StepDisk: b.makeDisk, local.StepSeed: b.placeSeed, local.StepBoot: b.placeBoot, local.StepResize: b.resizeDisk, local.StepNetwork: b.makeNetwork,
		local.StepConfigure: b.configure, local.StepForward: b.forward, local.StepStart: b.start, local.StepResume: b.resume, local.StepStop: b.stop, local.StepDestroy: b.destroy,
	}[s.Kind]
	if do == nil {
		return fmt.Errorf("the virtualbox backend knows no step %q", s.Kind)
	}
	return b.locked(ctx, m, do)
}

// locked does something with a machine that nobody else does anything with.
func (b *Backend) locked(ctx context.Context, m *deploy.Machine, do func(context.Context, *deploy.Machine) error) error {
	if err := os.MkdirAll(m.Dir, 0o700); err != nil {
		return err
	}
	unlock, err := local.Lock(ctx, filepath.Join(m.Dir, lockFile))
	if err != nil {
		return err
	}
	defer unlock()
	return do(ctx, m)
}
