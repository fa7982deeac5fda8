package qemu

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
	"tool/backends/qemu/vswitch"
	"tool/core/machines/deploy"
)

// startTimeout is how long QEMU may take until it runs the machine: it has only
// to open files.
const startTimeout = 60 * time.Second

// consoleKept is how large a console's log may be when a machine starts; the
// one before is kept beside it.
const consoleKept = 8 << 20

// start starts the machine's process.
func (b *Backend) start(ctx context.Context, m *deploy.Machine) error {
	c, err := readConfig(m.Dir)
	if err != nil {
		return err
	}
	if c == nil {
		return errors.New("it is not configured yet")
	}
	if parts := missing(m, c); len(parts) > 0 {
		return fmt.Errorf("it is not complete: it lacks its %s", strings.Join(parts, ", "))
	}
	p, err := findProcess(m.Dir, c.UUID)
	if err != nil {
		return err
	}
	running := filepath.Join(m.Dir, runningFile)
	if p != nil {
		defer p.close()
		if err := local.WriteFile(running, nil); err != nil {
			return err
		}
		return b.awaitRunning(ctx, m, c, p, nil)
	}
	e, err := emulatorOf(m)
	if err != nil {
		return err
	}
	accel, err := b.accel(ctx, m, e)
	if err != nil {
		return err
	}
	if err := b.startSwitch(ctx, m); err != nil {
		return err
	}
	if err := b.prepare(m, c); err != nil {
		return err
	}
	if err := c.checkPorts(ctx); err != nil {
		return err
	}
	if err := local.WriteFile(running, nil); err != nil {
		return err
	}
	argv := c.command(e, m.Name, accel, local.Exists(filepath.Join(m.Dir, seedFile)))
	ended, err := spawn(m.Dir, filepath.Join(m.Dir, logFile), e.environment(), argv)
	if err == nil {
		err = b.awaitRunning(ctx, m, c, nil, ended)
	}
	select {
	case <-ended:
		// It never ran, so it did not crash.
		err = errors.Join(err, local.Remove(running))
	default:
	}
	return err
}

