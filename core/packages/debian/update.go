package debian

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"tool/core/packages/lock"
)

// Options of an Update.
type Options struct {
	Lock    *lock.Lock // what is pinned now; nil means nothing. It is not changed
	Sets    []SetRequest
	Arch    string       // Debian's name: "amd64", "arm64"
	Refresh bool         // move to the newest versions, instead of keeping what is pinned
	Client  *http.Client // nil means the default one
	Sources []Source     // in order of preference: ExplicitSources, then HostSources
	Cache   string       // directory that keeps indexes by digest; "" keeps none
	Now     time.Time    // zero means the present
}

// SetRequest is one declared set of packages.
type SetRequest struct {
	Name      string
	Install   []string // package names, each optionally "name=version"
	Exclude   []string // names taken as satisfied and never taken
	Have      []string // names of sets that are always merged along with this one
	Suites    []string // "bookworm/main" or "bookworm", which means bookworm/main
	Essential bool     // also take every package marked Essential
}

// Change is one difference between two locks.
type Change struct {
	Package, Old, New string // versions; "" where it is not pinned
	// Gone is set if the old version is not in the index any more.
	Gone bool
}

// Changes are the differences that an Update made, by package name.
type Changes []Change

// String lists the changes, one on a line.
func (cs Changes) String() string {
	var b strings.Builder
	for _, c := range cs {
		switch {
		case c.Old == "":
			fmt.Fprintf(&b, "+ %s %s\n", c.Package, c.New)
		case c.New == "":
			fmt.Fprintf(&b, "- %s %s\n", c.Package, c.Old)
		case c.Gone:
			fmt.Fprintf(&b, "~ %s %s → %s (the archive does not have the old version any more)\n", c.Package, c.Old, c.New)
		default:
			fmt.Fprintf(&b, "~ %s %s → %s\n", c.Package, c.Old, c.New)
		}
	}
	return b.String()
}

// Update resolves all sets and returns the lock that pins them, and how it
// differs from o.Lock. Versions that are pinned stay where they still satisfy,
// unless o.Refresh is set. A set leaves out what the sets that it builds on
// (Have, transitively) bring. All sets share one version of each package. Pins
// of sets that are not requested any more are dropped; Go modules and files of
// the lock are kept as they are.
func Update(ctx context.Context, o Options) (*lock.Lock, Changes, error) {
	old := o.Lock
	if old == nil {
		old = &lock.Lock{}
	}
	u := &updater{
		o: o, archive: &Archive{Client: o.Client, Cache: o.Cache, Now: o.Now},
		suites: map[string][]*Package{}, indexes: map[string]*Index{},
		pins: map[string]string{}, pinned: map[string]*Package{}, sets: map[string][]*Package{},
	}
	if !o.Refresh {
		for _, d := range old.Debs {
			u.pins[d.Name] = d.Version
		}
	}
	order, err := u.order()
	if err != nil {
		return nil, nil, err
	}
	for _, s := range order {
		if err := u.resolve(ctx, s); err != nil {
			return nil, nil, fmt.Errorf("package set %s: %w", s.Name, err)
		}
	}
	out := &lock.Lock{Files: slices.Clone(old.Files), Modules: slices.Clone(old.Modules)}
	for set, pkgs := range u.sets {
		for _, p := range pkgs {
			out.Members = append(out.Members, lock.Member{Set: set, Package: p.Name})
		}
	}
	for _, p := range u.pinned {
		out.Debs = append(out.Debs, p.Pin())
	}
	out.Sort()
	if err := out.Validate(); err != nil {
		return nil, nil, fmt.Errorf("the archive's data cannot be pinned: %w", err)
	}
	return out, u.changes(old, out), nil
}

type updater struct {
	o       Options
	archive *Archive
	suites  map[string][]*Package
	indexes map[string]*Index
	pins    map[string]string     // versions to prefer
	pinned  map[string]*Package   // what the sets so far resolved to
	sets    map[string][]*Package // by set
}

