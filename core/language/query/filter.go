package query

import (
	"context"
	"regexp"
	"strings"

	"tool/core/language/graph"
	"tool/core/language/loader"
	"tool/core/model/label"
)

// compile reads a regular expression, which may match anywhere.
func (c *call) compile(i int) (*regexp.Regexp, error) {
	re, err := regexp.Compile(c.args[i].word)
	if err != nil {
		return nil, errorAt(c.args[i].pos, "%s: %w", c.fn.name, err)
	}
	return re, nil
}

// keep evaluates argument i and returns those of its targets that f likes.
func (e *Evaluator) keep(ctx context.Context, c *call, i int, f func(*loader.Target) (bool, error)) (set, error) {
	s, err := e.eval(ctx, c.args[i].node)
	if err != nil {
		return nil, err
	}
	out := make(set, len(s))
	for id := range s.all() {
		ok, err := f(e.world.targets[id])
		if err != nil {
			return nil, err
		}
		if ok {
			out.add(id)
		}
	}
	return out, nil
}

func evalKind(ctx context.Context, e *Evaluator, c *call) (set, error) {
	re, err := c.compile(0)
	if err != nil {
		return nil, err
	}
	return e.keep(ctx, c, 1, func(t *loader.Target) (bool, error) { return re.MatchString(t.KindString()), nil })
}

func evalFilter(ctx context.Context, e *Evaluator, c *call) (set, error) {
	re, err := c.compile(0)
	if err != nil {
		return nil, err
	}
	return e.keep(ctx, c, 1, func(t *loader.Target) (bool, error) { return re.MatchString(t.Label.String()), nil })
}

func evalAttr(ctx context.Context, e *Evaluator, c *call) (set, error) {
	re, err := c.compile(1)
	if err != nil {
		return nil, err
	}
	name := c.args[0].word
	return e.keep(ctx, c, 2, func(t *loader.Target) (bool, error) {
		for _, v := range attrTexts(t, name) {
			if re.MatchString(v) {
				return true, nil
			}
		}
		return false, nil
	})
}

// evalVisible keeps what everything in its first argument may depend on.
func evalVisible(ctx context.Context, e *Evaluator, c *call) (set, error) {
	to, err := e.eval(ctx, c.args[0].node)
	if err != nil {
		return nil, err
	}
	// Visibility is the same for all targets of a package.
	from := map[label.Label]*loader.Target{}
	for id := range to.all() {
		t := e.world.targets[id]
		from[t.Label.Package()] = t
	}
	return e.keep(ctx, c, 1, func(t *loader.Target) (bool, error) {
		for _, f := range from {
			ok, err := e.Graph.Visible(ctx, f, t)
			if err != nil {
				return false, e.world.failed(ctx, err)
			}
			if !ok {
				return false, nil
			}
		}
		return true, nil
	})
}

func evalLabels(ctx context.Context, e *Evaluator, c *call) (set, error) {
	s, err := e.eval(ctx, c.args[1].node)
	if err != nil {
		return nil, err
	}
	w := e.world
	var out set
	var ids []int
	for id := range s.all() {
		t := w.targets[id]
		if t.Kind != loader.RuleTarget {
			continue
		}
		a := t.Rule.Attrs[c.args[0].word]
		if a == nil || !a.IsLabels() && !a.IsOutput() {
			continue
		}
		v := t.Attrs[c.args[0].word]
		if e.Configured {
			if v, err = e.Graph.Attr(ctx, t, c.args[0].word); err != nil {
				return nil, err
			}
		}
		for _, l := range loader.Labels(v) {
			ids = append(ids, w.idFrom(l, id))
		}
	}
	if err := w.resolve(ctx, ids); err != nil {
		return nil, err
	}
	for _, id := range ids {
		out.add(id)
	}
	return out.except(w.missing), nil
}

// evalTests keeps tests and puts what test suites stand for in their place.
func evalTests(ctx context.Context, e *Evaluator, c *call) (set, error) {
	s, err := e.eval(ctx, c.args[0].node)
	if err != nil {
		return nil, err
	}
	t := &testFinder{world: e.world}
	for id := range s.all() {
		if err := t.add(ctx, id, nil); err != nil {
			return nil, err
		}
	}
	return t.out, nil
}

type testFinder struct {
	world *world
	out   set
	path  []int // suites being expanded: a suite that holds itself adds nothing
}

// add puts a test, or a suite's tests that the filters let through, into out.
func (f *testFinder) add(ctx context.Context, id int, filters []tagFilter) error {
	t := f.world.targets[id]
	switch {
	case t.Kind != loader.RuleTarget:
		return nil
	case t.Rule.Test:
		for _, tf := range filters {
			if !tf.admits(t) {
				return nil
			}
		}
		f.out.add(id)
		return nil
	case t.Rule.Name() != "test_suite":
		return nil
	}
	for _, p := range f.path {
		if p == id {
			return nil
		}
	}
	f.path = append(f.path, id)
	defer func() { f.path = f.path[:len(f.path)-1] }()
	filters = append(filters[:len(filters):len(filters)], newTagFilter(t.Tags))
	members := graph.SuiteTests(t)
	ids := make([]int, len(members))
	for i, l := range members {
		ids[i] = f.world.idFrom(l, id)
	}
	if err := f.world.resolve(ctx, ids); err != nil {
		return err
	}
	for _, m := range ids {
		if f.world.targets[m] == nil {
			continue
		}
		if err := f.add(ctx, m, filters); err != nil {
			return err
		}
	}
	return nil
}

// tagFilter is what the tags of a test_suite ask of its tests.
type tagFilter struct{ need, refuse []string }

func newTagFilter(tags []string) tagFilter {
	var f tagFilter
	for _, t := range tags {
		switch {
		case t == "manual": // is about the suite itself
		case strings.HasPrefix(t, "-"):
			f.refuse = append(f.refuse, t[1:])
		default:
			f.need = append(f.need, strings.TrimPrefix(t, "+"))
		}
	}
	return f
}

func (f tagFilter) admits(t *loader.Target) bool {
	// Bazel counts a test's size among its tags.
	has := func(tag string) bool { return hasTag(t, tag) || t.String("size") == tag }
	for _, tag := range f.need {
		if !has(tag) {
			return false
		}
	}
	for _, tag := range f.refuse {
		if has(tag) {
			return false
		}
	}
	return true
}

func hasTag(t *loader.Target, tag string) bool {
	for _, x := range t.Tags {
		if x == tag {
			return true
		}
	}
	return false
}
