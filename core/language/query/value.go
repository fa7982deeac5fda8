package query

import (
	"strings"

	"go.starlark.net/starlark"

	"tool/core/language/loader"
)

// maxCombinations bounds how many values of one attribute attr() looks at:
// several selects multiply.
const maxCombinations = 256

// attrTexts renders the values that an attribute may have, one for each way
// its selects can turn out. It returns nil for what is not a rule or has no
// such attribute or no value.
func attrTexts(t *loader.Target, name string) []string {
	if t.Kind != loader.RuleTarget {
		return nil
	}
	// What package() and macros have set counts too.
	switch name {
	case "generator_function":
		return []string{t.Generator}
	case "testonly":
		return []string{boolText(t.TestOnly)}
	case "deprecation":
		return []string{t.Deprecated}
	case "visibility":
		return []string{"[" + strings.Join(visibilityTexts(t.Visibility), ", ") + "]"}
	}
	v := t.Attrs[name]
	if v == nil {
		return nil
	}
	var out []string
	for _, parts := range combinations(v, t.Rule.Attrs[name].Zero()) {
		if s, ok := attrText(parts); ok {
			out = append(out, s)
		}
	}
	return out
}

// combinations lists the values of v as parts to be concatenated. If there
// would be too many, all branches count as one value.
func combinations(v, zero starlark.Value) [][]starlark.Value {
	s, ok := v.(*loader.Select)
	if !ok {
		return [][]starlark.Value{{v}}
	}
	out := [][]starlark.Value{nil}
	for _, p := range s.Parts {
		options := []starlark.Value{p.Value}
		if p.Value == nil {
			options = options[:0]
			for _, b := range p.Branches {
				bv := b.Value
				if bv == starlark.None {
					bv = zero
				}
				options = append(options, bv)
			}
		}
		if len(out)*len(options) > maxCombinations {
			for i := range out {
				out[i] = append(out[i][:len(out[i]):len(out[i])], options...)
			}
			continue
		}
		var next [][]starlark.Value
		for _, o := range out {
			for _, v := range options {
				next = append(next, append(o[:len(o):len(o)], v))
			}
		}
		out = next
	}
	return out
}

// attrText renders a concatenation as attr() matches it: booleans as 1 and 0,
// lists as [a, b], dicts as {k=v}. None has no text.
func attrText(parts []starlark.Value) (string, bool) {
	switch parts[0].(type) {
	case *starlark.List:
		return "[" + strings.Join(elements(parts), ", ") + "]", true
	case *starlark.Dict:
		return "{" + strings.Join(elements(parts), ", ") + "}", true
	}
	var b strings.Builder
	for _, p := range parts {
		if p == starlark.None {
			return "", false
		}
		b.WriteString(scalarText(p))
	}
	return b.String(), true
}

func elements(parts []starlark.Value) []string {
	var out []string
	for _, p := range parts {
		switch p := p.(type) {
		case *starlark.List:
			for i := range p.Len() {
				out = append(out, scalarText(p.Index(i)))
			}
		case *starlark.Dict:
			for _, it := range p.Items() {
				out = append(out, scalarText(it[0])+"="+scalarText(it[1]))
			}
		}
	}
	return out
}

func scalarText(v starlark.Value) string {
	switch v := v.(type) {
	case starlark.String:
		return string(v)
	case starlark.Bool:
		return boolText(bool(v))
	case loader.Label:
		return v.Label.String()
	case *starlark.List:
		s, _ := attrText([]starlark.Value{v})
		return s
	}
	return v.String()
}

func boolText(b bool) string {
	if b {
		return "1"
	}
	return "0"
}

// visibilityTexts writes a visibility as a BUILD file does.
func visibilityTexts(vs []loader.Visibility) []string {
	out := make([]string, 0, len(vs))
	for _, v := range vs {
		switch {
		case v.Public:
			out = append(out, "//visibility:public")
		case v.Private:
			out = append(out, "//visibility:private")
		case !v.Group.IsZero():
			out = append(out, v.Group.String())
		case v.Tree:
			out = append(out, v.Package.PackageString()+":__subpackages__")
		default:
			out = append(out, v.Package.PackageString()+":__pkg__")
		}
	}
	return out
}
