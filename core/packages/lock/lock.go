// Package lock reads and writes the lock file: every foreign package a
// workspace builds from, pinned by version, size and SHA-256.
//
// # Format
//
// One entry on a line, fields separated by single spaces, lines sorted after a
// first line with the format's version. Two branches that each add entries
// merge line by line; the order of lines carries no meaning. The lock names no
// host: where bytes come from is the machine's business, what they are is the
// lock's.
//
//	tool-lock 1
//	deb <arch> <suite>/<component> <name> <version> <size> <sha256> <pool path>
//	file <name> <size> <sha256> <url or path>...
//	gomod <module> <version> <size> <sha256 of the zip> <h1 of the zip>
//	set <set> <package>
//
// A set line says that a package is one of those which a declared set resolved
// to; a set with no package of its own has no line. Within one lock a package
// name has one version and one architecture (its own or "all"), so that two
// sets can always be merged into one machine.
package lock

import (
	"cmp"
	"slices"
	"sort"

	"tool/core/model/digest"
)

// Header is the first line of a lock file.
const Header = "tool-lock 1"

// Deb is one pinned Debian package.
type Deb struct {
	Arch    string // "amd64", …, or "all"
	Suite   string // "bookworm/main": suite and component it was found in
	Name    string
	Version string
	Digest  digest.Digest // of the .deb
	Path    string        // relative to a mirror of the suite
}

// File is one pinned archive.
type File struct {
	Name   string
	Digest digest.Digest
	URLs   []string // complete URLs, or paths relative to the workspace's mirrors
}

// Module is one pinned Go module or Go toolchain (golang.org/toolchain).
type Module struct {
	Path, Version string
	Digest        digest.Digest // of the zip
	Sum           string        // "h1:…" as in go.sum
}

// Member says that a set resolved to a package, among others.
type Member struct{ Set, Package string }

// Lock is the content of a lock file. Its slices are sorted after Parse and
// Sort, as Bytes writes them.
type Lock struct {
	Debs    []Deb
	Files   []File
	Modules []Module
	Members []Member
}

// Sort puts the entries into the order in which Bytes writes them.
func (l *Lock) Sort() {
	slices.SortFunc(l.Debs, func(a, b Deb) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Arch, b.Arch), cmp.Compare(a.Version, b.Version))
	})
	slices.SortFunc(l.Files, func(a, b File) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(l.Modules, func(a, b Module) int {
		return cmp.Or(cmp.Compare(a.Path, b.Path), cmp.Compare(a.Version, b.Version))
	})
	slices.SortFunc(l.Members, func(a, b Member) int {
		return cmp.Or(cmp.Compare(a.Set, b.Set), cmp.Compare(a.Package, b.Package))
	})
}

// Deb returns the pinned package of that name. The lock must be sorted.
func (l *Lock) Deb(name string) (Deb, bool) {
	i := sort.Search(len(l.Debs), func(i int) bool { return l.Debs[i].Name >= name })
	if i < len(l.Debs) && l.Debs[i].Name == name {
		return l.Debs[i], true
	}
	return Deb{}, false
}

// File returns the pinned archive of that name. The lock must be sorted.
func (l *Lock) File(name string) (File, bool) {
	i := sort.Search(len(l.Files), func(i int) bool { return l.Files[i].Name >= name })
	if i < len(l.Files) && l.Files[i].Name == name {
		return l.Files[i], true
	}
	return File{}, false
}

// Module returns the pinned Go module of that path and version.
func (l *Lock) Module(path, version string) (Module, bool) {
	for _, m := range l.Modules {
		if m.Path == path && m.Version == version {
			return m, true
		}
	}
	return Module{}, false
}

// Set returns the packages that a set resolved to, by name. A set with no
// package of its own is empty, and so is an unknown one: the lock does not
// know which sets are declared.
func (l *Lock) Set(name string) []Deb {
	var out []Deb
	for _, m := range l.Members {
		if m.Set == name {
			if d, ok := l.Deb(m.Package); ok {
				out = append(out, d)
			}
		}
	}
	return out
}

// Sets returns the names of the sets that have packages, sorted.
func (l *Lock) Sets() []string {
	var out []string
	for _, m := range l.Members {
		out = append(out, m.Set)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
