package query

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"tool/core/language/graph"
	"tool/core/language/loader"
	"tool/core/model/label"
)

// world is the part of the target graph that was met so far. Targets have
// small ids, so that sets are bits and edges are arrays.
type world struct {
	g          *graph.Graph
	noImplicit bool
	configured bool
	keepGoing  bool
	errs       []error

	ids     map[label.Label]int
	labels  []label.Label
	targets []*loader.Target // nil: not resolved
	missing set              // could not be resolved, and KeepGoing said to go on
	wanted  []int            // who made the world know of an id; -1: the query itself
	edges   [][]int          // nil: not known
	loaded  map[label.Label]bool

	lastPath []int // what the last somePath found
}

func newWorld(g *graph.Graph) *world {
	return &world{g: g, ids: map[label.Label]int{}, loaded: map[label.Label]bool{}}
}

// id returns the number of a label, which needs to be resolved before use.
func (w *world) id(l label.Label) int { return w.idFrom(l, -1) }

func (w *world) idFrom(l label.Label, from int) int {
	if id, ok := w.ids[l]; ok {
		return id
	}
	id := len(w.labels)
	w.ids[l] = id
	w.labels = append(w.labels, l)
	w.targets = append(w.targets, nil)
	w.edges = append(w.edges, nil)
	w.wanted = append(w.wanted, from)
	return id
}

// know adds a target that no package declares, such as a .star file.
func (w *world) know(t *loader.Target) int {
	id := w.id(t.Label)
	if w.targets[id] == nil {
		w.targets[id] = t
	}
	return id
}

// load loads the packages of labels side by side; their errors come up again
// when the targets are looked for.
func (w *world) load(ctx context.Context, ls []label.Label) {
	var pkgs []label.Label
	for _, l := range ls {
		if p := l.Package(); !w.loaded[p] {
			w.loaded[p] = true
			pkgs = append(pkgs, p)
		}
	}
	if len(pkgs) > 1 {
		_ = w.g.Load(ctx, pkgs)
	}
}

// resolve finds the targets of ids.
func (w *world) resolve(ctx context.Context, ids []int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var ls []label.Label
	for _, id := range ids {
		if w.targets[id] == nil {
			ls = append(ls, w.labels[id])
		}
	}
	w.load(ctx, ls)
	for _, id := range ids {
		if w.targets[id] != nil || w.missing.has(id) {
			continue
		}
		t, err := w.g.Target(ctx, w.labels[id])
		if err == nil {
			w.targets[id] = t
			continue
		}
		if err := w.failed(ctx, w.because(id, err)); err != nil {
			return err
		}
		w.missing.add(id)
	}
	return nil
}

// because says who needs a target that is not there.
func (w *world) because(id int, err error) error {
	from := w.wanted[id]
	var le *loader.Error
	if from < 0 || errors.As(err, &le) {
		return err
	}
	t := w.targets[from]
	return &loader.Error{Pos: t.Pos, Msg: fmt.Sprintf("%s depends on %s: %v", t.Label, w.labels[id], err), Err: err}
}

// failed returns err, or notes it if the evaluation is to go on.
func (w *world) failed(ctx context.Context, err error) error {
	if !w.keepGoing || ctx.Err() != nil {
		return err
	}
	for _, e := range w.errs {
		if e.Error() == err.Error() {
			return nil
		}
	}
	w.errs = append(w.errs, err)
	return nil
}

// plainEdges lists what t depends on, over all branches of selects.
func (w *world) plainEdges(t *loader.Target) []graph.Edge {
	es := graph.Edges(t)
	if w.noImplicit {
		es = slices.DeleteFunc(es, func(e graph.Edge) bool { return e.Implicit })
	}
	return es
}

// labelledEdges lists what t depends on under the evaluator's settings.
func (w *world) labelledEdges(ctx context.Context, t *loader.Target) ([]graph.Edge, error) {
	es := w.plainEdges(t)
	if w.configured && t.Kind == loader.RuleTarget {
		return w.chosenEdges(ctx, t, es)
	}
	return es, nil
}

// chosenEdges drops the branches of selects that the configuration does not
// choose.
func (w *world) chosenEdges(ctx context.Context, t *loader.Target, es []graph.Edge) ([]graph.Edge, error) {
	chosen := map[string]map[label.Label]bool{}
	for n, v := range t.Attrs {
		s, ok := v.(*loader.Select)
		if !ok {
			continue
		}
		r, err := w.g.Attr(ctx, t, n)
		if err != nil {
			return nil, err
		}
		m := map[label.Label]bool{}
		for _, l := range loader.Labels(r) {
			m[l] = true
		}
		for _, p := range s.Parts {
			for _, b := range p.Branches {
				if !b.Default {
					m[b.Condition] = true
				}
			}
		}
		chosen[n] = m
	}
	return slices.DeleteFunc(es, func(e graph.Edge) bool { return chosen[e.Attr] != nil && !chosen[e.Attr][e.Label] }), nil
}

// expand returns the ids of what id depends on, each once, not yet resolved.
func (w *world) expand(ctx context.Context, id int) ([]int, error) {
	if w.edges[id] != nil {
		return w.edges[id], nil
	}
	es, err := w.labelledEdges(ctx, w.targets[id])
	if err != nil {
		if err = w.failed(ctx, err); err != nil {
			return nil, err
		}
	}
	out := make([]int, 0, len(es))
	for _, e := range es {
		to := w.idFrom(e.Label, id)
		if !slices.Contains(out, to) {
			out = append(out, to)
		}
	}
	w.edges[id] = out
	return out, nil
}

// sorted returns the members of s by label.
func (w *world) sorted(s set) []int {
	ids := make([]int, 0, s.len())
	for id := range s.all() {
		ids = append(ids, id)
	}
	w.sort(ids)
	return ids
}

func (w *world) sort(ids []int) {
	slices.SortFunc(ids, func(a, b int) int { return label.Compare(w.labels[a], w.labels[b]) })
}

// ofPackage lists the targets of a package with its files, as //p:* does.
func (w *world) ofPackage(ctx context.Context, pkg label.Label) (set, error) {
	ls, err := w.g.Expand(ctx, []label.Pattern{{All: true, Files: true, Label: pkg.Package(), Text: pkg.PackageString() + ":*"}}, graph.ExpandOptions{Manual: true})
	if err != nil {
		return nil, w.failed(ctx, err)
	}
	return w.setOf(ctx, ls)
}

func (w *world) setOf(ctx context.Context, ls []label.Label) (set, error) {
	ids := make([]int, len(ls))
	for i, l := range ls {
		ids[i] = w.id(l)
	}
	if err := w.resolve(ctx, ids); err != nil {
		return nil, err
	}
	var s set
	for _, id := range ids {
		if w.targets[id] != nil {
			s.add(id)
		}
	}
	return s, nil
}

// packages returns the packages of the targets in s, sorted.
func (w *world) packages(s set) []*loader.Package {
	seen := map[*loader.Package]bool{}
	var out []*loader.Package
	for id := range s.all() {
		if p := w.targets[id].Package; p != nil && !seen[p] {
			seen[p] = true
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b *loader.Package) int {
		return cmp.Or(strings.Compare(a.Label.Repo, b.Label.Repo), strings.Compare(a.Label.Pkg, b.Label.Pkg))
	})
	return out
}
