// Package qemu makes machines with QEMU, without privileges: a process for each
// machine, found again by its files, its process ID and its control socket; and
// a switch of ours for their private network, a process for each deployment.
//
// A machine's folder holds
//
//	root.img disk.qcow2      the base image (a hard link) and the disk above it
//	seed.img                 the seed disk
//	kernel initrd            of a direct boot, hard links
//	esp.img esp.qcow2        the EFI system partition's disk, likewise, and
//	vars.fd                  the firmware's variables, with UEFI
//	vm.json                  what the machine is configured as
//	running                  there while it is meant to run: see process.go
//	pid qmp.sock console.log qemu.log lock net
//
// Each file is written under another name and renamed, so a step that was
// interrupted is taken again from its beginning or found done.
package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"tool/backends/local"
	"tool/core/machines/deploy"
)

// Options is what a Backend needs beside the machines.
type Options struct {
	// Switch is the command that serves a deployment's network: the folder is
	// added as its last argument, and it calls vswitch.Run. It must stay valid
	// as long as machines run.
	Switch []string
	// Accel is "kvm", "tcg", or "" for finding out.
	Accel string
	// StopTimeout is how long a machine may take to shut down before it is
	// ended; zero: 90 seconds.
	StopTimeout time.Duration
}

// Backend implements deploy.Backend.
type Backend struct {
	o Options
}

var _ deploy.Backend = (*Backend)(nil)

// New returns the backend.
func New(o Options) *Backend {
	if o.StopTimeout == 0 {
		o.StopTimeout = 90 * time.Second
	}
	return &Backend{o: o}
}

// Name implements deploy.Backend.
func (b *Backend) Name() string { return "qemu" }

// Usable implements deploy.Backend. The emulator itself is built with the
// machines, so the host must have nothing but a Linux that runs its programs.
func (b *Backend) Usable(context.Context) error {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return fmt.Errorf("the qemu backend runs on linux/amd64 only, this is %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	if len(b.o.Switch) == 0 {
		return errors.New("the qemu backend was given no command for the machines' network")
	}
	if b.o.Accel == "kvm" {
		if why := kvmUnusable(); why != "" {
			return fmt.Errorf("KVM was asked for, but %s", why)
		}
	}
	return nil
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
		local.StepDisk: b.makeDisk, local.StepSeed: b.placeSeed, local.StepBoot: b.placeBoot, local.StepResize: b.resizeDisk, local.StepConfigure: b.configure,
		local.StepNetwork: b.startSwitch, local.StepForward: b.forward, local.StepStart: b.start, local.StepResume: b.resume, local.StepStop: b.stop, local.StepDestroy: b.destroy,
	}[s.Kind]
	if do == nil {
		return fmt.Errorf("the qemu backend knows no step %q", s.Kind)
	}
	if s.Kind == local.StepStop || s.Kind == local.StepDestroy {
		if _, err := os.Stat(m.Dir); errors.Is(err, os.ErrNotExist) {
			return nil
		}
	}
	unlock, err := local.Lock(ctx, filepath.Join(m.Dir, lockFile))
	if err != nil {
		return err
	}
	defer unlock()
	return do(ctx, m)
}
