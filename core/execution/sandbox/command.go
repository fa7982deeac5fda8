package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// run makes the sandbox on the calling thread and runs the command in it. When
// it returns no process of the command is alive; leaveRoot removes the rest.
func (w *worker) run(q *request) reply {
	start := time.Now()
	if err := enterRoot(q); err != nil {
		return reply{Err: err.Error()}
	}
	// The exec below then gives the command no capability at all, and nothing
	// it executes can gain one.
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil {
		return reply{Err: "drop capabilities: " + err.Error()}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return reply{Err: "set no_new_privs: " + err.Error()}
	}
	if q.Shell {
		return w.shell(q, start)
	}
	var out, errs log
	done := make(chan struct{}, 2)
	outW, err := capture(&out, done)
	if err != nil {
		return reply{Err: err.Error()}
	}
	errW, err := capture(&errs, done)
	if err != nil {
		outW.Close()
		return reply{Err: err.Error()}
	}
	attr := &syscall.ProcAttr{
		Env:   q.Env,
		Files: []uintptr{w.null.Fd(), outW.Fd(), errW.Fd()},
		// Its own session: a Ctrl-C at the terminal is for the parent, which
		// then ends the command in an orderly way.
		Sys: &syscall.SysProcAttr{Setsid: true},
	}
	if err := w.setLastPid(firstPid - 1); err != nil {
		return reply{Err: "set ns_last_pid: " + err.Error()}
	}
	pid, err := start1(q, attr)
	outW.Close()
	errW.Close()
	r := reply{}
	if err != nil {
		r.ExitCode = notStarted(err)
		fmt.Fprintf(&errs, "cannot start %s: %v\n", q.Argv[0], err)
	} else {
		r.ExitCode, r.TimedOut = wait(pid, q.Timeout)
	}
	_ = w.setLastPid(1) // so that this process's own threads stay below firstPid
	<-done
	<-done
	r.Stdout, r.Stderr, r.Took = out.Bytes(), errs.Bytes(), time.Since(start)
	return r
}

func capture(l *log, done chan<- struct{}) (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("pipe: %w", err)
	}
	go l.readAll(r, done)
	return w, nil
}

// start1 starts the command on this thread, whose namespaces it gets.
func start1(q *request, attr *syscall.ProcAttr) (int, error) {
	name, err := lookPath(q.Argv[0], q.Env)
	if err != nil {
		return 0, err
	}
	for try := 0; ; try++ {
		pid, err := syscall.ForkExec(name, q.Argv, attr)
		// Somebody's fork may hold a descriptor open for writing on a new
		// binary for the instant until its exec.
		if err != syscall.ETXTBSY || try == 20 {
			return pid, err
		}
		time.Sleep(time.Millisecond << min(try, 5))
	}
}

// lookPath finds a bare command name on the PATH that the command itself sees.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		return name, nil
	}
	err := syscall.ENOENT
	for _, kv := range env {
		list, ok := strings.CutPrefix(kv, "PATH=")
		if !ok {
			continue
		}
		for dir := range strings.SplitSeq(list, ":") {
			p := path.Join(dir, name)
			var st unix.Stat_t
			if dir == "" || unix.Stat(p, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
				continue
			}
			if st.Mode&0o111 != 0 {
				return p, nil
			}
			err = syscall.EACCES
		}
	}
	return "", err
}

// notStarted returns the status that a shell would for a command that could
// not be started.
func notStarted(err error) int {
	if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTDIR) {
		return 127
	}
	return 126
}

// wait waits for pid, as init does for everything else too, then kills every
// other process of the namespace and reaps them all. It returns pid's status.
func wait(pid int, timeout time.Duration) (code int, timedOut bool) {
	var late atomic.Bool
	if timeout > 0 {
		ended := make(chan struct{})
		t := time.AfterFunc(timeout, func() {
			late.Store(true)
			_ = unix.Kill(-1, unix.SIGKILL)
			close(ended)
		})
		defer func() {
			if !t.Stop() {
				<-ended // or its kill could hit the next command
			}
		}()
	}
	code = -1
	var status unix.WaitStatus
	for code < 0 {
		p, err := unix.Wait4(-1, &status, unix.WALL, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			code = 255 // cannot be: pid is this process's child
		}
		if p == pid {
			code = exitCode(status)
		}
	}
	timedOut = late.Load()
	for {
		_ = unix.Kill(-1, unix.SIGKILL)
		if _, err := unix.Wait4(-1, nil, unix.WALL, nil); err == unix.ECHILD {
			return code, timedOut
		}
	}
}

func exitCode(s unix.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

// shell runs the request on the worker's own standard streams.
func (w *worker) shell(q *request, start time.Time) reply {
	pid, err := start1(q, &syscall.ProcAttr{Env: q.Env, Files: []uintptr{0, 1, 2}})
	runtime.KeepAlive(w)
	if err != nil {
		return reply{Err: fmt.Sprintf("start %s: %v", q.Argv[0], err)}
	}
	r := reply{}
	r.ExitCode, _ = wait(pid, 0)
	r.Took = time.Since(start)
	return r
}
