package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
	"tool/backends/local"

	"golang.org/x/sys/unix"
)

// The file "running" is there from just before a machine's process is started
// until it is told to end. So a process that is not there although the file is
// has ended on its own: it crashed, was killed, or its guest switched off.

// process is a machine's running process.
type process struct {
	pid int
	fd  int // pidfd: means this process and no later one of the same number
}

func (p *process) close() {
	if p != nil {
		_ = unix.Close(p.fd)
	}
}

// findProcess returns the process of the machine in dir, or nil. A process ID
// in a file says nothing by itself: the process must carry the machine's UUID
// and work in its folder. Without the file all processes are looked at: one
// may not have written it yet, or somebody removed the folder below it.
func findProcess(dir, uuid string) (*process, error) {
	if b, err := local.ReadFile(filepath.Join(dir, pidFile), 64); err == nil {
		if pid, err := strconv.Atoi(strings.TrimSpace(string(b))); err == nil {
			if p, err := openProcess(pid, dir, uuid); p != nil || err != nil {
				return p, err
			}
		}
	}
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || !isMachine(pid, dir, uuid) {
			continue
		}
		if p, err := openProcess(pid, dir, uuid); p != nil || err != nil {
			return p, err
		}
	}
	return nil, nil
}

// openProcess returns the process if it is the machine's and runs.
func openProcess(pid int, dir, uuid string) (*process, error) {
	if pid <= 1 {
		return nil, nil
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
			return nil, nil
		}
		return nil, fmt.Errorf("process %d: %w", pid, err)
	}
	p := &process{pid, fd}
	if !isMachine(pid, dir, uuid) || !p.alive() { // looked at after the descriptor says which process it is
		p.close()
		return nil, nil
	}
	return p, nil
}

// isMachine reports whether the process is QEMU with this UUID in this folder,
// or in one that has been removed.
func isMachine(pid int, dir, uuid string) bool {
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	args, err := local.ReadFile(filepath.Join(proc, "cmdline"), 1<<20)
	if err != nil || !bytes.Contains(args, []byte("\x00-uuid\x00"+uuid+"\x00")) {
		return false
	}
	cwd, err := os.Readlink(filepath.Join(proc, "cwd"))
	return err == nil && (strings.HasSuffix(cwd, " (deleted)") || sameFile(cwd, dir))
}

// emulatedPatience is how many times longer things take without KVM: a JVM that
// starts in a second needs ten, and more where several machines share the host.
const emulatedPatience = 6

// emulated reports whether the process has no KVM.
func (p *process) emulated() bool {
	args, err := local.ReadFile(filepath.Join("/proc", strconv.Itoa(p.pid), "cmdline"), 1<<20)
	return err == nil && bytes.Contains(args, []byte("\x00-accel\x00"+accelTCG))
}

// alive reports whether the process still runs.
func (p *process) alive() bool {
	fds := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n == 0 || errors.Is(err, unix.EINTR)
}

// wait returns nil once the process has ended.
func (p *process) wait(ctx context.Context, d time.Duration) error {
	end := time.Now().Add(d)
	for p.alive() {
		if time.Now().After(end) {
			return fmt.Errorf("process %d still runs after %s", p.pid, d)
		}
		if err := local.Pause(ctx, 20*time.Millisecond); err != nil {
			return err
		}
	}
	return nil
}

// end ends the process: QEMU writes out its disks on SIGTERM.
func (p *process) end(ctx context.Context) error {
	for _, s := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := unix.PidfdSendSignal(p.fd, s, nil, 0); err != nil {
			if errors.Is(err, unix.ESRCH) {
				return nil
			}
			return fmt.Errorf("end process %d: %w", p.pid, err)
		}
		if err := p.wait(ctx, 10*time.Second); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return fmt.Errorf("process %d does not end even when killed: it waits for a disk or device of the host", p.pid)
}

// spawn starts a process that outlives this one: in a session of its own, with
// nothing of this one's but the log it writes to. The channel closes when it
// has ended.
func spawn(dir, log string, env, argv []string) (<-chan struct{}, error) {
	out, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = dir, env, out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // or it would stay as a zombie while this process lives
		close(ended)
	}()
	return ended, nil
}
