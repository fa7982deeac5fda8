// Package merkle holds trees as the Remote Execution API's Directory messages:
// a tree is named by the digest of its root Directory's encoding. It needs no
// protobuf library: the encoder writes the same bytes, a test proves it.
//
// Names live in the parent. Entries are sorted by name, unique over files,
// directories and symlinks, and validated when decoded, so a Directory that
// came from elsewhere can name nothing outside itself.
package merkle

import (
	"fmt"
	"sort"
	"strings"

	"tool/core/model/digest"
)

// Directory is one level of a tree.
type Directory struct {
	Files       []FileNode
	Directories []DirectoryNode
	Symlinks    []SymlinkNode
	Props       Props
}

// FileNode is a regular file.
type FileNode struct {
	Name       string
	Digest     digest.Digest
	Executable bool
	Props      Props
}

// DirectoryNode is a subdirectory; Digest is that of its encoding.
type DirectoryNode struct {
	Name   string
	Digest digest.Digest
}

// SymlinkNode is a symbolic link; Target is kept as it was written.
type SymlinkNode struct {
	Name   string
	Target string
}

// Props are what a plain (0644 or 0755, root-owned) node does not need: they
// are metadata that only activation on a machine applies.
type Props struct {
	Mode  uint32 // permission bits including setuid, setgid and sticky; 0 means the default
	Owner string // "uid:gid" in decimal; "" means 0:0
}

// IsZero reports whether p says nothing.
func (p Props) IsZero() bool { return p == Props{} }

// MaxNameLen bounds a name, as file systems do; MaxTargetLen bounds a link.
const (
	MaxNameLen   = 255
	MaxTargetLen = 4095
)

// CheckName reports why name cannot be an entry of a directory.
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("empty name")
	case name == "." || name == "..":
		return fmt.Errorf("name %q is reserved", name)
	case len(name) > MaxNameLen:
		return fmt.Errorf("name %.40q… is longer than %d bytes", name, MaxNameLen)
	case strings.ContainsAny(name, "/\x00"):
		return fmt.Errorf("name %q holds a slash or NUL", name)
	}
	return nil
}

// Sort puts the entries into canonical order.
func (d *Directory) Sort() {
	sort.Slice(d.Files, func(i, j int) bool { return d.Files[i].Name < d.Files[j].Name })
	sort.Slice(d.Directories, func(i, j int) bool { return d.Directories[i].Name < d.Directories[j].Name })
	sort.Slice(d.Symlinks, func(i, j int) bool { return d.Symlinks[i].Name < d.Symlinks[j].Name })
}

// Validate reports the first way in which d is not canonical.
func (d *Directory) Validate() error {
	seen := make(map[string]struct{}, len(d.Files)+len(d.Directories)+len(d.Symlinks))
	check := func(kind, name, prev string, first bool) error {
		if err := CheckName(name); err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		if !first && name <= prev {
			return fmt.Errorf("%s %q is out of order", kind, name)
		}
		if _, dup := seen[name]; dup {
			return fmt.Errorf("%s %q appears twice", kind, name)
		}
		seen[name] = struct{}{}
		return nil
	}
	for i, f := range d.Files {
		if err := check("file", f.Name, prevName(i, func(j int) string { return d.Files[j].Name }), i == 0); err != nil {
			return err
		}
		if err := f.Props.validate(); err != nil {
			return fmt.Errorf("file %q: %w", f.Name, err)
		}
	}
	for i, s := range d.Directories {
		if err := check("directory", s.Name, prevName(i, func(j int) string { return d.Directories[j].Name }), i == 0); err != nil {
			return err
		}
	}
	for i, s := range d.Symlinks {
		if err := check("symlink", s.Name, prevName(i, func(j int) string { return d.Symlinks[j].Name }), i == 0); err != nil {
			return err
		}
		if s.Target == "" || len(s.Target) > MaxTargetLen || strings.Contains(s.Target, "\x00") {
			return fmt.Errorf("symlink %q: bad target", s.Name)
		}
	}
	return d.Props.validate()
}

func prevName(i int, at func(int) string) string {
	if i == 0 {
		return ""
	}
	return at(i - 1)
}

func (p Props) validate() error {
	if p.Mode > 0o7777 {
		return fmt.Errorf("mode %o has bits beyond 07777", p.Mode)
	}
	if p.Owner == "" {
		return nil
	}
	u, g, ok := strings.Cut(p.Owner, ":")
	if !ok || !decimal(u) || !decimal(g) {
		return fmt.Errorf("owner %q is not uid:gid", p.Owner)
	}
	return nil
}

func decimal(s string) bool {
	if s == "" || len(s) > 10 || (len(s) > 1 && s[0] == '0') {
		return false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
}
