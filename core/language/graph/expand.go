package graph

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"

	"tool/core/language/loader"
	"tool/core/model/label"
)

// ExpandOptions say how wildcards behave.
type ExpandOptions struct {
	Manual   bool // keep targets tagged manual (query does, build does not)
	TestOnly bool // keep tests and test suites only
}

// Expand turns target patterns into labels. Patterns apply in order, negative
// ones subtract from what came before. The result is in that order, each once.
func (g *Graph) Expand(ctx context.Context, patterns []label.Pattern, opt ExpandOptions) ([]label.Label, error) {
	var order []label.Label
	in := map[label.Label]bool{}
	for _, p := range patterns {
		ls, err := g.expandOne(ctx, p, opt)
		if err != nil {
			return nil, err
		}
		for _, l := range ls {
			switch {
			case p.Negative:
				delete(in, l)
			case !in[l]:
				in[l] = true
				order = append(order, l)
			}
		}
	}
	out := order[:0]
	for _, l := range order {
		if in[l] {
			out = append(out, l)
			delete(in, l)
		}
	}
	return out, nil
}

func (g *Graph) expandOne(ctx context.Context, p label.Pattern, opt ExpandOptions) ([]label.Label, error) {
	if p.Guess != "" {
		l, err := g.guess(ctx, p)
		if err != nil {
			return nil, err
		}
		return []label.Label{l}, nil
	}
	if !p.All {
		t, err := g.Target(ctx, p.Label)
		if err != nil {
			if p.Negative { // nothing to subtract
				return nil, nil
			}
			return nil, err
		}
		return []label.Label{t.Label}, nil
	}
	pkgs := []label.Label{p.Label.Package()}
	if p.Recursive {
		if p.Label.Repo != "" {
			return nil, fmt.Errorf("pattern %q: ... is not possible in @%s", p.Text, p.Label.Repo)
		}
		names, err := g.Loader.Workspace.Packages(p.Label.Pkg)
		if err != nil {
			return nil, err
		}
		if len(names) == 0 {
			return nil, fmt.Errorf("pattern %q matches no package", p.Text)
		}
		pkgs = pkgs[:0]
		for _, n := range names {
			pkgs = append(pkgs, label.Label{Pkg: n})
		}
	}
	if err := g.Load(ctx, pkgs); err != nil {
		return nil, err
	}
	var out []label.Label
	for _, pl := range pkgs {
		pkg, err := g.Loader.Package(ctx, pl)
		if err != nil {
			return nil, err
		}
		for _, n := range pkg.Names() {
			if t := pkg.Targets[n]; wanted(t, p, opt) {
				out = append(out, t.Label)
			}
		}
		if p.Files {
			files, err := g.sourceFiles(ctx, pkg)
			if err != nil {
				return nil, err
			}
			out = append(out, files...)
		}
	}
	return sortLabels(out), nil
}

// sourceFiles lists the source files that are targets of a package: its BUILD
// file, what its rules name and what it exports. Whatever else lies in the
// folder is none of the build's business.
func (g *Graph) sourceFiles(ctx context.Context, pkg *loader.Package) ([]label.Label, error) {
	names := map[string]bool{path.Base(pkg.File): true}
	for _, n := range pkg.Exports() {
		names[n] = true
	}
	for _, t := range pkg.Targets {
		for _, e := range Edges(t) {
			if e.Label.Package() == pkg.Label {
				names[e.Label.Name] = true
			}
		}
	}
	var out []label.Label
	for n := range names {
		if pkg.Targets[n] != nil {
			continue
		}
		t, err := g.Loader.Target(pkg, n)
		if err != nil { // named, but not there: for whoever builds what names it
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			continue
		}
		out = append(out, t.Label)
	}
	return out, nil
}

func wanted(t *loader.Target, p label.Pattern, opt ExpandOptions) bool {
	switch t.Kind {
	case loader.RuleTarget:
	case loader.GeneratedFile, loader.PackageGroup:
		return p.Files
	default:
		return false
	}
	if !opt.Manual && !p.Negative {
		for _, tag := range t.Tags {
			if tag == "manual" {
				return false
			}
		}
		// A condition is nothing that could be built.
		if t.Rule.Name() == "config_setting" && !p.Files {
			return false
		}
	}
	if opt.TestOnly {
		return t.Rule.Test || t.Rule.Name() == "test_suite"
	}
	return true
}

// guess resolves "bar/wiz": the package bar/wiz, or the target wiz of the
// package bar, or a file further up, as Bazel does for words without //.
func (g *Graph) guess(ctx context.Context, p label.Pattern) (label.Label, error) {
	word := p.Guess
	if _, ok := g.Loader.PackageDir(label.Label{Pkg: word}); ok && word != "" {
		return label.Label{Pkg: word, Name: path.Base(word)}, nil
	}
	for dir := path.Dir(word); ; dir = path.Dir(dir) {
		if dir == "." {
			dir = ""
		}
		lb := label.Label{Pkg: dir}
		if _, ok := g.Loader.PackageDir(lb); ok {
			lb.Name = strings.TrimPrefix(strings.TrimPrefix(word, dir), "/")
			t, err := g.Target(ctx, lb)
			if err != nil {
				return label.Label{}, err
			}
			return t.Label, nil
		}
		if dir == "" {
			break
		}
	}
	_, err := g.Loader.Package(ctx, label.Label{Pkg: word})
	var none *loader.NoPackageError
	if err == nil || !errors.As(err, &none) {
		return label.Label{}, fmt.Errorf("pattern %q matches no target", p.Text)
	}
	return label.Label{}, err
}