// prepare removes what an earlier process left and makes the way to the network.
func (b *Backend) prepare(m *deploy.Machine, c *config) error {
	for _, f := range []string{pidFile, qmpFile} {
		if err := local.Remove(filepath.Join(m.Dir, f)); err != nil {
			return err
		}
	}
	console := filepath.Join(m.Dir, consoleFile)
	if info, err := os.Stat(console); err == nil && info.Size() > consoleKept {
		if err := os.Rename(console, console+".old"); err != nil {
			return err
		}
	}
	if err := os.Truncate(filepath.Join(m.Dir, logFile), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	link := filepath.Join(m.Dir, netLink)
	if old, err := os.Readlink(link); err == nil && old == m.NetDir {
		return nil
	}
	if err := local.Remove(link + local.TmpSuffix); err != nil {
		return err
	}
	if err := os.Symlink(m.NetDir, link+local.TmpSuffix); err != nil {
		return err
	}
	return os.Rename(link+local.TmpSuffix, link)
}

// checkPorts finds out before QEMU does, which says less.
func (c *config) checkPorts(ctx context.Context) error {
	addrs := []string{net.JoinHostPort("127.0.0.1", strconv.Itoa(c.SSHPort))}
	for _, f := range c.Forwards {
		addrs = append(addrs, net.JoinHostPort(c.HostAddr, strconv.Itoa(f.Port)))
	}
	return local.CheckPorts(ctx, addrs)
}

// awaitRunning returns when the guest runs. p is its process, or nil where it
// was just started: then ended says when it has.
func (b *Backend) awaitRunning(ctx context.Context, m *deploy.Machine, c *config, p *process, ended <-chan struct{}) error {
	end := time.Now().Add(startTimeout)
	for {
		status, err := b.ask(ctx, m, c)
		switch {
		case err == nil && status == "running":
			return nil
		case err == nil && status == "paused":
			return b.resume(ctx, m)
		case err == nil && status != "prelaunch" && status != "inmigrate":
			return fmt.Errorf("QEMU says: %.64s; console:\n%s", status, deploy.Tail(b.Console(m), 0, 10))
		}
		select {
		case <-ended:
			return fmt.Errorf("QEMU ended at once:\n%s", deploy.Tail(filepath.Join(m.Dir, logFile), 0, 10))
		default:
		}
		if p != nil && !p.alive() {
			return errors.New("its process ended meanwhile")
		}
		if time.Now().After(end) {
			return fmt.Errorf("it does not run after %s: %w; QEMU's log:\n%s", startTimeout, err, deploy.Tail(filepath.Join(m.Dir, logFile), 0, 10))
		}
		if err := local.Pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
}

func (b *Backend) ask(ctx context.Context, m *deploy.Machine, c *config) (string, error) {
	mon, err := openMonitor(ctx, m.Dir, 5*time.Second)
	if err != nil {
		return "", err
	}
	defer mon.close()
	return mon.status(c.UUID)
}

// resume lets a paused machine go on.
func (b *Backend) resume(ctx context.Context, m *deploy.Machine) error {
	mon, err := openMonitor(ctx, m.Dir, 10*time.Second)
	if err != nil {
		return err
	}
	defer mon.close()
	if status, err := mon.status(uuidOf(m)); err != nil || status == "running" {
		return err
	}
	return mon.execute("cont", nil, nil)
}

// stop lets the guest shut down, and ends it if it does not.
func (b *Backend) stop(ctx context.Context, m *deploy.Machine) error {
	p, err := findProcess(m.Dir, uuidOf(m))
	if err != nil {
		return err
	}
	if err := local.Remove(filepath.Join(m.Dir, runningFile)); err != nil {
		return err
	}
	if p == nil {
		return nil
	}
	defer p.close()
	if b.askToStop(ctx, m) {
		if p.wait(ctx, b.o.StopTimeout) == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("it is still shutting down: %w", context.Cause(ctx))
		}
	}
	return p.end(ctx)
}

// askToStop presses the guest's power button. It reports whether the guest can
// be expected to end.
func (b *Backend) askToStop(ctx context.Context, m *deploy.Machine) bool {
	mon, err := openMonitor(ctx, m.Dir, 5*time.Second)
	if err != nil {
		return false
	}
	defer mon.close()
	status, err := mon.status(uuidOf(m))
	if err == nil && status == "paused" {
		err = mon.execute("cont", nil, nil)
	} else if status != "running" {
		return false
	}
	return err == nil && mon.execute("system_powerdown", nil, nil) == nil
}

// destroy removes the machine and all that was made for it.
func (b *Backend) destroy(ctx context.Context, m *deploy.Machine) error {
	p, err := findProcess(m.Dir, uuidOf(m))
	if err != nil {
		return err
	}
	if p != nil {
		defer p.close()
		if err := p.end(ctx); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(m.Dir)
	if err != nil {
		return err
	}
	// The configuration goes last but the lock: what is there belongs to a
	// machine until then.
	for _, e := range entries {
		if name := e.Name(); name != configFile && name != lockFile {
			if err := os.RemoveAll(filepath.Join(m.Dir, name)); err != nil {
				return err
			}
		}
	}
	if err := b.leaveNetwork(ctx, m); err != nil {
		return err
	}
	for _, f := range []string{configFile, lockFile} {
		if err := local.Remove(filepath.Join(m.Dir, f)); err != nil {
			return err
		}
	}
	return nil
}

// leaveNetwork removes the machine's port, and ends the switch if it was the
// last one.
func (b *Backend) leaveNetwork(ctx context.Context, m *deploy.Machine) error {
	if m.NetDir == "" || !local.Exists(m.NetDir) {
		return nil
	}
	others, err := vswitch.Forget(m.NetDir, m.Name)
	if err != nil || others {
		return err
	}
	return b.stopSwitch(ctx, m.NetDir)
}
