package loader

import (
	"fmt"
	"strings"

	"go.starlark.net/starlark"

	"tool/core/model/label"
)

// AttrKind is the type of a rule's attribute.
type AttrKind string

// The attribute types, as Bazel names them.
const (
	AttrBool         AttrKind = "bool"
	AttrInt          AttrKind = "int"
	AttrIntList      AttrKind = "int_list"
	AttrString       AttrKind = "string"
	AttrStringList   AttrKind = "string_list"
	AttrStringDict   AttrKind = "string_dict"
	AttrStringLists  AttrKind = "string_list_dict"
	AttrLabel        AttrKind = "label"
	AttrLabelList    AttrKind = "label_list"
	AttrLabelStrings AttrKind = "label_keyed_string_dict"
	AttrStringLabels AttrKind = "string_keyed_label_dict"
	AttrOutput       AttrKind = "output"
	AttrOutputList   AttrKind = "output_list"
)

var attrKinds = []AttrKind{AttrBool, AttrInt, AttrIntList, AttrString, AttrStringList, AttrStringDict, AttrStringLists,
	AttrLabel, AttrLabelList, AttrLabelStrings, AttrStringLabels, AttrOutput, AttrOutputList}

// Attr is one attribute of a rule class: what attr.string(...) returns.
type Attr struct {
	Kind         AttrKind
	Default      starlark.Value // coerced; nil means the zero value of Kind
	Doc          string
	Mandatory    bool
	AllowEmpty   bool
	Values       []starlark.Value // allowed values of string and int; nil: any
	AllowFiles   bool
	Extensions   []string // with AllowFiles; nil: any
	SingleFile   bool
	Providers    [][]*Provider // an OR of ANDs
	Executable   bool
	Configurable bool
	Setting      string // the setting that Default is, such as build.environment of tool.toml; "" for none
}

// String, Type, Freeze, Truth and Hash implement starlark.Value.
func (a *Attr) String() string        { return "<attr." + string(a.Kind) + ">" }
func (a *Attr) Type() string          { return "Attribute" }
func (a *Attr) Freeze()               {}
func (a *Attr) Truth() starlark.Bool  { return true }
func (a *Attr) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable type: Attribute") }

// IsLabels reports whether the attribute names other targets.
func (a *Attr) IsLabels() bool {
	switch a.Kind {
	case AttrLabel, AttrLabelList, AttrLabelStrings, AttrStringLabels:
		return true
	}
	return false
}

// IsOutput reports whether the attribute names files that the rule makes.
func (a *Attr) IsOutput() bool { return a.Kind == AttrOutput || a.Kind == AttrOutputList }

type attrModule struct{}

func (attrModule) String() string        { return "<attr>" }
func (attrModule) Type() string          { return "attr" }
func (attrModule) Freeze()               {}
func (attrModule) Truth() starlark.Bool  { return true }
func (attrModule) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable type: attr") }
func (attrModule) AttrNames() []string {
	names := make([]string, len(attrKinds))
	for i, k := range attrKinds {
		names[i] = string(k)
	}
	return names
}
func (m attrModule) Attr(name string) (starlark.Value, error) {
	if !contains(m.AttrNames(), name) {
		return nil, starlark.NoSuchAttrError(fmt.Sprintf("attr has no %q", name))
	}
	return starlark.NewBuiltin("attr."+name, makeAttr), nil
}

func makeAttr(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	a := &Attr{Kind: AttrKind(strings.TrimPrefix(b.Name(), "attr.")), AllowEmpty: true, Configurable: true}
	var def, values, allowFiles, singleFile, providers, cfg, configurable, aspects, flags starlark.Value
	allowRules := starlark.Value(starlark.None)
	err := starlark.UnpackArgs(b.Name(), args, kwargs, "default?", &def, "doc?", &a.Doc, "mandatory?", &a.Mandatory,
		"values?", &values, "allow_files?", &allowFiles, "allow_single_file?", &singleFile, "providers?", &providers,
		"executable?", &a.Executable, "cfg?", &cfg, "allow_empty?", &a.AllowEmpty, "configurable?", &configurable,
		"allow_rules?", &allowRules, "aspects?", &aspects, "flags?", &flags)
	if err != nil {
		return nil, err
	}
	if l, ok := aspects.(*starlark.List); ok && l.Len() > 0 {
		return nil, fmt.Errorf("%s: aspects are not supported", b.Name())
	}
	if a.Executable && cfg == nil {
		return nil, fmt.Errorf("%s: executable = True needs cfg = \"exec\" or \"target\"", b.Name())
	}
	if v, ok := configurable.(starlark.Bool); ok {
		a.Configurable = bool(v)
	}
	if (allowFiles != nil || singleFile != nil || providers != nil) && !a.IsLabels() {
		return nil, fmt.Errorf("%s: allow_files, allow_single_file and providers are for label attributes", b.Name())
	}
	if allowFiles != nil && singleFile != nil {
		return nil, fmt.Errorf("%s: allow_files and allow_single_file exclude each other", b.Name())
	}
	files := allowFiles
	if singleFile != nil {
		a.SingleFile, files = true, singleFile
	}
	switch f := files.(type) {
	case nil, starlark.NoneType:
	case starlark.Bool:
		a.AllowFiles = bool(f)
	case starlark.Iterable:
		if a.Extensions, err = stringList(b.Name()+": allow_files", f); err != nil {
			return nil, err
		}
		a.AllowFiles = true
	default:
		return nil, fmt.Errorf("%s: allow_files: got %s, want bool or list of extensions", b.Name(), files.Type())
	}
	if values != nil && values != starlark.None {
		it, ok := values.(starlark.Iterable)
		if !ok {
			return nil, fmt.Errorf("%s: values: got %s, want list", b.Name(), values.Type())
		}
		iter := it.Iterate()
		defer iter.Done()
		var v starlark.Value
		for iter.Next(&v) {
			a.Values = append(a.Values, v)
		}
	}
	if providers != nil {
		if a.Providers, err = providerSets(b.Name(), providers); err != nil {
			return nil, err
		}
	}
	if s, ok := def.(*setting); ok {
		if def, err = s.defaultOf(a); err != nil {
			return nil, fmt.Errorf("%s: default: %w", b.Name(), err)
		}
	}
	if def != nil && def != starlark.None {
		if a.Default, err = a.Coerce(def, evalOf(thread).here()); err != nil {
			return nil, fmt.Errorf("%s: default: %w", b.Name(), err)
		}
		a.Default.Freeze()
	}
	return a, nil
}

