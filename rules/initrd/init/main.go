// Command init is process 1 of the initrd: it finds the machine's disk, lets
// the agent on it decide what is to be booted, and hands over to that system's
// own init. It is compiled by the rule library with the standard library only
// and runs nowhere but in a machine that starts. docs/machine.md tells the
// whole way; what fails here is written to the console and ends in a reboot,
// never in a machine that waits for a person.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// rootDir is where the machine's disk is mounted until it becomes /.
const rootDir = "/root"

func main() {
	c := openConsole("/proc")
	err := boot(c)
	c.printf("cannot start this machine: %v", err)
	wait := panicSeconds(c.cmdline)
	c.printf("rebooting in %d s", wait)
	syscall.Sync()
	time.Sleep(time.Duration(wait) * time.Second)
	_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART)
	os.Exit(1) // the kernel panics, and reboots by panic=
}

// boot returns only if it failed.
func boot(c *console) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("init itself failed: %v", r)
		}
	}()
	for _, m := range []mount{
		{"devtmpfs", "/dev", "devtmpfs", syscall.MS_NOSUID, "mode=0755"},
		{"sysfs", "/sys", "sysfs", syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC, ""},
	} {
		if err := m.do(); err != nil {
			return err
		}
	}
	c.reopen()
	efi := exists("/sys/firmware/efi")
	loadModules(c, "/modules", efi)
	d, err := findDisks(c, deadline)
	if err != nil {
		return err
	}
	defer d.close()
	if err := mountRoot(c, d.root, efi); err != nil {
		return err
	}
	args := []string{"agent", "boot"}
	if d.seed != nil {
		if err := takeAgent(c, d.seed.file, rootDir); err != nil {
			return fmt.Errorf("seed %s: %w", d.seed.path, err)
		}
		args = append(args, "--seed="+d.seed.path)
	}
	if err := runAgent(c, args); err != nil {
		return err
	}
	d.close()
	return handOver(c)
}

// mount is the arguments of mount(2); the target's folder is made.
type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

func (m mount) do() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return err
	}
	if err := syscall.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s at %s: %w", m.source, m.target, err)
	}
	return nil
}

// mountRoot mounts the disk with what every system expects below it.
func mountRoot(c *console, root *disk, efi bool) error {
	// Inode tables of a grown file system are zeroed when it grows, not by a
	// kernel thread that competes with the machine's first minutes.
	m := mount{root.path, rootDir, "ext4", syscall.MS_NOATIME, "noinit_itable"}
	if err := m.do(); err != nil {
		return err
	}
	c.printf("root is %s", root.path)
	if err := grow(c, root, rootDir); err != nil {
		c.printf("the file system stays as small as it is: %v", err)
	}
	for _, name := range []string{"dev", "proc", "sys"} {
		if err := (mount{"/" + name, filepath.Join(rootDir, name), "", syscall.MS_MOVE, ""}).do(); err != nil {
			return err
		}
	}
	if err := (mount{"tmpfs", filepath.Join(rootDir, "run"), "tmpfs", syscall.MS_NOSUID | syscall.MS_NODEV, "mode=0755,size=20%"}).do(); err != nil {
		return err
	}
	if efi {
		m := mount{"efivarfs", filepath.Join(rootDir, "sys/firmware/efi/efivars"), "efivarfs", syscall.MS_NOSUID | syscall.MS_NODEV | syscall.MS_NOEXEC, ""}
		if err := m.do(); err != nil { // the machine boots without, only not another generation next time
			c.printf("%v", err)
		}
	}
	return nil
}

// runAgent lets the agent take in the seed and prepare the system to boot.
func runAgent(c *console, args []string) error {
	c.printf("running the agent")
	cmd := exec.Command("/"+agentLink+"/tool", args...) // a path of the new root
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "HOME=/root", "TERM=dumb"}
	null, err := os.Open(filepath.Join(rootDir, os.DevNull)) // there is no /dev here any more
	if err != nil {
		return err
	}
	defer null.Close()
	cmd.Stdin, cmd.Stdout, cmd.Stderr = null, c.file, c.file
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: rootDir}
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			return fmt.Errorf("tool %s: %w", strings.Join(args, " "), err)
		}
		if errors.Is(err, os.ErrNotExist) && exists(filepath.Join(rootDir, agentLink, "tool")) {
			err = errors.New("it is not a static program, and there are no libraries yet: the tool that made this machine must be built with CGO_ENABLED=0")
		}
		return fmt.Errorf("run the agent /%s/tool of the machine's disk: %w", agentLink, err)
	}
	return nil
}

// handOver makes the disk / and executes its init.
func handOver(c *console) error {
	const program = "/sbin/init"
	c.printf("starting %s", program)
	// What is in memory now is never seen again, so its pages are given back.
	for _, name := range []string{"/modules", "/init"} {
		if err := os.RemoveAll(name); err != nil {
			return err
		}
	}
	if err := os.Chdir(rootDir); err != nil {
		return err
	}
	if err := syscall.Mount(".", "/", "", syscall.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move %s to /: %w", rootDir, err)
	}
	if err := syscall.Chroot("."); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	err := syscall.Exec(program, append([]string{program}, os.Args[1:]...), os.Environ())
	return fmt.Errorf("execute %s of the machine's system: %w", program, err)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
