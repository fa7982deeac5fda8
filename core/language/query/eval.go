package query

import (
	"context"
	"errors"
	"strings"

	"tool/core/language/graph"
	"tool/core/language/loader"
	"tool/core/model/label"
)

func (e *Evaluator) eval(ctx context.Context, n node) (set, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	switch n := n.(type) {
	case *word:
		return e.pattern(ctx, n)
	case *wordSet:
		var all set
		for _, w := range n.words {
			s, err := e.pattern(ctx, w)
			if err != nil {
				return nil, err
			}
			all = all.union(s)
		}
		return all, nil
	case *variable:
		s, ok := e.vars[n.name]
		if !ok {
			names := make([]string, 0, len(e.vars))
			for v := range e.vars {
				names = append(names, v)
			}
			hint := ""
			if v := label.Nearest(n.name, names); v != "" {
				hint = "; did you mean $" + v + "?"
			}
			return nil, errorAt(n.pos, "no let defines $%s here%s", n.name, hint)
		}
		return s, nil
	case *let:
		s, err := e.eval(ctx, n.value)
		if err != nil {
			return nil, err
		}
		old, had := e.vars[n.name]
		e.vars[n.name] = s
		body, err := e.eval(ctx, n.body)
		if delete(e.vars, n.name); had {
			e.vars[n.name] = old
		}
		return body, err
	case *chain:
		return e.chain(ctx, n)
	}
	c := n.(*call)
	return c.fn.eval(ctx, e, c)
}

func (e *Evaluator) chain(ctx context.Context, n *chain) (set, error) {
	s, err := e.eval(ctx, n.first)
	if err != nil {
		return nil, err
	}
	for _, o := range n.rest {
		r, err := e.eval(ctx, o.node)
		if err != nil {
			return nil, err
		}
		switch o.op {
		case opUnion:
			s = s.union(r)
		case opIntersect:
			s = s.intersect(r)
		case opExcept:
			s = s.except(r)
		}
	}
	return s, nil
}

func (e *Evaluator) parsePattern(w *word) (label.Pattern, error) {
	if strings.HasPrefix(w.text, "-") {
		return label.Pattern{}, errorAt(w.pos, "a query subtracts with except, not with the pattern %q", w.text)
	}
	p, err := label.ParsePattern(w.text, e.Cwd)
	if err != nil {
		return p, errorAt(w.pos, "%w", err)
	}
	return p, nil
}

func (e *Evaluator) pattern(ctx context.Context, w *word) (set, error) {
	p, err := e.parsePattern(w)
	if err != nil {
		return nil, err
	}
	ls, err := e.expand(ctx, p)
	if err != nil {
		var le *loader.Error // has its place in a file
		if errors.As(err, &le) || ctx.Err() != nil {
			return nil, err
		}
		return nil, errorAt(w.pos, "%w", err)
	}
	return e.world.setOf(ctx, ls)
}

// expand returns the targets of a pattern. With KeepGoing a package that
// cannot be loaded costs only its own targets.
func (e *Evaluator) expand(ctx context.Context, p label.Pattern) ([]label.Label, error) {
	opt := graph.ExpandOptions{Manual: true}
	if !e.KeepGoing {
		return e.Graph.Expand(ctx, []label.Pattern{p}, opt)
	}
	parts := []label.Pattern{p}
	if p.Recursive && p.Label.Repo == "" {
		names, err := e.Graph.Loader.Workspace.Packages(p.Label.Pkg)
		if err != nil {
			return nil, err
		}
		if len(names) > 0 {
			parts = parts[:0]
			var ls []label.Label
			for _, n := range names {
				one := p
				one.Recursive, one.Label = false, label.Label{Pkg: n}
				parts = append(parts, one)
				ls = append(ls, one.Label)
			}
			e.world.load(ctx, ls)
		}
	}
	var out []label.Label
	for _, one := range parts {
		ls, err := e.Graph.Expand(ctx, []label.Pattern{one}, opt)
		if err != nil {
			if err := e.world.failed(ctx, err); err != nil {
				return nil, err
			}
		}
		out = append(out, ls...)
	}
	return out, nil
}

// preload begins with the packages of all labels that the query names, side
// by side: a script's set() may hold thousands.
func (e *Evaluator) preload(ctx context.Context, root node) error {
	var ls []label.Label
	var visit func(n node) error
	visit = func(n node) error {
		switch n := n.(type) {
		case *word:
			p, err := e.parsePattern(n)
			if err != nil {
				return err
			}
			if !p.Recursive && p.Guess == "" {
				ls = append(ls, p.Label)
			}
		case *wordSet:
			for _, w := range n.words {
				if err := visit(w); err != nil {
					return err
				}
			}
		case *let:
			if err := visit(n.value); err != nil {
				return err
			}
			return visit(n.body)
		case *chain:
			if err := visit(n.first); err != nil {
				return err
			}
			for _, o := range n.rest {
				if err := visit(o.node); err != nil {
					return err
				}
			}
		case *call:
			for _, a := range n.args {
				if a.node != nil {
					if err := visit(a.node); err != nil {
						return err
					}
				}
			}
		}
		return nil
	}
	if err := visit(root); err != nil {
		return err
	}
	e.world.load(ctx, ls)
	return nil
}
