package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"tool/core/machines/deploy"
)

// emulator is a tree with QEMU, its firmware and every library: an output of
// the rule emulator.
type emulator struct {
	root string
}

const (
	loaderPath = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
	libPath    = "usr/lib/x86_64-linux-gnu"
	systemPath = "usr/bin/qemu-system-x86_64"
	imagePath  = "usr/bin/qemu-img"
	codePath   = "usr/share/OVMF/OVMF_CODE_4M.fd"
	varsPath   = "usr/share/OVMF/OVMF_VARS_4M.fd"
)

// emulatorOf returns the emulator that m was given.
func emulatorOf(m *deploy.Machine) (*emulator, error) {
	if m.Emulator == "" {
		return nil, errors.New("there is no emulator: set deploy.emulator in tool.toml, or the deployment's attribute emulator")
	}
	e := &emulator{m.Emulator}
	for _, p := range []string{loaderPath, systemPath, imagePath} {
		if _, err := os.Stat(filepath.Join(e.root, p)); err != nil {
			return nil, fmt.Errorf("the emulator is not complete: %w", err)
		}
	}
	return e, nil
}

// command returns the arguments that run a program of the tree with the tree's
// own loader and libraries, so that the host's never matter.
func (e *emulator) command(program string, args ...string) []string {
	return append([]string{filepath.Join(e.root, loaderPath), "--library-path", filepath.Join(e.root, libPath), filepath.Join(e.root, program)}, args...)
}

// environment is all that the emulator gets of it.
func (e *emulator) environment() []string {
	return []string{"QEMU_MODULE_DIR=" + filepath.Join(e.root, libPath, "qemu"), "LANG=C", "PATH=/nonexistent", "HOME=/nonexistent"}
}

// firmware returns the options that say where QEMU finds its own files.
func (e *emulator) firmware() []string {
	return []string{"-L", filepath.Join(e.root, "usr/share/qemu"), "-L", filepath.Join(e.root, "usr/share/seabios")}
}

// image runs qemu-img in dir.
func (e *emulator) image(ctx context.Context, dir string, args ...string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	argv := e.command(imagePath, args...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = dir, e.environment()
	// A signal for this command's terminal must not leave half an image.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("qemu-img %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(out.String()))
	}
	return nil
}
