package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	osexec "os/exec"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// process is a worker as its parent sees it.
type process struct {
	cmd    *osexec.Cmd
	sock   *os.File
	stderr tail
	once   sync.Once
	ended  chan struct{} // closed when the process is reaped
}

// The user and group that commands see themselves as, whoever the caller is.
const inside = 1000

// start runs this binary again as a worker for the CAS in dir. With terminal it
// gets this process's standard streams.
func start(dir string, terminal bool) (*process, error) {
	fds, err := syscall.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("sandbox: socketpair: %w", err)
	}
	_ = syscall.SetNonblock(fds[0], true) // ours is polled, so that Close ends a Read
	theirs := os.NewFile(uintptr(fds[1]), "worker")
	defer theirs.Close()
	p := &process{sock: os.NewFile(uintptr(fds[0]), "sandbox"), ended: make(chan struct{})}
	p.cmd = &osexec.Cmd{
		Path:       "/proc/self/exe", // also after the binary was replaced on disk
		Args:       []string{workerName},
		Env:        []string{workerEnv},
		Dir:        "/",
		ExtraFiles: []*os.File{theirs},
		Stderr:     &p.stderr,
		SysProcAttr: &syscall.SysProcAttr{
			Cloneflags: unix.CLONE_NEWUSER | unix.CLONE_NEWPID | unix.CLONE_NEWNET | unix.CLONE_NEWIPC |
				unix.CLONE_NEWUTS | unix.CLONE_NEWNS,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: inside, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: inside, HostID: os.Getegid(), Size: 1}},
			AmbientCaps: []uintptr{unix.CAP_SYS_ADMIN, unix.CAP_SYS_CHROOT, unix.CAP_NET_ADMIN, unix.CAP_KILL},
			Pdeathsig:   unix.SIGKILL,
			Setsid:      !terminal,
		},
	}
	if terminal {
		p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	}
	if err := p.cmd.Start(); err != nil {
		p.sock.Close()
		return nil, fmt.Errorf("start sandbox worker: %w", err)
	}
	go func() { _ = p.cmd.Wait(); close(p.ended) }()
	if _, err := p.ask(context.Background(), setup{Store: dir}); err != nil {
		p.kill()
		return nil, fmt.Errorf("set up sandbox worker: %w", err)
	}
	return p, nil
}

// ask sends v and waits for the reply. If ctx ends first, the worker is killed,
// and with it everything that runs below it. After an error p is of no use.
func (p *process) ask(ctx context.Context, v any) (*reply, error) {
	stop := context.AfterFunc(ctx, p.kill)
	r := new(reply)
	err := send(p.sock, v)
	if err == nil {
		err = receive(p.sock, r)
	}
	if !stop() {
		p.kill() // waits until all is gone
		return nil, context.Cause(ctx)
	}
	if err != nil {
		p.kill()
		if s := p.stderr.String(); s != "" {
			return nil, fmt.Errorf("the sandbox worker ended: %s", s)
		}
		return nil, fmt.Errorf("the sandbox worker ended (%v): %w", p.cmd.ProcessState, err)
	}
	if r.Err != "" {
		return nil, errors.New(r.Err)
	}
	return r, nil
}

// kill ends the worker; since it is pid 1 of its namespace, the kernel ends all
// its descendants before it can be reaped.
func (p *process) kill() {
	p.once.Do(func() {
		_ = p.cmd.Process.Kill()
		p.sock.Close()
	})
	<-p.ended
}

// tail keeps the first few kilobytes of a worker's stderr: a crash's reason.
type tail struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b.Write(p[:min(len(p), 4096-min(4096, t.b.Len()))])
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(t.b.String())
}
