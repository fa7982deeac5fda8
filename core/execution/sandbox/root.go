package sandbox

import (
	"errors"
	"fmt"

	"path"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// devices fills dev, once for a worker; the sandboxes see it read-only.
func devices(dev string) error {
	for _, name := range []string{"null", "zero", "full", "random", "urandom"} {
		p := filepath.Join(dev, name)
		if err := touch(p); err != nil {
			return err
		}
		if err := unix.Mount("/dev/"+name, p, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind /dev/%s: %w", name, err)
		}
	}
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := unix.Symlink(target, filepath.Join(dev, name)); err != nil {
			return fmt.Errorf("link /dev/%s: %w", name, err)
		}
	}
	return nil
}

// procfs mounts /proc of this pid namespace, once for a worker, and covers what
// tells about the host or acts on it.
func procfs(proc string) error {
	// Only what may be traced is seen, so not even the worker is.
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	if err := unix.Mount("proc", proc, "proc", flags, "hidepid=4"); err != nil {
		return fmt.Errorf("mount proc: %w", err)
	}
	for _, name := range []string{
		"kcore", "keys", "key-users", "kmsg", "timer_list", "sched_debug", "sysrq-trigger", "latency_stats",
		"cmdline", "config.gz", "interrupts", "kallsyms", "kpagecount", "kpageflags", "kpagecgroup", "partitions", "diskstats", "modules", "slabinfo", "vmallocinfo",
	} {
		err := unix.Mount("/dev/null", filepath.Join(proc, name), "", unix.MS_BIND, "")
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("cover /proc/%s: %w", name, err)
		}
	}
	for _, name := range []string{"acpi", "asound", "bus", "driver", "fs", "irq", "scsi", "tty"} {
		err := unix.Mount("none", filepath.Join(proc, name), "tmpfs", unix.MS_RDONLY|flags, "size=0,nr_inodes=2,mode=555")
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("cover /proc/%s: %w", name, err)
		}
	}
	return nil
}

func touch(p string) error {
	fd, err := unix.Open(p, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return fmt.Errorf("create %s: %w", p, err)
	}
	return unix.Close(fd)
}

// The command's working directory.
const buildDir = "/build"

// seal makes the worker's /dev and /proc/sys read-only; the sandboxes' binds of
// them inherit that. No sysctl may be changed: the namespaces outlive a command.
func seal() error {
	// Bound to itself, because only a mount point has attributes.
	if err := unix.Mount("/dev", "/dev", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind /dev: %w", err)
	}
	if err := setattr("/dev", unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NOSUID|unix.MOUNT_ATTR_NOEXEC); err != nil {
		return fmt.Errorf("make /dev read-only: %w", err)
	}
	if err := unix.Mount("/proc/sys", "/proc/sys", "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind /proc/sys: %w", err)
	}
	if err := setattr("/proc/sys", unix.MOUNT_ATTR_RDONLY); err != nil {
		return fmt.Errorf("make /proc/sys read-only: %w", err)
	}
	return nil
}

// enterRoot moves the calling thread into a new mount namespace whose root is
// what q says. The order matters: everything is bound, then made read-only at
// once, and only then the few writable places are mounted on top.
func enterRoot(q *request) error {
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS | unix.CLONE_NEWIPC); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	const at = "/new"
	if err := unix.Mount("sandbox", at, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=755,size=256m"); err != nil {
		return fmt.Errorf("mount tmpfs: %w", err)
	}
	r := root{at: at, dirs: map[string]bool{"/": true}}
	for _, d := range []string{"/proc", "/dev", "/tmp", "/tool/store", buildDir} {
		if err := r.mkdir(d); err != nil {
			return err
		}
	}
	for _, list := range [][]mount{q.Root, q.Inputs} {
		for _, m := range list {
			if err := r.place(m); err != nil {
				return err
			}
		}
	}
	for _, m := range q.Writable {
		if err := r.mkdir(m.Target); err != nil {
			return err
		}
	}
	const attrs = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV
	if err := setattr(at, attrs); err != nil {
		return fmt.Errorf("make root read-only: %w", err)
	}
	for _, m := range q.Writable {
		if err := r.bind(m); err != nil {
			return err
		}
	}
	if q.Tmpfs {
		if err := unix.Mount("tmp", at+"/tmp", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"); err != nil {
			return fmt.Errorf("mount /tmp: %w", err)
		}
	}
	// This namespace's own copies; moving them saves copying their many mounts
	// once more.
	if err := unix.Mount("/dev", at+"/dev", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move /dev: %w", err)
	}
	if err := unix.Mount("shm", at+"/dev/shm", "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "mode=1777"); err != nil {
		return fmt.Errorf("mount /dev/shm: %w", err)
	}
	if err := unix.Mount("/proc", at+"/proc", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move /proc: %w", err)
	}
	if err := pivot(at); err != nil {
		return err
	}
	if err := unix.Chdir(buildDir); err != nil {
		return fmt.Errorf("chdir %s: %w", buildDir, err)
	}
	unix.Umask(0o022) // of this thread only, since CLONE_FS is unshared
	return nil
}

// leaveRoot takes the thread back to the worker's mount namespace; that of the
// command goes away with all its mounts.
func (w *worker) leaveRoot() error {
	return unix.Setns(int(w.home.Fd()), unix.CLONE_NEWNS)
}

// root is the sandbox's root while it is put together.
type root struct {
	at   string
	dirs map[string]bool // those that were made
}

// mkdir makes a directory and its parents.
func (r *root) mkdir(p string) error {
	if r.dirs[p] {
		return nil
	}
	if err := r.mkdir(path.Dir(p)); err != nil {
		return err
	}
	if err := unix.Mkdir(r.at+p, 0o755); err != nil {
		return fmt.Errorf("make directory %s: %w", p, err)
	}
	r.dirs[p] = true
	return nil
}

// place makes the mount point, with its parents, and binds.
func (r *root) place(m mount) error {
	if err := r.mkdir(path.Dir(m.Target)); err != nil {
		return err
	}
	if m.Link != "" {
		if err := unix.Symlink(m.Link, r.at+m.Target); err != nil {
			return fmt.Errorf("make symbolic link %s: %w", m.Target, err)
		}
		return nil
	}
	if m.File {
		if err := touch(r.at + m.Target); err != nil {
			return err
		}
	} else if err := unix.Mkdir(r.at+m.Target, 0o755); err != nil {
		return fmt.Errorf("make directory %s: %w", m.Target, err)
	}
	return r.bind(m)
}

func (r *root) bind(m mount) error {
	if err := unix.Mount(path.Join("/store", m.Source), r.at+m.Target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s at %s: %w", m.Source, m.Target, err)
	}
	return nil
}

// ownName reports whether the sandbox makes this entry of / itself; what a root
// tree holds under such a name is not seen.
func ownName(name string) bool {
	switch name {
	case "proc", "dev", "tmp", "tool", "build":
		return true
	}
	return false
}
