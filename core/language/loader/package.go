package loader

import (
	"context"
	"fmt"
	"path"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"tool/core/language/workspace"
	"tool/core/model/label"
)

// Package returns the package, loading it if nobody has.
func (l *Loader) Package(ctx context.Context, pkg label.Label) (*Package, error) {
	pkg.Name = ""
	l.mu.Lock()
	e := l.packages[pkg]
	if e == nil {
		e = &packageEntry{done: make(chan struct{})}
		l.packages[pkg] = e
		l.mu.Unlock()
		e.pkg, e.err = l.loadPackage(ctx, pkg)
		close(e.done)
	} else {
		l.mu.Unlock()
		<-e.done
	}
	return e.pkg, e.err
}

func (l *Loader) loadPackage(ctx context.Context, pkg label.Label) (*Package, error) {
	dir, ok := l.PackageDir(pkg)
	if !ok {
		return nil, &NoPackageError{Package: pkg, Hint: l.nearestPackage(pkg)}
	}
	file := path.Join(dir, workspace.BuildFile)
	data, err := l.readFile(pkg.Repo, file)
	if err != nil {
		return nil, err
	}
	p := &Package{
		Label: pkg, Dir: dir, File: displayName(pkg.Repo, file),
		Targets: map[string]*Target{}, exports: map[string][]Visibility{},
		defaultVisibility: []Visibility{{Private: true}},
	}
	l.mu.Lock()
	l.files[p.File] = pkg
	l.mu.Unlock()
	f, err := fileOptions.Parse(p.File, data, 0)
	if err != nil {
		return nil, Explain(err)
	}
	if err := checkBuildSyntax(f); err != nil {
		return nil, err
	}
	loads, err := l.fileLoads(f, pkg)
	if err != nil {
		return nil, err
	}
	pre := l.universe()
	for n, v := range l.buildNatives() {
		pre[n] = v
	}
	delete(pre, "rule")
	delete(pre, "provider")
	delete(pre, "attr")
	delete(pre, "configuration_field")
	_, prelude, err := l.Module(ctx, preludeFile)
	if err != nil {
		return nil, err
	}
	for n, v := range prelude {
		if !strings.HasPrefix(n, "_") {
			pre[n] = v
		}
	}
	pre["native"] = &native{loader: l, ctx: ctx}
	prog, err := starlark.FileProgram(f, pre.Has)
	if err != nil {
		return nil, explainUndefined(err, pre)
	}
	l.prefetch(ctx, loads)
	thread := l.newThread(p.File, &eval{loader: l, file: pkg, pkg: p})
	thread.Load = l.loadFunc(ctx, pkg, nil)
	stop := context.AfterFunc(ctx, func() { thread.Cancel("interrupted") })
	defer stop()
	err = Guard(thread, func() error {
		_, err := prog.Init(thread, pre)
		return Explain(err)
	})
	if err != nil {
		return nil, err
	}
	p.Loads = l.loadClosure(loads)
	return p, nil
}

func (l *Loader) nearestPackage(pkg label.Label) string {
	if pkg.Repo != "" {
		return ""
	}
	names, err := l.Workspace.Packages("")
	if err != nil {
		return ""
	}
	if n := label.Nearest(pkg.Pkg, names); n != "" {
		return fmt.Sprintf("; did you mean //%s?", n)
	}
	return ""
}

// checkBuildSyntax keeps BUILD files declarative, as Bazel does: no functions,
// no statements other than calls and assignments. Comprehensions are fine.
func checkBuildSyntax(f *syntax.File) (err error) {
	bad := func(pos syntax.Position, what, instead string) {
		if err == nil {
			err = &Error{Pos: posString(pos), Msg: what + " is not allowed in " + workspace.BuildFile + "; " + instead}
		}
	}
	const toStar = "define a function in a .star file and load it"
	for _, s := range f.Stmts {
		syntax.Walk(s, func(n syntax.Node) bool {
			switch n := n.(type) {
			case *syntax.DefStmt:
				bad(n.Def, "def", toStar)
			case *syntax.LambdaExpr:
				bad(n.Lambda, "lambda", toStar)
			case *syntax.ForStmt:
				bad(n.For, "a for statement", "use a list comprehension, or "+toStar)
			case *syntax.WhileStmt:
				bad(n.While, "while", toStar)
			case *syntax.IfStmt:
				bad(n.If, "an if statement", "use a conditional expression or select()")
			case *syntax.CallExpr:
				for _, a := range n.Args {
					if u, ok := a.(*syntax.UnaryExpr); ok && (u.Op == syntax.STAR || u.Op == syntax.STARSTAR) {
						bad(u.OpPos, u.Op.String()+"args", "write the arguments out, or "+toStar)
					}
				}
			}
			return err == nil
		})
	}
	return err
}

// Target finds a target of the package: one that the BUILD file declares, or
// a source file of its folder.
func (l *Loader) Target(p *Package, name string) (*Target, error) {
	if t := p.Targets[name]; t != nil {
		return t, nil
	}
	lb := label.Label{Repo: p.Label.Repo, Pkg: p.Label.Pkg, Name: name}
	file := path.Join(p.Dir, name)
	if p.Label.Repo != "" {
		if _, err := l.readFile(p.Label.Repo, file); err == nil {
			return l.sourceTarget(p, lb, file), nil
		}
		return nil, fmt.Errorf("no target %s in %s%s", lb, p.File, didYouMean(name, p.Names()))
	}
	if sub := l.crossesPackage(p, name); sub != "" {
		return nil, fmt.Errorf("label %s crosses into the package //%s; write //%s:%s", lb, sub, sub, strings.TrimPrefix(path.Join(p.Label.Pkg, name), sub+"/"))
	}
	if l.Workspace.IsFile(file) {
		return l.sourceTarget(p, lb, file), nil
	}
	if l.Workspace.IsDir(file) {
		return nil, fmt.Errorf("%s is a folder; name its files with glob([%q])", lb, name+"/**")
	}
	hint := didYouMean(name, p.Names())
	if hint == "" {
		hint = l.nearestFile(p.Dir, name)
	}
	return nil, fmt.Errorf("no target %s: %s declares none of that name and there is no such file%s", lb, p.File, hint)
}

func (l *Loader) sourceTarget(p *Package, lb label.Label, file string) *Target {
	t := &Target{Label: lb, Kind: SourceFile, Package: p, Pos: p.File + ":1:1", File: file, Visibility: []Visibility{{Private: true}}}
	if v, ok := p.exports[lb.Name]; ok {
		t.Visibility = v
	}
	return t
}

// crossesPackage returns the package below p that the file name is really in.
func (l *Loader) crossesPackage(p *Package, name string) string {
	for d := path.Dir(name); d != "."; d = path.Dir(d) {
		sub := path.Join(p.Label.Pkg, d)
		if l.Workspace.IsFile(path.Join(p.Dir, d, workspace.BuildFile)) {
			return sub
		}
	}
	return ""
}
