package loader

import (
	"fmt"

	"go.starlark.net/starlark"
)

// Depset is an immutable set that shares its parts: a list of direct elements
// and the depsets below. Flattening it removes duplicates, first one wins.
type Depset struct {
	direct     []starlark.Value
	transitive []*Depset
	order      string
	elemType   string
}

var _ starlark.HasAttrs = (*Depset)(nil)

// NewDepset makes a depset in the default order.
func NewDepset(direct []starlark.Value, transitive ...*Depset) *Depset {
	d := &Depset{direct: direct, order: "default"}
	for _, t := range transitive {
		if !t.empty() {
			d.transitive = append(d.transitive, t)
		}
	}
	for _, v := range direct {
		d.elemType = v.Type()
	}
	for _, t := range d.transitive {
		d.elemType = t.elemType
	}
	return d
}

func (d *Depset) empty() bool { return len(d.direct) == 0 && len(d.transitive) == 0 }

// String, Type, Freeze, Truth and Hash implement starlark.Value.
func (d *Depset) String() string        { return renderString(d) }
func (d *Depset) Type() string          { return "depset" }
func (d *Depset) Freeze()               {} // elements were frozen when it was made
func (d *Depset) Truth() starlark.Bool  { return starlark.Bool(!d.empty()) }
func (d *Depset) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable type: depset") }

// AttrNames implements starlark.HasAttrs.
func (d *Depset) AttrNames() []string { return []string{"to_list"} }

// Attr implements starlark.HasAttrs.
func (d *Depset) Attr(name string) (starlark.Value, error) {
	if name != "to_list" {
		return nil, nil
	}
	return starlark.NewBuiltin("to_list", func(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		if err := starlark.UnpackArgs("to_list", args, kwargs); err != nil {
			return nil, err
		}
		return starlark.NewList(append([]starlark.Value(nil), d.List()...)), nil
	}), nil
}

// List returns the elements in the depset's order, each once. The caller does
// not change it.
func (d *Depset) List() []starlark.Value {
	seen := make(map[starlark.Value]bool)
	var dict starlark.Dict // for elements that Go cannot compare
	var out []starlark.Value
	add := func(v starlark.Value) {
		switch v.(type) {
		case starlark.String, Label, starlark.Bool, *Struct, starlark.Int:
			if s, ok := v.(*Struct); ok {
				if _, found, err := dict.Get(s); err == nil {
					if found {
						return
					}
					_ = dict.SetKey(s, starlark.None)
					out = append(out, v)
					return
				}
			}
			if i, ok := v.(starlark.Int); ok {
				if _, found, _ := dict.Get(i); found {
					return
				}
				_ = dict.SetKey(i, starlark.None)
				out = append(out, v)
				return
			}
			if seen[v] {
				return
			}
			seen[v] = true
		case starlark.Tuple:
			if _, found, err := dict.Get(v); err != nil || found {
				return
			}
			_ = dict.SetKey(v, starlark.None)
		default:
			if seen[v] {
				return
			}
			seen[v] = true
		}
		out = append(out, v)
	}
	visited := map[*Depset]bool{}
	var pre, post func(d *Depset)
	pre = func(d *Depset) {
		if visited[d] {
			return
		}
		visited[d] = true
		for _, v := range d.direct {
			add(v)
		}
		for _, t := range d.transitive {
			pre(t)
		}
	}
	post = func(d *Depset) {
		if visited[d] {
			return
		}
		visited[d] = true
		for _, t := range d.transitive {
			post(t)
		}
		for _, v := range d.direct {
			add(v)
		}
	}
	switch d.order {
	case "preorder":
		pre(d)
	case "topological": // the reverse of a postorder that visits the last child first
		var order []*Depset
		var visit func(d *Depset)
		visit = func(d *Depset) {
			if visited[d] {
				return
			}
			visited[d] = true
			for i := len(d.transitive) - 1; i >= 0; i-- {
				visit(d.transitive[i])
			}
			order = append(order, d)
		}
		visit(d)
		for i := len(order) - 1; i >= 0; i-- {
			for _, v := range order[i].direct {
				add(v)
			}
		}
	default:
		post(d)
	}
	return out
}

func makeDepset(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var direct, transitive starlark.Value = starlark.None, starlark.None
	order := "default"
	if err := starlark.UnpackArgs("depset", args, kwargs, "direct?", &direct, "order?", &order, "transitive?", &transitive); err != nil {
		return nil, err
	}
	switch order {
	case "default", "postorder", "preorder", "topological":
	default:
		return nil, fmt.Errorf("depset: order %q is none of default, postorder, preorder, topological", order)
	}
	d := &Depset{order: order}
	check := func(t string) error {
		if d.elemType != "" && d.elemType != t {
			return fmt.Errorf("depset: cannot add an element of type %s to a depset of %s", t, d.elemType)
		}
		d.elemType = t
		return nil
	}
	if direct != starlark.None {
		it, ok := direct.(starlark.Iterable)
		if _, isDepset := direct.(*Depset); isDepset || !ok {
			return nil, fmt.Errorf("depset: direct: got %s, want list", direct.Type())
		}
		iter := it.Iterate()
		defer iter.Done()
		var v starlark.Value
		for iter.Next(&v) {
			switch v.(type) {
			case *starlark.List, *starlark.Dict, *starlark.Set:
				return nil, fmt.Errorf("depset: elements must not be mutable values such as %s", v.Type())
			}
			if err := check(v.Type()); err != nil {
				return nil, err
			}
			v.Freeze()
			d.direct = append(d.direct, v)
		}
	}
	if transitive != starlark.None {
		it, ok := transitive.(starlark.Iterable)
		if !ok {
			return nil, fmt.Errorf("depset: transitive: got %s, want list", transitive.Type())
		}
		iter := it.Iterate()
		defer iter.Done()
		var v starlark.Value
		for iter.Next(&v) {
			t, ok := v.(*Depset)
			if !ok {
				return nil, fmt.Errorf("depset: transitive: got an element of type %s, want depset", v.Type())
			}
			if t.order != "default" && order != "default" && t.order != order {
				return nil, fmt.Errorf("depset: order %q is incompatible with a transitive depset's %q", order, t.order)
			}
			if t.empty() {
				continue
			}
			if err := check(t.elemType); err != nil {
				return nil, err
			}
			d.transitive = append(d.transitive, t)
		}
	}
	return d, nil
}
