package virtualbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"
)

// places is where installers put VBoxManage. The program itself is preferred to
// Debian's wrapper of the same name, which writes warnings among its output and
// removes the folder by which others reach the server.
var places = []string{"/usr/lib/virtualbox/VBoxManage", "/opt/VirtualBox/VBoxManage", "/usr/lib64/virtualbox/VBoxManage", "/usr/local/lib/virtualbox/VBoxManage"}

// found returns VBoxManage's path.
func (g *manager) found() (string, error) {
	g.find.Do(func() { g.path, g.err = findProgram(g.program, os.Getenv("VBOX_INSTALL_PATH")) })
	return g.path, g.err
}

func findProgram(told, installed string) (string, error) {
	if told != "" {
		if err := executable(told); err != nil {
			return "", fmt.Errorf("VBoxManage is said to be %s: %w", told, err)
		}
		return told, nil
	}
	all := places
	if installed != "" {
		all = append([]string{filepath.Join(installed, "VBoxManage")}, places...)
	}
	for _, p := range all {
		if executable(p) == nil {
			return p, nil
		}
	}
	if p, err := exec.LookPath("VBoxManage"); err == nil {
		return filepath.Abs(p)
	}
	return "", errors.New("VirtualBox is not installed: there is no VBoxManage; install VirtualBox 7.0 or newer, or say where it is with TOOL_VBOXMANAGE")
}

func executable(path string) error {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case info.IsDir() || info.Mode()&0o111 == 0:
		return errors.New("it is not a program")
	}
	return nil
}

// oldest is the oldest version that is supported: the first whose NVMe
// controller needs no extension pack.
var oldest = [2]int{7, 0}

// parseVersion reads what VBoxManage --version writes: "7.2.22_Debianr175245",
// perhaps after lines of warnings.
func parseVersion(out string) (major, minor int, err error) {
	lines := strings.Split(strings.TrimSpace(out), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		parts := strings.SplitN(strings.TrimSpace(lines[i]), ".", 3)
		if len(parts) < 2 {
			continue
		}
		major, err1 := strconv.Atoi(parts[0])
		minor, err2 := strconv.Atoi(digits(parts[1]))
		if err1 == nil && err2 == nil && major >= 0 && minor >= 0 {
			return major, minor, nil
		}
	}
	return 0, 0, fmt.Errorf("its version cannot be read from %.100q", out)
}

func digits(s string) string {
	return s[:len(s)-len(strings.TrimLeft(s, "0123456789"))]
}

// Usable implements deploy.Backend.
func (b *Backend) Usable(ctx context.Context) error {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		return fmt.Errorf("the virtualbox backend runs on linux/amd64 only, this is %s/%s", runtime.GOOS, runtime.GOARCH)
	}
	path, err := b.m.found()
	if err != nil {
		return err
	}
	out, err := call(ctx, 30*time.Second, path, []string{"--version"})
	if err != nil {
		return fmt.Errorf("%s does not run: %w", path, err)
	}
	major, minor, err := parseVersion(out)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if major < oldest[0] || major == oldest[0] && minor < oldest[1] {
		return fmt.Errorf("VirtualBox %d.%d is too old: %d.%d or newer is needed (%s)", major, minor, oldest[0], oldest[1], path)
	}
	if err := checkDriver(b.o.Driver); err != nil {
		return err
	}
	if err := b.m.warmUp(ctx, path); err != nil {
		return fmt.Errorf("VirtualBox's server does not start: %w; are VirtualBox's settings (%s) readable, and is its folder writable?", err, settingsHome())
	}
	return nil
}

// checkDriver tells why machines could not be started. Users other than root
// reach the driver by a device of its own, with a u at its end.
func checkDriver(device string) error {
	if _, err := os.Stat(device); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("VirtualBox's kernel driver is not loaded: there is no %s; load it (modprobe vboxdrv), or build it for this kernel first (/sbin/vboxconfig, or Debian's virtualbox-dkms)", device)
	} else if err != nil {
		return fmt.Errorf("VirtualBox's kernel driver: %w", err)
	}
	open := device
	if _, err := os.Stat(device + "u"); err == nil && os.Geteuid() != 0 {
		open = device + "u"
	}
	f, err := os.OpenFile(open, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("VirtualBox's kernel driver is not accessible: %w; are you in the group vboxusers?", err)
	}
	return f.Close()
}

func settingsHome() string {
	if h := os.Getenv("VBOX_USER_HOME"); h != "" {
		return h
	}
	return "~/.config/VirtualBox"
}
