package loader

import (
	"fmt"
	"sort"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"tool/core/model/label"
)

// RuleClass is what rule() returns: a function that makes targets.
type RuleClass struct {
	name       string // set when assigned to a global
	Doc        string
	Impl       starlark.Callable // nil for the engine's own kinds, such as alias
	Attrs      map[string]*Attr
	Executable bool
	Test       bool
	Provides   []*Provider
	Pos        syntax.Position
	File       label.Label // the .star file
	module     label.Label // the file being evaluated when it was made: only that may name it
}

var _ starlark.Callable = (*RuleClass)(nil)

// Name implements starlark.Callable.
func (r *RuleClass) Name() string {
	if r.name == "" {
		return "unnamed rule"
	}
	return r.name
}

// String, Type, Freeze, Truth and Hash implement starlark.Value.
func (r *RuleClass) String() string        { return "<rule " + r.Name() + ">" }
func (r *RuleClass) Type() string          { return "rule" }
func (r *RuleClass) Freeze()               {}
func (r *RuleClass) Truth() starlark.Bool  { return true }
func (r *RuleClass) Hash() (uint32, error) { return starlark.String(r.Name()).Hash() }

// AttrNames returns the names of all attributes, sorted, name first.
func (r *RuleClass) AttrNames() []string {
	names := make([]string, 0, len(r.Attrs))
	for n := range r.Attrs {
		if n != "name" {
			names = append(names, n)
		}
	}
	sort.Strings(names)
	return append([]string{"name"}, names...)
}

func plain(k AttrKind, doc string) *Attr {
	return &Attr{Kind: k, Doc: doc, AllowEmpty: true}
}

// commonAttrs are those that every rule has.
func commonAttrs() map[string]*Attr {
	name := plain(AttrString, "The target's name, unique in its package.")
	name.Mandatory = true
	compatible := plain(AttrLabelList, "Constraints of the platforms the target is for.")
	return map[string]*Attr{
		"name":                   name,
		"visibility":             plain(AttrStringList, "Who may depend on the target; default: package(default_visibility), else private."),
		"tags":                   plain(AttrStringList, "Words that commands and tools go by, such as manual."),
		"testonly":               plain(AttrBool, "Only tests and other testonly targets may depend on it."),
		"deprecation":            plain(AttrString, "A warning for whoever depends on it."),
		"features":               plain(AttrStringList, "Accepted for compatibility."),
		"target_compatible_with": compatible,
		"exec_compatible_with":   compatible,
	}
}

func testAttrs() map[string]*Attr {
	size := plain(AttrString, "How much time and memory the test may take: small, medium, large or enormous.")
	size.Default = starlark.String("medium")
	size.Values = []starlark.Value{starlark.String("small"), starlark.String("medium"), starlark.String("large"), starlark.String("enormous")}
	timeout := plain(AttrString, "short (60 s), moderate (300 s), long (900 s) or eternal (3600 s); default: by size.")
	timeout.Values = []starlark.Value{starlark.String(""), starlark.String("short"), starlark.String("moderate"), starlark.String("long"), starlark.String("eternal")}
	shards := plain(AttrInt, "Accepted for compatibility.")
	return map[string]*Attr{
		"size": size, "timeout": timeout, "shard_count": shards,
		"flaky": plain(AttrBool, "Failed runs are tried again, up to three times."),
		"local": plain(AttrBool, "Accepted for compatibility."),
	}
}

func runAttrs() map[string]*Attr {
	return map[string]*Attr{
		"args": plain(AttrStringList, "Arguments that run and test pass."),
		"env":  plain(AttrStringDict, "Environment that run and test set."),
	}
}

