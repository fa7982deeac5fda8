package sandbox

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// Probe reports why this machine cannot run sandboxes, and what to change; nil
// if it can.
func Probe() error {
	dir, err := os.MkdirTemp("", "sandbox-probe-")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	w, err := start(dir, false)
	if err != nil {
		return explain(err)
	}
	w.kill()
	return nil
}

// UnsupportedError says that this machine does not let the caller make
// sandboxes.
type UnsupportedError struct {
	Advice string // what to change
	Err    error
}

func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("this machine does not allow sandboxes: %s (%v)", e.Advice, e.Err)
}

func (e *UnsupportedError) Unwrap() error { return e.Err }

// explain finds out which of the known switches forbids user namespaces.
func explain(err error) error {
	is := func(file, value string) bool {
		b, err := os.ReadFile("/proc/sys/" + file)
		return err == nil && strings.TrimSpace(string(b)) == value
	}
	advice := ""
	switch {
	case is("user/max_user_namespaces", "0"):
		advice = "set the sysctl user.max_user_namespaces to a number such as 10000"
	case os.Geteuid() != 0 && is("kernel/unprivileged_userns_clone", "0"):
		advice = "set the sysctl kernel.unprivileged_userns_clone to 1"
	case os.Geteuid() != 0 && is("kernel/apparmor_restrict_unprivileged_userns", "1"):
		advice = "set the sysctl kernel.apparmor_restrict_unprivileged_userns to 0, or give this binary an AppArmor profile with \"userns,\""
	case errors.Is(err, os.ErrNotExist):
		advice = "the kernel needs user namespaces (CONFIG_USER_NS), and /proc must be mounted"
	case errors.Is(err, os.ErrPermission) || strings.Contains(err.Error(), "not permitted") || strings.Contains(err.Error(), "denied"):
		advice = "it looks like a container whose runtime forbids namespaces; run it with user namespaces and an unmasked /proc allowed, for example with --security-opt seccomp=unconfined --security-opt systempaths=unconfined"
	default:
		return err
	}
	return &UnsupportedError{advice, err}
}
