// Package workspace is the source tree as the engine sees it: its root, its
// settings, its packages' folders, and a record of every file and folder that
// an evaluation looked at, so that a later run can tell whether anything that
// mattered has changed.
package workspace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strings"
)

// BuildFile is the name of the file that makes a folder a package.
const BuildFile = "BUILD.star"

// StateDir holds roots and memory of a workspace; it is never part of a package.
const StateDir = ".tool"

// Workspace is an opened source tree. It is safe for concurrent use.
type Workspace struct {
	Root   string // absolute
	Config Config
	Record *Recorder
}

// ErrNotFound is the error of Find outside of any workspace.
var ErrNotFound = errors.New("not inside a workspace: no " + ConfigFile + " here or in any folder above; create an empty one at the root of your sources")

// FindRoot returns the nearest folder at or above dir that holds tool.toml.
func FindRoot(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for d := dir; ; d = filepath.Dir(d) {
		if fi, err := os.Stat(filepath.Join(d, ConfigFile)); err == nil && fi.Mode().IsRegular() {
			return d, nil
		}
		if d == filepath.Dir(d) {
			return "", fmt.Errorf("%s: %w", dir, ErrNotFound)
		}
	}
}

// Open reads tool.toml of the workspace at root.
func Open(root string) (*Workspace, error) {
	w := &Workspace{Root: root, Record: NewRecorder(root)}
	data, err := w.ReadFile(ConfigFile)
	if err != nil {
		return nil, err
	}
	if w.Config, err = parseConfig(ConfigFile, data); err != nil {
		return nil, err
	}
	if w.Config.Workspace.Name == "" {
		w.Config.Workspace.Name = filepath.Base(root)
	}
	return w, nil
}

// StorePath is where the physical store lives: $TOOL_STORE, tool.toml's
// store.path, or $XDG_DATA_HOME/tool.
func (c *Config) StorePath() (string, error) {
	if p := os.Getenv("TOOL_STORE"); p != "" {
		return filepath.Abs(p)
	}
	if c != nil && c.Store.Path != "" {
		return expandHome(c.Store.Path)
	}
	if p := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(p) {
		return filepath.Join(p, "tool"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no place for the store: set HOME, XDG_DATA_HOME, TOOL_STORE or store.path in %s", ConfigFile)
	}
	return filepath.Join(home, ".local/share/tool"), nil
}

// Abs returns the host path of a path relative to the root.
func (w *Workspace) Abs(rel string) string { return filepath.Join(w.Root, filepath.FromSlash(rel)) }

// ReadFile reads a file of the workspace and records that it was read.
func (w *Workspace) ReadFile(rel string) ([]byte, error) {
	data, err := os.ReadFile(w.Abs(rel))
	w.Record.Note(rel)
	if err != nil {
		return nil, cleanErr(rel, err)
	}
	return data, nil
}

// IsFile reports whether rel is a regular file (links are followed) and
// records the question, whatever its answer.
func (w *Workspace) IsFile(rel string) bool {
	fp := w.Record.Note(rel)
	return fp.Exists() && fp.Mode.IsRegular()
}

// IsDir reports whether rel is a folder.
func (w *Workspace) IsDir(rel string) bool {
	fi, err := os.Stat(w.Abs(rel))
	return err == nil && fi.IsDir()
}

// List returns the entries of a folder, sorted by name, and records that it
// was listed.
func (w *Workspace) List(rel string) ([]fs.DirEntry, error) {
	w.Record.NoteDir(rel)
	es, err := os.ReadDir(w.Abs(rel))
	if err != nil {
		return nil, cleanErr(rel, err)
	}
	return es, nil
}

// cleanErr shows the user's path, not this machine's.
func cleanErr(rel string, err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return fmt.Errorf("%s: %w", rel, err)
}

// PackageDir returns the folder (relative to the root) of the package named
// pkg: the first of package_path that has a BUILD.star for it.
func (w *Workspace) PackageDir(pkg string) (string, bool) {
	if w.hidden(pkg) {
		return "", false
	}
	for _, pp := range w.Config.Workspace.PackagePath {
		dir := path.Join(pp, pkg)
		if dir == "" {
			dir = "."
		}
		if w.IsFile(path.Join(dir, BuildFile)) {
			return dir, true
		}
	}
	return "", false
}

func (w *Workspace) hidden(pkg string) bool {
	return pkg == StateDir || strings.HasPrefix(pkg, StateDir+"/")
}

// Packages returns the names of all packages at and below the package path
// prefix ("" for all), sorted.
func (w *Workspace) Packages(prefix string) ([]string, error) {
	found := map[string]bool{}
	for i, pp := range w.Config.Workspace.PackagePath {
		dir := path.Join(pp, prefix)
		if !w.IsDir(dir) {
			w.Record.Note(dir)
			continue
		}
		// A folder of package_path below another entry is not also //<folder>/…
		skip := map[string]bool{StateDir: true}
		for j, other := range w.Config.Workspace.PackagePath {
			if j != i && other != "." {
				skip[other] = true
			}
		}
		if err := w.walkPackages(dir, prefix, skip, found); err != nil {
			return nil, err
		}
	}
	names := make([]string, 0, len(found))
	for n := range found {
		names = append(names, n)
	}
	sort.Strings(names)
	return names, nil
}

func (w *Workspace) walkPackages(dir, pkg string, skip map[string]bool, found map[string]bool) error {
	es, err := w.List(dir)
	if err != nil {
		return err
	}
	for _, e := range es {
		name := e.Name()
		switch {
		case name == BuildFile && !e.IsDir():
			found[pkg] = true
		case e.IsDir() && !strings.HasPrefix(name, ".") && !skip[path.Join(dir, name)]:
			if err := w.walkPackages(path.Join(dir, name), path.Join(pkg, name), skip, found); err != nil {
				return err
			}
		}
	}
	return nil
}

// PackageOf returns the package path of a folder relative to the root, for
// patterns relative to the current directory.
func (w *Workspace) PackageOf(dir string) string {
	dir = path.Clean(filepath.ToSlash(dir))
	best := ""
	for _, pp := range w.Config.Workspace.PackagePath {
		if pp != "." && (dir == pp || strings.HasPrefix(dir, pp+"/")) && len(pp) > len(best) {
			best = pp
		}
	}
	if best != "" {
		return strings.TrimPrefix(strings.TrimPrefix(dir, best), "/")
	}
	if dir == "." {
		return ""
	}
	return dir
}
