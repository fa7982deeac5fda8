package graph

import (
	"context"
	"fmt"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"tool/core/language/loader"
	"tool/core/model/label"
)

// Attr returns the value of an attribute with its selects resolved.
func (g *Graph) Attr(ctx context.Context, t *loader.Target, name string) (starlark.Value, error) {
	v := t.Attrs[name]
	s, ok := v.(*loader.Select)
	if !ok {
		return v, nil
	}
	fail := func(err error) (starlark.Value, error) {
		return nil, &loader.Error{Pos: t.Pos, Msg: fmt.Sprintf("%s: attribute %q: %v", t.Label, name, err), Err: err}
	}
	var sum starlark.Value
	for _, p := range s.Parts {
		pv := p.Value
		if pv == nil {
			b, err := g.choose(ctx, t, p)
			if err != nil {
				return fail(err)
			}
			pv = b.Value
			if pv == starlark.None {
				pv = t.Rule.Attrs[name].Zero()
			}
		}
		if sum == nil {
			sum = pv
			continue
		}
		op := syntax.PLUS
		if _, isDict := sum.(*starlark.Dict); isDict {
			op = syntax.PIPE
		}
		joined, err := starlark.Binary(op, sum, pv)
		if err != nil {
			return fail(err)
		}
		sum = joined
	}
	sum.Freeze()
	return sum, nil
}

// choose returns the branch whose condition holds: the most specialised one if
// there are several.
func (g *Graph) choose(ctx context.Context, t *loader.Target, p loader.SelectPart) (*loader.Branch, error) {
	type match struct {
		branch *loader.Branch
		conds  map[string]string
	}
	var matches []match
	var def *loader.Branch
	for i := range p.Branches {
		b := &p.Branches[i]
		if b.Default {
			def = b
			continue
		}
		conds, holds, err := g.condition(ctx, t, b.Condition)
		if err != nil {
			return nil, err
		}
		if holds {
			matches = append(matches, match{b, conds})
		}
	}
	if len(matches) == 0 {
		if def != nil {
			return def, nil
		}
		if p.NoMatch != "" {
			return nil, fmt.Errorf("%s", p.NoMatch)
		}
		var names []string
		for _, b := range p.Branches {
			names = append(names, b.Text)
		}
		return nil, fmt.Errorf("no condition of select() holds for %s: tried %s; add a \"//conditions:default\" branch", g.Config, strings.Join(names, ", "))
	}
	for _, m := range matches {
		best := true
		for _, o := range matches {
			// Two names of one condition are no order between them.
			if !superset(m.conds, o.conds) || len(m.conds) == len(o.conds) && !sameValue(m.branch, o.branch) {
				best = false
			}
		}
		if best {
			return m.branch, nil
		}
	}
	for _, m := range matches[1:] { // several unrelated ones are fine if they agree
		if !sameValue(m.branch, matches[0].branch) {
			return nil, fmt.Errorf("select(): both %s and %s hold, and neither is a special case of the other", matches[0].branch.Text, m.branch.Text)
		}
	}
	return matches[0].branch, nil
}

func sameValue(a, b *loader.Branch) bool {
	eq, err := starlark.Equal(a.Value, b.Value)
	return err == nil && eq
}

func superset(a, b map[string]string) bool {
	for k, v := range b {
		if a[k] != v {
			return false
		}
	}
	return true
}

// condition evaluates a config_setting (through aliases).
func (g *Graph) condition(ctx context.Context, from *loader.Target, lb label.Label) (map[string]string, bool, error) {
	c, err := g.Target(ctx, lb)
	if err != nil {
		return nil, false, err
	}
	for i := 0; c.Kind == loader.RuleTarget && c.Rule.Name() == "alias"; i++ {
		if i > 100 {
			return nil, false, fmt.Errorf("%s: too long a chain of aliases", lb)
		}
		if c, err = g.Target(ctx, c.Attrs["actual"].(loader.Label).Label); err != nil {
			return nil, false, err
		}
	}
	if c.Kind != loader.RuleTarget || c.Rule.Name() != "config_setting" {
		return nil, false, fmt.Errorf("select(): %s is a %s, not a config_setting", lb, c.KindString())
	}
	if err := g.CheckVisible(ctx, from, c); err != nil {
		return nil, false, err
	}
	conds := map[string]string{}
	holds := true
	want := func(key, value string, have string) {
		conds[key] = value
		holds = holds && have == value
	}
	for _, it := range c.Attrs["define_values"].(*starlark.Dict).Items() {
		k, _ := starlark.AsString(it[0])
		v, _ := starlark.AsString(it[1])
		want("define "+k, v, g.Config.Define[k])
	}
	for _, it := range c.Attrs["values"].(*starlark.Dict).Items() {
		k, _ := starlark.AsString(it[0])
		v, _ := starlark.AsString(it[1])
		if k == "define" {
			dk, dv, _ := strings.Cut(v, "=")
			want("define "+dk, dv, g.Config.Define[dk])
			continue
		}
		have, err := g.Config.value(k)
		if err != nil {
			return nil, false, &loader.Error{Pos: c.Pos, Msg: fmt.Sprintf("%s: values: %v", lb, err)}
		}
		want(k, v, have)
	}
	if len(conds) == 0 {
		return nil, false, &loader.Error{Pos: c.Pos, Msg: fmt.Sprintf("%s: a config_setting needs values or define_values", lb)}
	}
	return conds, holds, nil
}
