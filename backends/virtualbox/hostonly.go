package virtualbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tool/backends/local"
	"tool/core/machines/deploy"
)

// A network with the host is an interface of VirtualBox's that we make. Its name,
// vboxnet0 or another, is VirtualBox's choice and is written down; before it is
// made the names that there were are, so that one that was made by a command
// which did not live to write its name down is found again.

// hostonly is hostonly.json.
type hostonly struct {
	Version int      `json:"version"`
	Before  []string `json:"before"` // interfaces that there were before ours was made
	Name    string   `json:"name,omitempty"`
	Boot    string   `json:"boot"` // of the kernel, when ours was made: none outlives it
	Address string   `json:"address,omitempty"`
	Mask    string   `json:"mask,omitempty"`
}

const hostonlyVersion = 1

// networksFile is where an administrator widens the addresses that VirtualBox
// allows for such networks.
const networksFile = "/etc/vbox/networks.conf"

// networkDevice is how VirtualBox makes interfaces of the host.
const networkDevice = "/dev/vboxnetctl"

// noNetwork is the problem of a host without it.
const noNetwork = blocker + "a network with the host cannot be made: there is no " + networkDevice + "; load its driver (modprobe vboxnetadp), or take the setting network=internal, which does without"

// allowed are VirtualBox's own limits, where networks.conf says nothing.
var allowed = netip.MustParsePrefix("192.168.56.0/21")

// checkRange reports that VirtualBox would refuse the addresses of a network.
func checkRange(p netip.Prefix, file string) error {
	ranges := []netip.Prefix{allowed}
	b, err := local.ReadFile(file, 1<<20)
	if err == nil {
		ranges = parseRanges(string(b))
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	for _, r := range ranges {
		if r.Bits() <= p.Bits() && r.Contains(p.Addr()) {
			return nil
		}
	}
	return fmt.Errorf("VirtualBox does not allow the addresses %s for a network with the host: choose others (deployment(cidr = …) or --cidr) within %s, or add a line \"* %s\" to %s", p, rangesText(ranges), p, file)
}

// parseRanges reads networks.conf: lines "* RANGE RANGE…".
func parseRanges(text string) []netip.Prefix {
	var out []netip.Prefix
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) < 2 || f[0] != "*" {
			continue
		}
		for _, x := range f[1:] {
			if p, err := netip.ParsePrefix(x); err == nil {
				out = append(out, p.Masked())
			}
		}
	}
	return out
}

func rangesText(rs []netip.Prefix) string {
	var s []string
	for _, r := range rs {
		s = append(s, r.String())
	}
	return strings.Join(s, ", ")
}

func readHostonly(dir string) (*hostonly, error) {
	var h hostonly
	if ok, err := local.ReadJSON(filepath.Join(dir, hostonlyFile), hostonlyVersion, &h); err != nil || !ok {
		return nil, err
	}
	return &h, nil
}

func (h *hostonly) write(dir string) error {
	return local.WriteJSON(filepath.Join(dir, hostonlyFile), h)
}

// ours reports whether an interface is the one that was made. In another boot of
// the host its name may be that of another one: then its address tells.
func (h *hostonly) ours(i hostInterface, boot string) bool {
	return h.Name != "" && i.name == h.Name && (h.Boot == boot || i.address == h.Address && i.mask == h.Mask)
}

// unnamed returns an interface that was made by a command which did not live to
// write its name down: VirtualBox gives it an address by its name.
func (h *hostonly) unnamed(all []hostInterface, boot string) string {
	for _, i := range all {
		var n byte
		_, err := fmt.Sscanf(i.name, "vboxnet%d", &n)
		usual := fmt.Sprintf("192.168.%d.1", 56+n)
		if h.Boot == boot && !slices.Contains(h.Before, i.name) && (i.address == "" || i.address == "0.0.0.0" || err == nil && i.address == usual) {
			return i.name
		}
	}
	return ""
}

// wanted returns what m is to be, with the host's interface where there is one.
func (b *Backend) wanted(ctx context.Context, m *deploy.Machine) (*config, error) {
	c := configOf(m)
	if c.network != networkHostonly {
		return c, nil
	}
	h, err := readHostonly(m.NetDir)
	if err != nil || h == nil || h.Name == "" {
		return c, err
	}
	all, err := b.interfaces(ctx)
	if err != nil {
		return nil, err
	}
	addr, mask := hostAddress(m.Address)
	for _, i := range all {
		if i.name == h.Name && i.address == addr && i.mask == mask {
			c.adapter = i.name
		}
	}
	return c, nil
}

