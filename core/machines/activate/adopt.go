package activate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"tool/core/machines/facts"
)

// originDir holds what an adopted machine was before: generation 0.
const originDir = "tool/generation-0"

// Adopted reports whether the machine was there before us.
func (m *Machine) Adopted() bool {
	_, err := os.Lstat(m.path(originDir))
	return err == nil
}

// adoptUnit goes on with an unfinished switch when the machine's own system has
// started it.
const (
	adoptService = "etc/systemd/system/tool-agent-boot.service"
	adoptWants   = "etc/systemd/system/multi-user.target.wants/tool-agent-boot.service"
	adoptUnit    = `[Unit]
Description=Ends what a restart interrupted of a switch between generations
After=basic.target

[Service]
ExecStart=/tool/agent/current/tool agent settle
Restart=on-failure
RestartSec=1

[Install]
WantedBy=multi-user.target
`
)

// Adopt takes over a machine with systemd and a merged /usr that was set up by
// somebody else. Nothing changes for what runs on it: its /usr becomes
// generation 0, and /usr a link that leads there. agent is the path of the
// program to install. To adopt what is adopted does nothing.
func (m *Machine) Adopt(ctx context.Context, agent string) error {
	if err := m.adopt(ctx, agent); err != nil {
		return fmt.Errorf("adopt this machine: %w", m.explainFull(err))
	}
	return nil
}

func (m *Machine) adopt(ctx context.Context, agent string) error {
	if target, err := os.Readlink(m.path("usr")); err == nil {
		if target == topLinks[0].target && m.Adopted() {
			return m.InstallAgent(agent)
		}
		if target == topLinks[0].target {
			return errors.New("it is managed by tool already")
		}
		return fmt.Errorf("its /usr is a link to %s", target)
	}
	if err := m.adoptable(); err != nil {
		return err
	}
	if err := m.InstallAgent(agent); err != nil {
		return err
	}
	if err := m.keepIdentity(); err != nil {
		return err
	}
	// After the exchange the link is /usr, and the folder is where it leads.
	origin := m.path(originDir)
	if err := linkTo(topLinks[0].target, filepath.Join(origin, "usr")); err != nil {
		return err
	}
	if err := linkTo(filepath.Base(originDir), m.path("tool/current")); err != nil {
		return err
	}
	for _, p := range []Pointer{Active, Confirmed} {
		if err := m.setPointer(p, 0); err != nil {
			return err
		}
	}
	if err := writeFile(m.path(adoptService), []byte(adoptUnit), owned{mode: 0o644}); err != nil {
		return err
	}
	wants := m.path(adoptWants)
	if err := os.MkdirAll(filepath.Dir(wants), 0o755); err != nil {
		return err
	}
	if err := linkTo("/"+adoptService, wants); err != nil {
		return err
	}
	if err := m.keepModules(); err != nil {
		return err
	}
	if err := unix.Renameat2(unix.AT_FDCWD, m.path("usr"), unix.AT_FDCWD, filepath.Join(origin, "usr"), unix.RENAME_EXCHANGE); err != nil {
		return fmt.Errorf("exchange /usr for a link: %w", err)
	}
	if err := errors.Join(syncDir(m.Root), syncDir(origin)); err != nil {
		return err
	}
	return m.Systemd.DaemonReload(ctx)
}

// adoptable reports why the machine cannot be taken over.
func (m *Machine) adoptable() error {
	if _, err := os.Lstat(m.path("run/systemd/system")); err != nil {
		return errors.New("its service manager is not systemd (there is no /run/systemd/system)")
	}
	for _, l := range topLinks[1:] {
		fi, err := os.Lstat(m.path(l.name))
		if errors.Is(err, fs.ErrNotExist) && l.name == "lib64" {
			continue
		}
		if err != nil {
			return err
		}
		target, err := os.Readlink(m.path(l.name))
		if err != nil || strings.TrimPrefix(target, "/") != l.target {
			return fmt.Errorf("its /%s is a %v and not a link to %s: only systems with a merged /usr can be adopted (Debian's package usrmerge makes one)", l.name, fi.Mode().Type(), l.target)
		}
	}
	var root, usr, own unix.Stat_t
	for p, st := range map[string]*unix.Stat_t{"": &root, "usr": &usr, "tool": &own} {
		if err := unix.Lstat(m.path(p), st); err != nil {
			return &fs.PathError{Op: "stat", Path: m.path(p), Err: err}
		}
	}
	if usr.Dev != root.Dev {
		return errors.New("its /usr is a file system of its own, and only a folder of the root file system can be exchanged for a link")
	}
	if own.Dev != root.Dev {
		return errors.New("its /tool is on another file system than /")
	}
	b, err := os.ReadFile(m.path("proc/self/mountinfo"))
	if err == nil {
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 4 && f[4] == "/usr" {
				return errors.New("its /usr is a mount point")
			}
		}
	}
	return nil
}

