package qemu

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"tool/backends/local"
	"tool/core/machines/deploy"
)

// makeDisk makes the machine's disk above the base image. One that is there
// stays: it holds the machine's data.
func (b *Backend) makeDisk(ctx context.Context, m *deploy.Machine) error {
	disk := filepath.Join(m.Dir, diskFile)
	if local.Exists(disk) && local.Exists(filepath.Join(m.Dir, rootFile)) {
		return nil
	}
	if err := b.mustRest(m); err != nil {
		return err
	}
	if local.Exists(disk) {
		// Without its base image the rest means nothing; and the base must be
		// the same one, byte by byte.
		return fmt.Errorf("%s is gone, which %s is only the changes to: put it back, or destroy the machine", rootFile, diskFile)
	}
	if err := kind.Needs("a base image", m.Root); err != nil {
		return err
	}
	if err := take(m.Root, filepath.Join(m.Dir, rootFile)); err != nil {
		return err
	}
	return b.overlay(ctx, m, rootFile, diskFile, m.Hardware.Disk)
}

// overlay makes an image that holds the changes to a base in the same folder.
func (b *Backend) overlay(ctx context.Context, m *deploy.Machine, base, name string, mib int) error {
	e, err := emulatorOf(m)
	if err != nil {
		return err
	}
	tmp := name + local.TmpSuffix
	if err := local.Remove(filepath.Join(m.Dir, tmp)); err != nil {
		return err
	}
	args := []string{"create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, "-o", "lazy_refcounts=off", tmp}
	if mib > 0 {
		info, err := os.Stat(filepath.Join(m.Dir, base))
		if err != nil {
			return err
		}
		if int64(mib)<<20 < info.Size() {
			return fmt.Errorf("a disk of %d MiB is smaller than the base image, which has %d MiB: give the machine a larger one", mib, (info.Size()+1<<20-1)>>20)
		}
		args = append(args, strconv.Itoa(mib)+"M")
	}
	if err := e.image(ctx, m.Dir, args...); err != nil {
		return err
	}
	return os.Rename(filepath.Join(m.Dir, tmp), filepath.Join(m.Dir, name))
}

// placeSeed attaches the seed that m has. The machine takes it in at its next
// start if it is new to it.
func (b *Backend) placeSeed(_ context.Context, m *deploy.Machine) error {
	if m.Seed == "" {
		return fmt.Errorf("there is no seed to attach")
	}
	seed := filepath.Join(m.Dir, seedFile)
	if sameFile(m.Seed, seed) {
		return nil
	}
	if err := b.mustRest(m); err != nil {
		return err
	}
	info, err := os.Stat(m.Seed)
	if err != nil {
		return err
	}
	if info.Mode().Perm() == 0o600 {
		return take(m.Seed, seed)
	}
	// It holds the machine's key: who may read the other file must not read this.
	tmp := seed + local.TmpSuffix
	if err := local.Remove(tmp); err != nil {
		return err
	}
	if err := clone(m.Seed, tmp, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, seed)
}

// placeBoot puts the kernel and its initrd, or the disk with the boot loader,
// into the machine's folder. The EFI system partition holds the machine's own
// entries after its first start, so one that is there stays.
func (b *Backend) placeBoot(ctx context.Context, m *deploy.Machine) error {
	if err := b.mustRest(m); err != nil {
		return err
	}
	want := configOf(m)
	if err := needsBoot(m, want.Hardware.Firmware); err != nil {
		return err
	}
	if want.Hardware.Firmware != uefi {
		if err := take(m.Kernel, filepath.Join(m.Dir, kernelFile)); err != nil {
			return err
		}
		return take(m.Initrd, filepath.Join(m.Dir, initrdFile))
	}
	if !local.Exists(filepath.Join(m.Dir, espDisk)) || !local.Exists(filepath.Join(m.Dir, espFile)) {
		if err := take(m.ESP, filepath.Join(m.Dir, espFile)); err != nil {
			return err
		}
		if err := b.overlay(ctx, m, espFile, espDisk, 0); err != nil {
			return err
		}
	}
	vars := filepath.Join(m.Dir, varsFile)
	if local.Exists(vars) {
		return nil
	}
	e, err := emulatorOf(m)
	if err != nil {
		return err
	}
	if err := local.Remove(vars + local.TmpSuffix); err != nil {
		return err
	}
	if err := clone(filepath.Join(e.root, varsPath), vars+local.TmpSuffix, 0o600); err != nil {
		return err
	}
	return os.Rename(vars+local.TmpSuffix, vars)
}

// resizeDisk lets the disk be as large as wanted. The machine's init lets the
// file system follow.
func (b *Backend) resizeDisk(ctx context.Context, m *deploy.Machine) error {
	if err := b.mustRest(m); err != nil {
		return err
	}
	e, err := emulatorOf(m)
	if err != nil {
		return err
	}
	return e.image(ctx, m.Dir, "resize", "-q", "-f", "qcow2", diskFile, strconv.Itoa(m.Hardware.Disk)+"M")
}

// configure writes down how the machine is started from now on.
func (b *Backend) configure(_ context.Context, m *deploy.Machine) error {
	want := configOf(m)
	if err := want.check(); err != nil {
		return err
	}
	if err := b.mustRest(m); err != nil {
		return err
	}
	return want.write(m.Dir)
}

// mustRest reports that a running machine cannot be changed.
func (b *Backend) mustRest(m *deploy.Machine) error {
	p, err := findProcess(m.Dir, uuidOf(m))
	if err != nil {
		return err
	}
	if p == nil {
		return nil
	}
	defer p.close()
	return fmt.Errorf("it runs as process %d: it must be stopped for this", p.pid)
}
