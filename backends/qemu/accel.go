package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"tool/backends/local"
	"tool/core/machines/deploy"
)

// How a machine's processor is made.
const (
	accelKVM = "kvm"
	accelTCG = "tcg"
)

// accelArgs are the options for it. In emulation a small translation buffer is
// enough, where the default would take a gigabyte for each machine; and the
// processor is one that needs no modules of its own.
//
// A kernel that a boot loader starts has a command line that this side does not
// write, so it cannot be told to leave the mitigations out: see cmdline. But it
// believes that AMD's processors had no Meltdown. Switching page tables at every
// system call, the remedy for it, makes those fourteen times slower in emulation.
func accelArgs(accel, firmware string) []string {
	if accel == accelKVM {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	cpu := "Nehalem"
	if firmware == uefi {
		cpu += ",vendor=AuthenticAMD"
	}
	return []string{"-accel", "tcg,thread=multi,tb-size=160", "-cpu", cpu}
}

// kvmUnusable tells why KVM cannot be used, or "". That the device can be opened
// does not mean that it works: see probe.
func kvmUnusable() string {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return err.Error()
	}
	_ = f.Close()
	for _, module := range []string{"kvm_intel", "kvm_amd"} {
		if local.Exists("/sys/module/" + module) {
			return ""
		}
	}
	return "neither kvm_intel nor kvm_amd is loaded: without them KVM does not run usual kernels"
}

// probeFile keeps what was found out, beside the deployment's network.
const probeFile = "accel.json"

type probed struct {
	BootID   string `json:"boot_id"`
	Emulator string `json:"emulator"`
	Accel    string `json:"accel"`
	Why      string `json:"why"`
}

// accel decides how m's processor is made.
func (b *Backend) accel(ctx context.Context, m *deploy.Machine, e *emulator) (string, error) {
	if b.o.Accel != "" {
		return b.o.Accel, nil
	}
	if kvmUnusable() != "" {
		return accelTCG, nil
	}
	boot, err := local.BootID()
	if err != nil {
		return "", err
	}
	p := probed{BootID: boot, Emulator: filepath.Base(e.root)}
	path := filepath.Join(m.NetDir, probeFile)
	var old probed
	if text, err := local.ReadFile(path, 1<<16); err == nil && json.Unmarshal(text, &old) == nil && old.BootID == p.BootID && old.Emulator == p.Emulator {
		return old.Accel, nil
	}
	p.Accel = accelKVM
	if err := probe(ctx, m, e); err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		p.Accel, p.Why = accelTCG, err.Error()
	}
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return "", err
	}
	return p.Accel, local.WriteFile(path, append(text, '\n'))
}

// probe starts the machine's kernel with KVM and nothing else. It works if the
// kernel comes to the point where it finds no root file system, and restarts.
func probe(ctx context.Context, m *deploy.Machine, e *emulator) error {
	kernel := filepath.Join(m.Dir, kernelFile)
	if !local.Exists(kernel) {
		if kernel = m.Kernel; kernel == "" {
			return errors.New("there is no kernel to try KVM with")
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	args := append(e.firmware(), "-no-user-config", "-nodefaults", "-display", "none", "-no-reboot", "-machine", "q35", "-m", "256",
		"-kernel", kernel, "-append", "console=ttyS0 panic=-1", "-serial", "stdio")
	argv := e.command(systemPath, append(args, accelArgs(accelKVM, direct)...)...)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir, cmd.Env = m.Dir, e.environment()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.CombinedOutput()
	switch {
	case ctx.Err() != nil:
		return errors.New("a kernel that was started with KVM for trying did not get through in 20 seconds")
	case err != nil:
		return fmt.Errorf("a kernel that was started with KVM for trying: %w", err)
	case !strings.Contains(string(out), "Kernel panic"):
		return errors.New("a kernel that was started with KVM for trying ended before it looked for a disk")
	}
	return nil
}
