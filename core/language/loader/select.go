package loader

import (
	"fmt"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"tool/core/model/label"
)

// Select is what select() returns, possibly concatenated with plain values:
// the parts are joined with + once the configuration is known.
type Select struct {
	Parts []SelectPart
}

// SelectPart is a plain Value, or Branches keyed by condition.
type SelectPart struct {
	Value    starlark.Value
	Branches []Branch
	NoMatch  string // no_match_error
}

// Branch is one entry of a select's dict. Default is //conditions:default.
type Branch struct {
	Text      string // as written; resolved into Condition when the rule is made
	Condition label.Label
	Default   bool
	Value     starlark.Value
}

const defaultCondition = "//conditions:default"

var _ starlark.HasBinary = (*Select)(nil)

// String, Type, Freeze, Truth and Hash implement starlark.Value.
func (s *Select) String() string { return renderString(s) }
func (s *Select) Type() string   { return "select" }
func (s *Select) Freeze() {
	for _, p := range s.Parts {
		if p.Value != nil {
			p.Value.Freeze()
		}
		for _, b := range p.Branches {
			b.Value.Freeze()
		}
	}
}
func (s *Select) Truth() starlark.Bool  { return true }
func (s *Select) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable type: select") }

// Binary concatenates with + (and | for dicts).
func (s *Select) Binary(op syntax.Token, y starlark.Value, side starlark.Side) (starlark.Value, error) {
	if op != syntax.PLUS && op != syntax.PIPE {
		return nil, nil
	}
	other := []SelectPart{{Value: y}}
	if o, ok := y.(*Select); ok {
		other = o.Parts
	}
	if side == starlark.Left {
		return &Select{Parts: append(append([]SelectPart(nil), s.Parts...), other...)}, nil
	}
	return &Select{Parts: append(append([]SelectPart(nil), other...), s.Parts...)}, nil
}

func makeSelect(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var d *starlark.Dict
	part := SelectPart{}
	if err := starlark.UnpackArgs("select", args, kwargs, "x", &d, "no_match_error?", &part.NoMatch); err != nil {
		return nil, err
	}
	if d.Len() == 0 {
		return nil, fmt.Errorf("select: an empty dict can never match")
	}
	for _, it := range d.Items() {
		var text string
		switch k := it[0].(type) {
		case starlark.String:
			text = string(k)
		case Label:
			text = k.Label.String()
		default:
			return nil, fmt.Errorf("select: keys are labels, got %s", it[0].Type())
		}
		part.Branches = append(part.Branches, Branch{Text: text, Default: text == defaultCondition, Value: it[1]})
	}
	return &Select{Parts: []SelectPart{part}}, nil
}
