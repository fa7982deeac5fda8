package loader

import (
	"fmt"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"tool/core/model/label"
)

// Label is a label as a Starlark value.
type Label struct{ label.Label }

var (
	_ starlark.HasAttrs   = Label{}
	_ starlark.Comparable = Label{}
)

// Type, Freeze, Truth, Hash and String implement starlark.Value.
func (Label) Type() string         { return "Label" }
func (Label) Freeze()              {}
func (Label) Truth() starlark.Bool { return true }
func (l Label) Hash() (uint32, error) {
	return starlark.String(l.Label.String()).Hash()
}

// CompareSameType orders labels as their strings.
func (l Label) CompareSameType(op syntax.Token, y starlark.Value, _ int) (bool, error) {
	c := label.Compare(l.Label, y.(Label).Label)
	switch op {
	case syntax.EQL:
		return c == 0, nil
	case syntax.NEQ:
		return c != 0, nil
	case syntax.LT:
		return c < 0, nil
	case syntax.LE:
		return c <= 0, nil
	case syntax.GT:
		return c > 0, nil
	case syntax.GE:
		return c >= 0, nil
	}
	return false, fmt.Errorf("unsupported comparison of labels")
}

var labelAttrs = []string{"name", "package", "relative", "repo_name", "same_package_label", "workspace_name"}

// AttrNames implements starlark.HasAttrs.
func (Label) AttrNames() []string { return labelAttrs }

// Attr implements starlark.HasAttrs.
func (l Label) Attr(name string) (starlark.Value, error) {
	switch name {
	case "name":
		return starlark.String(l.Name), nil
	case "package":
		return starlark.String(l.Pkg), nil
	case "repo_name", "workspace_name":
		return starlark.String(l.Repo), nil
	case "relative", "same_package_label":
		return starlark.NewBuiltin(name, func(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			var s string
			if err := starlark.UnpackPositionalArgs(b.Name(), args, kwargs, 1, &s); err != nil {
				return nil, err
			}
			r, err := label.Parse(s, l.Label)
			if err != nil {
				return nil, err
			}
			return Label{r}, nil
		}), nil
	}
	return nil, nil
}
