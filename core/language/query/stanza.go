package query

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"

	"go.starlark.net/starlark"

	"tool/core/language/loader"
)

// writeBuild prints rules and package groups as a BUILD file would have them,
// with macros, globs and variables evaluated. Files have no such form.
func (r *Result) writeBuild(w *bufio.Writer, _ OutputOptions) error {
	for _, t := range r.Targets {
		switch t.Kind {
		case loader.RuleTarget:
			fmt.Fprintf(w, "# %s\n%s(\n    name = %s,\n", t.Pos, t.Rule.Name(), strconv.Quote(t.Label.Name))
			for _, n := range t.Rule.AttrNames() {
				if n != "name" && t.Explicit[n] {
					fmt.Fprintf(w, "    %s = %s,\n", n, source(t.Attrs[n], "    "))
				}
			}
			if t.Generator != "" {
				fmt.Fprintf(w, "    generator_function = %s,\n", strconv.Quote(t.Generator))
			}
			fmt.Fprint(w, ")\n\n")
		case loader.PackageGroup:
			fmt.Fprintf(w, "# %s\npackage_group(\n    name = %s,\n", t.Pos, strconv.Quote(t.Label.Name))
			writeStrings(w, "packages", packageSpecs(t.Group))
			var incs []string
			for _, l := range t.Group.Includes {
				incs = append(incs, l.String())
			}
			writeStrings(w, "includes", incs)
			fmt.Fprint(w, ")\n\n")
		}
	}
	return nil
}

func writeStrings(w *bufio.Writer, name string, list []string) {
	if len(list) == 0 {
		return
	}
	vs := make([]starlark.Value, len(list))
	for i, s := range list {
		vs[i] = starlark.String(s)
	}
	fmt.Fprintf(w, "    %s = %s,\n", name, source(starlark.NewList(vs), "    "))
}

func packageSpecs(g *loader.Group) []string {
	var out []string
	for _, p := range g.Packages {
		s := ""
		if p.Negative {
			s = "-"
		}
		switch {
		case p.Public:
			s += "public"
		case p.Private:
			s += "private"
		case p.Tree && p.Package.Pkg == "":
			s += p.Package.PackageString() + "..."
		case p.Tree:
			s += p.Package.PackageString() + "/..."
		default:
			s += p.Package.PackageString()
		}
		out = append(out, s)
	}
	return out
}

// source renders an attribute's value as Starlark; further lines start with
// indent.
func source(v starlark.Value, indent string) string {
	more := indent + "    "
	lines := func(open, end string, items []string) string {
		switch {
		case len(items) == 0:
			return open + end
		case len(items) == 1 && !strings.Contains(items[0], "\n"):
			return open + items[0] + end
		}
		return open + "\n" + more + strings.Join(items, ",\n"+more) + ",\n" + indent + end
	}
	switch v := v.(type) {
	case starlark.String:
		return strconv.Quote(string(v))
	case loader.Label:
		return strconv.Quote(v.Label.String())
	case *starlark.List:
		var items []string
		for i := range v.Len() {
			items = append(items, source(v.Index(i), more))
		}
		return lines("[", "]", items)
	case *starlark.Dict:
		var items []string
		for _, it := range v.Items() {
			items = append(items, source(it[0], more)+": "+source(it[1], more))
		}
		return lines("{", "}", items)
	case *loader.Select:
		var parts []string
		for _, p := range v.Parts {
			if p.Value != nil {
				parts = append(parts, source(p.Value, indent))
				continue
			}
			var items []string
			for _, b := range p.Branches {
				items = append(items, strconv.Quote(condition(b))+": "+source(b.Value, more))
			}
			if p.NoMatch != "" {
				parts = append(parts, "select("+lines("{", "}", items)+", no_match_error = "+strconv.Quote(p.NoMatch)+")")
				continue
			}
			parts = append(parts, "select("+lines("{", "}", items)+")")
		}
		op := " + "
		if len(v.Parts) > 0 && isDict(v.Parts[0]) {
			op = " | "
		}
		return strings.Join(parts, op)
	}
	return v.String()
}

func isDict(p loader.SelectPart) bool {
	v := p.Value
	for _, b := range p.Branches {
		v = b.Value
	}
	_, ok := v.(*starlark.Dict)
	return ok
}

// condition is the key of a select's branch.
func condition(b loader.Branch) string {
	if b.Default {
		return b.Text
	}
	return b.Condition.String()
}