func (b *Backend) interfaces(ctx context.Context) ([]hostInterface, error) {
	out, err := b.m.run(ctx, "list", "hostonlyifs")
	return parseInterfaces(out), err
}

// hostAddress is the host's own address in the network: the first one.
func hostAddress(p netip.Prefix) (addr, mask string) {
	if !p.IsValid() {
		return "", ""
	}
	return p.Masked().Addr().Next().String(), net.IP(net.CIDRMask(p.Bits(), 32)).String()
}

// makeNetwork makes the network with the host, if it is not there.
func (b *Backend) makeNetwork(ctx context.Context, m *deploy.Machine) error {
	if err := configOf(m).check(); err != nil {
		return err
	}
	unlock, err := lockNet(ctx, m)
	if err != nil {
		return err
	}
	defer unlock()
	all, err := b.interfaces(ctx)
	if err != nil {
		return err
	}
	h, err := readHostonly(m.NetDir)
	if err != nil {
		return err
	}
	boot, err := local.BootID()
	if err != nil {
		return err
	}
	mine := func(i hostInterface) bool { return h.ours(i, boot) }
	switch {
	case h == nil, !slices.ContainsFunc(all, mine) && h.Boot != boot:
		h = &hostonly{Version: hostonlyVersion, Boot: boot}
		for _, i := range all {
			h.Before = append(h.Before, i.name)
		}
		if err := h.write(m.NetDir); err != nil {
			return err
		}
	case !slices.ContainsFunc(all, mine):
		h.Name = h.unnamed(all, boot)
	}
	addr, mask := hostAddress(m.Address)
	for _, i := range all {
		if i.address == addr && i.name != h.Name {
			return fmt.Errorf("the interface %s of this host has the address %s already: choose another network (--cidr), or remove it (VBoxManage hostonlyif remove %s)", i.name, addr, i.name)
		}
	}
	if h.Name == "" {
		out, err := b.m.run(ctx, "hostonlyif", "create")
		if err != nil {
			return fmt.Errorf("a network with the host cannot be made: %w; is the driver vboxnetadp loaded, and may you use it? the setting network=internal does without", err)
		}
		if h.Name = parseCreated(out); h.Name == "" {
			return fmt.Errorf("VBoxManage hostonlyif create does not tell the name of what it made: %.200q", out)
		}
	}
	h.Boot, h.Address, h.Mask = boot, addr, mask
	if err := h.write(m.NetDir); err != nil {
		return err
	}
	_, err = b.m.run(ctx, "hostonlyif", "ipconfig", h.Name, "--ip", addr, "--netmask", mask)
	return err
}

// joinNetwork writes down that the machine is in the network with the host, or
// that it is not: who leaves last removes it.
func (b *Backend) joinNetwork(ctx context.Context, m *deploy.Machine) error {
	member := filepath.Join(m.NetDir, m.Name+memberSuffix)
	join := configOf(m).network == networkHostonly
	if join == local.Exists(member) {
		return nil
	}
	unlock, err := lockNet(ctx, m)
	if err != nil {
		return err
	}
	defer unlock()
	if join {
		return local.WriteFile(member, nil)
	}
	return b.leaveNetwork(ctx, m)
}

// leaveNetwork takes the machine out of the network with the host, and removes
// it if it was the last one. The caller has the lock.
func (b *Backend) leaveNetwork(ctx context.Context, m *deploy.Machine) error {
	if err := local.Remove(filepath.Join(m.NetDir, m.Name+memberSuffix)); err != nil {
		return err
	}
	h, err := readHostonly(m.NetDir)
	if err != nil || h == nil {
		return err
	}
	members, err := files(m.NetDir, "", memberSuffix)
	if err != nil || len(members) > 0 {
		return err
	}
	all, err := b.interfaces(ctx)
	if err != nil {
		return err
	}
	boot, err := local.BootID()
	if err != nil {
		return err
	}
	if h.Name == "" {
		h.Name = h.unnamed(all, boot)
	}
	if slices.ContainsFunc(all, func(i hostInterface) bool { return h.ours(i, boot) }) {
		if _, err := b.m.run(ctx, "hostonlyif", "remove", h.Name); err != nil {
			return err
		}
	}
	return local.Remove(filepath.Join(m.NetDir, hostonlyFile))
}
