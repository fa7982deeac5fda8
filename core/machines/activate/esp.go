package activate

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"tool/core/machines/facts"
	"tool/core/machines/system"
	"tool/core/model/merkle"
)

// With UEFI the machine starts from its EFI system partition, which holds
// systemd-boot and, written here:
//
//	EFI/tool/vmlinuz-<hex>     kernels and initrds, named by content
//	loader/entries/gen-N.conf  how to start generation N
//	loader/loader.conf         default: the confirmed generation
//
// A trial is the firmware's variable LoaderEntryOneShot, which systemd-boot
// obeys once.

const (
	espLabel   = "TOOL-ESP"
	espFiles   = "EFI/tool"
	espEntries = "loader/entries"
	espReserve = 1 << 20 // bytes that must stay free
)

func entryName(n int) string { return fmt.Sprintf("gen-%d.conf", n) }

// isUEFI reports whether boot entries are ours to write.
func (m *Machine) isUEFI() (bool, error) {
	f, err := m.Facts()
	if err != nil {
		return false, err
	}
	return f.Firmware == facts.FirmwareUEFI && !f.Adopted, nil
}

// oneShot makes the firmware start generation n once.
func (m *Machine) oneShot(n int) error {
	uefi, err := m.isUEFI()
	if err != nil || !uefi {
		return err
	}
	confirmed, err := m.Pointer(Confirmed)
	if err != nil {
		return err
	}
	if confirmed == 0 { // nothing is: what runs is what is known to start
		if confirmed, err = m.Pointer(Active); err != nil {
			return err
		}
	}
	if err := m.writeESP([]int{confirmed, n}, confirmed); err != nil {
		return err
	}
	return m.setVariable("LoaderEntryOneShot", entryName(n))
}

// setBootDefault makes the firmware start generation n from now on.
func (m *Machine) setBootDefault(n int) error {
	uefi, err := m.isUEFI()
	if err != nil || !uefi {
		return err
	}
	return m.writeESP([]int{n}, n)
}

// bootDefault makes it start the confirmed generation, after a switch that did
// not come to its end.
func (m *Machine) bootDefault() error {
	n, err := m.Pointer(Confirmed)
	if err != nil || n == 0 {
		return err
	}
	return m.setBootDefault(n)
}

func (m *Machine) writeESP(generations []int, start int) (err error) {
	open := m.mountESP
	if m.openESP != nil {
		open = m.openESP
	}
	dir, done, err := open()
	if err != nil {
		return fmt.Errorf("write boot entries: %w", err)
	}
	defer func() { err = errors.Join(err, done()) }()
	if err := m.fillESP(dir, generations, start); err != nil {
		return fmt.Errorf("write boot entries for generation %d: %w", start, err)
	}
	return nil
}

// bootFile is a kernel or initrd to be on the partition.
type bootFile struct {
	name string
	node merkle.Node
}

type bootEntry struct {
	generation int
	text       string
	files      []bootFile
}

func (m *Machine) entry(n int) (*bootEntry, error) {
	g, err := m.Generation(n)
	if err != nil {
		return nil, err
	}
	manifest, err := m.Manifest(g.Ref)
	if err != nil {
		return nil, err
	}
	if manifest.Boot == nil {
		return nil, fmt.Errorf("generation %d has no kernel", n)
	}
	o, err := m.Store.Get(g.Ref)
	if err != nil {
		return nil, err
	}
	e := &bootEntry{generation: n}
	for prefix, p := range map[string]string{"vmlinuz-": manifest.Boot.Kernel, "initrd-": manifest.Boot.Initrd} {
		node, err := m.follow(o.Node, p)
		if err != nil {
			return nil, fmt.Errorf("generation %d: %w", n, err)
		}
		e.files = append(e.files, bootFile{prefix + node.Digest.Hex()[:16], node})
	}
	slices.SortFunc(e.files, func(a, b bootFile) int { return strings.Compare(b.name, a.name) }) // the kernel first
	e.text = fmt.Sprintf("title %s, generation %d\nversion %d\nsort-key tool\nlinux /%s/%s\ninitrd /%s/%s\noptions %s tool.generation=%d\n",
		manifest.Name, n, n, espFiles, e.files[0].name, espFiles, e.files[1].name, manifest.Boot.Cmdline, n)
	return e, nil
}

// follow finds a file in a system's tree, through links within its folder.
func (m *Machine) follow(root merkle.Node, p string) (merkle.Node, error) {
	if err := system.CheckPath(p); err != nil {
		return merkle.Node{}, err
	}
	for range 8 {
		n, ok, err := merkle.Find(m.Store.CAS(), root.Digest, p)
		if err != nil {
			return merkle.Node{}, err
		}
		if ok && n.Kind == merkle.File {
			return n, nil
		}
		if !ok || n.Kind != merkle.Symlink || filepath.IsAbs(n.Target) {
			break
		}
		p = filepath.Join(filepath.Dir(p), n.Target)
	}
	return merkle.Node{}, fmt.Errorf("the system has no file %s", p)
}

