package activate

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"tool/core/model/digest"
	"tool/core/model/merkle"
)

// etcFiles are the entries of /etc that activation writes as files; a system's
// own entries of these names are not used.
var etcFiles = [...]string{"passwd", "group", "shadow", "gshadow", "subuid", "subgid", "machine-id", "hostname", "hosts", "resolv.conf"}

// etcPrefix begins the links in /etc that lead into the active system.
const etcPrefix = "../tool/current/etc/"

// etcLinks returns the links that /etc should hold for a system: name to target.
// A link of the system itself is copied, for its target is relative to /etc.
func (m *Machine) etcLinks(tree digest.Digest) (map[string]string, error) {
	links := map[string]string{}
	n, ok, err := merkle.Find(m.Store.CAS(), tree, "etc")
	if err != nil || !ok || n.Kind != merkle.Dir {
		return links, err
	}
	dir, err := m.Store.CAS().GetDirectory(n.Digest)
	if err != nil {
		return nil, err
	}
	err = dir.Entries(func(name string, n merkle.Node) error {
		if slices.Contains(etcFiles[:], name) || name == "systemd" && m.Adopted() {
			return nil // an adopted machine's own units stay enabled
		}
		links[name] = etcPrefix + name
		if n.Kind == merkle.Symlink {
			links[name] = n.Target
		}
		return nil
	})
	return links, err
}

// writeEtc makes /etc lead into the system with the given tree: links that it
// needs are made, those of the system before that it has not are removed, and
// what stands in the way is put aside.
func (m *Machine) writeEtc(tree digest.Digest) error {
	want, err := m.etcLinks(tree)
	if err != nil {
		return err
	}
	var ours map[string]string
	if _, err := readJSON(m.state("etc.json"), &ours); err != nil {
		ours = nil // it is only needed to tidy
	}
	for _, name := range slices.Sorted(maps.Keys(want)) {
		if err := m.etcLink(name, want[name], ours); err != nil {
			return fmt.Errorf("link /etc/%s into the system: %w", name, err)
		}
	}
	if err := m.tidyEtc(want, ours); err != nil {
		return err
	}
	if maps.Equal(want, ours) {
		return nil
	}
	return writeJSON(m.state("etc.json"), want)
}

func (m *Machine) etcLink(name, target string, ours map[string]string) error {
	path := m.path("etc", name)
	have, err := os.Readlink(path)
	if err == nil && have == target {
		return nil
	}
	if err == nil && (strings.HasPrefix(have, etcPrefix) || ours[name] == have) || errors.Is(err, fs.ErrNotExist) {
		return linkTo(target, path)
	}
	if err := m.putAside(name); err != nil {
		return err
	}
	return linkTo(target, path)
}

// putAside moves an entry of /etc that somebody else made out of the way, to
// where a person finds it, and where the way back to an adopted machine's own
// system takes it from.
func (m *Machine) putAside(name string) error {
	dir := m.state("aside")
	if m.Adopted() {
		if _, err := os.Lstat(m.path(originDir, "etc", name)); errors.Is(err, fs.ErrNotExist) {
			dir = m.path(originDir, "etc")
		}
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	to := filepath.Join(dir, name)
	for i := 1; ; i++ {
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return err
		}
		to = filepath.Join(dir, fmt.Sprintf("%s.%d", name, i))
	}
	if err := os.Rename(m.path("etc", name), to); err != nil {
		return err
	}
	m.log("/etc/%s was not ours and is now %s", name, to)
	return nil
}

// tidyEtc removes links that lead nowhere now.
func (m *Machine) tidyEtc(want, ours map[string]string) error {
	entries, err := os.ReadDir(m.path("etc"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		name := e.Name()
		if strings.HasPrefix(name, ".tool-") { // of a writer that died
			if err := os.RemoveAll(m.path("etc", name)); err != nil {
				return err
			}
			continue
		}
		if e.Type() != fs.ModeSymlink || want[name] != "" {
			continue
		}
		target, err := os.Readlink(m.path("etc", name))
		if err != nil {
			return err
		}
		if strings.HasPrefix(target, etcPrefix) || ours[name] == target {
			if err := os.Remove(m.path("etc", name)); err != nil {
				return err
			}
		}
	}
	return nil
}