// keepIdentity takes the machine's own name, host key and the keys that may log
// in to where generations have them.
func (m *Machine) keepIdentity() error {
	origin := m.path(originDir)
	if err := os.MkdirAll(origin, 0o755); err != nil {
		return err
	}
	keys, err := os.ReadFile(m.path("root/.ssh/authorized_keys"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := writeFile(filepath.Join(origin, "authorized_keys"), keys, owned{mode: 0o600}); err != nil {
		return err
	}
	f, err := m.Facts()
	if errors.Is(err, fs.ErrNotExist) {
		f, err = m.ownFacts()
	}
	if err != nil {
		return err
	}
	f.Adopted = true
	if err := m.setFacts(f); err != nil {
		return err
	}
	if err := m.writeKeys(f); err != nil {
		return err
	}
	for name, mode := range map[string]os.FileMode{"ssh_host_ed25519_key": 0o600, "ssh_host_ed25519_key.pub": 0o644} {
		b, err := os.ReadFile(m.path("etc/ssh", name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := writeFile(m.path(sshDir, name), b, owned{mode: mode}); err != nil {
			return err
		}
	}
	return nil
}

// ownFacts returns what the machine says of itself.
func (m *Machine) ownFacts() (*facts.Facts, error) {
	id, err := os.ReadFile(m.path("etc/machine-id"))
	if err != nil {
		return nil, err
	}
	name, err := os.ReadFile(m.path("etc/hostname"))
	if err != nil {
		return nil, err
	}
	host, _, _ := strings.Cut(strings.TrimSpace(string(name)), ".")
	return &facts.Facts{Version: 1, Machine: host, MachineID: strings.TrimSpace(string(id)), Adopted: true}, nil
}

// keepOriginal keeps an account file of the machine's own, once. It is a second
// name of the file: what we write replaces the first. Where the machine has none,
// that is noted: the file that is there later is ours.
func (m *Machine) keepOriginal(name string) error {
	if none, err := m.hadNone(name); err != nil || none {
		return err
	}
	dir := m.path(originDir, "etc")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	err := os.Link(m.path("etc", name), filepath.Join(dir, name))
	switch {
	case errors.Is(err, fs.ErrExist):
		return nil
	case errors.Is(err, fs.ErrNotExist):
		if err := os.MkdirAll(m.path(originNone), 0o700); err != nil {
			return err
		}
		return writeFile(m.path(originNone, name), nil, owned{mode: 0o600})
	}
	return err
}

// originNone has an empty file for each account file that the machine had not.
const originNone = originDir + "/etc-none"

func (m *Machine) hadNone(name string) (bool, error) {
	_, err := os.Lstat(m.path(originNone, name))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// removeNone removes account files that the machine had not.
func (m *Machine) removeNone() error {
	entries, err := os.ReadDir(m.path(originNone))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := errors.Join(removeIfThere(m.path("etc", e.Name())), removeIfThere(m.path(originNone, e.Name()))); err != nil {
			return err
		}
	}
	return os.Remove(m.path(originNone))
}

// keepAccounts puts the machine's own accounts before those of a system. Where
// both have a name, the machine's own counts, with the members of both.
func (m *Machine) keepAccounts(a *accounts) error {
	merge := func(name string, ours *[]string, members int) error {
		if none, err := m.hadNone(name); err != nil || none {
			return err
		}
		b, err := os.ReadFile(m.path(originDir, "etc", name))
		if errors.Is(err, fs.ErrNotExist) {
			b, err = os.ReadFile(m.path("etc", name))
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		index := map[string]int{}
		var lines []string
		for line := range strings.Lines(string(b)) {
			line = strings.TrimRight(line, "\n")
			key, _, _ := strings.Cut(line, ":")
			index[key] = len(lines)
			lines = append(lines, line)
		}
		for _, line := range *ours {
			key, _, _ := strings.Cut(line, ":")
			i, have := index[key]
			switch {
			case !have:
				lines = append(lines, line)
			case members > 0:
				lines[i] = addMembers(lines[i], line, members)
			}
		}
		*ours = lines
		return nil
	}
	return errors.Join(
		merge("passwd", &a.passwd, 0), merge("shadow", &a.shadow, 0),
		merge("group", &a.group, 3), merge("gshadow", &a.gshadow, 3))
}

// addMembers adds to a line of group those members that another has in field i.
func addMembers(line, other string, i int) string {
	f, g := strings.Split(line, ":"), strings.Split(other, ":")
	if len(f) <= i || len(g) <= i {
		return line
	}
	have := split(f[i])
	for _, u := range split(g[i]) {
		if !slices.Contains(have, u) {
			have = append(have, u)
		}
	}
	f[i] = strings.Join(have, ",")
	return strings.Join(f, ":")
}

// flipToOrigin makes an adopted machine what it was before.
func (m *Machine) flipToOrigin() error {
	if !m.Adopted() {
		return errors.New("this machine had no system before")
	}
	if err := linkTo(filepath.Base(originDir), m.path("tool/current")); err != nil {
		return err
	}
	if err := syncDir(m.path("tool")); err != nil {
		return err
	}
	if err := m.setPointer(Active, 0); err != nil {
		return err
	}
	// Ours go before its own come back: they may have the same names.
	if err := m.replaceEtc(&etcContent{Links: map[string]string{}}); err != nil {
		return err
	}
	if err := removeIfThere(m.state("etc.json")); err != nil {
		return err
	}
	if err := m.giveBack(m.path(originDir, "etc"), m.path("etc")); err != nil {
		return err
	}
	if err := m.removeNone(); err != nil {
		return err
	}
	return syncDir(m.path("etc"))
}

// giveBack moves what was put aside to where it was.
func (m *Machine) giveBack(from, to string) error {
	entries, err := os.ReadDir(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		a, b := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		if fi, err := os.Lstat(b); err == nil && fi.IsDir() {
			if !e.IsDir() {
				return fmt.Errorf("%s cannot come back: %s is a folder now", a, b)
			}
			if err := m.giveBack(a, b); err != nil {
				return err
			}
			if err := os.Remove(a); err != nil {
				return err
			}
			continue
		}
		if err := os.Rename(a, b); err != nil {
			return err
		}
		// Two names of one file are left as they are by a rename.
		if err := removeIfThere(a); err != nil {
			return err
		}
	}
	return nil
}
