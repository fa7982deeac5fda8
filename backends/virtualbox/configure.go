package virtualbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"tool/backends/local"
	"tool/core/machines/deploy"
)

// Extra data by which a machine tells people, and other programs, whose it is.
const (
	extraDeployment = "tool/deployment"
	extraMachine    = "tool/machine"
)

// configure registers the machine where VirtualBox does not know it, attaches its
// disks and sets its properties.
func (b *Backend) configure(ctx context.Context, m *deploy.Machine) error {
	if err := b.joinNetwork(ctx, m); err != nil {
		return err
	}
	want, err := b.wanted(ctx, m)
	if err != nil {
		return err
	}
	if err := want.check(); err != nil {
		return err
	}
	if want.network == networkHostonly && want.adapter == "" {
		return errors.New("its network with the host is not there yet")
	}
	v, err := b.atRest(ctx, m)
	if err != nil {
		return err
	}
	if v.inaccessible != "" {
		if _, err := b.m.run(ctx, "unregistervm", idOf(m)); err != nil && !says(err, codeNotFound) {
			return err
		}
		v = &machine{info: info{}}
	}
	if !v.registered {
		if err := b.register(ctx, m); err != nil {
			return err
		}
		if v, err = b.look(ctx, m); err != nil {
			return err
		}
		if !v.registered {
			return errors.New("VirtualBox has registered the machine and does not know it")
		}
	}
	for _, e := range [][2]string{{extraDeployment, m.Deployment}, {extraMachine, m.Name}} {
		if _, err := b.m.run(ctx, "setextradata", idOf(m), e[0], e[1]); err != nil {
			return err
		}
	}
	if err := b.attachDisks(ctx, m, v); err != nil {
		return err
	}
	args := []string{"modifyvm", idOf(m), "--vram", "16", "--graphicscontroller", "vmsvga", "--boot1", "disk"}
	for _, s := range want.settings() {
		args = append(args, s.args...)
	}
	remove, add := ruleChanges(v.info.rules(), want.rules)
	for _, r := range remove {
		args = append(args, "--nat-pf1", "delete", r.name)
	}
	if _, err := b.m.run(ctx, args...); err != nil {
		return err
	}
	for _, r := range add {
		if _, err := b.m.run(ctx, "modifyvm", idOf(m), "--nat-pf1", r.String()); err != nil {
			return err
		}
	}
	return nil
}

// register makes VirtualBox know the machine: again, where its settings are still
// there, or for the first time.
func (b *Backend) register(ctx context.Context, m *deploy.Machine) error {
	settings := settingsOf(m)
	layers, err := files(filepath.Join(folderOf(m), "Snapshots"), "", "")
	if err != nil {
		return err
	}
	if local.Exists(settings) {
		_, err := b.m.run(ctx, "registervm", settings)
		if err == nil {
			v, lerr := b.look(ctx, m)
			if lerr != nil {
				return lerr
			}
			if v.registered {
				return b.forgetGone(ctx, m)
			}
			return fmt.Errorf("%s is of another machine: remove it", settings)
		}
		if len(layers) > 0 {
			return fmt.Errorf("its settings cannot be read, and its snapshots mean nothing without them: %w; mend %s, or destroy the machine", err, settings)
		}
		for _, f := range []string{settings, settings + "-prev"} {
			if err := local.Remove(f); err != nil {
				return err
			}
		}
	} else if len(layers) > 0 {
		return fmt.Errorf("its settings %s are gone, and its snapshots mean nothing without them: put them back, or destroy the machine", settings)
	}
	_, err = b.m.run(ctx, "createvm", "--name", nameOf(m), "--uuid", idOf(m), "--ostype", "Debian_64", "--basefolder", m.Dir, "--register")
	return err
}

// attachDisks sees to it that the machine has its controller and disks.
func (b *Backend) attachDisks(ctx context.Context, m *deploy.Machine, v *machine) error {
	if v.info["storagecontrollername0"] != controller {
		if _, err := b.m.run(ctx, "storagectl", idOf(m), "--name", controller, "--add", "pcie", "--controller", "NVMe", "--portcount", "3", "--bootable", "on"); err != nil {
			return err
		}
	}
	if len(v.snapshots()) > 0 {
		return nil // the newest layers are attached, and only VirtualBox knows which they are
	}
	for _, d := range []struct {
		port int
		file string
	}{{portESP, espFile}, {portRoot, rootFile}, {portSeed, seedFile}} {
		path := filepath.Join(m.Dir, d.file)
		if d.port == portRoot {
			var err error
			if path, err = diskToAttach(m, v); err != nil {
				return err
			}
		} else if !local.Exists(path) && d.port == portSeed {
			continue
		}
		if v.info[portKey(d.port)] == path {
			continue
		}
		if d.port == portRoot {
			if err := b.openBases(ctx, m); err != nil {
				return err
			}
		}
		if err := b.attach(ctx, m, d.port, path); err != nil {
			return err
		}
	}
	return nil
}

