package sandbox

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"
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
	var streams [2]stream
	defer func() {
		for i := range streams {
			streams[i].close()
		}
	}()
	for i := range streams {
		if err := streams[i].open(); err != nil {
			return reply{Err: err.Error()}
		}
	}
	pidfd := -1
	attr := &syscall.ProcAttr{
		Env:   q.Env,
		Files: []uintptr{w.null.Fd(), uintptr(streams[0].w), uintptr(streams[1].w)},
		// Its own session: a Ctrl-C at the terminal is for the parent, which
		// then ends the command in an orderly way.
		Sys: &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd},
	}
	if err := w.setLastPid(firstPid - 1); err != nil {
		return reply{Err: "set ns_last_pid: " + err.Error()}
	}
	pid, err := start1(q, attr)
	for i := range streams {
		streams[i].closeWriter()
	}
	r := reply{}
	if err != nil {
		r.ExitCode = notStarted(err)
		fmt.Fprintf(&streams[1].log, "cannot start %s: %v\n", q.Argv[0], err)
	} else {
		r.ExitCode, r.TimedOut = w.wait(pid, pidfd, q.Timeout, streams[:])
	}
	_ = w.setLastPid(1) // so that this process's own threads stay below firstPid
	r.Stdout, r.Stderr, r.Took = streams[0].log.Bytes(), streams[1].log.Bytes(), time.Since(start)
	return r
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

// reapEvery is how often processes are reaped that lost their parents, in
// milliseconds. The command itself is noticed at once.
const reapEvery = 20

// wait waits for pid and reads its streams. As init does it reaps everything
// else too; in the end it kills every other process of the namespace. It
// returns pid's status. It exits if the parent goes away.
func (w *worker) wait(pid, pidfd int, timeout time.Duration, streams []stream) (code int, timedOut bool) {
	defer unix.Close(pidfd)
	deadline := time.Now().Add(timeout)
	fds := make([]unix.PollFd, 2, 2+len(streams))
	fds[0] = unix.PollFd{Fd: int32(pidfd), Events: unix.POLLIN}
	// The parent asks for nothing while a command runs, so this is its end.
	fds[1] = unix.PollFd{Fd: int32(w.sock.Fd()), Events: unix.POLLIN | unix.POLLRDHUP}
	for i := range streams {
		fds = append(fds, unix.PollFd{Fd: int32(streams[i].r), Events: unix.POLLIN})
	}
	for ended := false; !ended; {
		n, err := unix.Poll(fds, reapEvery)
		if n > 0 && err == nil {
			if fds[1].Revents != 0 {
				os.Exit(0) // and all of this namespace dies with it
			}
			for i := range streams {
				if fds[2+i].Revents != 0 && !streams[i].read(w.buf) {
					fds[2+i].Fd = -1
				}
			}
		}
		for {
			var status unix.WaitStatus
			p, err := unix.Wait4(-1, &status, unix.WALL|unix.WNOHANG, nil)
			if p == pid {
				code, ended = exitCode(status), true
			}
			if p <= 0 && err != unix.EINTR {
				break
			}
		}
		if timeout > 0 && !ended && !timedOut && !time.Now().Before(deadline) {
			timedOut = true
			_ = unix.Kill(-1, unix.SIGKILL)
		}
	}
	for {
		_ = unix.Kill(-1, unix.SIGKILL)
		if _, err := unix.Wait4(-1, nil, unix.WALL, nil); err == unix.ECHILD {
			break
		}
	}
	for i := range streams { // nobody is left who could write more
		for streams[i].read(w.buf) {
		}
	}
	return code, timedOut
}

func exitCode(s unix.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

// shell runs the request on the worker's own standard streams.
func (w *worker) shell(q *request, start time.Time) reply {
	pidfd := -1
	pid, err := start1(q, &syscall.ProcAttr{Env: q.Env, Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{PidFD: &pidfd}})
	if err != nil {
		return reply{Err: fmt.Sprintf("start %s: %v", q.Argv[0], err)}
	}
	r := reply{}
	r.ExitCode, _ = w.wait(pid, pidfd, 0, nil)
	r.Took = time.Since(start)
	return r
}
