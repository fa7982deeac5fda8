package debian

import (
	"fmt"
	"slices"
	"strings"
)

// Request is what Resolve finds a closure for.
type Request struct {
	Install []string // package names, each optionally "name=version"
	// Exclude are names taken as satisfied, whatever version is asked for, and
	// never taken: packages which only maintainer scripts need.
	Exclude []string
	// Have are packages that are there already ("name" or "name=version") and
	// are not returned.
	Have      []string
	Essential bool              // also take every package marked Essential
	Prefer    map[string]string // versions to take where they fit: what is pinned
}

// ResolveError says why there is no closure. Chain leads from a requested
// package to the dependency that could not be satisfied.
type ResolveError struct {
	Chain  []string
	Reason string
}

func (e *ResolveError) Error() string { return strings.Join(e.Chain, " → ") + ": " + e.Reason }

// Resolve returns the packages that the request needs, sorted by name. It is
// deterministic. Dependencies that leave no choice are followed first; where
// there is one, a package chosen already wins, then the first alternative that
// can be satisfied, real packages before virtual ones, the preferred and then
// the newest version. There is no backtracking: like apt, it takes the
// archive's word for what the good alternatives are, and Recommends are never
// taken. Errors are *ResolveError.
func Resolve(ix *Index, req Request) ([]*Package, error) {
	r := &resolver{
		ix: ix, prefer: req.Prefer,
		chosen: map[string]*Package{}, excluded: map[string]bool{}, have: map[string]bool{},
		provided: map[string][]provider{}, parent: map[string]need{},
		refusals: map[*Package][]refusal{},
	}
	for _, name := range req.Exclude {
		r.excluded[name] = true
	}
	for _, h := range req.Have {
		if err := r.addHave(h); err != nil {
			return nil, err
		}
	}
	var roots []*Package
	for _, s := range req.Install {
		p, err := r.root(s)
		if err != nil {
			return nil, err
		}
		if p != nil {
			roots = append(roots, p)
		}
	}
	if req.Essential {
		roots = append(roots, r.essential()...)
	}
	for _, p := range roots {
		if r.chosen[p.Name] == p {
			continue
		}
		if why := r.conflict(p); why != "" {
			return nil, &ResolveError{[]string{p.Name}, why}
		}
		r.take(p, need{})
	}
	if err := r.run(); err != nil {
		return nil, err
	}
	if r.broken != nil {
		return nil, r.broken
	}
	var out []*Package
	for name, p := range r.chosen {
		if !r.have[name] {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *Package) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// need is a dependency that waits: by is the package that has it.
type need struct {
	by    *Package
	group Group
}

type resolver struct {
	ix       *Index
	prefer   map[string]string
	excluded map[string]bool
	have     map[string]bool
	chosen   map[string]*Package   // also what is had
	order    []*Package            // chosen, in the order in which it happened
	provided map[string][]provider // virtual names of what is chosen
	parent   map[string]need       // why a package was chosen
	fresh    []*Package            // whose dependencies have not been read
	open     []need                // dependencies with several answers
	refusals map[*Package][]refusal
	broken   error // the first unreadable Conflicts or Breaks
}

// addHave records a package that is there. One that the index does not know
// (any more) satisfies every version and provides nothing else.
func (r *resolver) addHave(s string) error {
	name, version, _ := strings.Cut(s, "=")
	if !isName(name) {
		return fmt.Errorf("bad package name %q", s)
	}
	r.have[name] = true
	if p := r.ix.version(name, version); p != nil && version != "" {
		r.put(p)
	} else {
		r.chosen[name] = nil
	}
	return nil
}

func (r *resolver) root(s string) (*Package, error) {
	name, version, exact := strings.Cut(s, "=")
	if !exact {
		version = r.prefer[name]
	}
	fail := func(format string, args ...any) (*Package, error) {
		return nil, &ResolveError{[]string{s}, fmt.Sprintf(format, args...)}
	}
	all := r.ix.Versions(name)
	switch {
	case r.excluded[name]:
		return fail("it is asked for and excluded")
	case r.have[name]:
		if p := r.chosen[name]; exact && p != nil && p.Version != version {
			return fail("another set brings version %s of it", p.Version)
		}
		return nil, nil
	case len(all) > 0:
		if p := r.ix.version(name, version); p != nil {
			return p, nil
		}
		if exact {
			return fail("no such version; there is %s", versions(all))
		}
		return all[0], nil
	}
	if ps := r.ix.providers(Relation{Name: name}); len(ps) > 0 {
		return fail("it is a virtual package; choose one of those that provide it: %s", names(ps))
	}
	return fail("no such package%s", r.didYouMean(name))
}

func (r *resolver) essential() []*Package {
	var out []*Package
	for name, all := range r.ix.byName {
		if p := r.best(all, Relation{Name: name}); p.Essential && !r.excluded[name] && !r.have[name] {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *Package) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// put makes p count as chosen without following its dependencies.
func (r *resolver) put(p *Package) {
	r.chosen[p.Name] = p
	r.order = append(r.order, p)
	groups, _ := ParseRelations(p.Provides, r.ix.arch) // Index.Add has seen it
	for _, g := range groups {
		r.provided[g[0].Name] = append(r.provided[g[0].Name], provider{p, g[0].Version})
	}
}

func (r *resolver) take(p *Package, why need) {
	r.put(p)
	r.parent[p.Name] = why
	r.fresh = append(r.fresh, p)
}

// run follows dependencies until none is left; choices wait until everything
// that leaves none has been followed.
func (r *resolver) run() error {
	for {
		switch {
		case len(r.fresh) > 0:
			p := r.fresh[0]
			r.fresh = r.fresh[1:]
			if err := r.expand(p); err != nil {
				return err
			}
		case len(r.open) > 0:
			n := r.open[0]
			r.open = r.open[1:]
			if err := r.satisfy(n, true); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

func (r *resolver) expand(p *Package) error {
	for _, field := range []struct{ name, text string }{{"Pre-Depends", p.PreDepends}, {"Depends", p.Depends}} {
		groups, err := ParseRelations(field.text, r.ix.arch)
		if err != nil {
			return &ResolveError{r.chain(p), fmt.Sprintf("%s: %v", field.name, err)}
		}
		for _, g := range groups {
			if err := r.satisfy(need{p, g}, false); err != nil {
				return err
			}
		}
	}
	return nil
}

// satisfy takes a package for n, or puts n off if there is a choice and decide
// is false.
func (r *resolver) satisfy(n need, decide bool) error {
	for _, rel := range n.group {
		if r.satisfied(rel) {
			return nil
		}
	}
	var first *Package
	choices := map[string]bool{}
	var refused []string
	for _, rel := range n.group {
		if r.excluded[rel.Name] {
			if first == nil {
				return nil
			}
			break // what comes later is worse than nothing at all
		}
		cands, excluded := r.candidates(rel, n.by)
		for _, p := range cands {
			if why := r.conflict(p); why != "" {
				refused = append(refused, why)
				continue
			}
			if first == nil {
				first = p
			}
			choices[p.Name] = true
		}
		if excluded && first == nil {
			return nil
		}
	}
	switch {
	case first == nil:
		return r.unsatisfied(n, refused)
	case len(choices) > 1 && !decide:
		r.open = append(r.open, n)
	default:
		r.take(first, n)
	}
	return nil
}

// satisfied reports whether what is chosen or had fulfils rel.
func (r *resolver) satisfied(rel Relation) bool {
	if !r.native(rel) {
		return false
	}
	if p, ok := r.chosen[rel.Name]; ok && (p == nil || rel.Allows(p.Version)) {
		return true
	}
	for _, pr := range r.provided[rel.Name] {
		if rel.Op == "" || pr.version != "" && rel.Allows(pr.version) {
			return true
		}
	}
	return false
}

func (r *resolver) native(rel Relation) bool {
	switch rel.Qualifier {
	case "", "any", "native", r.ix.arch:
		return true
	}
	return false
}

// candidates returns the packages that could satisfy rel, best first, and
// whether an excluded package provides it.
func (r *resolver) candidates(rel Relation, by *Package) (out []*Package, excluded bool) {
	if !r.native(rel) {
		return nil, false
	}
	if p := r.best(r.ix.byName[rel.Name], rel); p != nil {
		out = append(out, p)
	}
	provs := r.ix.providers(rel)
	// One built from the same source is the one that was meant.
	slices.SortStableFunc(provs, func(a, b *Package) int {
		return sameSource(b, by) - sameSource(a, by)
	})
	for _, p := range provs {
		if r.excluded[p.Name] {
			excluded = true
			continue
		}
		if _, taken := r.chosen[p.Name]; taken {
			continue // in another version, which does not provide it
		}
		out = append(out, p)
	}
	if excluded && len(out) > 0 && out[0].Name != rel.Name {
		return nil, true // rather a pruned provider than a strange one
	}
	return out, excluded
}

func sameSource(a, b *Package) int {
	name := func(p *Package) string {
		if p.Source == "" {
			return p.Name
		}
		s, _, _ := strings.Cut(p.Source, " ")
		return s
	}
	if name(a) == name(b) {
		return 1
	}
	return 0
}

// best returns the version to take for rel: the preferred one, else the
// newest; nil if none fits, or if another version is chosen already.
func (r *resolver) best(all []*Package, rel Relation) *Package {
	if len(all) == 0 {
		return nil
	}
	if _, taken := r.chosen[rel.Name]; taken {
		return nil
	}
	var newest *Package
	for _, p := range all {
		if !rel.Allows(p.Version) {
			continue
		}
		if p.Version == r.prefer[p.Name] {
			return p
		}
		if newest == nil {
			newest = p
		}
	}
	return newest
}
