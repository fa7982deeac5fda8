package debian

import (
	"fmt"
	"slices"
	"strings"
)

// Relation is one alternative of a dependency: "libc6:any (>= 2.34) [amd64]".
type Relation struct {
	Name      string
	Qualifier string // what follows the colon: "any", "native", an architecture, or ""
	Op        string // "<<", "<=", "=", ">=", ">>", or "" for any version
	Version   string
	Archs     []string   // "[amd64 !i386]", "" for all
	Profiles  [][]string // "<!nocheck> <cross>": a disjunction of conjunctions
}

// Group is a list of alternatives, of which one must be satisfied.
type Group []Relation

// String returns the relation as it is written in a control file.
func (r Relation) String() string {
	s := r.Name
	if r.Qualifier != "" {
		s += ":" + r.Qualifier
	}
	if r.Op != "" {
		s += " (" + r.Op + " " + r.Version + ")"
	}
	return s
}

// String joins the alternatives with " | ".
func (g Group) String() string {
	var parts []string
	for _, r := range g {
		parts = append(parts, r.String())
	}
	return strings.Join(parts, " | ")
}

// Allows reports whether a version fulfils the relation's constraint.
func (r Relation) Allows(version string) bool {
	if r.Op == "" {
		return true
	}
	c := CompareVersions(version, r.Version)
	switch r.Op {
	case "<<":
		return c < 0
	case "<=":
		return c <= 0
	case "=":
		return c == 0
	case ">=":
		return c >= 0
	}
	return c > 0
}

// applies reports whether the restrictions keep the relation on an
// architecture, with no build profile active.
func (r Relation) applies(arch string) bool {
	if len(r.Archs) > 0 {
		negative := strings.HasPrefix(r.Archs[0], "!")
		match := slices.ContainsFunc(r.Archs, func(a string) bool { return matchArch(strings.TrimPrefix(a, "!"), arch) })
		if match == negative {
			return false
		}
	}
	if len(r.Profiles) == 0 {
		return true
	}
	for _, all := range r.Profiles {
		if !slices.ContainsFunc(all, func(p string) bool { return !strings.HasPrefix(p, "!") }) {
			return true
		}
	}
	return false
}

func matchArch(pattern, arch string) bool {
	return pattern == arch || pattern == "any" || pattern == "linux-any" || pattern == "any-"+arch
}

// ParseRelations reads a dependency field for an architecture. Alternatives
// that its restrictions leave out are not returned; nor are groups of which
// nothing remains. In Conflicts, Breaks and Provides every group has one
// alternative.
func ParseRelations(field, arch string) ([]Group, error) {
	var out []Group
	for part := range strings.SplitSeq(field, ",") {
		if strings.TrimSpace(part) == "" {
			continue // a trailing comma is legal
		}
		var g Group
		for alt := range strings.SplitSeq(part, "|") {
			r, err := parseRelation(alt)
			if err != nil {
				return nil, err
			}
			if r.applies(arch) {
				g = append(g, r)
			}
		}
		if len(g) > 0 {
			out = append(out, g)
		}
	}
	return out, nil
}

func parseRelation(text string) (Relation, error) {
	bad := func(why string) (Relation, error) {
		return Relation{}, fmt.Errorf("dependency %.80q: %s", strings.TrimSpace(text), why)
	}
	var r Relation
	s := strings.TrimSpace(text)
	n := strings.IndexAny(s, " \t\n([<")
	if n < 0 {
		n = len(s)
	}
	r.Name, s = s[:n], strings.TrimSpace(s[n:])
	r.Name, r.Qualifier, _ = strings.Cut(r.Name, ":")
	if !isName(r.Name) {
		return bad("bad package name")
	}
	if strings.HasPrefix(s, "(") {
		in, rest, ok := strings.Cut(s[1:], ")")
		if !ok {
			return bad("( without )")
		}
		in = strings.TrimSpace(in)
		n := len(in) - len(strings.TrimLeft(in, "<>="))
		r.Op, r.Version, s = in[:n], strings.TrimSpace(in[n:]), strings.TrimSpace(rest)
		switch r.Op {
		case "<<", "<=", "=", ">=", ">>":
		case "<": // deprecated spellings, which mean "or equal"
			r.Op = "<="
		case ">":
			r.Op = ">="
		default:
			return bad("bad operator")
		}
		if r.Version == "" || strings.ContainsAny(r.Version, " \t\n()") {
			return bad("bad version")
		}
	}
	if strings.HasPrefix(s, "[") {
		in, rest, ok := strings.Cut(s[1:], "]")
		if !ok {
			return bad("[ without ]")
		}
		r.Archs, s = strings.Fields(in), strings.TrimSpace(rest)
	}
	for strings.HasPrefix(s, "<") {
		in, rest, ok := strings.Cut(s[1:], ">")
		if !ok {
			return bad("< without >")
		}
		r.Profiles, s = append(r.Profiles, strings.Fields(in)), strings.TrimSpace(rest)
	}
	if s != "" {
		return bad("unexpected text after it")
	}
	return r, nil
}

// isName accepts what real archives have, which is more than policy allows.
func isName(s string) bool {
	for _, c := range []byte(s) {
		if !isDigit(c) && !isLetter(c) && !strings.ContainsRune("+-._", rune(c)) {
			return false
		}
	}
	return s != "" && (isDigit(s[0]) || isLetter(s[0]))
}
