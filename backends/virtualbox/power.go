package virtualbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"tool/backends/local"
	"tool/core/machines/deploy"
)

// The file "running" is there from just before a machine is started until it is
// told to end. So a machine that is off although the file is there has ended on
// its own: its process crashed or was killed, or its guest switched off.
// VirtualBox's own "aborted" stays until the next start, whatever comes between.

const (
	// startTimeout is how long a machine may take until VirtualBox runs it.
	startTimeout = 3 * time.Minute
	// offTimeout is how long VirtualBox may take to end a machine's process.
	offTimeout = 60 * time.Second
)

// start starts the machine and returns when it runs.
func (b *Backend) start(ctx context.Context, m *deploy.Machine) error {
	v, err := b.look(ctx, m)
	if err != nil {
		return err
	}
	running := filepath.Join(m.Dir, runningFile)
	switch {
	case !v.registered || v.inaccessible != "":
		return errors.New("it is not configured yet")
	case v.state() == vmRunning || v.state() == vmPaused:
		if err := local.WriteFile(running, nil); err != nil {
			return err
		}
		return b.resume(ctx, m)
	case v.live():
		return fmt.Errorf("VirtualBox says that it is %s: stop it first", v.state())
	}
	if err := checkPorts(ctx, v.info.rules()); err != nil {
		return err
	}
	// VirtualBox begins the file anew; what was told before a crash is of use.
	console := b.Console(m)
	if info, err := os.Stat(console); err == nil && info.Size() > 0 {
		if err := os.Rename(console, console+".old"); err != nil {
			return err
		}
	}
	if err := local.WriteFile(running, nil); err != nil {
		return err
	}
	startErr := b.startVM(ctx, m)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	err = b.await(ctx, m, startTimeout, func(v *machine) bool { return v.state() == vmRunning }, startErr != nil)
	if startErr != nil {
		err = startErr
		if v, lerr := b.look(ctx, m); lerr == nil && v.state() == vmRunning {
			err = nil
		}
	}
	if err == nil {
		err = b.checkForwards(m)
		if err != nil {
			err = errors.Join(err, b.powerOff(ctx, m))
		}
	}
	if err != nil {
		if v, lerr := b.look(ctx, m); lerr == nil && !v.live() {
			// It never ran, so it did not crash.
			err = errors.Join(b.report(m, v, err), local.Remove(running))
		}
	}
	return err
}

// startVM lets VirtualBox start the machine. The firmware's variables are worth
// nothing that the EFI system partition does not say again; where a full disk or a
// loss of power has damaged them, the machine starts with new ones.
func (b *Backend) startVM(ctx context.Context, m *deploy.Machine) error {
	start := func() error {
		_, err := b.m.runFor(ctx, startTimeout, "startvm", idOf(m), "--type", "headless")
		return err
	}
	err := start()
	if !says(err, "NVRAM store") {
		return err
	}
	if rerr := local.Remove(variablesOf(m)); rerr != nil {
		return errors.Join(err, rerr)
	}
	return start()
}