func providerSets(what string, v starlark.Value) ([][]*Provider, error) {
	list, ok := v.(starlark.Indexable)
	if !ok {
		return nil, fmt.Errorf("%s: providers: got %s, want list", what, v.Type())
	}
	var flat []*Provider
	var sets [][]*Provider
	for i := range list.Len() {
		switch e := list.Index(i).(type) {
		case *Provider:
			flat = append(flat, e)
		case starlark.Indexable:
			var set []*Provider
			for j := range e.Len() {
				p, ok := e.Index(j).(*Provider)
				if !ok {
					return nil, fmt.Errorf("%s: providers: got %s, want provider", what, e.Index(j).Type())
				}
				set = append(set, p)
			}
			sets = append(sets, set)
		default:
			return nil, fmt.Errorf("%s: providers: got %s, want provider", what, e.Type())
		}
	}
	if flat != nil {
		sets = append(sets, flat)
	}
	return sets, nil
}

// Zero is the value of an attribute that nobody set.
func (a *Attr) Zero() starlark.Value {
	if a.Default != nil {
		return a.Default
	}
	switch a.Kind {
	case AttrBool:
		return starlark.False
	case AttrInt:
		return starlark.MakeInt(0)
	case AttrString:
		return starlark.String("")
	case AttrIntList, AttrStringList, AttrLabelList, AttrOutputList:
		l := starlark.NewList(nil)
		l.Freeze()
		return l
	case AttrStringDict, AttrStringLists, AttrLabelStrings, AttrStringLabels:
		d := starlark.NewDict(0)
		d.Freeze()
		return d
	}
	return starlark.None
}

// Coerce checks v against the attribute's type and returns it with labels
// parsed relative to the package in. Selects are coerced branch by branch.
func (a *Attr) Coerce(v starlark.Value, in label.Label) (starlark.Value, error) {
	sel, ok := v.(*Select)
	if !ok {
		return a.coercePlain(v, in)
	}
	if !a.Configurable || a.IsOutput() {
		return nil, fmt.Errorf("select() is not possible here")
	}
	out := &Select{}
	for _, p := range sel.Parts {
		np := SelectPart{NoMatch: p.NoMatch}
		if p.Value != nil {
			c, err := a.coercePlain(p.Value, in)
			if err != nil {
				return nil, err
			}
			np.Value = c
		}
		for _, b := range p.Branches {
			if !b.Default {
				l, err := label.Parse(b.Text, in)
				if err != nil {
					return nil, fmt.Errorf("select: %w", err)
				}
				b.Condition = l
			}
			if b.Value != starlark.None {
				c, err := a.coercePlain(b.Value, in)
				if err != nil {
					return nil, fmt.Errorf("select: %q: %w", b.Text, err)
				}
				b.Value = c
			}
			np.Branches = append(np.Branches, b)
		}
		out.Parts = append(out.Parts, np)
	}
	return out, nil
}

