package loader

import (
	"fmt"
	"sort"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"tool/core/model/label"
)

// Provider is what provider() returns: a constructor and a key.
type Provider struct {
	name   string // set when assigned to a global
	Doc    string
	Fields []string // nil: any
	Docs   map[string]string
	Init   starlark.Callable
	Pos    syntax.Position
	module label.Label // the file being evaluated when it was made: only that may name it
}

// NewProvider returns a provider known to the engine itself.
func NewProvider(name, doc string, fields ...string) *Provider {
	return &Provider{name: name, Doc: doc, Fields: fields}
}

var _ starlark.Callable = (*Provider)(nil)

// Name implements starlark.Callable.
func (p *Provider) Name() string {
	if p.name == "" {
		return "unnamed provider"
	}
	return p.name
}

// String, Type, Freeze, Truth and Hash implement starlark.Value.
func (p *Provider) String() string        { return "<provider " + p.Name() + ">" }
func (p *Provider) Type() string          { return "Provider" }
func (p *Provider) Freeze()               {}
func (p *Provider) Truth() starlark.Bool  { return true }
func (p *Provider) Hash() (uint32, error) { return starlark.String(p.Name()).Hash() }

// CallInternal makes an instance.
func (p *Provider) CallInternal(thread *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	if p.Init != nil {
		v, err := starlark.Call(thread, p.Init, args, kwargs)
		if err != nil {
			return nil, err
		}
		d, ok := v.(*starlark.Dict)
		if !ok {
			return nil, fmt.Errorf("%s: init returned %s, want dict", p.Name(), v.Type())
		}
		args, kwargs = nil, nil
		for _, it := range d.Items() {
			if _, ok := it[0].(starlark.String); !ok {
				return nil, fmt.Errorf("%s: init returned a dict with the key %s, want strings", p.Name(), it[0])
			}
			kwargs = append(kwargs, it)
		}
	}
	return p.instance(args, kwargs)
}

func (p *Provider) instance(args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	if len(args) > 0 {
		return nil, fmt.Errorf("%s: unexpected positional arguments", p.Name())
	}
	for _, kw := range kwargs {
		k := string(kw[0].(starlark.String))
		if p.Fields != nil && !contains(p.Fields, k) {
			return nil, fmt.Errorf("%s has no field %q%s", p.Name(), k, didYouMean(k, p.Fields))
		}
	}
	return newStruct(p, kwargs), nil
}

// New makes an instance from Go; fields not listed are absent.
func (p *Provider) New(fields ...any) *Struct {
	var kwargs []starlark.Tuple
	for i := 0; i < len(fields); i += 2 {
		kwargs = append(kwargs, starlark.Tuple{starlark.String(fields[i].(string)), fields[i+1].(starlark.Value)})
	}
	return newStruct(p, kwargs)
}

// Struct is an immutable record: a struct() if Provider is nil, else an
// instance of the provider.
type Struct struct {
	Provider *Provider
	names    []string // sorted
	values   []starlark.Value
	frozen   bool
}

var (
	_ starlark.HasAttrs   = (*Struct)(nil)
	_ starlark.Comparable = (*Struct)(nil)
	_ starlark.HasBinary  = (*Struct)(nil)
)

func newStruct(p *Provider, kwargs []starlark.Tuple) *Struct {
	s := &Struct{Provider: p, names: make([]string, 0, len(kwargs)), values: make([]starlark.Value, 0, len(kwargs))}
	sort.SliceStable(kwargs, func(i, j int) bool {
		return kwargs[i][0].(starlark.String) < kwargs[j][0].(starlark.String)
	})
	for _, kw := range kwargs {
		s.names = append(s.names, string(kw[0].(starlark.String)))
		s.values = append(s.values, kw[1])
	}
	return s
}

// NewStruct makes a struct() from a map.
func NewStruct(fields map[string]starlark.Value) *Struct {
	kwargs := make([]starlark.Tuple, 0, len(fields))
	for k, v := range fields {
		kwargs = append(kwargs, starlark.Tuple{starlark.String(k), v})
	}
	return newStruct(nil, kwargs)
}

func (s *Struct) typeName() string {
	if s.Provider != nil {
		return s.Provider.Name()
	}
	return "struct"
}

// String, Type, Freeze, Truth and Hash implement starlark.Value.
func (s *Struct) String() string { return renderString(s) }
func (s *Struct) Type() string   { return s.typeName() }
func (s *Struct) Freeze() {
	if s.frozen {
		return
	}
	s.frozen = true
	for _, v := range s.values {
		v.Freeze()
	}
}
func (s *Struct) Truth() starlark.Bool { return true }
func (s *Struct) Hash() (uint32, error) {
	h := uint32(8731)
	for i, n := range s.names {
		nh, _ := starlark.String(n).Hash()
		vh, err := s.values[i].Hash()
		if err != nil {
			return 0, err
		}
		h = h*31 ^ nh ^ vh*1000003
	}
	return h, nil
}

