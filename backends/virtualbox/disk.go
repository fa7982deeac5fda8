package virtualbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tool/backends/local"
	"tool/core/machines/deploy"
)

// media returns all disks that VirtualBox knows.
func (b *Backend) media(ctx context.Context) ([]medium, error) {
	out, err := b.m.run(ctx, "list", "hdds")
	return parseMedia(out), err
}

func basesOf(m *deploy.Machine) ([]string, error) { return files(m.NetDir, "base-", ".vdi") }

// openBases lets VirtualBox know the images that disks of the deployment are
// above: a disk names its parent by a UUID only, which VirtualBox forgets with
// the last machine that it knows to use it.
func (b *Backend) openBases(ctx context.Context, m *deploy.Machine) error {
	bases, err := basesOf(m)
	if err != nil {
		return err
	}
	for _, path := range bases {
		if _, err := b.m.run(ctx, "showmediuminfo", "disk", path); err != nil {
			return err
		}
	}
	return nil
}

// convert makes a disk from a raw image, whole or not at all, of mib MiB or, with
// 0, as large as the image. Its UUID is given, so that one made again takes the
// place of the one before.
func (b *Backend) convert(ctx context.Context, image, path, id string, mib int) error {
	image, err := filepath.EvalSymlinks(image)
	if err != nil {
		return err
	}
	info, err := os.Stat(image)
	if err != nil {
		return err
	}
	if info.Size() == 0 || info.Size()%512 != 0 {
		return fmt.Errorf("%s has %d bytes, which is no whole number of sectors", image, info.Size())
	}
	tmp := path + local.TmpSuffix
	if err := b.forgetFile(ctx, tmp); err != nil {
		return err
	}
	if _, err := b.m.runFor(ctx, longTimeout, "convertfromraw", image, tmp, "--format", "VDI", "--uuid", id); err != nil {
		return errors.Join(err, local.Remove(tmp))
	}
	if mib > 0 {
		if _, err := b.m.run(ctx, "modifymedium", "disk", tmp, "--resize", strconv.Itoa(mib)); err != nil {
			return err
		}
		// By that VirtualBox knows it, under the name that it does not keep.
		if _, err := b.m.run(ctx, "closemedium", "disk", tmp); err != nil {
			return err
		}
	}
	// Seeds hold keys, and the folder is not the only thing that guards them.
	if err := os.Chmod(tmp, 0o600); err != nil {
		return err
	}
	if err := syncFile(tmp); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

// base makes the disk that all machines of the deployment with the same image and
// size share, if it is not there yet, and returns its path. It is as large as
// they are: where a disk is larger than the one below it, VirtualBox fails to
// write behind the other's end. The caller has the lock.
func (b *Backend) base(ctx context.Context, m *deploy.Machine) (string, error) {
	image, err := filepath.EvalSymlinks(m.Root)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(image)
	if err != nil {
		return "", err
	}
	if have := (info.Size() + 1<<20 - 1) >> 20; int64(m.Hardware.Disk) < have {
		return "", fmt.Errorf("a disk of %d MiB is smaller than the image, which has %d MiB: give the machine a larger one", m.Hardware.Disk, have)
	}
	// Names in the store are of content; elsewhere, time and size tell.
	id := uuidOf("base", m.Deployment, filepath.Base(image), strconv.FormatInt(info.Size(), 10), strconv.FormatInt(info.ModTime().UnixNano(), 10), strconv.Itoa(m.Hardware.Disk))
	path := filepath.Join(m.NetDir, "base-"+id[:8]+".vdi")
	if local.Exists(path) {
		return path, nil
	}
	return path, b.convert(ctx, image, path, id, m.Hardware.Disk)
}

// makeDisk makes the machine's disk above the base image. One that is there
// stays: it holds the machine's data.
func (b *Backend) makeDisk(ctx context.Context, m *deploy.Machine) error {
	root := filepath.Join(m.Dir, rootFile)
	making := root + makingSuffix
	if local.Exists(root) && !local.Exists(making) {
		return nil
	}
	v, err := b.atRest(ctx, m)
	if err != nil {
		return err
	}
	if has, err := hasDisk(m, v); err != nil || has {
		return err
	}
	if n := len(v.snapshots()); n > 0 {
		return fmt.Errorf("its disk is gone, and its %d snapshots are only what changed since: put %s back, or destroy the machine", n, root)
	}
	if err := kind.Needs("a base image", m.Root); err != nil {
		return err
	}
	unlock, err := lockNet(ctx, m)
	if err != nil {
		return err
	}
	defer unlock()
	base, err := b.base(ctx, m)
	if err != nil {
		return fmt.Errorf("make the base image: %w", err)
	}
	if err := b.forgetDisk(ctx, m, v, portRoot, root); err != nil {
		return err
	}
	// VirtualBox writes down the disk where it is made, so it cannot be renamed:
	// another file says that it is not finished.
	if err := local.WriteFile(making, nil); err != nil {
		return err
	}
	if _, err := b.m.run(ctx, "createmedium", "disk", "--filename", root, "--diffparent", base, "--format", "VDI"); err != nil {
		return err
	}
	if err := os.Chmod(root, 0o600); err != nil {
		return err
	}
	if err := syncFile(root); err != nil {
		return err
	}
	return local.Remove(making)
}

// forgetDisk detaches what is at a port, and lets VirtualBox forget what it knows
// of a file that is to be made again.
func (b *Backend) forgetDisk(ctx context.Context, m *deploy.Machine, v *machine, port int, path string) error {
	if err := b.detach(ctx, m, v, port); err != nil {
		return err
	}
	return b.forgetFile(ctx, path)
}

func (b *Backend) detach(ctx context.Context, m *deploy.Machine, v *machine, port int) error {
	if at := v.info[portKey(port)]; at == "" || at == "none" {
		return nil
	}
	return b.attach(ctx, m, port, "none")
}

// forgetFile removes a disk's file, and lets VirtualBox forget it.
func (b *Backend) forgetFile(ctx context.Context, path string) error {
	if err := b.closeFile(ctx, path); err != nil {
		return err
	}
	return local.Remove(path)
}

// closeFile lets VirtualBox forget a disk, if it knows it.
func (b *Backend) closeFile(ctx context.Context, path string) error {
	all, err := b.media(ctx)
	if err != nil {
		return err
	}
	for _, d := range all {
		if d.location == path {
			if _, err := b.m.run(ctx, "closemedium", "disk", d.id); err != nil {
				return err
			}
		}
	}
	return nil
}

// placeSeed makes the seed disk from the seed that m has. The machine takes it in
// at its next start if it is new to it.
func (b *Backend) placeSeed(ctx context.Context, m *deploy.Machine) error {
	if m.Seed == "" {
		return errors.New("there is no seed to attach")
	}
	if _, err := b.atRest(ctx, m); err != nil {
		return err
	}
	return b.convert(ctx, m.Seed, filepath.Join(m.Dir, seedFile), diskID(m, seedFile), 0)
}

// placeBoot makes the disk with the EFI system partition. It holds the machine's
// own entries after its first start, so one that is there stays.
func (b *Backend) placeBoot(ctx context.Context, m *deploy.Machine) error {
	esp := filepath.Join(m.Dir, espFile)
	if local.Exists(esp) {
		return nil
	}
	if _, err := b.atRest(ctx, m); err != nil {
		return err
	}
	if err := kind.Needs("an image of the EFI system partition", m.ESP); err != nil {
		return err
	}
	return b.convert(ctx, m.ESP, esp, diskID(m, espFile), 0)
}

// resizeDisk lets the disk be as large as wanted. The machine's init lets the
// file system follow.
func (b *Backend) resizeDisk(ctx context.Context, m *deploy.Machine) error {
	v, err := b.atRest(ctx, m)
	if err != nil {
		return err
	}
	if names := v.snapshots(); len(names) > 0 {
		return cannotGrow(m, names)
	}
	disk, _ := v.disk(m)
	have, err := readVDI(disk)
	if err != nil || have.capacity >= m.Hardware.Disk {
		return err
	}
	if have.parent != [16]byte{} {
		return b.flatten(ctx, m, v, disk)
	}
	_, err = b.m.run(ctx, "modifymedium", "disk", disk, "--resize", strconv.Itoa(m.Hardware.Disk))
	return err
}

func cannotGrow(m *deploy.Machine, snapshots []string) error {
	return fmt.Errorf("it has snapshots (%s), and a disk with any cannot grow: delete them first (tool snapshot delete NAME %s)", strings.Join(snapshots, ", "), m.Name)
}

// flatten makes the disk one of its own, above nothing, and as large as wanted:
// see base. It takes the place of root.vdi at once; configure attaches it.
func (b *Backend) flatten(ctx context.Context, m *deploy.Machine, v *machine, disk string) error {
	root, grown := filepath.Join(m.Dir, rootFile), filepath.Join(m.Dir, grownFile)
	if err := b.forgetFile(ctx, grown); err != nil {
		return err
	}
	if err := b.openBases(ctx, m); err != nil {
		return err
	}
	if _, err := b.m.runFor(ctx, longTimeout, "clonemedium", "disk", disk, grown, "--format", "VDI"); err != nil {
		return err
	}
	if _, err := b.m.run(ctx, "modifymedium", "disk", grown, "--resize", strconv.Itoa(m.Hardware.Disk)); err != nil {
		return err
	}
	if err := os.Chmod(grown, 0o600); err != nil {
		return err
	}
	if err := syncFile(grown); err != nil {
		return err
	}
	if err := b.closeFile(ctx, grown); err != nil {
		return err
	}
	if disk != root { // one without a root.vdi, which must have it before it loses the other
		if err := os.Rename(grown, root); err != nil {
			return err
		}
		return b.forgetDisk(ctx, m, v, portRoot, disk)
	}
	if err := b.detach(ctx, m, v, portRoot); err != nil {
		return err
	}
	if err := b.closeFile(ctx, root); err != nil {
		return err
	}
	return os.Rename(grown, root)
}

// removeBases removes the base images that no disk is above any more. The caller
// has the lock.
func (b *Backend) removeBases(ctx context.Context, m *deploy.Machine) error {
	bases, err := basesOf(m)
	if err != nil || len(bases) == 0 {
		return err
	}
	disks, err := allDisks(filepath.Dir(m.Dir))
	if err != nil {
		return err
	}
	used := map[[16]byte]bool{}
	for _, path := range disks {
		d, err := readVDI(path)
		if err != nil {
			return nil // what it is above cannot be told, so all stay until it is gone
		}
		used[d.parent] = true
	}
	all, err := b.media(ctx)
	if err != nil {
		return err
	}
	for _, path := range bases {
		if d, err := readVDI(path); err == nil && used[d.id] {
			continue
		}
		if i := slices.IndexFunc(all, func(d medium) bool { return d.location == path }); i >= 0 {
			if err := b.closeTree(ctx, all, all[i].id); err != nil {
				return err
			}
		}
		if err := local.Remove(path); err != nil {
			return err
		}
	}
	return nil
}

// forgetGone lets VirtualBox forget the disks of machines of the deployment that are
// destroyed: the settings of another one, which are read again, may name them, since
// they name all disks above its base image.
func (b *Backend) forgetGone(ctx context.Context, m *deploy.Machine) error {
	all, err := b.media(ctx)
	if err != nil {
		return err
	}
	machines := filepath.Dir(m.Dir)
	for _, d := range all {
		rel, err := filepath.Rel(machines, d.location)
		if err != nil || !filepath.IsLocal(rel) || local.Exists(d.location) {
			continue
		}
		name, _, _ := strings.Cut(rel, "/")
		if holds(filepath.Join(machines, name)) {
			continue
		}
		if err := b.closeTree(ctx, all, d.id); err != nil && !says(err, codeNotFound) {
			return err
		}
	}
	return nil
}

// closeTree lets VirtualBox forget a disk, and before it those above whose files
// are gone.
func (b *Backend) closeTree(ctx context.Context, all []medium, id string) error {
	for _, d := range all {
		if d.parent == id && !local.Exists(d.location) {
			if err := b.closeTree(ctx, all, d.id); err != nil {
				return err
			}
		}
	}
	_, err := b.m.run(ctx, "closemedium", "disk", id)
	return err
}

// allDisks returns the disks of all machines of a deployment, and those that
// VirtualBox made for snapshots.
func allDisks(machines string) ([]string, error) {
	entries, err := os.ReadDir(machines)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		dir := filepath.Join(machines, e.Name())
		// One that is not finished is made again, with its base image.
		if root := filepath.Join(dir, rootFile); local.Exists(root) && !local.Exists(root+makingSuffix) {
			out = append(out, root)
		}
		folders, err := files(dir, "", "")
		if err != nil {
			return nil, err
		}
		for _, f := range folders {
			if info, err := os.Lstat(f); err != nil || !info.IsDir() {
				continue
			}
			layers, err := files(filepath.Join(f, "Snapshots"), "", ".vdi")
			if err != nil {
				return nil, err
			}
			out = append(out, layers...)
		}
	}
	return out, nil
}
