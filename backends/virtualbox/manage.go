package virtualbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tool/backends/local"
)

// How long a call may take: one in hundreds stalls for ten seconds where most
// take fifty milliseconds. Those that copy disks take what their size takes.
const (
	callTimeout = 2 * time.Minute
	longTimeout = 30 * time.Minute
)

// busyTimeout is how long a call is repeated while another one holds what it needs.
const busyTimeout = 30 * time.Second

// maxOutput bounds what a call may say, in bytes.
const maxOutput = 8 << 20

// manager runs VBoxManage.
type manager struct {
	program string // as told; "": found
	find    sync.Once
	path    string
	err     error
	warm    sync.Mutex // held by the first call of this process
	isWarm  bool
}

// callError is what VBoxManage says when it fails.
type callError struct {
	args []string
	text string // its stderr
	err  error
}

// Error tells VBoxManage's own words without the place in its source.
func (e *callError) Error() string {
	var lines []string
	for line := range strings.Lines(e.text) {
		line = strings.TrimSpace(line)
		msg, ok := strings.CutPrefix(line, "VBoxManage: error: ")
		if ok && !strings.HasPrefix(msg, "Context: ") && !strings.HasPrefix(msg, "Details: ") {
			lines = append(lines, msg)
		}
	}
	if len(lines) == 0 {
		lines = append(lines, fmt.Sprint(e.err), strings.TrimSpace(e.text))
	}
	what := e.args[:min(len(e.args), 2)]
	return fmt.Sprintf("VBoxManage %s: %.2000s", strings.Join(what, " "), strings.Join(lines, "; "))
}

func (e *callError) Unwrap() error { return e.err }

// says reports whether err is of a call that said text.
func says(err error, text string) bool {
	var e *callError
	return errors.As(err, &e) && strings.Contains(e.text, text)
}

// Codes by which VBoxManage tells what is wrong; its texts change more often.
const (
	codeNotFound   = "0x80bb0001" // VBOX_E_OBJECT_NOT_FOUND
	codeBusy       = "0x80bb0007" // VBOX_E_INVALID_OBJECT_STATE: somebody has it locked
	codeVM         = "0x80bb0003" // VBOX_E_VM_ERROR
	codeDenied     = "0x80070005" // E_ACCESSDENIED: the machine is inaccessible
	codeUnexpected = "0x8000ffff" // NS_ERROR_UNEXPECTED
	codeFailure    = "0x80004005" // NS_ERROR_FAILURE
)

// busy reports whether a call failed only because of another one at the same
// time: a lock, a lock that both shared until the other let it go, a machine's
// process that has just ended, a server that several calls at once tried to start.
func busy(err error) bool {
	return says(err, codeBusy) && says(err, "lock") || says(err, "Please retry the operation later") ||
		says(err, codeVM) && says(err, "direct session") ||
		says(err, "was unlocked unexpectedly while attempting to") || says(err, "Failed to assign the machine to the session") ||
		says(err, "COM server is not running") ||
		says(err, "NS_ERROR_CALL_FAILED") ||
		says(err, "The session is not locked") ||
		// A machine whose settings cannot be read is a MachineWrap that is not ready.
		says(err, "The object is not ready") && (says(err, codeUnexpected) || says(err, "component SessionMachine"))
}

// passes reports whether a call may go well when it is made again.
func passes(args []string, err error) bool {
	return busy(err) || vanished(args, err) || repeatable(args) && crashed(err)
}

// repeatable reports whether a call does no more when it is made twice, so that
// it may be repeated whatever became of it.
func repeatable(args []string) bool {
	return args[0] == "list" || args[0] == "showvminfo" || args[0] == "showmediuminfo" || args[0] == "setextradata"
}

// vanished reports whether a list failed because something that was in it went away
// meanwhile, such as another machine's disk.
func vanished(args []string, err error) bool {
	return args[0] == "list" && (says(err, "The object is not ready") || says(err, codeFailure) || says(err, codeNotFound))
}

// crashed reports whether VBoxManage ended by a fault of its own: one showvminfo
// in some thousands does while others lock and unlock the machine.
func crashed(err error) bool {
	var e *exec.ExitError
	return errors.As(err, &e) && e.Sys().(syscall.WaitStatus).Signaled()
}

// run calls VBoxManage and returns what it writes to stdout. It is repeated
// while others are in the way.
func (g *manager) run(ctx context.Context, args ...string) (string, error) {
	return g.runFor(ctx, callTimeout, args...)
}

func (g *manager) runFor(ctx context.Context, limit time.Duration, args ...string) (string, error) {
	path, err := g.found()
	if err != nil {
		return "", err
	}
	if err := g.warmUp(ctx, path); err != nil {
		return "", err
	}
	end := time.Now().Add(busyTimeout)
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 3*time.Second) {
		out, err := call(ctx, limit, path, args)
		if err == nil || !passes(args, err) {
			return out, err
		}
		if time.Now().After(end) {
			return "", fmt.Errorf("%w; it has been so for %s: is another program working on it, such as a window of VirtualBox's?", err, busyTimeout)
		}
		if err := local.Pause(ctx, wait); err != nil {
			return "", err
		}
	}
}

// warmUp lets the first call of this process start VirtualBox's server alone.
func (g *manager) warmUp(ctx context.Context, path string) error {
	g.warm.Lock()
	defer g.warm.Unlock()
	if g.isWarm {
		return nil
	}
	end := time.Now().Add(busyTimeout)
	for {
		_, err := call(ctx, callTimeout, path, []string{"list", "vms"})
		if err == nil || !busy(err) || time.Now().After(end) {
			g.isWarm = err == nil
			return err
		}
		if err := local.Pause(ctx, 500*time.Millisecond); err != nil {
			return err
		}
	}
}

// call runs VBoxManage once, in English, and in UTF-8: in the locale C it takes no
// path with a letter that ASCII has not. Its output goes to files: the server that it may
// start inherits them and lives on, and a pipe would never end. It gets a
// session of its own, so that a signal for this command's terminal ends neither
// the server nor a machine.
func call(ctx context.Context, limit time.Duration, path string, args []string) (string, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it did not end within %s", limit))
	defer cancel()
	stdout, err := scratch()
	if err != nil {
		return "", err
	}
	defer stdout.Close()
	stderr, err := scratch()
	if err != nil {
		return "", err
	}
	defer stderr.Close()
	cmd := exec.CommandContext(ctx, path, args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = "/", stdout, stderr
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "LANGUAGE=C")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	runErr := cmd.Run()
	if ctx.Err() != nil {
		runErr = context.Cause(ctx)
	}
	out, err := text(stdout)
	if err != nil {
		return "", err
	}
	if runErr == nil {
		return out, nil
	}
	said, err := text(stderr)
	if err != nil {
		return "", err
	}
	return out, &callError{args: args, text: said, err: runErr}
}

// scratch returns a file in memory: on a full disk what VBoxManage says would be
// lost, and a machine could not even be destroyed to make room.
func scratch() (*os.File, error) {
	fd, err := unix.MemfdCreate("vboxmanage", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("a file in memory for what VBoxManage says: %w", err)
	}
	return os.NewFile(uintptr(fd), "vboxmanage"), nil
}

func text(f *os.File) (string, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxOutput))
	return string(bytes.ToValidUTF8(b, []byte("?"))), err
}
