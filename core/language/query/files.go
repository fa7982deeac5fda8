package query

import (
	"context"
	"path"
	"strings"

	"tool/core/language/loader"
	"tool/core/model/label"
)

// buildFile returns the id of a package's BUILD file.
func (w *world) buildFile(p *loader.Package) int {
	l := p.Label
	l.Name = path.Base(p.File)
	return w.know(&loader.Target{Label: l, Kind: loader.SourceFile, Package: p, Pos: p.File + ":1:1",
		File: path.Join(p.Dir, l.Name), Visibility: []loader.Visibility{{Private: true}}})
}

// starFile returns the id of a .star file. Those of the rule library belong to
// no package that can be loaded, so a bare one stands in.
func (w *world) starFile(ctx context.Context, l label.Label) (int, error) {
	if l.Repo == "" {
		id := w.id(l)
		err := w.resolve(ctx, []int{id})
		return id, err
	}
	file := path.Join(l.Pkg, l.Name)
	return w.know(&loader.Target{Label: l, Kind: loader.SourceFile, Package: &loader.Package{Label: l.Package(), Dir: l.Pkg},
		Pos: "@" + l.Repo + "//" + file + ":1:1", File: file, Visibility: []loader.Visibility{{Public: true}}}), nil
}

func evalLoadFiles(ctx context.Context, e *Evaluator, c *call) (set, error) {
	x, err := e.eval(ctx, c.args[0].node)
	if err != nil {
		return nil, err
	}
	return e.loadFiles(ctx, x)
}

func (e *Evaluator) loadFiles(ctx context.Context, x set) (set, error) {
	var out set
	for _, p := range e.world.packages(x) {
		for _, l := range p.Loads {
			id, err := e.world.starFile(ctx, l)
			if err != nil {
				return nil, err
			}
			if e.world.targets[id] != nil {
				out.add(id)
			}
		}
	}
	return out, nil
}

// evalBuildFiles returns the BUILD files of x's packages, what these load, and
// the BUILD files of the packages that the loaded files are in.
func evalBuildFiles(ctx context.Context, e *Evaluator, c *call) (set, error) {
	x, err := e.eval(ctx, c.args[0].node)
	if err != nil {
		return nil, err
	}
	out, err := e.loadFiles(ctx, x)
	if err != nil {
		return nil, err
	}
	for _, p := range e.world.packages(x.union(out)) {
		if p.File != "" {
			out.add(e.world.buildFile(p))
		}
	}
	return out, nil
}

// evalReverseBuildFiles returns the BUILD files in the universe that are, or
// load, one of the files. A file is named by its path from the workspace's
// root, or as in a label: cluster/x.star, @rules//go/defs.star.
func evalReverseBuildFiles(ctx context.Context, e *Evaluator, c *call) (set, error) {
	u, err := e.universe(ctx)
	if err != nil {
		return nil, err
	}
	pkgs := e.world.packages(u)
	seen := map[*loader.Package]bool{}
	for _, p := range pkgs {
		seen[p] = true
	}
	// A package without targets loads files too.
	for _, p := range e.universePatterns() {
		if p.Negative || !p.All || p.Label.Repo != "" {
			continue
		}
		names := []string{p.Label.Pkg}
		if p.Recursive {
			if names, err = e.Graph.Loader.Workspace.Packages(p.Label.Pkg); err != nil {
				return nil, err
			}
		}
		for _, n := range names {
			pkg, err := e.Graph.Loader.Package(ctx, label.Label{Pkg: n})
			if err != nil {
				if err := e.world.failed(ctx, err); err != nil {
					return nil, err
				}
				continue
			}
			if !seen[pkg] {
				seen[pkg] = true
				pkgs = append(pkgs, pkg)
			}
		}
	}
	wanted := map[string]bool{}
	for _, a := range c.args {
		if strings.HasPrefix(a.word, "/") {
			return nil, errorAt(a.pos, "rbuildfiles takes paths such as cluster/cluster.star, not labels")
		}
		wanted[path.Clean(a.word)] = true
		if strings.HasPrefix(a.word, "@") {
			wanted[a.word] = true
		}
	}
	var out set
	for _, p := range pkgs {
		if p.File != "" && e.loads(p, wanted) {
			out.add(e.world.buildFile(p))
		}
	}
	return out, nil
}

// loads reports whether the package's BUILD file is, or loads, a wanted file.
func (e *Evaluator) loads(p *loader.Package, wanted map[string]bool) bool {
	if wanted[p.File] || wanted[path.Join(p.Label.Pkg, path.Base(p.File))] {
		return true
	}
	for _, l := range p.Loads {
		name := path.Join(l.Pkg, l.Name)
		if l.Repo != "" {
			if wanted["@"+l.Repo+"//"+name] {
				return true
			}
			continue
		}
		if wanted[name] {
			return true
		}
		if dir, ok := e.Graph.Loader.PackageDir(l.Package()); ok && wanted[path.Join(dir, l.Name)] {
			return true
		}
	}
	return false
}

func (e *Evaluator) universePatterns() []label.Pattern {
	if e.Universe == nil {
		return []label.Pattern{{All: true, Recursive: true, Text: "//..."}}
	}
	return e.Universe
}
