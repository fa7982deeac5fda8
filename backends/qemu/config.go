package qemu

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"tool/backends/local"
	"tool/core/machines/deploy"
)

// config is vm.json: what a machine was configured as. It is what it is started
// with next; a running one was started with what was there then, since every
// change of it comes with a restart.
type config struct {
	Version    int              `json:"version"`
	UUID       string           `json:"uuid"`
	Hardware   deploy.Hardware  `json:"hardware"`
	ControlMAC string           `json:"control_mac"`
	ClusterMAC string           `json:"cluster_mac"`
	HostAddr   string           `json:"host_addr"`
	SSHPort    int              `json:"ssh_port"`
	Forwards   []deploy.Forward `json:"forwards"`
	Cmdline    string           `json:"cmdline"`
}

const configVersion = 1

// The firmware's names.
const (
	direct = deploy.FirmwareDirect
	uefi   = deploy.FirmwareUEFI
)

// configOf returns what m is to be configured as.
func configOf(m *deploy.Machine) config {
	c := config{
		Version: configVersion, UUID: uuidOf(m), Hardware: m.Hardware, ControlMAC: m.ControlMAC, ClusterMAC: m.ClusterMAC,
		SSHPort: m.SSHPort, Forwards: slices.Clone(m.Forwards), Cmdline: m.Cmdline,
	}
	if c.Hardware.Firmware == "" {
		c.Hardware.Firmware = direct
	}
	if c.Hardware.Firmware == uefi {
		c.Cmdline = "" // its boot entries have their own
	}
	if m.HostAddr.IsValid() {
		c.HostAddr = m.HostAddr.String()
	}
	slices.SortFunc(c.Forwards, func(a, b deploy.Forward) int { return a.Port - b.Port })
	return c
}

// check reports what QEMU would misunderstand or refuse.
func (c *config) check() error {
	h := c.Hardware
	switch {
	case h.Memory < 64 || h.Memory > 1<<20:
		return fmt.Errorf("%d MiB of memory are not possible", h.Memory)
	case h.CPUs < 1 || h.CPUs > 255:
		return fmt.Errorf("%d processors are not possible", h.CPUs)
	case h.Disk < 64 || h.Disk > 1<<26:
		return fmt.Errorf("a disk of %d MiB is not possible", h.Disk)
	case h.Firmware != direct && h.Firmware != uefi:
		return fmt.Errorf("firmware %q is neither direct nor uefi", h.Firmware)
	case c.SSHPort < 1 || c.SSHPort > 65535:
		return fmt.Errorf("%d is not a port for SSH", c.SSHPort)
	case strings.ContainsAny(c.Cmdline, "\n\x00"):
		return errors.New("the kernel's command line holds a line break")
	}
	for _, f := range c.Forwards {
		if f.Port < 1 || f.Port > 65535 || f.Guest < 1 || f.Guest > 65535 {
			return fmt.Errorf("%d → %d is not a pair of ports", f.Port, f.Guest)
		}
		if c.HostAddr == "" {
			return errors.New("ports are forwarded, but there is no address of the host for that")
		}
	}
	return nil
}

// readConfig reads a machine's vm.json; nil if there is none.
func readConfig(dir string) (*config, error) {
	var c config
	path := filepath.Join(dir, configFile)
	if ok, err := local.ReadJSON(path, configVersion, &c); err != nil || !ok {
		return nil, err
	}
	if err := c.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &c, nil
}

// write makes c the machine's configuration.
func (c *config) write(dir string) error { return local.WriteJSON(filepath.Join(dir, configFile), c) }

// differences tells in which ways c is other than want, for people. Hardware is
// left to Plan, which compares it itself; forwarded ports are no reason to restart.
func (c *config) differences(want *config) []string {
	var d []string
	for _, x := range []struct {
		what      string
		have, new any
	}{
		{"control interface", c.ControlMAC, want.ControlMAC},
		{"cluster interface", c.ClusterMAC, want.ClusterMAC},
		{"port for SSH", c.SSHPort, want.SSHPort},
		{"kernel's command line", c.Cmdline, want.Cmdline},
	} {
		if x.have != x.new {
			d = append(d, fmt.Sprintf("%s: %v → %v", x.what, x.have, x.new))
		}
	}
	return d
}

// sameForwards reports whether the same ports are forwarded.
func (c *config) sameForwards(want *config) bool {
	return slices.Equal(c.Forwards, want.Forwards) && (c.HostAddr == want.HostAddr || len(want.Forwards) == 0)
}

func (c *config) forwards() string {
	if len(c.Forwards) == 0 {
		return "none"
	}
	var all []string
	for _, f := range c.Forwards {
		all = append(all, fmt.Sprintf("%s:%d→%d", c.HostAddr, f.Port, f.Guest))
	}
	return strings.Join(all, " ")
}

// uuidOf returns the machine's identity, which its process carries: the same for
// the same machine, in whichever folder.
func uuidOf(m *deploy.Machine) string {
	h := sha256.Sum256([]byte("tool machine\x00" + m.Deployment + "\x00" + m.Name))
	h[6] = h[6]&0x0f | 0x80 // version 8: our own
	h[8] = h[8]&0x3f | 0x80
	x := hex.EncodeToString(h[:16])
	return strings.Join([]string{x[:8], x[8:12], x[12:16], x[16:20], x[20:]}, "-")
}