// fillESP makes the partition hold what the generations need, and takes away
// what none of them does. The order is such that whatever is named is there.
func (m *Machine) fillESP(dir string, generations []int, start int) error {
	var entries []*bootEntry
	keep := map[string]bool{}
	var need int64
	for _, n := range generations {
		if n == 0 || slices.ContainsFunc(entries, func(e *bootEntry) bool { return e.generation == n }) {
			continue
		}
		e, err := m.entry(n)
		if err != nil {
			return err
		}
		entries = append(entries, e)
		keep[entryName(n)] = true
		for _, f := range e.files {
			if fi, err := os.Stat(filepath.Join(dir, espFiles, f.name)); !keep[f.name] && (err != nil || fi.Size() != f.node.Digest.Size) {
				need += f.node.Digest.Size
			}
			keep[f.name] = true
		}
	}
	for _, d := range []string{espFiles, espEntries} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	if free, err := freeBelow(dir); err != nil {
		return err
	} else if free < need+espReserve { // what no entry names is of no use anyway
		if err := tidyESP(dir, keep, m.namedByEntries(dir)); err != nil {
			return err
		}
		if free, err = freeBelow(dir); err != nil {
			return err
		} else if free < need+espReserve {
			return fmt.Errorf("the EFI system partition %s has %d MiB free and %d MiB are needed", espLabel, free>>20, (need+espReserve+1<<20-1)>>20)
		}
	}
	for _, e := range entries {
		for _, f := range e.files {
			if err := m.copyTo(filepath.Join(dir, espFiles, f.name), f.node); err != nil {
				return err
			}
		}
		if err := writeFAT(filepath.Join(dir, espEntries, entryName(e.generation)), []byte(e.text)); err != nil {
			return err
		}
	}
	if err := syncFS(dir); err != nil {
		return err
	}
	if err := writeFAT(filepath.Join(dir, "loader/loader.conf"), fmt.Appendf(nil, "default %s\ntimeout 0\neditor no\nrandom-seed-mode off\n", entryName(start))); err != nil {
		return err
	}
	if err := syncFS(dir); err != nil {
		return err
	}
	return tidyESP(dir, keep, nil)
}

// namedByEntries returns the files that the entries on the partition name.
func (m *Machine) namedByEntries(dir string) map[string]bool {
	named := map[string]bool{}
	entries, _ := os.ReadDir(filepath.Join(dir, espEntries))
	for _, e := range entries {
		named[e.Name()] = true
		b, err := os.ReadFile(filepath.Join(dir, espEntries, e.Name()))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) == 2 && (f[0] == "linux" || f[0] == "initrd") {
				named[filepath.Base(f[1])] = true
			}
		}
	}
	return named
}

// tidyESP removes our entries and files that are in neither set. The entry goes
// before its files.
func tidyESP(dir string, keep, named map[string]bool) error {
	for _, d := range []string{espEntries, espFiles} {
		entries, err := os.ReadDir(filepath.Join(dir, d))
		if err != nil {
			return err
		}
		for _, e := range entries {
			name := e.Name()
			ours := d == espFiles || strings.HasPrefix(name, "gen-") || strings.HasPrefix(name, ".tool-")
			if !ours || keep[name] || named[name] {
				continue
			}
			if err := removeIfThere(filepath.Join(dir, d, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// copyTo writes a blob beside path and renames it. Names tell content, so a
// file of the right size is the right one: it was renamed after a sync.
func (m *Machine) copyTo(path string, n merkle.Node) error {
	if fi, err := os.Stat(path); err == nil && fi.Size() == n.Digest.Size {
		return nil
	}
	src, err := m.Store.CAS().Open(n.Digest)
	if err != nil {
		return err
	}
	defer src.Close()
	f, err := os.CreateTemp(filepath.Dir(path), ".tool-")
	if err != nil {
		return err
	}
	_, err = io.Copy(f, src)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// writeFAT is writeFile where there are no owners and modes.
func writeFAT(path string, b []byte) error {
	if have, err := os.ReadFile(path); err == nil && string(have) == string(b) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".tool-")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

func freeBelow(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(st.Bavail) * st.Bsize, nil
}

func syncFS(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}

// mountESP mounts the partition for a moment.
func (m *Machine) mountESP() (dir string, done func() error, err error) {
	device, err := findESP(m.path("sys/class/block"), m.path("dev"))
	if err != nil {
		return "", nil, err
	}
	dir = m.path("run/tool/esp")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", nil, err
	}
	if err := unix.Mount(device, dir, "vfat", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "umask=0077"); err != nil {
		return "", nil, fmt.Errorf("mount %s: %w", device, err)
	}
	return dir, func() error {
		if err := unix.Unmount(dir, 0); err != nil {
			return &fs.PathError{Op: "unmount", Path: dir, Err: err}
		}
		return nil
	}, nil
}