func makeRule(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	r := &RuleClass{Pos: thread.CallFrame(1).Pos, Attrs: commonAttrs()}
	ev := evalOf(thread)
	if ev.pkg != nil && ev.pkg.File == r.Pos.Filename() {
		return nil, fmt.Errorf("rule() may only be called in .star files, not in %s", ev.pkg.File)
	}
	r.File, r.module = ev.here(), ev.file
	var attrs *starlark.Dict
	var provides, toolchains, execGroups, cfg, fragments, outputs starlark.Value
	err := starlark.UnpackArgs("rule", args, kwargs, "implementation", &r.Impl, "attrs?", &attrs, "doc?", &r.Doc,
		"executable?", &r.Executable, "test?", &r.Test, "provides?", &provides, "toolchains?", &toolchains,
		"exec_groups?", &execGroups, "cfg?", &cfg, "fragments?", &fragments, "outputs?", &outputs)
	if err != nil {
		return nil, err
	}
	if l, ok := toolchains.(*starlark.List); ok && l.Len() > 0 {
		return nil, fmt.Errorf("rule: toolchains are given as label attributes here (an implicit _root attribute); toolchain types are not supported")
	}
	if outputs != nil && outputs != starlark.None {
		return nil, fmt.Errorf("rule: outputs is not supported; use attr.output or ctx.actions.declare_file")
	}
	if cfg != nil && cfg != starlark.None {
		return nil, fmt.Errorf("rule: cfg (transitions) is not supported")
	}
	merge := func(m map[string]*Attr) {
		for n, a := range m {
			r.Attrs[n] = a
		}
	}
	if r.Test {
		r.Executable = true
		merge(testAttrs())
	}
	if r.Executable {
		merge(runAttrs())
	}
	if provides != nil && provides != starlark.None {
		sets, err := providerSets("rule", provides)
		if err != nil {
			return nil, err
		}
		for _, s := range sets {
			r.Provides = append(r.Provides, s...)
		}
	}
	if attrs != nil {
		for _, it := range attrs.Items() {
			name, ok := starlark.AsString(it[0])
			a, ok2 := it[1].(*Attr)
			if !ok || !ok2 {
				return nil, fmt.Errorf("rule: attrs maps names to attr.…(), got %s: %s", it[0], it[1].Type())
			}
			if _, common := r.Attrs[name]; common && name != "args" && name != "env" && name != "timeout" {
				return nil, fmt.Errorf("rule: the attribute %q exists on every rule", name)
			}
			if !identifier(name) {
				return nil, fmt.Errorf("rule: %q is not a valid attribute name", name)
			}
			if strings.HasPrefix(name, "_") && a.Default == nil && a.Setting == "" {
				return nil, fmt.Errorf("rule: the private attribute %q needs a default", name)
			}
			r.Attrs[name] = a
		}
	}
	return r, nil
}

func identifier(s string) bool {
	for i, c := range s {
		if !(c == '_' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || i > 0 && c >= '0' && c <= '9') {
			return false
		}
	}
	return s != ""
}

// CallInternal makes a target in the package that is being loaded.
func (r *RuleClass) CallInternal(thread *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	ev := evalOf(thread)
	if ev.pkg == nil {
		return nil, fmt.Errorf("%s: targets can only be made while a %s file is loaded: call this from a function that it calls", r.Name(), "BUILD.star")
	}
	if len(args) > 0 {
		return nil, fmt.Errorf("%s: unexpected positional arguments; give attributes by name", r.Name())
	}
	if r.name == "" {
		return nil, fmt.Errorf("a rule must be assigned to a global variable of its .star file before it is used")
	}
	t := &Target{Kind: RuleTarget, Package: ev.pkg, Rule: r, Attrs: make(map[string]starlark.Value, len(r.Attrs)), Explicit: make(map[string]bool, len(kwargs))}
	t.Pos, t.Generator = ev.callSite(thread)
	var name string
	for _, kw := range kwargs {
		if kw[0].(starlark.String) == "name" {
			s, ok := starlark.AsString(kw[1])
			if !ok {
				return nil, fmt.Errorf("%s: name: got %s, want string", r.Name(), kw[1].Type())
			}
			name = s
		}
	}
	if name == "" {
		return nil, fmt.Errorf("%s: the attribute \"name\" is missing", r.Name())
	}
	if err := label.CheckName(name); err != nil {
		return nil, fmt.Errorf("%s: %w", r.Name(), err)
	}
	if r.Test != strings.HasSuffix(name, "_test") && r.Test {
		return nil, fmt.Errorf("%s: the name of a test must end in _test, got %q", r.Name(), name)
	}
	t.Label = label.Label{Repo: ev.pkg.Label.Repo, Pkg: ev.pkg.Label.Pkg, Name: name}
	for _, kw := range kwargs {
		k := string(kw[0].(starlark.String))
		a := r.Attrs[k]
		if a == nil || strings.HasPrefix(k, "_") {
			return nil, fmt.Errorf("%s %s: there is no attribute %q%s", r.Name(), t.Label, k, didYouMean(k, r.AttrNames()))
		}
		if kw[1] == starlark.None {
			continue
		}
		if (k == "visibility" || k == "tags" || k == "testonly") && kw[1].Type() == "select" {
			return nil, fmt.Errorf("%s %s: %s: select() is not possible here", r.Name(), t.Label, k)
		}
		v, err := a.Coerce(kw[1], ev.pkg.Label)
		if err != nil {
			return nil, fmt.Errorf("%s %s: attribute %q: %w", r.Name(), t.Label, k, err)
		}
		v.Freeze()
		t.Attrs[k], t.Explicit[k] = v, true
	}
	for k, a := range r.Attrs {
		if _, ok := t.Attrs[k]; ok {
			continue
		}
		if a.Mandatory {
			return nil, fmt.Errorf("%s %s: the attribute %q is missing", r.Name(), t.Label, k)
		}
		t.Attrs[k] = a.Zero()
	}
	return starlark.None, ev.pkg.declare(t)
}

