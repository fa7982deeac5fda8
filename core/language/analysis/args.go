package analysis

import (
	"fmt"
	"strings"

	"go.starlark.net/starlark"

	"tool/core/language/action"
	"tool/core/language/loader"
)

// Args is ctx.actions.args(): a command line under construction.
type Args struct {
	words     []action.Arg
	frozen    bool
	paramFile string // "@%s"; "" for none
	always    bool
	multiline bool
}

var _ starlark.HasAttrs = (*Args)(nil)

// String, Type, Freeze, Truth and Hash implement starlark.Value.
func (a *Args) String() string        { return "<Args>" }
func (a *Args) Type() string          { return "Args" }
func (a *Args) Freeze()               { a.frozen = true }
func (a *Args) Truth() starlark.Bool  { return true }
func (a *Args) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable type: Args") }

var argsMethods = map[string]func(*Args, *starlark.Thread, starlark.Tuple, []starlark.Tuple) error{
	"add": (*Args).add, "add_all": (*Args).addAll, "add_joined": (*Args).addJoined,
	"use_param_file": (*Args).useParamFile, "set_param_file_format": (*Args).setFormat,
}

// AttrNames implements starlark.HasAttrs.
func (a *Args) AttrNames() []string {
	return []string{"add", "add_all", "add_joined", "set_param_file_format", "use_param_file"}
}

// Attr implements starlark.HasAttrs.
func (a *Args) Attr(name string) (starlark.Value, error) {
	m := argsMethods[name]
	if m == nil {
		return nil, nil
	}
	return starlark.NewBuiltin("Args."+name, func(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		if a.frozen {
			return nil, fmt.Errorf("%s: these Args belong to an action already", b.Name())
		}
		if err := m(a, thread, args, kwargs); err != nil {
			return nil, fmt.Errorf("%s: %w", b.Name(), err)
		}
		return a, nil
	}), nil
}

// final returns the words, as one spilling word if a param file is wanted.
func (a *Args) final() []action.Arg {
	a.frozen = true
	if a.paramFile == "" {
		return a.words
	}
	return []action.Arg{{ParamFile: true, Text: a.paramFile, Always: a.always, Multiline: a.multiline, Params: a.words}}
}

func (a *Args) text(s string) { a.words = append(a.words, action.Arg{Text: s}) }

func checkFormat(f string) error {
	if f == "" {
		return nil
	}
	if strings.Count(strings.ReplaceAll(f, "%%", ""), "%s") != 1 || strings.Count(strings.ReplaceAll(f, "%%", ""), "%") != 1 {
		return fmt.Errorf("format %q must hold %%s exactly once", f)
	}
	return nil
}

func format(f, s string) string {
	if f == "" {
		return s
	}
	parts := strings.Split(f, "%%")
	for i, p := range parts {
		parts[i] = strings.Replace(p, "%s", s, 1)
	}
	return strings.Join(parts, "%")
}

// word renders one value as a word.
func word(v starlark.Value) (string, error) {
	switch x := v.(type) {
	case starlark.String:
		return string(x), nil
	case starlark.Int:
		return x.String(), nil
	case *File:
		return x.Artifact.Path, nil
	case loader.Label:
		return x.Label.String(), nil
	}
	return "", fmt.Errorf("got %s, want string, File, Label or int", v.Type())
}

// nameAndValue splits the (arg_name_or_value, value) convention.
func nameAndValue(args starlark.Tuple) (name string, v starlark.Value, rest starlark.Tuple, err error) {
	switch len(args) {
	case 1:
		return "", args[0], nil, nil
	case 2:
		s, ok := starlark.AsString(args[0])
		if !ok {
			return "", nil, nil, fmt.Errorf("arg_name: got %s, want string", args[0].Type())
		}
		return s, args[1], nil, nil
	}
	return "", nil, nil, fmt.Errorf("want one or two positional arguments, got %d", len(args))
}

func (a *Args) add(_ *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) error {
	name, v, _, err := nameAndValue(args)
	if err != nil {
		return err
	}
	var f string
	if err := starlark.UnpackArgs("add", nil, kwargs, "format?", &f); err != nil {
		return err
	}
	if err := checkFormat(f); err != nil {
		return err
	}
	switch v.(type) {
	case *starlark.List, starlark.Tuple, *loader.Depset:
		return fmt.Errorf("got %s; use add_all or add_joined for sequences", v.Type())
	}
	s, err := word(v)
	if err != nil {
		return err
	}
	if name != "" {
		a.text(name)
	}
	a.text(format(f, s))
	return nil
}

// sequence is what add_all and add_joined share: the pipeline map_each →
// format_each → uniquify over the values, trees left to the execution.
type sequence struct {
	mapEach      starlark.Callable
	formatEach   string
	uniquify     bool
	omitIfEmpty  bool
	expand       bool
	values       starlark.Value
	words        []action.Arg
	seen         map[string]bool
	allowClosure bool
	before       string
}

func (q *sequence) run(thread *starlark.Thread) error {
	if err := checkFormat(q.formatEach); err != nil {
		return err
	}
	q.seen = map[string]bool{}
	var vals []starlark.Value
	switch x := q.values.(type) {
	case *loader.Depset:
		vals = x.List()
	case starlark.Iterable:
		it := x.Iterate()
		defer it.Done()
		var v starlark.Value
		for it.Next(&v) {
			vals = append(vals, v)
		}
	default:
		return fmt.Errorf("values: got %s, want list or depset", q.values.Type())
	}
	for _, v := range vals {
		if err := q.one(thread, v); err != nil {
			return err
		}
	}
	return nil
}

