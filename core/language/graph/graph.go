// Package graph is the target graph: targets found by label, edges between
// them, selects resolved by the configuration, visibility, and the patterns
// that name several targets.
package graph

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"strings"

	"go.starlark.net/starlark"

	"tool/core/language/loader"
	"tool/core/model/label"
)

// Graph answers questions about targets, loading packages as needed.
type Graph struct {
	Loader *loader.Loader
	Config Config
}

// Target returns the target that lb names.
func (g *Graph) Target(ctx context.Context, lb label.Label) (*loader.Target, error) {
	p, err := g.Loader.Package(ctx, lb.Package())
	if err != nil {
		return nil, err
	}
	return g.Loader.Target(p, lb.Name)
}

// Edge is a dependency of a target.
type Edge struct {
	Attr     string
	Label    label.Label
	Implicit bool // of a private attribute, so not written in the BUILD file
}

// Edges lists what t depends on, in the order of attribute names; every branch
// of a select counts, and so do its conditions, as in Bazel's query.
func Edges(t *loader.Target) []Edge {
	switch t.Kind {
	case loader.GeneratedFile:
		return []Edge{{Attr: "generator", Label: t.Made.Label}}
	case loader.PackageGroup:
		var out []Edge
		for _, l := range t.Group.Includes {
			out = append(out, Edge{Attr: "includes", Label: l})
		}
		return out
	case loader.SourceFile:
		return nil
	}
	var out []Edge
	for _, name := range t.Rule.AttrNames() {
		v := t.Attrs[name]
		implicit := strings.HasPrefix(name, "_") || !t.Explicit[name]
		for _, c := range conditions(v) {
			out = append(out, Edge{name, c, implicit})
		}
		if t.Rule.Attrs[name].IsLabels() && name != "target_compatible_with" && name != "exec_compatible_with" {
			for _, l := range loader.Labels(v) {
				out = append(out, Edge{name, l, implicit})
			}
		}
	}
	if t.Rule.Name() == "test_suite" && len(loader.Labels(t.Attrs["tests"])) == 0 {
		for _, l := range SuiteTests(t) {
			out = append(out, Edge{"tests", l, true})
		}
	}
	for _, v := range t.Visibility {
		if !v.Group.IsZero() {
			out = append(out, Edge{"visibility", v.Group, !t.Explicit["visibility"]})
		}
	}
	return out
}

// SuiteTests lists what a test_suite stands for: what it names or, if that is
// nothing, the tests of its package that are not tagged manual.
func SuiteTests(suite *loader.Target) []label.Label {
	if ls := loader.Labels(suite.Attrs["tests"]); len(ls) > 0 {
		return ls
	}
	var out []label.Label
	for _, n := range suite.Package.Names() {
		if t := suite.Package.Targets[n]; t.Kind == loader.RuleTarget && t.Rule.Test && !slices.Contains(t.Tags, "manual") {
			out = append(out, t.Label)
		}
	}
	return out
}

func conditions(v starlark.Value) []label.Label {
	s, ok := v.(*loader.Select)
	if !ok {
		return nil
	}
	var out []label.Label
	for _, p := range s.Parts {
		for _, b := range p.Branches {
			if !b.Default {
				out = append(out, b.Condition)
			}
		}
	}
	return out
}

// Visible reports whether from may depend on to. Its errors are those of
// package groups that cannot be read.
func (g *Graph) Visible(ctx context.Context, from *loader.Target, to *loader.Target) (bool, error) {
	if from.Label.Package() == to.Label.Package() {
		return true, nil
	}
	for _, v := range to.Visibility {
		if v.Allows(from.Label.Package()) {
			return true, nil
		}
		if v.Group.IsZero() {
			continue
		}
		ok, err := g.groupContains(ctx, v.Group, from.Label.Package(), map[label.Label]bool{})
		if err != nil || ok {
			return ok, err
		}
	}
	return false, nil
}

// CheckVisible returns an error if from may not depend on to.
func (g *Graph) CheckVisible(ctx context.Context, from *loader.Target, to *loader.Target) error {
	ok, err := g.Visible(ctx, from, to)
	if err != nil || ok {
		return err
	}
	how := fmt.Sprintf("give it visibility = [\"%s:__pkg__\"]", from.Label.PackageString())
	if to.Kind == loader.SourceFile {
		how = fmt.Sprintf("write exports_files([%q]) in %s", to.Label.Name, to.Package.File)
	}
	return &loader.Error{Pos: from.Pos, Msg: fmt.Sprintf("%s is not visible from %s; %s", to.Label, from.Label, how)}
}

func (g *Graph) groupContains(ctx context.Context, lb, pkg label.Label, seen map[label.Label]bool) (bool, error) {
	if seen[lb] {
		return false, nil
	}
	seen[lb] = true
	t, err := g.Target(ctx, lb)
	if err != nil {
		return false, err
	}
	if t.Kind != loader.PackageGroup {
		return false, fmt.Errorf("%s is a %s, not a package_group", lb, t.KindString())
	}
	in := false
	for _, s := range t.Group.Packages {
		if !s.Negative && s.Contains(pkg) {
			in = true
		}
	}
	for _, s := range t.Group.Packages {
		if s.Negative && s.Contains(pkg) {
			in = false
		}
	}
	for _, inc := range t.Group.Includes {
		if in {
			break
		}
		var err error
		if in, err = g.groupContains(ctx, inc, pkg, seen); err != nil {
			return false, err
		}
	}
	return in, nil
}

// Load loads the packages side by side, for the errors of all to be known and
// later look-ups to find them.
func (g *Graph) Load(ctx context.Context, pkgs []label.Label) error {
	errs := make([]error, len(pkgs))
	sem := make(chan struct{}, 16)
	done := make(chan int)
	for i, p := range pkgs {
		go func() {
			sem <- struct{}{}
			_, errs[i] = g.Loader.Package(ctx, p)
			<-sem
			done <- i
		}()
	}
	for range pkgs {
		<-done
	}
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// sortLabels sorts and removes duplicates.
func sortLabels(ls []label.Label) []label.Label {
	sort.Slice(ls, func(i, j int) bool { return label.Less(ls[i], ls[j]) })
	out := ls[:0]
	for i, l := range ls {
		if i == 0 || l != ls[i-1] {
			out = append(out, l)
		}
	}
	return out
}
