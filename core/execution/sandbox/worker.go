package sandbox

import (
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What marks a process as a worker. A user who types the name or exports the
// variable does not get one: it must also be pid 1 and hold the socket.
const (
	workerName = "tool-sandbox-worker"
	workerEnv  = "TOOL_SANDBOX_WORKER=1"
	workerSock = 3
)

// Main takes over the process, and never returns, if it was started as a
// sandbox worker; otherwise it does nothing. Call it first in main (and in
// TestMain).
func Main() {
	if len(os.Args) != 1 || os.Args[0] != workerName || os.Getpid() != 1 {
		return
	}
	if env := os.Environ(); len(env) != 1 || env[0] != workerEnv {
		return
	}
	if t, err := unix.GetsockoptInt(workerSock, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || t != unix.SOCK_STREAM {
		return
	}
	unix.CloseOnExec(workerSock)
	sock := os.NewFile(workerSock, "parent")
	var s setup
	if err := receive(sock, &s); err != nil {
		os.Exit(1)
	}
	w, err := newWorker(s)
	if err != nil {
		_ = send(sock, reply{Err: err.Error()})
		os.Exit(1)
	}
	_ = send(sock, reply{})
	w.sock = sock
	w.serve() // its exit lets the kernel kill what is left of this pid namespace
}

// worker is the state of a worker process: pid 1 of its own pid, network, IPC,
// UTS, mount and user namespaces, with a root that holds little but the CAS.
type worker struct {
	sock    *os.File // to the parent; blocking
	lastPid *os.File // /proc/sys/kernel/ns_last_pid
	home    *os.File // the mount namespace from which those of commands are copied
	null    *os.File
	buf     []byte // what is read of a command's streams
}

// firstPid is the command's process id. Those below are for the worker's own
// threads, so that they do not shift the ids that a command sees.
const firstPid = 1000

func newWorker(s setup) (*worker, error) {
	// A handler for every signal: pid 1 is safe from SIGKILL, but an
	// unhandled SIGTERM from a command would end it. An ignored signal
	// would stay ignored in commands; a handled one does not.
	signal.Notify(make(chan os.Signal, 1))
	// But for this one, which is ignored by default and comes for every child.
	signal.Reset(unix.SIGCHLD)
	unix.Umask(0)
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return nil, fmt.Errorf("prctl(PR_SET_PDEATHSIG): %w", err)
	}
	// The command runs as the same user; it must not look into this process.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("prctl(PR_SET_DUMPABLE): %w", err)
	}
	if err := limits(); err != nil {
		return nil, err
	}
	if err := unix.Sethostname([]byte("sandbox")); err != nil {
		return nil, fmt.Errorf("set host name: %w", err)
	}
	if err := loopbackUp(); err != nil {
		return nil, fmt.Errorf("bring up lo: %w", err)
	}
	if err := base(s.Store); err != nil {
		return nil, err
	}
	w := &worker{buf: make([]byte, 64<<10)}
	var err error
	if w.lastPid, err = os.OpenFile("/proc/sys/kernel/ns_last_pid", os.O_WRONLY, 0); err != nil {
		return nil, err
	}
	if w.null, err = os.Open("/dev/null"); err != nil {
		return nil, err
	}
	if w.home, err = os.Open("/proc/self/ns/mnt"); err != nil {
		return nil, err
	}
	return w, seal()
}

// limits sets the resource limits that commands inherit, so that the caller's
// do not matter; a lower hard limit wins.
func limits() error {
	for _, l := range []struct {
		what      int
		soft      uint64
		alsoLimit bool
	}{
		{unix.RLIMIT_CORE, 0, true},
		{unix.RLIMIT_NOFILE, 4096, false},
		{unix.RLIMIT_STACK, 8 << 20, false},
	} {
		var r syscall.Rlimit
		if err := syscall.Getrlimit(l.what, &r); err != nil {
			return fmt.Errorf("getrlimit: %w", err)
		}
		r.Cur = min(l.soft, r.Max)
		if l.alsoLimit {
			r.Max = r.Cur
		}
		if err := syscall.Setrlimit(l.what, &r); err != nil {
			return fmt.Errorf("setrlimit: %w", err)
		}
	}
	return nil
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(uint16(net.FlagUp) | unix.IFF_RUNNING)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCSIFFLAGS, uintptr(unsafe.Pointer(ifr)))
	if errno != 0 {
		return errno
	}
	return nil
}

// serve answers requests one at a time until the parent is gone. All of it is
// done by one thread: each hand-over to another costs more than the mounts do.
func (w *worker) serve() {
	w.warm()
	w.onThread(func() {
		for {
			q := new(request)
			if receive(w.sock, q) != nil {
				os.Exit(0)
			}
			r := w.run(q)
			if send(w.sock, r) != nil {
				os.Exit(0)
			}
			// The parent goes on already; this drops the command's mounts.
			if err := w.leaveRoot(); err != nil {
				os.Exit(1)
			}
		}
	})
}

// warm makes sure that some threads are idle. One started while a command runs
// would take a process id that the command's children get otherwise.
func (w *worker) warm() {
	const n = 10
	var up, down sync.WaitGroup
	up.Add(n)
	for range n {
		down.Go(func() {
			runtime.LockOSThread() // so that each of them needs a thread
			defer runtime.UnlockOSThread()
			up.Done()
			up.Wait()
		})
	}
	down.Wait()
}

// onThread calls f on an operating system thread of its own: it goes from mount
// namespace to mount namespace while the others stay where they are. It is not
// the main thread, since /proc/self speaks of that one.
func (w *worker) onThread(f func()) {
	runtime.LockOSThread() // and never unlocked: no other goroutine may get the thread
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	go w.onThread(f)
	select {} // keeps the main thread occupied
}

func (w *worker) setLastPid(n int) error {
	_, err := w.lastPid.WriteAt([]byte(strconv.Itoa(n)), 0)
	return err
}

// base leaves the host's file system: afterwards / is a tmpfs with store, proc,
// dev and the mount point new. The commands' roots are put together from these,
// and copying the mount namespace for each stays cheap.
func base(store string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	tree, err := unix.OpenTree(unix.AT_FDCWD, store, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
	if err != nil {
		return fmt.Errorf("open_tree %s: %w", store, err)
	}
	defer unix.Close(tree)
	// The store's directory is one that surely exists; it is covered now, and
	// reached through tree.
	top := store
	if err := unix.Mount("sandbox", top, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	for _, d := range []string{"store", "proc", "dev", "dev/shm", "new"} {
		if err := unix.Mkdir(filepath.Join(top, d), 0o755); err != nil {
			return fmt.Errorf("mkdir %s: %w", d, err)
		}
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, filepath.Join(top, "store"), unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("mount store: %w", err)
	}
	// Binds made from here inherit these flags.
	if err := setattr(filepath.Join(top, "store"), unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NODEV); err != nil {
		return fmt.Errorf("protect store (this needs Linux 5.12 or later): %w", err)
	}
	if err := devices(filepath.Join(top, "dev")); err != nil {
		return err
	}
	if err := procfs(filepath.Join(top, "proc")); err != nil {
		return err
	}
	return pivot(top)
}

// pivot makes dir the root of this thread's mount namespace and drops the old.
func pivot(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return fmt.Errorf("chdir to new root: %w", err)
	}
	// With "." twice the old root is stacked over the new one, and goes away
	// without a directory to put it in.
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("unmount old root: %w", err)
	}
	return unix.Chdir("/")
}

func setattr(path string, attrs uint64) error {
	return unix.MountSetattr(unix.AT_FDCWD, path, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attrs})
}
