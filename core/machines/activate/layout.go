package activate

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"tool/core/model/digest"
	"tool/core/model/merkle"
)

// topLinks are the names at the root that lead into the active system.
var topLinks = [...]struct{ name, target string }{
	{"usr", "tool/current/usr"},
	{"bin", "usr/bin"},
	{"sbin", "usr/sbin"},
	{"lib", "usr/lib"},
	{"lib64", "usr/lib64"},
}

var topDirs = [...]struct {
	name string
	mode os.FileMode
}{
	{"boot", 0o755}, {"dev", 0o755}, {"etc", 0o755}, {"home", 0o755}, {"media", 0o755}, {"mnt", 0o755}, {"opt", 0o755},
	{"proc", 0o555}, {"root", 0o700}, {"run", 0o755}, {"srv", 0o755}, {"sys", 0o555}, {"tmp", 0o777 | os.ModeSticky},
	{"var", 0o755}, {"var/cache", 0o755}, {"var/lib", 0o755}, {"var/log", 0o755}, {"var/spool", 0o755}, {"var/tmp", 0o777 | os.ModeSticky},
}

// layOut makes what stands at the root of every machine, and below /var what
// packages expect to find. What is there stays.
func (m *Machine) layOut(tree digest.Digest) error {
	for _, d := range topDirs {
		if _, err := os.Stat(m.path(d.name)); err == nil && (d.name == "proc" || d.name == "sys" || d.name == "dev" || d.name == "run") {
			continue // mounted
		}
		if err := makeDir(m.path(d.name), owned{mode: d.mode}); err != nil {
			return err
		}
	}
	for _, l := range topLinks {
		if err := m.topLink(l.name, l.target); err != nil {
			return err
		}
	}
	for name, target := range map[string]string{"run": "../run", "lock": "../run/lock"} {
		if err := m.topLink(filepath.Join("var", name), target); err != nil {
			return err
		}
	}
	if err := m.fillVar(tree); err != nil {
		return err
	}
	return m.markUpdated()
}

// topLink makes a link. An empty folder in its place goes; anything else is a
// machine that is not ours.
func (m *Machine) topLink(name, target string) error {
	path := m.path(name)
	fi, err := os.Lstat(path)
	if err == nil && fi.IsDir() {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("%s should be a link to %s and is a folder that is not empty; `tool agent adopt` takes over a machine that was there before: %w", path, target, err)
		}
	}
	return linkTo(target, path)
}

// fillVar makes the folders that the system's packages have below /var where
// they are missing. var/run and var/lock are links.
func (m *Machine) fillVar(tree digest.Digest) error {
	n, ok, err := merkle.Find(m.Store.CAS(), tree, "var")
	if err != nil || !ok || n.Kind != merkle.Dir {
		return err
	}
	return merkle.Walk(m.Store.CAS(), n.Digest, func(p string, n merkle.Node) error {
		if n.Kind != merkle.Dir || p == "run" || p == "lock" || strings.HasPrefix(p, "run/") || strings.HasPrefix(p, "lock/") {
			return nil
		}
		path := m.path("var", p)
		if _, err := os.Lstat(path); err == nil {
			return nil
		}
		dir, err := m.Store.CAS().GetDirectory(n.Digest)
		if err != nil {
			return err
		}
		o, err := ownedOf(dir.Props, 0o755)
		if err != nil {
			return err
		}
		return makeDir(path, o)
	})
}

// ownedOf translates the properties of a node.
func ownedOf(p merkle.Props, normal os.FileMode) (owned, error) {
	o := owned{mode: normal}
	if p.Mode != 0 {
		o.mode = os.FileMode(p.Mode & 0o777)
		if p.Mode&0o1000 != 0 {
			o.mode |= os.ModeSticky
		}
		if p.Mode&0o2000 != 0 {
			o.mode |= os.ModeSetgid
		}
	}
	if p.Owner == "" {
		return o, nil
	}
	u, g, _ := strings.Cut(p.Owner, ":")
	var err1, err2 error
	o.uid, err1 = strconv.Atoi(u)
	o.gid, err2 = strconv.Atoi(g)
	return o, errors.Join(err1, err2)
}

// markUpdated tells systemd's ConditionNeedsUpdate= that /etc and /var fit
// /usr: its services for that would undo what activation has written.
func (m *Machine) markUpdated() error {
	for _, dir := range []string{"etc", "var"} {
		path := m.path(dir, ".updated")
		if _, err := os.Lstat(path); err == nil {
			continue // /usr is of 1980, so any file is younger
		}
		if err := writeFile(path, []byte("# Written by tool.\n"), owned{mode: 0o644, lazy: true}); err != nil {
			return err
		}
	}
	return nil
}