func (a *Attr) coercePlain(v starlark.Value, in label.Label) (starlark.Value, error) {
	want := func(t string) error { return fmt.Errorf("got %s, want %s", describe(v), t) }
	switch a.Kind {
	case AttrBool:
		switch b := v.(type) {
		case starlark.Bool:
			return b, nil
		case starlark.Int:
			if n, ok := b.Int64(); ok && (n == 0 || n == 1) {
				return starlark.Bool(n == 1), nil
			}
		}
		return nil, want("bool")
	case AttrInt:
		if _, ok := v.(starlark.Int); !ok {
			return nil, want("int")
		}
		return v, a.checkValue(v)
	case AttrString:
		if _, ok := v.(starlark.String); !ok {
			return nil, want("string")
		}
		return v, a.checkValue(v)
	case AttrLabel, AttrOutput:
		return coerceLabel(v, in)
	case AttrIntList:
		return a.coerceList(v, "list of ints", func(e starlark.Value) (starlark.Value, error) {
			if _, ok := e.(starlark.Int); !ok {
				return nil, fmt.Errorf("got an element of type %s, want int", e.Type())
			}
			return e, nil
		})
	case AttrStringList:
		return a.coerceList(v, "list of strings", coerceString)
	case AttrLabelList, AttrOutputList:
		seen := map[label.Label]bool{}
		return a.coerceList(v, "list of labels", func(e starlark.Value) (starlark.Value, error) {
			l, err := coerceLabel(e, in)
			if err != nil {
				return nil, err
			}
			if seen[l.Label] {
				return nil, fmt.Errorf("label %s appears twice", l.Label)
			}
			seen[l.Label] = true
			return l, nil
		})
	case AttrStringDict:
		return a.coerceDict(v, "dict of strings to strings", coerceString, coerceString)
	case AttrStringLists:
		lists := &Attr{Kind: AttrStringList, AllowEmpty: true}
		return a.coerceDict(v, "dict of strings to lists of strings", coerceString, func(e starlark.Value) (starlark.Value, error) {
			return lists.coercePlain(e, in)
		})
	case AttrLabelStrings:
		return a.coerceDict(v, "dict of labels to strings", func(e starlark.Value) (starlark.Value, error) { return coerceLabel(e, in) }, coerceString)
	case AttrStringLabels:
		return a.coerceDict(v, "dict of strings to labels", coerceString, func(e starlark.Value) (starlark.Value, error) { return coerceLabel(e, in) })
	}
	return nil, fmt.Errorf("attribute of unknown type %s", a.Kind)
}

func (a *Attr) checkValue(v starlark.Value) error {
	if a.Values == nil {
		return nil
	}
	var names, plain []string
	for _, w := range a.Values {
		if eq, _ := starlark.Equal(v, w); eq {
			return nil
		}
		names = append(names, w.String())
		if s, ok := starlark.AsString(w); ok {
			plain = append(plain, s)
		}
	}
	s, _ := starlark.AsString(v)
	return fmt.Errorf("got %s, want one of %s%s", v, strings.Join(names, ", "), didYouMean(s, plain))
}

func (a *Attr) coerceList(v starlark.Value, what string, elem func(starlark.Value) (starlark.Value, error)) (starlark.Value, error) {
	it, ok := v.(starlark.Iterable)
	if _, isDict := v.(*starlark.Dict); !ok || isDict {
		return nil, fmt.Errorf("got %s, want %s", describe(v), what)
	}
	iter := it.Iterate()
	defer iter.Done()
	var out []starlark.Value
	var e starlark.Value
	for iter.Next(&e) {
		c, err := elem(e)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	if len(out) == 0 && !a.AllowEmpty {
		return nil, fmt.Errorf("it must not be empty")
	}
	l := starlark.NewList(out)
	l.Freeze()
	return l, nil
}

func (a *Attr) coerceDict(v starlark.Value, what string, key, value func(starlark.Value) (starlark.Value, error)) (starlark.Value, error) {
	d, ok := v.(*starlark.Dict)
	if !ok {
		return nil, fmt.Errorf("got %s, want %s", describe(v), what)
	}
	out := starlark.NewDict(d.Len())
	for _, it := range d.Items() {
		k, err := key(it[0])
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", it[0], err)
		}
		e, err := value(it[1])
		if err != nil {
			return nil, fmt.Errorf("value of key %s: %w", it[0], err)
		}
		if _, twice, _ := out.Get(k); twice {
			return nil, fmt.Errorf("label %s appears twice", k)
		}
		if err := out.SetKey(k, e); err != nil {
			return nil, err
		}
	}
	if out.Len() == 0 && !a.AllowEmpty {
		return nil, fmt.Errorf("it must not be empty")
	}
	out.Freeze()
	return out, nil
}

func coerceString(v starlark.Value) (starlark.Value, error) {
	if _, ok := v.(starlark.String); !ok {
		return nil, fmt.Errorf("got an element of type %s, want string", v.Type())
	}
	return v, nil
}

func coerceLabel(v starlark.Value, in label.Label) (Label, error) {
	switch x := v.(type) {
	case Label:
		return x, nil
	case starlark.String:
		l, err := label.Parse(string(x), in)
		return Label{l}, err
	}
	return Label{}, fmt.Errorf("got %s, want a label", describe(v))
}

func describe(v starlark.Value) string {
	s := v.String()
	if len(s) > 60 {
		s = strings.ToValidUTF8(s[:57], "") + "…"
	}
	return v.Type() + " " + s
}