// await waits until the machine is as wanted. With once it looks only once, for
// who knows already that something is wrong.
func (b *Backend) await(ctx context.Context, m *deploy.Machine, limit time.Duration, done func(*machine) bool, once bool) error {
	end := time.Now().Add(limit)
	for {
		v, err := b.look(ctx, m)
		if err != nil {
			return err
		}
		switch {
		case done(v):
			return nil
		case once || time.Now().After(end):
			return b.report(m, v, fmt.Errorf("it is %s after %s", v.state(), limit))
		}
		if err := local.Pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

// report adds to an error what the machine and VirtualBox said last, and what
// there is to do about it.
func (b *Backend) report(m *deploy.Machine, v *machine, err error) error {
	var s strings.Builder
	fmt.Fprintf(&s, "\nVirtualBox says that it is %s", v.state())
	log := deploy.Tail(logOf(m), 0, 12)
	if hint := hintOf(err.Error() + "\n" + log); hint != "" {
		fmt.Fprintf(&s, "\n%s", hint)
	}
	if c := deploy.Tail(b.Console(m), 0, 10); c != "" {
		fmt.Fprintf(&s, "\nthe end of its console:\n%s", deploy.Printable(c))
	}
	if log != "" {
		fmt.Fprintf(&s, "\nthe end of VirtualBox's log:\n%s", deploy.Printable(log))
	}
	return fmt.Errorf("%w%s", err, s.String())
}

// hints are what to do about errors that VirtualBox tells by a name.
var hints = []struct{ name, text string }{
	{"VERR_SUP_DRIVERLESS", "VirtualBox's kernel driver is needed for that: load it (modprobe vboxdrv)"},
	{"VERR_VMX_IN_VMX_ROOT_MODE", "another hypervisor uses the processor: end its machines, or unload it (rmmod kvm_intel)"},
	{"VERR_SVM_IN_USE", "another hypervisor uses the processor: end its machines, or unload it (rmmod kvm_amd)"},
	{"VERR_VM_DRIVER_NOT_INSTALLED", "VirtualBox's kernel driver is not loaded: modprobe vboxdrv"},
	{"VERR_VM_DRIVER_VERSION_MISMATCH", "VirtualBox's kernel driver is of another version: build it again (/sbin/vboxconfig)"},
	{"VERR_VMX_NO_VMX", "the processor's virtualization is switched off, or this host is itself a virtual machine without it"},
	{"VERR_SVM_NO_SVM", "the processor's virtualization is switched off, or this host is itself a virtual machine without it"},
	{"VERR_NEM_NOT_AVAILABLE", "the processor's virtualization cannot be used"},
	{"VERR_NO_MEMORY", "the host has not enough memory for it"},
	{"VERR_DISK_FULL", "the host's disk is full"},
	{"Nonexistent host networking interface", "its network with the host is gone: deploy again, which makes it"},
	{"terminated unexpectedly during startup", "is VirtualBox's kernel driver loaded, and may you use it? VBoxHeadless --startvm tells more"},
}

func hintOf(text string) string {
	for _, h := range hints {
		if strings.Contains(text, h.name) {
			return h.text
		}
	}
	return ""
}

// checkForwards finds ports that VirtualBox could not listen at: it starts the
// machine all the same, and only its log tells.
func (b *Backend) checkForwards(m *deploy.Machine) error {
	log, err := readHead(logOf(m), 4<<20)
	if err != nil {
		return nil // where it is not readable, connecting will tell
	}
	for line := range strings.Lines(log) {
		if strings.Contains(line, "VERR_NAT_REDIR_SETUP") || strings.Contains(line, "NAT") && strings.Contains(line, "failed") && strings.Contains(line, "port-forward") {
			return fmt.Errorf("a port of this host that leads to it was taken by another program just now: %s", strings.TrimSpace(line))
		}
	}
	return nil
}

// checkPorts finds out what VirtualBox would not say.
func checkPorts(ctx context.Context, rules []rule) error {
	var addrs []string
	for _, r := range rules {
		addrs = append(addrs, net.JoinHostPort(r.addr, strconv.Itoa(r.port)))
	}
	return local.CheckPorts(ctx, addrs)
}

// resume lets a paused machine go on; a saved one is started from its saved
// state.
func (b *Backend) resume(ctx context.Context, m *deploy.Machine) error {
	v, err := b.look(ctx, m)
	if err != nil {
		return err
	}
	switch v.state() {
	case vmRunning:
		return nil
	case vmPaused:
		if _, err := b.m.run(ctx, "controlvm", idOf(m), "resume"); err != nil {
			return err
		}
		return b.await(ctx, m, startTimeout, func(v *machine) bool { return v.state() == vmRunning }, false)
	case vmSaved, vmASaved:
		return b.start(ctx, m)
	}
	return fmt.Errorf("VirtualBox says that it is %s, which cannot go on", v.state())
}

// stop lets the guest shut down, and ends it if it does not. What VirtualBox
// saved of a machine that runs no more is discarded, as if its power were cut.
func (b *Backend) stop(ctx context.Context, m *deploy.Machine) error {
	v, err := b.look(ctx, m)
	if err != nil {
		return err
	}
	if v.snapshotting() {
		return atSnapshot(v)
	}
	if err := local.Remove(filepath.Join(m.Dir, runningFile)); err != nil {
		return err
	}
	switch v.state() {
	case "", vmOff, vmAborted:
		return nil
	case vmSaved, vmASaved:
		_, err := b.m.run(ctx, "discardstate", idOf(m))
		return err
	case vmPaused:
		if _, err := b.m.run(ctx, "controlvm", idOf(m), "resume"); err != nil {
			return err
		}
	}
	if v.state() != vmStuck {
		if _, err := b.m.run(ctx, "controlvm", idOf(m), "acpipowerbutton"); err == nil {
			err := b.await(ctx, m, b.o.StopTimeout, func(v *machine) bool { return !v.live() }, false)
			if err == nil {
				return nil
			}
			if ctx.Err() != nil {
				return fmt.Errorf("it is still shutting down: %w", context.Cause(ctx))
			}
		}
	}
	return b.powerOff(ctx, m)
}

// powerOff ends the machine at once, as if its power were cut.
func (b *Backend) powerOff(ctx context.Context, m *deploy.Machine) error {
	_, offErr := b.m.run(ctx, "controlvm", idOf(m), "poweroff")
	err := b.await(ctx, m, offTimeout, func(v *machine) bool { return !v.live() }, offErr != nil)
	if err != nil && offErr != nil {
		return offErr
	}
	return err
}

// Cut implements deploy.Cutter: it is seen as crashed until it is started again.
func (b *Backend) Cut(ctx context.Context, m *deploy.Machine) error {
	return b.locked(ctx, m, func(ctx context.Context, m *deploy.Machine) error {
		v, err := b.look(ctx, m)
		if err != nil || !v.live() {
			return err
		}
		return b.powerOff(ctx, m)
	})
}