// declare adds a rule target and the files its output attributes name.
func (p *Package) declare(t *Target) error {
	if old := p.Targets[t.Label.Name]; old != nil {
		return fmt.Errorf("%s %s is already declared at %s", old.KindString(), old.Label, old.Pos)
	}
	t.Tags = mustStrings(t.Attrs["tags"])
	t.TestOnly = p.defaultTestOnly
	if t.Explicit["testonly"] {
		t.TestOnly = bool(t.Attrs["testonly"].Truth())
	}
	t.Deprecated = p.defaultDeprecated
	if t.Explicit["deprecation"] {
		t.Deprecated = t.String("deprecation")
	}
	t.Visibility = p.defaultVisibility
	if t.Explicit["visibility"] {
		v, err := parseVisibility(mustStrings(t.Attrs["visibility"]), p.Label)
		if err != nil {
			return fmt.Errorf("%s: visibility: %w", t.Label, err)
		}
		t.Visibility = v
	}
	p.Targets[t.Label.Name] = t
	for _, n := range t.Rule.AttrNames() {
		a := t.Rule.Attrs[n]
		if !a.IsOutput() {
			continue
		}
		for _, l := range Labels(t.Attrs[n]) {
			if l.Pkg != p.Label.Pkg || l.Repo != p.Label.Repo {
				return fmt.Errorf("%s: output %s is not in this package", t.Label, l)
			}
			if old := p.Targets[l.Name]; old != nil {
				return fmt.Errorf("%s: output %s clashes with the %s declared at %s", t.Label, l, old.KindString(), old.Pos)
			}
			p.Targets[l.Name] = &Target{Label: l, Kind: GeneratedFile, Package: p, Pos: t.Pos, Visibility: t.Visibility, Made: t, TestOnly: t.TestOnly}
		}
	}
	return nil
}

func mustStrings(v starlark.Value) []string {
	l, ok := v.(*starlark.List)
	if !ok {
		return nil
	}
	out := make([]string, 0, l.Len())
	for i := range l.Len() {
		s, _ := starlark.AsString(l.Index(i))
		out = append(out, s)
	}
	return out
}

// Labels returns every label in a coerced attribute value, in order, those of
// all branches of selects included.
func Labels(v starlark.Value) []label.Label {
	var out []label.Label
	collectLabels(v, func(l label.Label) { out = append(out, l) })
	return out
}

func collectLabels(v starlark.Value, f func(label.Label)) {
	switch x := v.(type) {
	case Label:
		f(x.Label)
	case *starlark.List:
		for i := range x.Len() {
			collectLabels(x.Index(i), f)
		}
	case *starlark.Dict:
		for _, it := range x.Items() {
			collectLabels(it[0], f)
			collectLabels(it[1], f)
		}
	case *Select:
		for _, p := range x.Parts {
			if p.Value != nil {
				collectLabels(p.Value, f)
			}
			for _, b := range p.Branches {
				collectLabels(b.Value, f)
			}
		}
	}
}
