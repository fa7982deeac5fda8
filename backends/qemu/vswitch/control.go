package vswitch

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Running returns the process that serves dir; 0 if none does.
func Running(dir string) (pid int, err error) {
	f, err := os.Open(filepath.Join(dir, lockName))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	// Whoever serves holds the lock; a shared one is free if nobody does.
	if err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err == nil {
		return 0, nil
	}
	b := make([]byte, 32)
	n, _ := f.ReadAt(b, 0)
	pid, err = strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err != nil || pid <= 1 {
		return 0, errors.New(filepath.Join(dir, lockName) + " is locked, but names no process: try again")
	}
	return pid, nil
}

// Port returns the names of a machine's socket and of the switch's as the
// machine must use them, from a folder where "net" leads to the switch's.
func Port(machine string) (local, remote string) {
	return prefix + machine + portSuffix, prefix + socketName
}

// Cut takes a machine off the network, or puts it back, within a second. It is
// for tests of what a cluster does when a cable is drawn.
func Cut(dir, machine string, cut bool) error {
	path := filepath.Join(dir, machine+cutSuffix)
	if cut {
		return os.WriteFile(path, nil, 0o600)
	}
	if err := os.Remove(path); !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Forget removes what a machine left in dir, and reports whether other
// machines have ports there.
func Forget(dir, machine string) (others bool, err error) {
	for _, suffix := range []string{portSuffix, cutSuffix} {
		if e := os.Remove(filepath.Join(dir, machine+suffix)); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	left, e := filepath.Glob(filepath.Join(globQuote(dir), "*"+portSuffix))
	return len(left) > 0, errors.Join(err, e)
}

func globQuote(s string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(s)
}

// Clean removes the files of a switch that has ended.
func Clean(dir string) error {
	var errs []error
	for _, name := range []string{socketName, lockName} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
