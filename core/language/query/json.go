package query

import (
	"bufio"
	"encoding/json"
	"slices"

	"go.starlark.net/starlark"

	"tool/core/language/loader"
	"tool/core/model/label"
)

// targetJSON is one element of the json output.
type targetJSON struct {
	Label      string         `json:"label"`
	Kind       string         `json:"kind"` // as kind() matches it
	Rule       string         `json:"rule,omitempty"`
	Location   string         `json:"location"`
	Generator  string         `json:"generator_function,omitempty"`
	MadeBy     string         `json:"made_by,omitempty"` // of a generated file
	Visibility []string       `json:"visibility"`
	Tags       []string       `json:"tags,omitempty"`
	TestOnly   bool           `json:"testonly,omitempty"`
	Attributes map[string]any `json:"attributes,omitempty"` // those that the BUILD file gives
	Deps       []string       `json:"deps"`                 // direct ones, sorted
}

// writeJSON prints an array with one target a line.
func (r *Result) writeJSON(w *bufio.Writer, _ OutputOptions) error {
	if len(r.Targets) == 0 {
		_, err := w.WriteString("[]\n")
		return err
	}
	for i, t := range r.Targets {
		sep := ",\n"
		if i == 0 {
			sep = "[\n"
		}
		if _, err := w.WriteString(sep); err != nil {
			return err
		}
		b, err := json.Marshal(r.asJSON(t))
		if err != nil {
			return err
		}
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	_, err := w.WriteString("\n]\n")
	return err
}

func (r *Result) asJSON(t *loader.Target) *targetJSON {
	o := &targetJSON{
		Label: t.Label.String(), Kind: t.KindString(), Location: Location(t), Generator: t.Generator,
		Visibility: visibilityTexts(t.Visibility), Tags: t.Tags, TestOnly: t.TestOnly, Deps: []string{},
	}
	if t.Made != nil {
		o.MadeBy = t.Made.Label.String()
	}
	if t.Kind == loader.RuleTarget {
		o.Rule = t.Rule.Name()
		o.Attributes = map[string]any{}
		for n := range t.Explicit {
			o.Attributes[n] = jsonValue(t.Attrs[n])
		}
		o.Attributes["name"] = t.Label.Name
	}
	var deps []label.Label
	for _, e := range r.world.plainEdges(t) {
		deps = append(deps, e.Label)
	}
	slices.SortFunc(deps, label.Compare)
	for _, l := range slices.Compact(deps) {
		o.Deps = append(o.Deps, l.String())
	}
	return o
}

// jsonValue renders an attribute: labels as strings, a select as
// {"select": [part…]}, whose parts are values or {"branches": {condition: value}}.
func jsonValue(v starlark.Value) any {
	switch v := v.(type) {
	case starlark.String:
		return string(v)
	case starlark.Bool:
		return bool(v)
	case starlark.Int:
		return json.Number(v.String())
	case loader.Label:
		return v.Label.String()
	case *starlark.List:
		out := make([]any, v.Len())
		for i := range out {
			out[i] = jsonValue(v.Index(i))
		}
		return out
	case *starlark.Dict:
		out := make(map[string]any, v.Len())
		for _, it := range v.Items() {
			out[scalarText(it[0])] = jsonValue(it[1])
		}
		return out
	case *loader.Select:
		var parts []any
		for _, p := range v.Parts {
			if p.Value != nil {
				parts = append(parts, jsonValue(p.Value))
				continue
			}
			branches := map[string]any{}
			for _, b := range p.Branches {
				branches[condition(b)] = jsonValue(b.Value)
			}
			parts = append(parts, map[string]any{"branches": branches})
		}
		return map[string]any{"select": parts}
	}
	return nil
}
