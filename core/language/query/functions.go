package query

import (
	"context"
	"strings"
)

// argKind is what an argument of a function is.
type argKind string

const (
	argExpr argKind = "expression"
	argWord argKind = "word"
	argInt  argKind = "number"
)

// function is a function of the language. eval is nil for those that choose
// actions: they stand outermost and ParseActions takes them off.
type function struct {
	name     string
	args     []argKind
	names    []string // of args, for people
	optional int      // how many of the last args may be left out
	variadic bool     // the last arg may be repeated
	eval     func(context.Context, *Evaluator, *call) (set, error)
}

// usage shows how the function is called.
func (f *function) usage() string {
	var b strings.Builder
	b.WriteString(f.name + "(")
	for i, n := range f.names {
		opt := i >= len(f.args)-f.optional
		if opt {
			b.WriteString("[")
		}
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(n)
		if opt {
			b.WriteString("]")
		}
	}
	if f.variadic {
		b.WriteString(", …")
	}
	b.WriteString(")")
	return b.String()
}

var functions = makeFunctions()

func makeFunctions() map[string]*function {
	x, w, n := argExpr, argWord, argInt
	all := []*function{
		{name: "deps", args: []argKind{x, n}, names: []string{"x", "depth"}, optional: 1, eval: evalDeps},
		{name: "rdeps", args: []argKind{x, x, n}, names: []string{"universe", "x", "depth"}, optional: 1, eval: evalRdeps},
		{name: "allrdeps", args: []argKind{x, n}, names: []string{"x", "depth"}, optional: 1, eval: evalAllRdeps},
		{name: "same_pkg_direct_rdeps", args: []argKind{x}, names: []string{"x"}, eval: evalSamePackage},
		{name: "allpaths", args: []argKind{x, x}, names: []string{"from", "to"}, eval: evalAllPaths},
		{name: "somepath", args: []argKind{x, x}, names: []string{"from", "to"}, eval: evalSomePath},
		{name: "kind", args: []argKind{w, x}, names: []string{"regexp", "x"}, eval: evalKind},
		{name: "filter", args: []argKind{w, x}, names: []string{"regexp", "x"}, eval: evalFilter},
		{name: "attr", args: []argKind{w, w, x}, names: []string{"name", "regexp", "x"}, eval: evalAttr},
		{name: "visible", args: []argKind{x, x}, names: []string{"to", "x"}, eval: evalVisible},
		{name: "labels", args: []argKind{w, x}, names: []string{"attribute", "x"}, eval: evalLabels},
		{name: "tests", args: []argKind{x}, names: []string{"x"}, eval: evalTests},
		{name: "some", args: []argKind{x, n}, names: []string{"x", "count"}, optional: 1, eval: evalSome},
		{name: "siblings", args: []argKind{x}, names: []string{"x"}, eval: evalSiblings},
		{name: "buildfiles", args: []argKind{x}, names: []string{"x"}, eval: evalBuildFiles},
		{name: "loadfiles", args: []argKind{x}, names: []string{"x"}, eval: evalLoadFiles},
		{name: "rbuildfiles", args: []argKind{w}, names: []string{"path"}, variadic: true, eval: evalReverseBuildFiles},

		{name: "inputs", args: []argKind{w, x}, names: []string{"regexp", "x"}},
		{name: "outputs", args: []argKind{w, x}, names: []string{"regexp", "x"}},
		{name: "mnemonic", args: []argKind{w, x}, names: []string{"regexp", "x"}},
	}
	m := make(map[string]*function, len(all))
	for _, f := range all {
		m[f.name] = f
	}
	return m
}

// depth is the number that c has as argument i, or no limit.
func (c *call) depth(i int) int {
	if i < len(c.args) {
		return c.args[i].num
	}
	return unbounded
}

func evalDeps(ctx context.Context, e *Evaluator, c *call) (set, error) {
	s, err := e.eval(ctx, c.args[0].node)
	if err != nil {
		return nil, err
	}
	return e.world.deps(ctx, s, c.depth(1))
}

