package virtualbox

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tool/backends/local"
	"tool/core/machines/deploy"
)

// blocker begins a problem because of which the machine cannot be made or
// started: Plan tells it as an error.
const blocker = "in the way: "

// machine is what VirtualBox says of a machine.
type machine struct {
	registered   bool
	inaccessible string // why its settings cannot be read, or ""
	info         info
}

// VirtualBox's states of a machine.
const (
	vmOff     = "poweroff"
	vmAborted = "aborted"
	vmSaved   = "saved"
	vmASaved  = "aborted-saved"
	vmRunning = "running"
	vmPaused  = "paused"
	vmStuck   = "gurumeditation"
)

func (v *machine) state() string { return strings.ToLower(v.info["VMState"]) }

// live reports whether a process of VirtualBox's has the machine.
func (v *machine) live() bool {
	switch v.state() {
	case "", vmOff, vmAborted, vmSaved, vmASaved:
		return false
	}
	return true
}

// passing reports whether the state is one on the way to another.
func (v *machine) passing() bool {
	switch v.state() {
	case "", vmOff, vmAborted, vmSaved, vmASaved, vmRunning, vmPaused, vmStuck:
		return false
	}
	return true
}

// snapshotting reports whether VirtualBox takes, deletes or restores a snapshot,
// which it goes on with when who asked for it is gone.
func (v *machine) snapshotting() bool { return strings.Contains(v.state(), "snapshot") }

func atSnapshot(v *machine) error {
	return fmt.Errorf("VirtualBox is at work on a snapshot of it (%s): wait until it is done", v.state())
}

