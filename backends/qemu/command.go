package qemu

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"tool/backends/qemu/vswitch"
	"tool/core/machines/deploy"
)

// command returns the arguments that start the machine called name in its
// folder. All paths are relative to it: socket paths must be short, and QEMU's
// options know no quoting but doubled commas.
func (c *config) command(e *emulator, name, accel string, hasSeed bool) []string {
	args := []string{
		"-name", "guest=" + escape(name), "-uuid", c.UUID, "-pidfile", pidFile,
		"-no-user-config", "-nodefaults", "-display", "none",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-machine", "q35",
		"-smp", strconv.Itoa(c.Hardware.CPUs), "-m", strconv.Itoa(c.Hardware.Memory),
		"-chardev", "file,id=console,path=" + consoleFile + ",append=on", "-serial", "chardev:console",
		"-chardev", "socket,id=qmp,path=" + qmpFile + ",server=on,wait=off", "-mon", "chardev=qmp,mode=control",
		"-device", "virtio-rng-pci",
	}
	args = append(args, e.firmware()...)
	args = append(args, accelArgs(accel, c.Hardware.Firmware)...)
	args = append(args, disk("root", diskFile, "qcow2,cache=writeback,discard=unmap,detect-zeroes=unmap", "")...)
	if hasSeed {
		args = append(args, disk("seed", seedFile, "raw,readonly=on", "")...)
	}
	if c.Hardware.Firmware == uefi {
		args = append(args,
			"-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+escape(filepath.Join(e.root, codePath)),
			"-drive", "if=pflash,unit=1,format=raw,file="+varsFile)
		args = append(args, disk("esp", espDisk, "qcow2,cache=writeback,discard=unmap", ",bootindex=0")...)
	} else {
		args = append(args, "-kernel", kernelFile, "-initrd", initrdFile, "-append", cmdline(c.Cmdline, accel))
	}
	forwards := []string{fmt.Sprintf("hostfwd=tcp:127.0.0.1:%d-:22", c.SSHPort)}
	for _, f := range c.Forwards {
		forwards = append(forwards, "hostfwd="+c.rule(f))
	}
	local, remote := vswitch.Port(name)
	args = append(args,
		"-netdev", "user,id=control,"+strings.Join(forwards, ","), "-device", nic("control", c.ControlMAC),
		"-netdev", "dgram,id=cluster,local.type=unix,local.path="+escape(local)+",remote.type=unix,remote.path="+remote, "-device", nic("cluster", c.ClusterMAC))
	return e.command(systemPath, args...)
}

// rule is a forwarded port as QEMU writes it.
func (c *config) rule(f deploy.Forward) string {
	return fmt.Sprintf("tcp:%s:%d-:%d", c.HostAddr, f.Port, f.Guest)
}

func disk(id, file, format, more string) []string {
	return []string{
		"-drive", "if=none,id=" + id + ",file=" + file + ",format=" + format,
		"-device", "virtio-blk-pci,drive=" + id + ",serial=" + id + more,
	}
}

// nic has no boot ROM: nothing is booted from the network, and the firmware
// would spend a second on trying.
func nic(id, mac string) string { return "virtio-net-pci,netdev=" + id + ",mac=" + mac + ",romfile=" }

// cmdline adds what concerns emulation only: the mitigations guard against what
// an emulated processor does not do, and cost much there; and units take longer
// to start than systemd expects of hardware.
func cmdline(base, accel string) string {
	if accel != accelTCG || strings.Contains(base, "mitigations=") {
		return base
	}
	return strings.TrimSpace(base + " mitigations=off systemd.default_timeout_start_sec=600")
}

func escape(s string) string { return strings.ReplaceAll(s, ",", ",,") }
