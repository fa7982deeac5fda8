package qemu_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

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
	if err != nil {
		t.Log(err)
		t.Skip("SKIPPED: the emulator cannot be built here")
	}
	return b
}

// build builds with the program at $TOOL_BINARY, or with a fresh one.
func build() (*built, error) {
	program := os.Getenv("TOOL_BINARY")
	if program == "" {
		dir, err := os.MkdirTemp("", "tool-qemu-")
		if err != nil {
			return nil, err
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "tool")
		cmd := exec.Command("go", "build", "-buildvcs=false", "-o", program, "tool/cmd/tool")
		if out, err := cmd.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("building the program: %w\n%s", err, out)
		}
	}
	b := &built{}
	for _, x := range []struct {
		into                  *string
		target, group, inside string
	}{
		{&b.emulator, "//packages:qemu", "", "usr/bin/qemu-img"},
		{&b.diskTools, "//packages:disk-tools", "", "usr/sbin/mke2fs"},
		{&b.initrd, "//packages:kernel", "initrd", ""},
		{&b.kernel, "//packages:kernel", "", "boot/vmlinuz-*"},
	} {
		path, err := output(program, x.target, x.group, x.inside)
		if err != nil {
			return nil, err
		}
		*x.into = path
	}
	images, err := filepath.Glob(filepath.Join(b.kernel, "boot", "vmlinuz-*"))
	if err != nil {
		return nil, err
	}
	b.kernel = images[0]
	return b, nil
}

// output builds a target and returns the path of its output that holds a file
// which matches inside.
func output(program, target, group, inside string) (string, error) {
	args := []string{"build", "--json", target}
	if group != "" {
		args = append(args, "--output_groups="+group)
	}
	cmd := exec.Command(program, args...)
	cmd.Dir = filepath.Join("..", "..")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("tool %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
	}
	var result struct {
		Targets []struct {
			Outputs []struct {
				Path string `json:"path"`
			} `json:"outputs"`
		} `json:"targets"`
	}
	if err := json.Unmarshal(out, &result); err != nil {
		return "", err
	}
	var all []string
	for _, t := range result.Targets {
		for _, o := range t.Outputs {
			if found, err := filepath.Glob(filepath.Join(o.Path, inside)); err == nil && len(found) > 0 {
				return o.Path, nil
			}
			all = append(all, o.Path)
		}
	}
	return "", fmt.Errorf("%s has no output with %s, but %s", target, inside, strings.Join(all, ", "))
}