// diskToAttach returns the machine's disk, which is in VirtualBox's own folder where
// a deleted snapshot left it there.
func diskToAttach(m *deploy.Machine, v *machine) (string, error) {
	path, _ := v.disk(m)
	if local.Exists(path) {
		return path, nil
	}
	layers, err := layersOf(m)
	if err != nil {
		return "", err
	}
	if len(layers) != 1 {
		return "", fmt.Errorf("its disk %s is gone, and which of the %d in %s has its data cannot be told: attach it by hand, or destroy the machine", path, len(layers), filepath.Join(folderOf(m), "Snapshots"))
	}
	return layers[0], nil
}

// attach puts a disk at a port, in the place of the one that is there; "none"
// takes it away.
func (b *Backend) attach(ctx context.Context, m *deploy.Machine, port int, path string) error {
	args := []string{"storageattach", idOf(m), "--storagectl", controller, "--port", fmt.Sprint(port), "--device", "0", "--medium", path}
	if path != "none" {
		args = append(args, "--type", "hdd", "--nonrotational", "on")
	}
	_, err := b.m.run(ctx, args...)
	return err
}

// atRest returns the machine if it does not run: a running one cannot be changed.
func (b *Backend) atRest(ctx context.Context, m *deploy.Machine) (*machine, error) {
	v, err := b.look(ctx, m)
	if err != nil {
		return nil, err
	}
	if v.live() || v.state() == vmSaved || v.state() == vmASaved {
		return nil, fmt.Errorf("VirtualBox says that it is %s: it must be stopped for this", v.state())
	}
	return v, nil
}

// forward makes the machine's forwarded ports those that are wanted, while it
// runs if it does. Rules that both have are left alone, with their connections.
func (b *Backend) forward(ctx context.Context, m *deploy.Machine) error {
	want, err := b.wanted(ctx, m)
	if err != nil {
		return err
	}
	if err := want.check(); err != nil {
		return err
	}
	v, err := b.look(ctx, m)
	if err != nil {
		return err
	}
	if !v.registered || v.inaccessible != "" {
		return errors.New("it is not configured yet")
	}
	how := []string{"modifyvm", idOf(m), "--nat-pf1"}
	if v.live() {
		how = []string{"controlvm", idOf(m), "natpf1"}
	}
	remove, add := ruleChanges(v.info.rules(), want.rules)
	for _, r := range remove {
		if _, err := b.m.run(ctx, append(how, "delete", r.name)...); err != nil {
			return err
		}
	}
	if err := checkPorts(ctx, add); err != nil {
		return err
	}
	for _, r := range add {
		if _, err := b.m.run(ctx, append(how, r.String())...); err != nil {
			return err
		}
	}
	return nil
}

// destroy removes the machine with all that was made for it.
func (b *Backend) destroy(ctx context.Context, m *deploy.Machine) error {
	v, err := b.look(ctx, m)
	if err != nil {
		return err
	}
	if v.registered {
		if v.live() {
			if err := b.powerOff(ctx, m); err != nil {
				return err
			}
		}
		// Without --delete, which would leave what is detached and fail for a
		// machine whose settings cannot be read.
		if _, err := b.m.run(ctx, "unregistervm", idOf(m)); err != nil && !says(err, codeNotFound) {
			return err
		}
	}
	if err := b.closeMedia(ctx, m); err != nil {
		return err
	}
	// Until it has left what it shares, there is something of it to destroy. On a
	// full disk there may be no room to say so before the rest is gone.
	leaving := filepath.Join(m.Dir, leavingFile)
	markErr := local.WriteFile(leaving, nil)
	entries, err := os.ReadDir(m.Dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != lockFile && e.Name() != leavingFile {
			if err := os.RemoveAll(filepath.Join(m.Dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if markErr != nil {
		if err := local.WriteFile(leaving, nil); err != nil {
			return err
		}
	}
	if err := b.leave(ctx, m); err != nil {
		return err
	}
	return errors.Join(local.Remove(leaving), local.Remove(filepath.Join(m.Dir, lockFile)))
}

// leave removes what the machine was the last of its deployment to use.
func (b *Backend) leave(ctx context.Context, m *deploy.Machine) error {
	if m.NetDir == "" || !local.Exists(m.NetDir) {
		return nil
	}
	unlock, err := lockNet(ctx, m)
	if err != nil {
		return err
	}
	defer unlock()
	if err := b.removeBases(ctx, m); err != nil {
		return err
	}
	return b.leaveNetwork(ctx, m)
}

// closeMedia lets VirtualBox forget the machine's disks, those first that no
// other one is above.
func (b *Backend) closeMedia(ctx context.Context, m *deploy.Machine) error {
	for {
		all, err := b.media(ctx)
		if err != nil {
			return err
		}
		parents := map[string]bool{}
		for _, d := range all {
			parents[d.parent] = true
		}
		closed, left := false, ""
		for _, d := range all {
			if rel, err := filepath.Rel(m.Dir, d.location); err != nil || !filepath.IsLocal(rel) {
				continue
			}
			if left = d.location; parents[d.id] {
				continue
			}
			if _, err := b.m.run(ctx, "closemedium", "disk", d.id); err != nil && !says(err, codeNotFound) {
				return err
			}
			closed = true
		}
		if left == "" {
			return nil
		}
		if !closed {
			return fmt.Errorf("a disk of another machine is above %s: remove that one first", left)
		}
	}
}
