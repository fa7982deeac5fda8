package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"tool/backends/local"
	"tool/backends/qemu/vswitch"
	"tool/core/machines/deploy"
)

// switchLog is the switch's log, in the network's folder.
const switchLog = "switch.log"

// startSwitch sees to it that the deployment's network runs.
func (b *Backend) startSwitch(ctx context.Context, m *deploy.Machine) error {
	if pid, err := vswitch.Running(m.NetDir); err == nil && pid != 0 {
		return nil
	}
	argv := append(append([]string(nil), b.o.Switch...), m.NetDir)
	log := filepath.Join(m.NetDir, switchLog)
	ended, err := spawn(m.NetDir, log, os.Environ(), argv)
	if err != nil {
		return fmt.Errorf("start the network: %w", err)
	}
	end := time.Now().Add(20 * time.Second)
	for {
		if pid, err := vswitch.Running(m.NetDir); err == nil && pid != 0 {
			return nil
		}
		select {
		case <-ended:
			// Unless another one was quicker, that is what its log tells.
			if pid, err := vswitch.Running(m.NetDir); err == nil && pid != 0 {
				return nil
			}
			return fmt.Errorf("the network's process %s ended at once: %s", argv[0], deploy.Tail(log, 0, 5))
		default:
		}
		if time.Now().After(end) {
			return fmt.Errorf("the network's process %s serves nothing after 20 seconds: %s", argv[0], deploy.Tail(log, 0, 5))
		}
		if err := local.Pause(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// stopSwitch ends the network of a deployment that has no machines any more. Its
// process is who holds the lock, so no other one can be meant.
func (b *Backend) stopSwitch(ctx context.Context, dir string) error {
	pid, err := vswitch.Running(dir)
	if err != nil {
		return err
	}
	if pid != 0 {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("process %d of the network: %w", pid, err)
		}
		if err == nil {
			p := &process{pid, fd}
			defer p.close()
			if again, err := vswitch.Running(dir); err == nil && again == pid {
				if err := p.end(ctx); err != nil {
					return err
				}
			}
		}
	}
	for _, f := range []string{switchLog, probeFile} {
		if err := local.Remove(filepath.Join(dir, f)); err != nil {
			return err
		}
	}
	return vswitch.Clean(dir)
}

// forward makes a machine's forwarded ports those that are wanted, while it runs
// if it does.
func (b *Backend) forward(ctx context.Context, m *deploy.Machine) error {
	c, err := readConfig(m.Dir)
	if err != nil {
		return err
	}
	if c == nil {
		return errors.New("it is not configured yet")
	}
	want := configOf(m)
	next := *c
	next.Forwards, next.HostAddr = want.Forwards, want.HostAddr
	if err := next.check(); err != nil {
		return err
	}
	p, err := findProcess(m.Dir, c.UUID)
	if err != nil {
		return err
	}
	if p != nil {
		defer p.close()
		if err := forwardLive(ctx, m, c, &next); err != nil {
			return err
		}
	}
	return next.write(m.Dir)
}

// forwardLive changes the rules of a running machine. Rules that both have are
// left alone, with the connections that use them. It can be done again: a rule
// that an interrupted attempt made is taken away and made anew.
func forwardLive(ctx context.Context, m *deploy.Machine, have, want *config) error {
	mon, err := openMonitor(ctx, m.Dir, 10*time.Second)
	if err != nil {
		return err
	}
	defer mon.close()
	if _, err := mon.status(have.UUID); err != nil {
		return err
	}
	kept := map[string]bool{}
	if have.HostAddr == want.HostAddr {
		for _, f := range have.Forwards {
			kept[have.rule(f)] = true
		}
	}
	wanted := map[string]bool{}
	for _, f := range want.Forwards {
		wanted[want.rule(f)] = true
	}
	remove := func(c *config, f deploy.Forward) error {
		_, err := mon.human(fmt.Sprintf("hostfwd_remove control tcp:%s:%d", c.HostAddr, f.Port))
		return err
	}
	for _, f := range have.Forwards {
		if !wanted[have.rule(f)] {
			if err := remove(have, f); err != nil {
				return err
			}
		}
	}
	for _, f := range want.Forwards {
		if kept[want.rule(f)] {
			continue
		}
		if err := remove(want, f); err != nil {
			return err
		}
		if err := local.CheckPorts(ctx, []string{net.JoinHostPort(want.HostAddr, strconv.Itoa(f.Port))}); err != nil {
			return err
		}
		answer, err := mon.human("hostfwd_add control " + want.rule(f))
		if err != nil {
			return err
		}
		if answer != "" {
			return fmt.Errorf("forward %s: QEMU says: %.200s", want.rule(f), answer)
		}
	}
	return nil
}
