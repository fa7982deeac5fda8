// Command init does what a distribution's initrd does: it loads the drivers,
// mounts the disk read-only and hands over to its /sbin/init. It knows nothing
// of tool.
package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

func main() {
	err := boot()
	fmt.Println("initrd:", err)
	time.Sleep(5 * time.Second)
	_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART)
}

func boot() error {
	for _, m := range []struct{ kind, at string }{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}} {
		if err := syscall.Mount(m.kind, m.at, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.at, err)
		}
	}
	order, err := os.ReadFile("/modules/order")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(order)) {
		_, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		if err := load("/modules/" + name); err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
	}
	for n := 0; ; n++ {
		err := syscall.Mount("/dev/vda", "/root", "ext4", syscall.MS_RDONLY, "")
		if err == nil {
			break
		}
		if n == 300 {
			return fmt.Errorf("mount the disk: %w", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	for _, dir := range []string{"/dev", "/proc", "/sys"} {
		if err := syscall.Mount(dir, "/root"+dir, "", syscall.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", dir, err)
		}
	}
	if err := os.Chdir("/root"); err != nil {
		return err
	}
	if err := syscall.Mount(".", "/", "", syscall.MS_MOVE, ""); err != nil {
		return err
	}
	if err := syscall.Chroot("."); err != nil {
		return err
	}
	return syscall.Exec("/sbin/init", []string{"/sbin/init"}, os.Environ())
}

func load(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var params [1]byte
	const finitModule = 313
	_, _, errno := syscall.Syscall(finitModule, f.Fd(), uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 && errno != syscall.EEXIST {
		return errno
	}
	return nil
}
