package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

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
			return fmt.Errorf("the network's process %s ended at once: %s", argv[0], tail(log, 5))
		default:
		}
		if time.Now().After(end) {
			return fmt.Errorf("the network's process %s serves nothing after 20 seconds: %s", argv[0], tail(log, 5))
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
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
		if err := remove(filepath.Join(dir, f)); err != nil {
			return err
		}
	}
	return vswitch.Clean(dir)
}