// look asks VirtualBox for a machine. It waits a little for the end of a state
// that leads to another.
func (b *Backend) look(ctx context.Context, m *deploy.Machine) (*machine, error) {
	end := time.Now().Add(20 * time.Second)
	for {
		v, err := b.lookOnce(ctx, m)
		if err != nil || !v.passing() || time.Now().After(end) {
			return v, err
		}
		if err := local.Pause(ctx, 200*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

func (b *Backend) lookOnce(ctx context.Context, m *deploy.Machine) (*machine, error) {
	out, err := b.m.run(ctx, "showvminfo", idOf(m), "--machinereadable")
	switch {
	case err == nil:
		v := &machine{registered: true, info: parseInfo(out)}
		if v.info["VMState"] == "" {
			return nil, fmt.Errorf("VirtualBox does not tell the machine's state: %.200q", out)
		}
		return v, nil
	case says(err, codeNotFound):
		return &machine{info: info{}}, nil
	case says(err, codeDenied) && !busy(err):
		return &machine{registered: true, inaccessible: "its settings " + settingsOf(m) + " cannot be read", info: info{}}, nil
	}
	return nil, err
}

// Observe implements deploy.Backend.
func (b *Backend) Observe(ctx context.Context, m *deploy.Machine) (*deploy.Observed, error) {
	o := &deploy.Observed{ID: idOf(m), State: deploy.StateMissing}
	v, err := b.look(ctx, m)
	if err != nil {
		return nil, err
	}
	if o.Exists = v.registered || anything(m); !o.Exists {
		if configOf(m).network == networkHostonly && !local.Exists(networkDevice) {
			o.Problems = append(o.Problems, noNetwork)
		}
		return o, b.findBlockers(ctx, m, o)
	}
	o.State = stateOf(m, v)
	if v.registered && v.inaccessible == "" {
		if err := b.observeInfo(ctx, m, v, o); err != nil {
			return nil, err
		}
	} else {
		if v.inaccessible != "" {
			o.Problems = append(o.Problems, v.inaccessible)
		} else if err := b.findBlockers(ctx, m, o); err != nil {
			return nil, err
		}
		o.Missing = append(o.Missing, local.PartConfig)
	}
	if has, err := hasDisk(m, v); err != nil {
		return nil, err
	} else if !has {
		o.Missing = append(o.Missing, local.PartDisk)
	}
	// A machine that has taken its seed in does not need it any more, but it is
	// attached: without it VirtualBox starts nothing.
	seed := local.Exists(filepath.Join(m.Dir, seedFile))
	if !seed && (m.Seed != "" || v.info[portKey(portSeed)] != "" && v.info[portKey(portSeed)] != "none") {
		o.Missing = append(o.Missing, local.PartSeed)
	}
	if !local.Exists(filepath.Join(m.Dir, espFile)) {
		o.Missing = append(o.Missing, local.PartBoot)
	}
	o.Complete = len(o.Missing) == 0
	c, err := b.wanted(ctx, m)
	if err != nil {
		return nil, err
	}
	if c.network == networkHostonly && c.adapter == "" {
		o.Missing = append(o.Missing, local.PartNetwork)
		if !local.Exists(networkDevice) {
			o.Problems = append(o.Problems, noNetwork)
		}
	}
	if v.registered && v.inaccessible == "" {
		if remove, add := ruleChanges(v.info.rules(), c.rules); len(remove)+len(add) > 0 {
			o.Missing = append(o.Missing, local.PartForwards)
		}
		o.Drift = c.drift(v.info)
	}
	return o, nil
}

// observeInfo takes over what VirtualBox says of a machine.
func (b *Backend) observeInfo(ctx context.Context, m *deploy.Machine, v *machine, o *deploy.Observed) error {
	o.Hardware = deploy.Hardware{Memory: v.info.number("memory"), CPUs: v.info.number("cpus"), Firmware: uefi}
	switch v.state() {
	case vmRunning:
		if emulated(logOf(m)) {
			o.Patience = emulatedPatience
		}
	case vmPaused:
		if strings.Contains(deploy.Tail(logOf(m), 0, 40), "DISKFULL") {
			o.Problems = append(o.Problems, "it was paused because its disk could not be written: the host's disk is full")
		}
	case vmSaved, vmASaved:
		o.Problems = append(o.Problems, "VirtualBox has saved its state: it goes on from there when it is started")
	case vmStuck:
		o.Problems = append(o.Problems, "VirtualBox stopped it, for it cannot go on (guru meditation); its log:\n"+deploy.Tail(logOf(m), 0, 8))
	}
	if v.snapshotting() {
		o.Problems = append(o.Problems, blocker+atSnapshot(v).Error())
	}
	if o.State == deploy.StateCrashed && v.state() == vmAborted {
		o.Problems = append(o.Problems, "its process ended without being told to")
	}
	at, attached := v.disk(m)
	if !attached {
		o.Missing = append(o.Missing, local.PartConfig)
	} else if v.info[portKey(portESP)] != filepath.Join(m.Dir, espFile) && len(v.snapshots()) == 0 {
		o.Missing = append(o.Missing, local.PartConfig)
	}
	if local.Exists(filepath.Join(m.Dir, rootFile+makingSuffix)) {
		return nil // half a disk tells nothing
	}
	if !local.Exists(at) {
		if at != filepath.Join(m.Dir, rootFile) {
			o.Problems = append(o.Problems, blocker+at+" is gone, which holds what changed since its last snapshot: put it back, or destroy the machine")
		}
		return nil
	}
	var err error
	if o.Hardware.Disk, err = vdiCapacity(at); err != nil {
		o.Problems = append(o.Problems, blocker+err.Error()+": put it back, or destroy the machine")
		return nil
	}
	if names := v.snapshots(); len(names) > 0 && m.Hardware.Disk > o.Hardware.Disk {
		o.Problems = append(o.Problems, blocker+cannotGrow(m, names).Error())
	}
	if v.live() {
		return nil
	}
	all, err := b.media(ctx)
	if err != nil {
		return err
	}
	if gone := lost(all, at); gone != "" {
		o.Problems = append(o.Problems, fmt.Sprintf("%sits disk cannot be read: %s is gone, which it holds only the changes to: put it back, or destroy the machine", blocker, gone))
	}
	return nil
}

// disk returns the path of the machine's disk, and whether it is attached. After
// snapshots that is not root.vdi: where one is deleted, VirtualBox puts what is
// smaller into what is larger, and either of the two files stays.
func (v *machine) disk(m *deploy.Machine) (path string, attached bool) {
	root := filepath.Join(m.Dir, rootFile)
	at := v.info[portKey(portRoot)]
	if rel, err := filepath.Rel(m.Dir, at); at != root && (err != nil || !filepath.IsLocal(rel)) {
		return root, false
	}
	return at, true
}

// hasDisk reports whether the machine's data is there. A machine that VirtualBox
// has not attached any to, or does not know, may have it above root.vdi, or in
// its place.
func hasDisk(m *deploy.Machine, v *machine) (bool, error) {
	path, attached := v.disk(m)
	if local.Exists(path) && !local.Exists(filepath.Join(m.Dir, rootFile+makingSuffix)) {
		return true, nil
	}
	if attached {
		return false, nil
	}
	layers, err := layersOf(m)
	return len(layers) > 0, err
}

// lost returns the first disk below the one at path whose file is gone, or "".
func lost(all []medium, path string) string {
	at := slices.IndexFunc(all, func(d medium) bool { return d.location == path })
	for range len(all) { // a chain is no longer than all that there are
		if at < 0 {
			return ""
		}
		if !local.Exists(all[at].location) {
			return all[at].location
		}
		parent := all[at].parent
		at = slices.IndexFunc(all, func(d medium) bool { return d.id == parent })
	}
	return ""
}

// snapshots returns the names of the machine's snapshots.
func (v *machine) snapshots() []string {
	var names []string
	for key, value := range v.info {
		if key == "SnapshotName" || strings.HasPrefix(key, "SnapshotName-") {
			names = append(names, value)
		}
	}
	return names
}

// stateOf translates VirtualBox's state. The file "running" tells a machine that
// was stopped from one that ended on its own.
func stateOf(m *deploy.Machine, v *machine) deploy.State {
	switch v.state() {
	case vmRunning, "livesnapshotting", "onlinesnapshotting", "deletingsnapshotlive":
		return deploy.StateRunning
	case vmPaused, vmSaved, vmASaved, "deletingsnapshotlivepaused":
		return deploy.StatePaused
	case vmStuck:
		return deploy.StateCrashed
	case vmOff, vmAborted, "":
		if local.Exists(filepath.Join(m.Dir, runningFile)) {
			return deploy.StateCrashed
		}
		return deploy.StateStopped
	}
	return deploy.StateUnknown
}

// anything reports whether the machine's folder holds anything of it.
func anything(m *deploy.Machine) bool { return holds(m.Dir) }

func holds(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if e.Name() != lockFile {
			return true
		}
	}
	return false
}

// findBlockers looks for what keeps a machine from being made: another one of
// its name, and disks of its own that are registered elsewhere.
func (b *Backend) findBlockers(ctx context.Context, m *deploy.Machine, o *deploy.Observed) error {
	out, err := b.m.run(ctx, "list", "vms")
	if err != nil {
		return err
	}
	for _, l := range parseList(out) {
		if l.name == nameOf(m) && l.id != idOf(m) {
			o.Problems = append(o.Problems, fmt.Sprintf("%sVirtualBox has a machine %s (%s) already, which is not this deployment's: rename it (VBoxManage modifyvm %s --name OTHER) or remove it", blocker, l.name, l.id, l.id))
		}
	}
	all, err := b.media(ctx)
	if err != nil {
		return err
	}
	ours := map[string]string{diskID(m, espFile): filepath.Join(m.Dir, espFile), diskID(m, seedFile): filepath.Join(m.Dir, seedFile)}
	for _, d := range all {
		if want, ok := ours[d.id]; ok && d.location != want {
			o.Problems = append(o.Problems, fmt.Sprintf("%s%s is a disk of this machine from another place, and registered: remove it (VBoxManage closemedium disk %s)", blocker, d.location, d.id))
		}
	}
	return nil
}

// emulatedPatience is how many times longer things take where VirtualBox
// interprets the machine's instructions instead of letting the processor.
const emulatedPatience = 60

// emulated reads from VirtualBox's log how the machine's processor is made.
func emulated(log string) bool {
	head, err := readHead(log, 256<<10)
	return err == nil && (strings.Contains(head, "fIemExecutesAll=true") || strings.Contains(head, "HMR3Init: Falling back on IEM"))
}
