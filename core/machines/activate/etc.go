package activate

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"tool/core/model/digest"
	"tool/core/model/merkle"
)

// /etc holds real folders, so that programs can keep files of their own in
// them from generation to generation, and in those a link for each file of the
// active system. The links lead through /tool/current: a switch changes what
// they mean at once, and only files that came or went need a change here.

// etcFiles are the entries of /etc that activation writes as files; a system's
// own entries of these names are not used.
var etcFiles = [...]string{"passwd", "group", "shadow", "gshadow", "subuid", "subgid", "machine-id", "hostname", "hosts", "resolv.conf"}

// etcContent is what a system puts into /etc: links by path, with their
// targets, and folders by path.
type etcContent struct {
	Links map[string]string `json:"links"`
	Dirs  []string          `json:"dirs"` // parents first

	props map[string]merkle.Props // of the folders that have any
}

// etcTarget returns where the link at p of /etc leads.
func etcTarget(p string) string {
	return strings.Repeat("../", 1+strings.Count(p, "/")) + "tool/current/etc/" + p
}

// etcOf returns what a system puts into /etc. Its own links are copied, for
// their targets are relative to where they stand.
func (m *Machine) etcOf(tree digest.Digest) (*etcContent, error) {
	c := &etcContent{Links: map[string]string{}, props: map[string]merkle.Props{}}
	n, ok, err := merkle.Find(m.Store.CAS(), tree, "etc")
	if err != nil || !ok || n.Kind != merkle.Dir {
		return c, err
	}
	err = merkle.Walk(m.Store.CAS(), n.Digest, func(p string, n merkle.Node) error {
		if slices.Contains(etcFiles[:], p) {
			return nil
		}
		switch n.Kind {
		case merkle.File:
			c.Links[p] = etcTarget(p)
		case merkle.Symlink:
			c.Links[p] = n.Target
		case merkle.Dir:
			c.Dirs = append(c.Dirs, p)
			dir, err := m.Store.CAS().GetDirectory(n.Digest)
			if err != nil {
				return err
			}
			if !dir.Props.IsZero() {
				c.props[p] = dir.Props
			}
		}
		return nil
	})
	if m.Adopted() {
		m.keepHostEtc(c)
	}
	return c, err
}

// lastEtc returns what was put into /etc last. A record that cannot be read is
// made again from the links that lead into the active system.
func (m *Machine) lastEtc() *etcContent {
	last := &etcContent{}
	if ok, err := readJSON(m.state("etc.json"), last); ok && err == nil {
		return last
	}
	last = &etcContent{Links: map[string]string{}}
	etc := m.path("etc")
	_ = filepath.WalkDir(etc, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.Type() != fs.ModeSymlink {
			return nil // what cannot be looked at is not ours
		}
		rel := strings.TrimPrefix(p, etc+"/")
		if target, err := os.Readlink(p); err == nil && target == etcTarget(rel) {
			last.Links[rel] = target
		}
		return nil
	})
	return last
}

// writeEtc makes /etc fit the system with the given tree. What stands in the
// way is put aside.
func (m *Machine) writeEtc(tree digest.Digest) error {
	want, err := m.etcOf(tree)
	if err != nil {
		return err
	}
	return m.replaceEtc(want)
}

func (m *Machine) replaceEtc(want *etcContent) error {
	last := m.lastEtc()
	if err := m.sweepEtc(); err != nil {
		return err
	}
	if m.Adopted() {
		if err := m.noteHostEtc(want, last); err != nil {
			return fmt.Errorf("keep the machine's own /etc: %w", err)
		}
	}
	for _, p := range want.Dirs {
		if err := m.etcDir(p, want, last); err != nil {
			return fmt.Errorf("make the folder /etc/%s: %w", p, err)
		}
	}
	for _, p := range slices.Sorted(maps.Keys(want.Links)) {
		if err := m.etcLink(p, want.Links[p], last); err != nil {
			return fmt.Errorf("link /etc/%s into the system: %w", p, err)
		}
	}
	if err := m.tidyEtc(want, last); err != nil {
		return err
	}
	if maps.Equal(want.Links, last.Links) && slices.Equal(want.Dirs, last.Dirs) {
		return nil
	}
	return writeJSON(m.state("etc.json"), want)
}

// sweepEtc removes what a writer that died left behind.
func (m *Machine) sweepEtc() error {
	left, err := filepath.Glob(m.path("etc/.tool-*"))
	if err != nil {
		return err
	}
	for _, p := range left {
		if err := os.RemoveAll(p); err != nil {
			return err
		}
	}
	return nil
}

func (m *Machine) etcDir(p string, want, last *etcContent) error {
	full := m.path("etc", p)
	fi, err := os.Lstat(full)
	switch {
	case err == nil && fi.IsDir():
		return nil
	case err == nil:
		if target, lerr := os.Readlink(full); lerr == nil && (target == last.Links[p] || target == etcTarget(p)) {
			err = os.Remove(full)
		} else {
			err = m.putAside(p)
		}
		if err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	o, err := ownedOf(want.props[p], 0o755)
	if err != nil {
		return err
	}
	return makeDir(full, o)
}

func (m *Machine) etcLink(p, target string, last *etcContent) error {
	full := m.path("etc", p)
	have, err := os.Readlink(full)
	switch {
	case err == nil && have == target:
		return nil
	case errors.Is(err, fs.ErrNotExist):
		return os.Symlink(target, full)
	case err == nil && (have == last.Links[p] || have == etcTarget(p)):
	default:
		if err := m.putAside(p); err != nil {
			return err
		}
	}
	// All that is unfinished has a name that sweepEtc knows.
	tmp, err := tempName(m.path("etc/x"))
	if err != nil {
		return err
	}
	if err := os.Symlink(target, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, full)
}

// putAside moves an entry of /etc that somebody else made out of the way, to
// where a person finds it, and where the way back to an adopted machine's own
// system takes it from.
func (m *Machine) putAside(p string) error {
	to := m.state("aside", p)
	if m.Adopted() {
		if _, err := os.Lstat(m.path(originDir, "etc", p)); errors.Is(err, fs.ErrNotExist) {
			to = m.path(originDir, "etc", p)
		}
	}
	dir := os.MkdirAll
	if m.Adopted() && filepath.Dir(to) == m.path(originDir, "etc", filepath.Dir(p)) {
		dir = func(string, os.FileMode) error { return m.noteDir(filepath.Dir(p)) }
	}
	if err := dir(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	for i, free := 1, to; ; i++ {
		if _, err := os.Lstat(free); errors.Is(err, fs.ErrNotExist) {
			to = free
			break
		} else if err != nil {
			return err
		}
		free = fmt.Sprintf("%s.%d", to, i)
	}
	if err := os.Rename(m.path("etc", p), to); err != nil {
		return err
	}
	m.log("/etc/%s was not ours and is now %s", p, to)
	return nil
}

// tidyEtc removes links and folders that the system before had and this one has
// not. A folder in which somebody keeps files stays.
func (m *Machine) tidyEtc(want, last *etcContent) error {
	for p, target := range last.Links {
		if _, still := want.Links[p]; still {
			continue
		}
		if have, err := os.Readlink(m.path("etc", p)); err == nil && have == target {
			if err := os.Remove(m.path("etc", p)); err != nil {
				return fmt.Errorf("remove the link /etc/%s: %w", p, err)
			}
		}
	}
	for _, p := range slices.Backward(last.Dirs) {
		if !slices.Contains(want.Dirs, p) && path.Clean(p) == p {
			_ = os.Remove(m.path("etc", p)) // fails where something is in it
		}
	}
	return nil
}
