package qemu_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"tool/backends/backendtest"
	"tool/backends/qemu/vswitch"
)

// built is what the tests take from the workspace: an emulator, a kernel and
// its initrd, and programs that make file systems.
type built struct {
	emulator, kernel, initrd, diskTools string
}

// shared is set once, by TestMain.
var shared func() (*built, error)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "vm-switch" {
		if err := vswitch.Run(context.Background(), os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	shared = sync.OnceValues(build)
	os.Exit(m.Run())
}

// need builds what the tests run, with the tool itself, or skips the test where
// that is impossible, such as without a network and with an empty store.
func need(t *testing.T) *built {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED: -short runs no virtual machines")
	}
	b, err := shared()
	var lack *backendtest.BuildError
	if errors.As(err, &lack) && lack.Lacks {
		t.Log(err)
		t.Skip("SKIPPED: the emulator cannot be built here")
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func build() (*built, error) {
	dir, err := os.MkdirTemp("", "tool-qemu-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	program, err := backendtest.Program(dir)
	if err != nil {
		return nil, err
	}
	b := &built{}
	for _, x := range []struct {
		into   *string
		inside string
		args   []string
	}{
		{&b.emulator, "usr/bin/qemu-img", []string{"//packages:qemu"}},
		{&b.diskTools, "usr/sbin/mke2fs", []string{"//packages:disk-tools"}},
		{&b.initrd, "", []string{"//packages:kernel", "--output_groups=initrd"}},
		{&b.kernel, "boot/vmlinuz-*", []string{"//packages:kernel"}},
	} {
		paths, err := backendtest.Build(program, "../..", x.args...)
		if err != nil {
			return nil, err
		}
		if *x.into, err = holding(paths, x.inside); err != nil {
			return nil, fmt.Errorf("%s: %w", x.args[0], err)
		}
	}
	images, err := filepath.Glob(filepath.Join(b.kernel, "boot", "vmlinuz-*"))
	if err != nil {
		return nil, err
	}
	b.kernel = images[0]
	return b, nil
}

// holding returns the path with a file in it that matches inside.
func holding(paths []string, inside string) (string, error) {
	for _, p := range paths {
		if found, err := filepath.Glob(filepath.Join(p, inside)); err == nil && len(found) > 0 {
			return p, nil
		}
	}
	return "", fmt.Errorf("no output has %s, of %s", inside, strings.Join(paths, ", "))
}
