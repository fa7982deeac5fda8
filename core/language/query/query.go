// Package query is Bazel's query language over the target graph.
//
// # Language
//
//	word | $v | (e) | let v = e in e | set(word…) | f(arg, …)
//	e intersect e   e ^ e   e union e   e + e   e except e   e - e
//
// Operators have one precedence and associate to the left. A word is a target
// pattern. The only kind of value is a set of targets; every branch of a
// select counts, and targets tagged manual are not left out of wildcards.
//
// # Use
//
// Parse makes an Expr, an Evaluator turns it into a Result, and the Result
// writes itself in one of the formats that Formats lists. Packages are loaded
// as the evaluation meets them, those of one level side by side.
package query

import (
	"context"
	"errors"
	"fmt"

	"tool/core/language/graph"
	"tool/core/language/loader"
	"tool/core/model/label"
)

// Evaluator evaluates expressions over one graph. Set its fields before the
// first call. What it has learnt of the graph stays for later calls. It is not
// safe for concurrent use.
type Evaluator struct {
	Graph *graph.Graph

	Cwd            string          // the package path that relative patterns start from
	Universe       []label.Pattern // for allrdeps and rbuildfiles; nil: //...
	NoImplicitDeps bool            // only what BUILD files say: no edges of private attributes and defaults
	Configured     bool            // follow only the branches of selects that Graph.Config chooses
	KeepGoing      bool            // leave out what cannot be loaded; Result.Errors tells what

	world *world
	vars  map[string]set
}

// Result is a set of targets in the order in which it is to be printed.
type Result struct {
	Targets []*loader.Target
	Errors  []error // what KeepGoing went past, each once

	world *world
	ids   []int
}

// Order tells how a Result is sorted.
type Order string

// The orders of --order_output.
const (
	OrderAuto Order = "auto" // by label; a path in its own order
	OrderNo   Order = "no"   // as auto: a fixed order costs nothing here
	OrderDeps Order = "deps" // what needs before what is needed
	OrderFull Order = "full" // as deps; both leave no choice
)

// Orders lists the values of Order.
func Orders() []Order { return []Order{OrderAuto, OrderNo, OrderDeps, OrderFull} }

// Eval evaluates x. Mistakes in the expression are *Error; others come from
// loading. With KeepGoing, errors of loading are in the Result.
func (e *Evaluator) Eval(ctx context.Context, x *Expr, order Order) (*Result, error) {
	e.begin()
	if err := e.preload(ctx, x.root); err != nil {
		return nil, x.explain(err)
	}
	s, err := e.eval(ctx, x.root)
	if err != nil {
		return nil, x.explain(err)
	}
	r := &Result{world: e.world}
	if c, ok := x.root.(*call); ok && c.fn.name == "somepath" && order == OrderAuto {
		r.ids = e.world.lastPath
	} else {
		r.ids = e.world.sorted(s)
	}
	if order == OrderDeps || order == OrderFull {
		r.ids = r.topological()
	}
	for _, id := range r.ids {
		r.Targets = append(r.Targets, e.world.targets[id])
	}
	r.Errors = e.world.errs
	return r, nil
}

func (e *Evaluator) begin() {
	if e.world == nil {
		e.world = newWorld(e.Graph)
	}
	e.world.noImplicit, e.world.configured, e.world.keepGoing = e.NoImplicitDeps, e.Configured, e.KeepGoing
	e.world.errs = nil
	e.world.lastPath = nil
	e.vars = map[string]set{}
}

// Step is a target on a path and the attribute by which it needs the next one.
type Step struct {
	Target *loader.Target
	Attr   string // "" for the last
}

// Path returns a shortest path of dependencies from from to to, both included,
// or nil if there is none.
func (e *Evaluator) Path(ctx context.Context, from, to label.Label) ([]Step, error) {
	e.begin()
	w := e.world
	a, b := w.id(from), w.id(to)
	if err := w.resolve(ctx, []int{a, b}); err != nil {
		return nil, err
	}
	path, err := w.somePath(ctx, newSet(a), newSet(b))
	if err != nil {
		return nil, err
	}
	var steps []Step
	for i, id := range path {
		s := Step{Target: w.targets[id]}
		if i+1 < len(path) {
			es, err := w.labelledEdges(ctx, s.Target)
			if err != nil {
				return nil, err
			}
			for _, ed := range es {
				if ed.Label == w.labels[path[i+1]] {
					s.Attr = ed.Attr
					break
				}
			}
		}
		steps = append(steps, s)
	}
	return steps, nil
}

// Error is a mistake in a query's text.
type Error struct {
	Query string
	Pos   int // byte offset
	Msg   string
	Err   error
}

// Error returns the message, the line of the query and a mark below the place.
func (e *Error) Error() string {
	line, col := lineAt(e.Query, e.Pos)
	return fmt.Sprintf("query: %s\n  %s\n  %*s^", e.Msg, line, col, "")
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// explain gives an error that knows its place the text of the query. Errors
// of loading carry the place in the user's files, which says more.
func (x *Expr) explain(err error) error {
	var qe *Error
	if errors.As(err, &qe) && qe.Query == "" {
		qe.Query = x.text
	}
	return err
}

func errorAt(pos int, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Pos: pos, Msg: err.Error(), Err: errors.Unwrap(err)}
}
