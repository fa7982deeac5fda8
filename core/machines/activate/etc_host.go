package activate

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
)

// hostEtc are entries of /etc that tell what a machine has and where it stands,
// not what its software is: an adopted one keeps its own. Without its fstab it
// would start with a root file system that nobody may write to.
var hostEtc = [...]string{"adjtime", "crypttab", "default/locale", "environment", "fstab", "localtime", "modules", "timezone"}

// keepHostEtc takes out of c what an adopted machine has of its own.
func (m *Machine) keepHostEtc(c *etcContent) {
	for _, p := range hostEtc {
		target, wanted := c.Links[p]
		if !wanted {
			continue
		}
		full := m.path("etc", p)
		have, err := os.Readlink(full)
		switch {
		case errors.Is(err, fs.ErrNotExist) || err == nil && (have == target || have == etcTarget(p)):
			// It has none, or what it has is ours.
		default:
			delete(c.Links, p)
		}
	}
}

// noteHostEtc keeps a second name of each link of an adopted machine that
// already is as a system wants it, and the folders that a system has too: the
// way back would otherwise take them for ours. What is noted as ours is written
// down before it is made, so that doing this again takes nothing for the
// machine's own that is not.
func (m *Machine) noteHostEtc(want, last *etcContent) error {
	origin := m.path(originDir, "etc")
	for _, p := range want.Dirs {
		fi, err := os.Lstat(m.path("etc", p))
		if err != nil || !fi.IsDir() || slices.Contains(last.Dirs, p) {
			continue
		}
		if err := m.noteDir(p); err != nil {
			return err
		}
	}
	for p, target := range want.Links {
		have, err := os.Readlink(m.path("etc", p))
		if err != nil || have != target || last.Links[p] == target {
			continue
		}
		if err := m.noteDir(filepath.Dir(p)); err != nil {
			return err
		}
		if err := os.Link(m.path("etc", p), filepath.Join(origin, p)); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	ours := &etcContent{Links: maps.Clone(last.Links), Dirs: slices.Clone(last.Dirs)}
	if ours.Links == nil {
		ours.Links = map[string]string{}
	}
	maps.Copy(ours.Links, want.Links)
	for _, p := range want.Dirs {
		if !slices.Contains(ours.Dirs, p) {
			ours.Dirs = append(ours.Dirs, p)
		}
	}
	slices.SortStableFunc(ours.Dirs, func(a, b string) int { return len(a) - len(b) }) // parents first
	return writeJSON(m.state("etc.json"), ours)
}

// noteDir makes the folder p below where an adopted machine's own /etc waits,
// with the mode and owner that it has in /etc: should it go there, it comes back.
func (m *Machine) noteDir(p string) error {
	origin := m.path(originDir, "etc")
	if p == "." {
		return os.MkdirAll(origin, 0o700)
	}
	if err := m.noteDir(filepath.Dir(p)); err != nil {
		return err
	}
	fi, err := os.Lstat(m.path("etc", p))
	if err != nil {
		return err
	}
	o := owned{mode: fi.Mode() & (os.ModePerm | os.ModeSticky | os.ModeSetgid)}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		o.uid, o.gid = int(st.Uid), int(st.Gid)
	}
	return makeDir(filepath.Join(origin, p), o)
}
