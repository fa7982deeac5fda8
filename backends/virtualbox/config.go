package virtualbox

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"tool/core/machines/deploy"
)

// Settings of a machine, in machine(backends = {"virtualbox": ["network=hostonly"]}).
const settingNetwork = "network"

// The kinds of the machines' private network.
const (
	networkInternal = "internal" // between the machines of the deployment only; the default
	networkHostonly = "hostonly" // the host takes part, with the network's first address
	networkNone     = "none"     // an interface that leads nowhere, for a machine that is alone
)

// The controller of a machine's disks, and where on it they are. Debian's cloud
// kernel has no driver of another one.
const (
	controller = "disks"
	portESP    = 0 // first, since the firmware starts from there
	portRoot   = 1
	portSeed   = 2
)

// portKey is what showvminfo calls the disk at a port.
func portKey(port int) string { return fmt.Sprintf("%s-%d-0", controller, port) }

// config is what a machine is to be.
type config struct {
	hardware deploy.Hardware
	network  string
	uuid     string // of the deployment
	adapter  string // of the host, with networkHostonly; "" where it is not there yet
	control  string // MAC addresses as VirtualBox writes them
	cluster  string
	console  string // path
	address  netip.Prefix
	rules    []rule
}

// configOf returns what m is to be. The host's interface is filled in by who
// looks for it.
func configOf(m *deploy.Machine) *config {
	c := &config{
		hardware: m.Hardware, network: m.Settings[settingNetwork], uuid: m.Deployment, control: macOf(m.ControlMAC), cluster: macOf(m.ClusterMAC),
		console: filepath.Join(m.Dir, consoleFile), address: m.Address,
	}
	c.hardware.Firmware = uefi
	if c.network == "" {
		c.network = networkInternal
	}
	c.rules = append(c.rules, rule{"ssh", "tcp", "127.0.0.1", m.SSHPort, 22})
	for _, f := range m.Forwards {
		addr := ""
		if m.HostAddr.IsValid() {
			addr = m.HostAddr.String()
		}
		c.rules = append(c.rules, rule{"tcp-" + strconv.Itoa(f.Port), "tcp", addr, f.Port, f.Guest})
	}
	sortRules(c.rules)
	return c
}

func sortRules(rs []rule) {
	slices.SortFunc(rs, func(a, b rule) int { return strings.Compare(a.name, b.name) })
}

func macOf(s string) string { return strings.ToUpper(strings.ReplaceAll(s, ":", "")) }

// check reports what VirtualBox would refuse, or only at the machine's start.
func (c *config) check() error {
	h := c.hardware
	switch {
	case h.Memory < 64 || h.Memory > 2<<20:
		return fmt.Errorf("%d MiB of memory are not possible", h.Memory)
	case h.CPUs < 1 || h.CPUs > 64:
		return fmt.Errorf("%d processors are not possible: VirtualBox gives 1 to 64", h.CPUs)
	case h.Disk < 64 || h.Disk > 2<<20:
		return fmt.Errorf("a disk of %d MiB is not possible", h.Disk)
	case !slices.Contains([]string{networkInternal, networkHostonly, networkNone}, c.network):
		return fmt.Errorf("backends: virtualbox: network=%s is none of internal, hostonly, none", c.network)
	}
	for _, mac := range []string{c.control, c.cluster} {
		if len(mac) != 12 || strings.Trim(mac, "0123456789ABCDEF") != "" {
			return fmt.Errorf("%q is not a MAC address", mac)
		}
	}
	for _, r := range c.rules {
		if r.port < 1 || r.port > 65535 || r.guest < 1 || r.guest > 65535 {
			return fmt.Errorf("%d → %d is not a pair of ports", r.port, r.guest)
		}
		if r.addr == "" {
			return errors.New("ports are forwarded, but there is no address of the host for that")
		}
	}
	if c.network == networkHostonly {
		return checkRange(c.address.Masked(), networksFile)
	}
	return nil
}

// setting is one property of a virtual machine: as showvminfo tells it, as
// modifyvm takes it, and as people call it.
type setting struct {
	key, value string
	args       []string
	what       string
}

// settings are the properties that a machine must have.
func (c *config) settings() []setting {
	s := []setting{
		{"memory", strconv.Itoa(c.hardware.Memory), []string{"--memory", strconv.Itoa(c.hardware.Memory)}, ""},
		{"cpus", strconv.Itoa(c.hardware.CPUs), []string{"--cpus", strconv.Itoa(c.hardware.CPUs)}, ""},
		{"firmware", "EFI", []string{"--firmware", "efi"}, "firmware"},
		{"ioapic", "on", []string{"--ioapic", "on"}, "interrupt controller"},
		{"rtcuseutc", "on", []string{"--rtc-use-utc", "on"}, "clock"},
		{"nic1", "nat", []string{"--nic1", "nat"}, "control interface"},
		{"nictype1", "virtio", []string{"--nic-type1", "virtio"}, "control interface's kind"},
		{"macaddress1", c.control, []string{"--mac-address1", c.control}, "control interface's address"},
		{"cableconnected1", "on", []string{"--cable-connected1", "on"}, "control interface's cable"},
		{"uart1", "0x03f8,4", []string{"--uart1", "0x3F8", "4"}, "serial line"},
		{"uartmode1", "file," + c.console, []string{"--uart-mode1", "file", c.console}, "console"},
	}
	switch c.network {
	case networkInternal:
		name := "tool-" + c.uuid
		s = append(s, setting{"nic2", "intnet", []string{"--nic2", "intnet"}, "cluster interface"},
			setting{"intnet2", name, []string{"--intnet2", name}, "private network"})
	case networkHostonly:
		s = append(s, setting{"nic2", "hostonly", []string{"--nic2", "hostonly"}, "cluster interface"},
			setting{"hostonlyadapter2", c.adapter, []string{"--host-only-adapter2", c.adapter}, "private network"})
	default:
		s = append(s, setting{"nic2", "null", []string{"--nic2", "null"}, "cluster interface"})
	}
	return append(s,
		setting{"nictype2", "virtio", []string{"--nic-type2", "virtio"}, "cluster interface's kind"},
		setting{"macaddress2", c.cluster, []string{"--mac-address2", c.cluster}, "cluster interface's address"},
		setting{"cableconnected2", "on", []string{"--cable-connected2", "on"}, "cluster interface's cable"})
}

// drift tells what of a machine is other than wanted, beside hardware and
// forwarded ports. What showvminfo does not tell is no difference, since
// versions differ in that.
func (c *config) drift(have info) []string {
	var d []string
	for _, s := range c.settings() {
		if s.what == "" {
			continue
		}
		if v, told := have[s.key]; told && !strings.EqualFold(v, s.value) {
			d = append(d, fmt.Sprintf("%s: %.100s → %s", s.what, v, s.value))
		}
	}
	return d
}

// ruleChanges returns the rules to remove and to add.
func ruleChanges(have, want []rule) (remove, add []rule) {
	for _, r := range have {
		if !slices.Contains(want, r) {
			remove = append(remove, r)
		}
	}
	for _, r := range want {
		if !slices.Contains(have, r) {
			add = append(add, r)
		}
	}
	return remove, add
}

// describe tells rules to people.
func describe(rs []rule) string {
	var all []string
	for _, r := range rs {
		all = append(all, fmt.Sprintf("%s:%d→%d", r.addr, r.port, r.guest))
	}
	return strings.Join(all, " ")
}
