package activate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"tool/core/model/merkle"
)

// An adopted machine goes on with its own kernel, whose modules are in its own
// /usr. Generations do not have them, and without its drivers it would come up
// without a network.

const (
	modulesUnit    = "tool-host-modules.service"
	modulesService = "etc/systemd/system/" + modulesUnit
	modulesWants   = "etc/systemd/system/sysinit.target.wants/" + modulesUnit
	modulesList    = originDir + "/modules" // those that were loaded when it was adopted
	modulesProgram = originDir + "/modprobe"
)

// modulesText is a unit that loads what udev would for the devices that are there, and what
// was loaded before. What the kernel asks for later it finds there too.
const modulesText = `[Unit]
Description=Drivers of this machine's own kernel
DefaultDependencies=no
Conflicts=shutdown.target
Before=systemd-udev-trigger.service systemd-modules-load.service sysinit.target shutdown.target
ConditionPathIsSymbolicLink=/usr
ConditionPathExists=!/usr/lib/modules/%v

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'echo /tool/generation-0/modprobe > /proc/sys/kernel/modprobe; { cat /tool/generation-0/modules; find /sys/devices -name modalias -exec cat {} +; } | sort -u | xargs -r -d "\\n" /tool/generation-0/modprobe -a -q -b; true'
ExecStop=/bin/sh -c 'echo /sbin/modprobe > /proc/sys/kernel/modprobe'
`

const modprobeText = `#!/bin/sh
exec /sbin/modprobe -d /tool/generation-0 "$@"
`

// keepModules makes the machine's own modules loadable in generations.
func (m *Machine) keepModules() error {
	loaded, err := os.ReadFile(m.path("proc/modules"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var names strings.Builder
	for line := range strings.Lines(string(loaded)) {
		name, _, _ := strings.Cut(line, " ")
		names.WriteString(name + "\n")
	}
	for p, f := range map[string]etcFile{
		modulesList:    {[]byte(names.String()), owned{mode: 0o644}},
		modulesProgram: {[]byte(modprobeText), owned{mode: 0o755}},
		modulesService: {[]byte(modulesText), owned{mode: 0o644}},
	} {
		if err := writeFile(m.path(p), f.content, f.owned); err != nil {
			return err
		}
	}
	if err := linkTo("usr/lib", m.path(originDir, "lib")); err != nil { // where modprobe looks
		return err
	}
	if err := os.MkdirAll(filepath.Dir(m.path(modulesWants)), 0o755); err != nil {
		return err
	}
	return linkTo("/"+modulesService, m.path(modulesWants))
}

// lendModules makes the modules loadable with a switch away from generation 0,
// and leaves them to the machine's own /usr with one back.
func (m *Machine) lendModules(ctx context.Context, p *Pass) error {
	switch {
	case !m.Adopted() || p.From != 0 && p.To != 0 || p.From == p.To:
		return nil
	case p.To == 0:
		return m.Systemd.Do(ctx, "stop", modulesUnit)
	}
	return m.Systemd.Do(ctx, "start", modulesUnit)
}

// networkUnits are what makes a Debian machine's network.
var networkUnits = []string{networkd, "networking.service", "NetworkManager.service", "dhcpcd.service", "connman.service"}

// keepsNetwork reports that an adopted machine would have no network after its
// next start, for want of what makes it.
func (m *Machine) keepsNetwork(ctx context.Context, n int) error {
	g, err := m.Generation(n)
	if err != nil {
		return err
	}
	o, err := m.Store.Get(g.Ref)
	if err != nil {
		return err
	}
	states, err := m.Systemd.Show(ctx, networkUnits...)
	if err != nil {
		return fmt.Errorf("look at the units: %w", err)
	}
	var lacking []string
	for _, u := range states {
		if !u.Well() {
			continue
		}
		_, ok, err := merkle.Find(m.Store.CAS(), o.Node.Digest, "usr/lib/systemd/system/"+u.Unit)
		if err != nil {
			return err
		}
		if ok {
			return nil
		}
		lacking = append(lacking, u.Unit)
	}
	if len(lacking) == 0 {
		return nil // nobody knows
	}
	return fmt.Errorf("the machine's network is made by %s, which the system does not have, so there would be none after its next start: add what has it to the machine's packages, or let systemd-networkd make the network before", strings.Join(lacking, " and "))
}
