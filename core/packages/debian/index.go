package debian

import (
	"fmt"
	"io"
	"slices"
	"strconv"

	"tool/core/model/digest"
	"tool/core/packages/deb822"
	"tool/core/packages/lock"
)

// Package is one entry of a Packages index.
type Package struct {
	Name, Version, Arch string
	Source              string // source package's name
	Suite               string // "bookworm/main"
	Path                string // relative to a mirror
	Digest              digest.Digest
	Priority            string
	Essential           bool

	// Dependency fields as they are written.
	PreDepends, Depends, Conflicts, Breaks, Provides string
}

// Pin returns the package as a lock entry.
func (p *Package) Pin() lock.Deb {
	return lock.Deb{Arch: p.Arch, Suite: p.Suite, Name: p.Name, Version: p.Version, Digest: p.Digest, Path: p.Path}
}

// ReadPackages reads a Packages index of a suite ("bookworm/main"); name is
// what errors call it.
func ReadPackages(name, suite string, r io.Reader) ([]*Package, error) {
	var out []*Package
	rd := deb822.NewReader(name, r)
	for {
		p, err := rd.Next()
		if err == io.EOF {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		q := &Package{
			Name: p.Get("Package"), Version: p.Get("Version"), Arch: p.Get("Architecture"),
			Source: p.Get("Source"), Suite: suite, Path: p.Get("Filename"), Priority: p.Get("Priority"),
			Essential: p.Get("Essential") == "yes", PreDepends: p.Get("Pre-Depends"), Depends: p.Get("Depends"),
			Conflicts: p.Get("Conflicts"), Breaks: p.Get("Breaks"), Provides: p.Get("Provides"),
		}
		if !isName(q.Name) {
			return nil, fmt.Errorf("%s:%d: bad package name %q", name, p.Line, q.Name)
		}
		if err := CheckVersion(q.Version); err != nil {
			return nil, fmt.Errorf("%s:%d: %s: %w", name, p.Line, q.Name, err)
		}
		size, err := strconv.ParseInt(p.Get("Size"), 10, 64)
		if err == nil {
			q.Digest, err = digest.New(p.Get("SHA256"), size)
		}
		if err != nil {
			return nil, fmt.Errorf("%s:%d: %s: %w", name, p.Line, q.Name, err)
		}
		if err := lock.CheckPath(q.Path); err != nil {
			return nil, fmt.Errorf("%s:%d: %s: %w", name, p.Line, q.Name, err)
		}
		out = append(out, q)
	}
}

// Index answers which packages there are, for one architecture.
type Index struct {
	arch     string
	byName   map[string][]*Package // newest first
	provides map[string][]provider
}

// provider is a package that provides a virtual one; version is "" unless the
// Provides field gives one.
type provider struct {
	pkg     *Package
	version string
}

// NewIndex returns an empty index for a Debian architecture.
func NewIndex(arch string) *Index {
	return &Index{arch: arch, byName: map[string][]*Package{}, provides: map[string][]provider{}}
}

// Add adds packages; those of other architectures are left out. Of two equal
// versions the one that was added first stays, so a set's first suite wins.
func (ix *Index) Add(pkgs ...*Package) error {
	for _, p := range pkgs {
		if p.Arch != ix.arch && p.Arch != "all" {
			continue
		}
		all := ix.byName[p.Name]
		i, found := slices.BinarySearchFunc(all, p, func(a, b *Package) int { return CompareVersions(b.Version, a.Version) })
		if found {
			continue
		}
		ix.byName[p.Name] = slices.Insert(all, i, p)
		if p.Provides == "" {
			continue
		}
		groups, err := ParseRelations(p.Provides, ix.arch)
		if err != nil {
			return fmt.Errorf("%s: Provides: %w", p.Name, err)
		}
		for _, g := range groups {
			ix.provides[g[0].Name] = append(ix.provides[g[0].Name], provider{p, g[0].Version})
		}
	}
	return nil
}

// Versions returns the packages of that name, newest first.
func (ix *Index) Versions(name string) []*Package { return ix.byName[name] }

// Len returns how many package names there are.
func (ix *Index) Len() int { return len(ix.byName) }

// version returns the package of exactly that version, nil if there is none;
// "" means the newest.
func (ix *Index) version(name, version string) *Package {
	for _, p := range ix.byName[name] {
		if version == "" || p.Version == version {
			return p
		}
	}
	return nil
}

// providers returns the packages that provide what r asks for, at most the
// newest fitting one of each name, best first: packages of higher priority,
// then by name.
func (ix *Index) providers(r Relation) []*Package {
	var out []*Package
	for _, pr := range ix.provides[r.Name] {
		if r.Op != "" && (pr.version == "" || !r.Allows(pr.version)) {
			continue
		}
		i := slices.IndexFunc(out, func(p *Package) bool { return p.Name == pr.pkg.Name })
		switch {
		case i < 0:
			out = append(out, pr.pkg)
		case CompareVersions(pr.pkg.Version, out[i].Version) > 0:
			out[i] = pr.pkg
		}
	}
	slices.SortFunc(out, func(a, b *Package) int {
		if c := rank(a.Priority) - rank(b.Priority); c != 0 {
			return c
		}
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return out
}

func rank(priority string) int {
	i := slices.Index([]string{"required", "important", "standard", "optional"}, priority)
	if i < 0 {
		return 4
	}
	return i
}