// order returns the sets so that each comes after those it builds on, and
// otherwise by name: declaring them in another order changes nothing.
func (u *updater) order() ([]SetRequest, error) {
	byName := map[string]SetRequest{}
	for _, s := range u.o.Sets {
		if _, dup := byName[s.Name]; dup {
			return nil, fmt.Errorf("package set %s is declared twice", s.Name)
		}
		byName[s.Name] = s
	}
	var out []SetRequest
	state := map[string]int{} // 1: being visited, 2: done
	var visit func(name string, path []string) error
	visit = func(name string, path []string) error {
		s, ok := byName[name]
		switch {
		case !ok:
			return fmt.Errorf("package set %s builds on %s, which is not declared", path[len(path)-1], name)
		case state[name] == 2:
			return nil
		case state[name] == 1:
			return fmt.Errorf("package sets build on each other: %s", strings.Join(append(path, name), " → "))
		}
		state[name] = 1
		for _, h := range slices.Sorted(slices.Values(s.Have)) {
			if err := visit(h, append(path, name)); err != nil {
				return err
			}
		}
		state[name] = 2
		out = append(out, s)
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		if err := visit(name, nil); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (u *updater) resolve(ctx context.Context, s SetRequest) error {
	ix, err := u.index(ctx, s.Suites)
	if err != nil {
		return err
	}
	pkgs, err := Resolve(ix, Request{
		Install: s.Install, Exclude: s.Exclude, Have: u.have(s), Essential: s.Essential, Prefer: u.pins,
	})
	if err != nil {
		return err
	}
	for _, p := range pkgs {
		if q := u.pinned[p.Name]; q != nil && q.Pin() != p.Pin() {
			return fmt.Errorf("needs %s %s from %s, but another set needs %s from %s: a lock has one version of each package, so give both sets the same suites",
				p.Name, p.Version, p.Suite, q.Version, q.Suite)
		}
		u.pinned[p.Name] = p
		u.pins[p.Name] = p.Version
	}
	u.sets[s.Name] = pkgs
	return nil
}

// have lists what the sets that s builds on bring.
func (u *updater) have(s SetRequest) []string {
	versions := map[string]string{}
	seen := map[string]bool{}
	var visit func(names []string)
	visit = func(names []string) {
		for _, name := range names {
			if seen[name] {
				continue
			}
			seen[name] = true
			for _, p := range u.sets[name] {
				versions[p.Name] = p.Version
			}
			for _, q := range u.o.Sets {
				if q.Name == name {
					visit(q.Have)
				}
			}
		}
	}
	visit(s.Have)
	var out []string
	for _, name := range slices.Sorted(maps.Keys(versions)) {
		out = append(out, name+"="+versions[name])
	}
	return out
}

func (u *updater) index(ctx context.Context, suites []string) (*Index, error) {
	if len(suites) == 0 {
		return nil, fmt.Errorf("no suites given")
	}
	key := strings.Join(suites, " ")
	if ix := u.indexes[key]; ix != nil {
		return ix, nil
	}
	ix := NewIndex(u.o.Arch)
	for _, name := range suites {
		suite, component := SplitSuite(name)
		name = suite + "/" + component
		if _, ok := u.suites[name]; !ok {
			pkgs, err := u.archive.Packages(ctx, u.o.Sources, name, u.o.Arch)
			if err != nil {
				return nil, err
			}
			u.suites[name] = pkgs
		}
		if err := ix.Add(u.suites[name]...); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	u.indexes[key] = ix
	return ix, nil
}

func (u *updater) changes(old, new *lock.Lock) Changes {
	byName := map[string]Change{}
	for _, d := range old.Debs {
		byName[d.Name] = Change{Package: d.Name, Old: d.Version}
	}
	for _, d := range new.Debs {
		c := byName[d.Name]
		c.Package, c.New = d.Name, d.Version
		byName[d.Name] = c
	}
	var out Changes
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		c := byName[name]
		if c.Old == c.New {
			continue
		}
		if c.Old != "" && c.New != "" {
			c.Gone = true
			for _, ix := range u.indexes {
				if ix.version(name, c.Old) != nil {
					c.Gone = false
				}
			}
		}
		out = append(out, c)
	}
	return out
}