func (q *sequence) one(thread *starlark.Thread, v starlark.Value) error {
	if f, ok := v.(*File); ok && f.Artifact.Kind == action.Tree && q.expand {
		if q.mapEach != nil {
			return fmt.Errorf("map_each cannot see inside the directory %s, which does not exist yet; use expand_directories = False or leave map_each out", f.Artifact.Path)
		}
		q.words = append(q.words, action.Arg{Expand: true, Tree: f.Artifact.ID, Format: q.formatEach, Before: q.before})
		return nil
	}
	vals := []starlark.Value{v}
	if q.mapEach != nil {
		r, err := starlark.Call(thread, q.mapEach, starlark.Tuple{v}, nil)
		if err != nil {
			return err
		}
		switch x := r.(type) {
		case starlark.NoneType:
			return nil
		case *starlark.List:
			vals = nil
			for i := range x.Len() {
				vals = append(vals, x.Index(i))
			}
		case starlark.String:
			vals = []starlark.Value{x}
		default:
			return fmt.Errorf("map_each returned %s, want string, list of strings or None", r.Type())
		}
	}
	for _, v := range vals {
		s, err := word(v)
		if err != nil {
			return err
		}
		s = format(q.formatEach, s)
		if q.uniquify {
			if q.seen[s] {
				continue
			}
			q.seen[s] = true
		}
		q.words = append(q.words, action.Arg{Text: s, Before: q.before})
	}
	return nil
}

func (a *Args) addAll(thread *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) error {
	name, v, _, err := nameAndValue(args)
	if err != nil {
		return err
	}
	q := sequence{values: v, omitIfEmpty: true, expand: true}
	var terminate string
	if err := starlark.UnpackArgs("add_all", nil, kwargs, "map_each?", &q.mapEach, "format_each?", &q.formatEach, "before_each?", &q.before,
		"omit_if_empty?", &q.omitIfEmpty, "uniquify?", &q.uniquify, "expand_directories?", &q.expand, "terminate_with?", &terminate, "allow_closure?", &q.allowClosure); err != nil {
		return err
	}
	if err := q.run(thread); err != nil {
		return err
	}
	if len(q.words) == 0 && q.omitIfEmpty {
		return nil
	}
	if name != "" {
		a.text(name)
	}
	for _, w := range q.words {
		if q.before != "" && !w.Expand {
			a.text(q.before)
			w.Before = ""
		}
		a.words = append(a.words, w)
	}
	if terminate != "" {
		a.text(terminate)
	}
	return nil
}

func (a *Args) addJoined(thread *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) error {
	name, v, _, err := nameAndValue(args)
	if err != nil {
		return err
	}
	q := sequence{values: v, omitIfEmpty: true, expand: true}
	var join, formatJoined string
	if err := starlark.UnpackArgs("add_joined", nil, kwargs, "join_with", &join, "map_each?", &q.mapEach, "format_each?", &q.formatEach,
		"format_joined?", &formatJoined, "omit_if_empty?", &q.omitIfEmpty, "uniquify?", &q.uniquify, "expand_directories?", &q.expand, "allow_closure?", &q.allowClosure); err != nil {
		return err
	}
	if err := checkFormat(formatJoined); err != nil {
		return err
	}
	if err := q.run(thread); err != nil {
		return err
	}
	if len(q.words) == 0 && q.omitIfEmpty {
		return nil
	}
	var texts []string
	for _, w := range q.words {
		if !w.Expand {
			texts = append(texts, w.Text)
			continue
		}
		if len(q.words) > 1 {
			return fmt.Errorf("a directory can be joined only on its own")
		}
		if formatJoined != "" {
			return fmt.Errorf("format_joined is not possible for a directory")
		}
		w.Joined, w.Join = true, join
		if name != "" {
			a.text(name)
		}
		a.words = append(a.words, w)
		return nil
	}
	if name != "" {
		a.text(name)
	}
	a.text(format(formatJoined, strings.Join(texts, join)))
	return nil
}

func (a *Args) useParamFile(_ *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) error {
	if err := starlark.UnpackArgs("use_param_file", args, kwargs, "param_file_arg", &a.paramFile, "use_always?", &a.always); err != nil {
		return err
	}
	return checkFormat(a.paramFile)
}

func (a *Args) setFormat(_ *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) error {
	var f string
	if err := starlark.UnpackArgs("set_param_file_format", args, kwargs, "format", &f); err != nil {
		return err
	}
	switch f {
	case "shell":
		a.multiline = false
	case "multiline":
		a.multiline = true
	default:
		return fmt.Errorf("format %q is none of shell, multiline", f)
	}
	return nil
}

// lines renders the words as a file's content, one a line.
func (a *Args) lines() (string, error) {
	a.frozen = true
	var b strings.Builder
	for _, w := range a.words {
		if w.Expand {
			return "", fmt.Errorf("write: Args with a directory cannot be written: its files are not known yet")
		}
		s := w.Text
		if !a.multiline {
			s = shellQuote(s)
		}
		b.WriteString(s + "\n")
	}
	return b.String(), nil
}

func shellQuote(s string) string {
	if s != "" && strings.IndexFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("@%+=:,./_-{}", r))
	}) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
