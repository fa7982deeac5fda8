package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"unsafe"
)

// loadModules loads what dir/order lists, in that order. A line is a condition
// and a file: "always virtio.ko", "efi vfat.ko". One that does not load is told
// and passed over: whether it was needed shows when the disk is looked for.
func loadModules(c *console, dir string, efi bool) {
	b, err := os.ReadFile(filepath.Join(dir, "order"))
	if err != nil {
		c.printf("modules: %v", err)
		return
	}
	for line := range strings.Lines(string(b)) {
		when, name, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || when != "always" && !(when == "efi" && efi) {
			continue
		}
		if err := loadModule(filepath.Join(dir, name)); err != nil {
			c.printf("module %s: %v", name, err)
		}
	}
}

func loadModule(path string) error {
	const sysFinitModule = 313
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var params [1]byte // ""
	_, _, errno := syscall.Syscall(sysFinitModule, f.Fd(), uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 && errno != syscall.EEXIST {
		return fmt.Errorf("load: %w", errno)
	}
	return nil
}