func evalRdeps(ctx context.Context, e *Evaluator, c *call) (set, error) {
	u, err := e.eval(ctx, c.args[0].node)
	if err != nil {
		return nil, err
	}
	x, err := e.eval(ctx, c.args[1].node)
	if err != nil {
		return nil, err
	}
	if u, err = e.world.deps(ctx, u, unbounded); err != nil {
		return nil, err
	}
	return e.world.rdeps(ctx, u, x, c.depth(2))
}

func evalAllRdeps(ctx context.Context, e *Evaluator, c *call) (set, error) {
	x, err := e.eval(ctx, c.args[0].node)
	if err != nil {
		return nil, err
	}
	u, err := e.universe(ctx)
	if err != nil {
		return nil, err
	}
	return e.world.rdeps(ctx, u, x, c.depth(1))
}

// universe returns the closure of the universe's patterns.
func (e *Evaluator) universe(ctx context.Context) (set, error) {
	var s set
	for _, p := range e.universePatterns() {
		negative := p.Negative
		p.Negative = false
		ls, err := e.expand(ctx, p)
		if err != nil {
			return nil, err
		}
		part, err := e.world.setOf(ctx, ls)
		if err != nil {
			return nil, err
		}
		if negative {
			s = s.except(part)
		} else {
			s = s.union(part)
		}
	}
	return e.world.deps(ctx, s, unbounded)
}

func evalSamePackage(ctx context.Context, e *Evaluator, c *call) (set, error) {
	x, err := e.eval(ctx, c.args[0].node)
	if err != nil {
		return nil, err
	}
	var out set
	for _, p := range e.world.packages(x) {
		for _, name := range p.Names() {
			t := p.Targets[name]
			id := e.world.know(t)
			es, err := e.world.expand(ctx, id)
			if err != nil {
				return nil, err
			}
			for _, to := range es {
				if x.has(to) && e.world.labels[to].Package() == t.Label.Package() {
					out.add(id)
				}
			}
		}
	}
	return out, nil
}

func evalTwo(ctx context.Context, e *Evaluator, c *call) (a, b set, err error) {
	if a, err = e.eval(ctx, c.args[0].node); err != nil {
		return nil, nil, err
	}
	b, err = e.eval(ctx, c.args[1].node)
	return a, b, err
}

func evalAllPaths(ctx context.Context, e *Evaluator, c *call) (set, error) {
	a, b, err := evalTwo(ctx, e, c)
	if err != nil {
		return nil, err
	}
	return e.world.allPaths(ctx, a, b)
}

func evalSomePath(ctx context.Context, e *Evaluator, c *call) (set, error) {
	a, b, err := evalTwo(ctx, e, c)
	if err != nil {
		return nil, err
	}
	path, err := e.world.somePath(ctx, a, b)
	return newSet(path...), err
}

func evalSome(ctx context.Context, e *Evaluator, c *call) (set, error) {
	s, err := e.eval(ctx, c.args[0].node)
	if err != nil {
		return nil, err
	}
	n := 1
	if len(c.args) > 1 {
		if n = c.args[1].num; n < 1 {
			return nil, errorAt(c.args[1].pos, "some: the count must be at least 1")
		}
	}
	ids := e.world.sorted(s)
	if len(ids) == 0 {
		return nil, errorAt(c.args[0].pos, "some: this set is empty")
	}
	return newSet(ids[:min(n, len(ids))]...), nil
}

func evalSiblings(ctx context.Context, e *Evaluator, c *call) (set, error) {
	x, err := e.eval(ctx, c.args[0].node)
	if err != nil {
		return nil, err
	}
	var out set
	for _, p := range e.world.packages(x) {
		if p.File == "" { // a library folder of .star files only
			continue
		}
		s, err := e.world.ofPackage(ctx, p.Label)
		if err != nil {
			return nil, err
		}
		out = out.union(s)
	}
	return out, nil
}