// Attr implements starlark.HasAttrs.
func (s *Struct) Attr(name string) (starlark.Value, error) {
	i := sort.SearchStrings(s.names, name)
	if i < len(s.names) && s.names[i] == name {
		return s.values[i], nil
	}
	if s.Provider != nil && contains(s.Provider.Fields, name) {
		return nil, starlark.NoSuchAttrError(fmt.Sprintf("this %s has no value for the field %q", s.typeName(), name))
	}
	return nil, starlark.NoSuchAttrError(fmt.Sprintf("%s has no field %q", s.typeName(), name))
}

// AttrNames implements starlark.HasAttrs.
func (s *Struct) AttrNames() []string { return s.names }

// Get returns a field's value or nil.
func (s *Struct) Get(name string) starlark.Value {
	v, _ := s.Attr(name)
	return v
}

// CompareSameType implements == and !=.
func (s *Struct) CompareSameType(op syntax.Token, y starlark.Value, depth int) (bool, error) {
	o := y.(*Struct)
	eq := s.Provider == o.Provider && len(s.names) == len(o.names)
	for i := 0; eq && i < len(s.names); i++ {
		if s.names[i] != o.names[i] {
			eq = false
			break
		}
		ok, err := starlark.EqualDepth(s.values[i], o.values[i], depth-1)
		if err != nil {
			return false, err
		}
		eq = ok
	}
	switch op {
	case syntax.EQL:
		return eq, nil
	case syntax.NEQ:
		return !eq, nil
	}
	return false, fmt.Errorf("%s values have no order", s.typeName())
}

// Binary implements struct + struct.
func (s *Struct) Binary(op syntax.Token, y starlark.Value, side starlark.Side) (starlark.Value, error) {
	o, ok := y.(*Struct)
	if !ok || op != syntax.PLUS || side != starlark.Left || s.Provider != o.Provider {
		return nil, nil
	}
	var kwargs []starlark.Tuple
	for i, n := range s.names {
		kwargs = append(kwargs, starlark.Tuple{starlark.String(n), s.values[i]})
	}
	for i, n := range o.names {
		if contains(s.names, n) {
			return nil, fmt.Errorf("both sides have the field %q", n)
		}
		kwargs = append(kwargs, starlark.Tuple{starlark.String(n), o.values[i]})
	}
	return newStruct(s.Provider, kwargs), nil
}

func makeStruct(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	if len(args) > 0 {
		return nil, fmt.Errorf("struct: unexpected positional arguments")
	}
	return newStruct(nil, kwargs), nil
}

func makeProvider(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	p := &Provider{Pos: thread.CallFrame(1).Pos, module: evalOf(thread).file}
	var fields starlark.Value = starlark.None
	var init starlark.Value = starlark.None
	if err := starlark.UnpackArgs("provider", args, kwargs, "doc?", &p.Doc, "fields?", &fields, "init?", &init); err != nil {
		return nil, err
	}
	switch f := fields.(type) {
	case starlark.NoneType:
	case *starlark.Dict:
		p.Docs = map[string]string{}
		p.Fields = []string{}
		for _, it := range f.Items() {
			k, ok1 := starlark.AsString(it[0])
			d, ok2 := starlark.AsString(it[1])
			if !ok1 || !ok2 {
				return nil, fmt.Errorf("provider: fields must map names to doc strings")
			}
			p.Fields = append(p.Fields, k)
			p.Docs[k] = d
		}
	case starlark.Iterable:
		names, err := stringList("provider: fields", f)
		if err != nil {
			return nil, err
		}
		p.Fields = append([]string{}, names...)
	default:
		return nil, fmt.Errorf("provider: fields: got %s, want list or dict", fields.Type())
	}
	sort.Strings(p.Fields)
	if init == starlark.None {
		return p, nil
	}
	fn, ok := init.(starlark.Callable)
	if !ok {
		return nil, fmt.Errorf("provider: init: got %s, want function", init.Type())
	}
	p.Init = fn
	raw := starlark.NewBuiltin("raw constructor", func(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		return p.instance(args, kwargs)
	})
	return starlark.Tuple{p, raw}, nil
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}

func didYouMean(name string, candidates []string) string {
	if n := label.Nearest(name, candidates); n != "" {
		return fmt.Sprintf("; did you mean %q?", n)
	}
	return ""
}

func stringList(what string, it starlark.Iterable) ([]string, error) {
	iter := it.Iterate()
	defer iter.Done()
	var out []string
	var v starlark.Value
	for iter.Next(&v) {
		s, ok := starlark.AsString(v)
		if !ok {
			return nil, fmt.Errorf("%s: got an element of type %s, want string", what, v.Type())
		}
		out = append(out, s)
	}
	return out, nil
}
