package debian

import (
	"fmt"
	"slices"
	"strings"
)

// conflict reports why p cannot be taken along with what is chosen, "" if it
// can.
func (r *resolver) conflict(p *Package) string {
	if old, taken := r.chosen[p.Name]; taken && old != p {
		if old == nil {
			return fmt.Sprintf("%s is there already, in a version that is not known", p.Name)
		}
		return fmt.Sprintf("%s %s is chosen already", p.Name, old.Version)
	}
	for _, q := range r.order {
		if why := r.hits(p, q); why != "" {
			return why
		}
		if why := r.hits(q, p); why != "" {
			return why
		}
	}
	return ""
}

// hits reports whether a declares a conflict with b. A package does not
// conflict with itself through what it provides.
func (r *resolver) hits(a, b *Package) string {
	if a.Name == b.Name {
		return ""
	}
	for _, f := range r.negative(a) {
		if !r.native(f.rel) {
			continue
		}
		if f.rel.Name == b.Name && f.rel.Allows(b.Version) {
			return fmt.Sprintf("%s %s %s, and %s is %s", a.Name, f.verb, f.rel, b.Name, b.Version)
		}
		if b.Provides != "" && r.provides(b, f.rel) {
			return fmt.Sprintf("%s %s %s, which %s provides", a.Name, f.verb, f.rel, b.Name)
		}
	}
	return ""
}

// refusal is one relation of a Conflicts or Breaks field.
type refusal struct {
	verb string
	rel  Relation
}

// negative returns p's parsed Conflicts and Breaks, which are asked for once
// for every pair of packages.
func (r *resolver) negative(p *Package) []refusal {
	if out, ok := r.refusals[p]; ok {
		return out
	}
	var out []refusal
	for _, f := range []struct{ verb, field string }{{"conflicts with", p.Conflicts}, {"breaks", p.Breaks}} {
		groups, err := ParseRelations(f.field, r.ix.arch)
		if err != nil && r.broken == nil {
			r.broken = &ResolveError{[]string{p.Name}, err.Error()}
		}
		for _, g := range groups {
			out = append(out, refusal{f.verb, g[0]})
		}
	}
	r.refusals[p] = out
	return out
}

func (r *resolver) provides(p *Package, rel Relation) bool {
	return slices.ContainsFunc(r.ix.provides[rel.Name], func(pr provider) bool {
		return pr.pkg == p && (rel.Op == "" || pr.version != "" && rel.Allows(pr.version))
	})
}

// chain leads from a requested package to p.
func (r *resolver) chain(p *Package) []string {
	var out []string
	for p != nil {
		out = append(out, p.Name)
		p = r.parent[p.Name].by
	}
	slices.Reverse(out)
	return out
}

func (r *resolver) unsatisfied(n need, refused []string) error {
	e := &ResolveError{Chain: append(r.chain(n.by), n.group.String())}
	slices.Sort(refused)
	refused = slices.Compact(refused)
	var found []string
	for _, rel := range n.group {
		if p, ok := r.chosen[rel.Name]; ok && p != nil {
			found = append(found, fmt.Sprintf("%s %s is chosen already%s", p.Name, p.Version, r.chosenBy(p)))
		} else if all := r.ix.byName[rel.Name]; len(all) > 0 && !slices.ContainsFunc(all, func(p *Package) bool { return rel.Allows(p.Version) }) {
			found = append(found, fmt.Sprintf("there is %s %s", rel.Name, versions(all)))
		}
	}
	switch {
	case len(refused) > 0:
		e.Reason = strings.Join(refused, "; ")
	case len(found) > 0:
		e.Reason = "no package satisfies it; " + strings.Join(found, ", ")
	default:
		e.Reason = "no package satisfies it" + r.didYouMean(n.group[0].Name)
	}
	return e
}

func (r *resolver) chosenBy(p *Package) string {
	switch by := r.parent[p.Name].by; {
	case r.have[p.Name]:
		return " by another set"
	case by != nil:
		return " for " + by.Name
	}
	return ""
}

func versions(all []*Package) string {
	var out []string
	for _, p := range all {
		out = append(out, p.Version+" in "+p.Suite)
	}
	return strings.Join(out, ", ")
}

func names(ps []*Package) string {
	var out []string
	for _, p := range ps {
		out = append(out, p.Name)
	}
	if len(out) > 8 {
		out = append(out[:8], "…")
	}
	return strings.Join(out, ", ")
}

// didYouMean names the closest package names, if any is close.
func (r *resolver) didYouMean(name string) string {
	type near struct {
		name string
		dist int
	}
	most := min(3, 1+len(name)/4)
	var found []near
	for other := range r.ix.byName {
		if d := len(other) - len(name); d > most || -d > most {
			continue
		}
		if d := editDistance(name, other, most); d <= most {
			found = append(found, near{other, d})
		}
	}
	if len(found) == 0 {
		return ""
	}
	slices.SortFunc(found, func(a, b near) int {
		if a.dist != b.dist {
			return a.dist - b.dist
		}
		return strings.Compare(a.name, b.name)
	})
	var out []string
	for _, f := range found[:min(3, len(found))] {
		out = append(out, f.name)
	}
	return "; did you mean " + strings.Join(out, " or ") + "?"
}

// editDistance returns the Levenshtein distance, or something above most.
func editDistance(a, b string, most int) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		prev, least := row[0], i+1
		row[0] = i + 1
		for j := range len(b) {
			cost := prev
			if a[i] != b[j] {
				cost = 1 + min(prev, row[j], row[j+1])
			}
			prev, row[j+1] = row[j+1], cost
			least = min(least, cost)
		}
		if least > most {
			return most + 1
		}
	}
	return row[len(b)]
}
