package loader

import (
	"context"
	"fmt"
	"sort"
	"strings"

	"go.starlark.net/starlark"

	"tool/core/model/label"
)

// native is the module through which .star files reach what BUILD files have
// without a load: native.glob, native.genrule, ….
type native struct {
	loader  *Loader
	ctx     context.Context
	library bool // the file belongs to the rule library
}

func (*native) String() string        { return "<native>" }
func (*native) Type() string          { return "native" }
func (*native) Freeze()               {}
func (*native) Truth() starlark.Bool  { return true }
func (*native) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable type: native") }

func (n *native) all() (starlark.StringDict, error) {
	d := n.loader.buildNatives()
	_, prelude, err := n.loader.Module(n.ctx, preludeFile)
	if err != nil {
		return nil, err
	}
	for k, v := range prelude {
		d[k] = v
	}
	return d, nil
}

func (n *native) AttrNames() []string {
	d, err := n.all()
	if err != nil {
		return nil
	}
	return d.Keys()
}

func (n *native) Attr(name string) (starlark.Value, error) {
	if name == "library_file" && n.library {
		return starlark.NewBuiltin(name, n.libraryFile), nil
	}
	if v, ok := n.loader.buildNatives()[name]; ok {
		return v, nil
	}
	d, err := n.all()
	if err != nil {
		return nil, err
	}
	if v, ok := d[name]; ok {
		return v, nil
	}
	return nil, starlark.NoSuchAttrError(fmt.Sprintf("native has no %q", name))
}

// libraryFile gives files of the rule library the content of another one by its
// path in the library: sources of programs that rules compile.
func (n *native) libraryFile(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var name string
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "path", &name); err != nil {
		return nil, err
	}
	data, err := n.loader.readFile(RulesRepo, name)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.Name(), err)
	}
	return starlark.String(data), nil
}

type buildFunc func(ev *eval, thread *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error)

// buildNatives are the functions and engine-made rules of BUILD files.
func (l *Loader) buildNatives() starlark.StringDict {
	d := starlark.StringDict{}
	for name, f := range map[string]buildFunc{
		"package": nativePackage, "exports_files": nativeExports, "glob": nativeGlob, "subpackages": nativeSubpackages,
		"package_group": nativeGroup, "package_name": nativePackageName, "repo_name": nativeRepoName, "repository_name": nativeRepoName,
		"existing_rule": nativeExistingRule, "existing_rules": nativeExistingRules, "package_relative_label": nativeRelative,
		"read_lock": nativeReadLock,
	} {
		d[name] = starlark.NewBuiltin(name, func(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			ev := evalOf(thread)
			if ev.pkg == nil {
				return nil, fmt.Errorf("%s: only possible while a BUILD.star file is loaded", name)
			}
			return f(ev, thread, args, kwargs)
		})
	}
	for n, r := range engineRules {
		d[n] = r
	}
	return d
}

// engineRules are rule classes without an implementation in Starlark: the
// graph itself understands them.
var engineRules = makeEngineRules()

func makeEngineRules() map[string]*RuleClass {
	rule := func(name, doc string, attrs map[string]*Attr) *RuleClass {
		r := &RuleClass{name: name, Doc: doc, Attrs: commonAttrs(), File: label.Label{Repo: RulesRepo, Pkg: "prelude"}}
		for n, a := range attrs {
			r.Attrs[n] = a
		}
		return r
	}
	actual := plain(AttrLabel, "The target that the alias stands for.")
	actual.Mandatory, actual.AllowFiles, actual.Configurable = true, true, true
	noSelect := func(k AttrKind, doc string) *Attr { return &Attr{Kind: k, Doc: doc, AllowEmpty: true} }
	return map[string]*RuleClass{
		"alias": rule("alias", "Another name for a target. Visibility is checked on the alias.", map[string]*Attr{"actual": actual}),
		"config_setting": rule("config_setting", "A condition for select(): true if all its values are those of the configuration.", map[string]*Attr{
			"values":        noSelect(AttrStringDict, "Settings by name: compilation_mode, cpu, os, or define (as KEY=VALUE)."),
			"define_values": noSelect(AttrStringDict, "--define KEY=VALUE settings."),
		}),
		"test_suite": rule("test_suite", "A set of tests; without tests, all of the package that are not tagged manual.", map[string]*Attr{
			"tests": plain(AttrLabelList, "Tests and suites."),
		}),
	}
}

func nativePackage(ev *eval, thread *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	p := ev.pkg
	var vis, meta, features starlark.Value
	err := starlark.UnpackArgs("package", args, kwargs, "default_visibility?", &vis, "default_testonly?", &p.defaultTestOnly,
		"default_deprecation?", &p.defaultDeprecated, "default_package_metadata?", &meta, "features?", &features)
	if err != nil {
		return nil, err
	}
	if p.called {
		return nil, fmt.Errorf("package: it may be called only once")
	}
	if len(p.Targets) > 0 {
		return nil, fmt.Errorf("package: it must come before the first target")
	}
	p.called = true
	if vis != nil {
		it, ok := vis.(starlark.Iterable)
		if !ok {
			return nil, fmt.Errorf("package: default_visibility: got %s, want list", vis.Type())
		}
		list, err := stringList("package: default_visibility", it)
		if err != nil {
			return nil, err
		}
		if p.defaultVisibility, err = parseVisibility(list, p.Label); err != nil {
			return nil, fmt.Errorf("package: default_visibility: %w", err)
		}
	}
	return starlark.None, nil
}

func nativeExports(ev *eval, thread *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var srcs starlark.Iterable
	var vis starlark.Iterable
	var licenses starlark.Value
	if err := starlark.UnpackArgs("exports_files", args, kwargs, "srcs", &srcs, "visibility?", &vis, "licenses?", &licenses); err != nil {
		return nil, err
	}
	names, err := stringList("exports_files", srcs)
	if err != nil {
		return nil, err
	}
	v := []Visibility{{Public: true}}
	if vis != nil {
		list, err := stringList("exports_files: visibility", vis)
		if err != nil {
			return nil, err
		}
		if v, err = parseVisibility(list, ev.pkg.Label); err != nil {
			return nil, err
		}
	}
	for _, n := range names {
		lb, err := label.Parse(n, ev.pkg.Label)
		if err != nil {
			return nil, err
		}
		if lb.Package() != ev.pkg.Label {
			return nil, fmt.Errorf("exports_files: %s is not in this package", lb)
		}
		ev.pkg.exports[lb.Name] = v
	}
	return starlark.None, nil
}

func nativeGroup(ev *eval, thread *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var name string
	var packages, includes starlark.Iterable
	if err := starlark.UnpackArgs("package_group", args, kwargs, "name", &name, "packages?", &packages, "includes?", &includes); err != nil {
		return nil, err
	}
	g := &Group{}
	if packages != nil {
		list, err := stringList("package_group: packages", packages)
		if err != nil {
			return nil, err
		}
		for _, s := range list {
			spec, err := parsePackageSpec(s, ev.pkg.Label)
			if err != nil {
				return nil, fmt.Errorf("package_group: %w", err)
			}
			g.Packages = append(g.Packages, spec)
		}
	}
	if includes != nil {
		list, err := stringList("package_group: includes", includes)
		if err != nil {
			return nil, err
		}
		for _, s := range list {
			lb, err := label.Parse(s, ev.pkg.Label)
			if err != nil {
				return nil, err
			}
			g.Includes = append(g.Includes, lb)
		}
	}
	if err := label.CheckName(name); err != nil {
		return nil, fmt.Errorf("package_group: %w", err)
	}
	t := &Target{Kind: PackageGroup, Package: ev.pkg, Group: g, Visibility: []Visibility{{Public: true}}}
	t.Label = label.Label{Repo: ev.pkg.Label.Repo, Pkg: ev.pkg.Label.Pkg, Name: name}
	t.Pos, t.Generator = ev.callSite(thread)
	if old := ev.pkg.Targets[name]; old != nil {
		return nil, fmt.Errorf("%s %s is already declared at %s", old.KindString(), old.Label, old.Pos)
	}
	ev.pkg.Targets[name] = t
	return starlark.None, nil
}

func nativePackageName(ev *eval, _ *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	return starlark.String(ev.pkg.Label.Pkg), starlark.UnpackArgs("package_name", args, kwargs)
}

func nativeRepoName(ev *eval, _ *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	return starlark.String(ev.pkg.Label.Repo), starlark.UnpackArgs("repo_name", args, kwargs)
}

func nativeRelative(ev *eval, _ *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var v starlark.Value
	if err := starlark.UnpackArgs("package_relative_label", args, kwargs, "input", &v); err != nil {
		return nil, err
	}
	return coerceLabel(v, ev.pkg.Label)
}

func nativeExistingRule(ev *eval, _ *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var name string
	if err := starlark.UnpackArgs("existing_rule", args, kwargs, "name", &name); err != nil {
		return nil, err
	}
	t := ev.pkg.Targets[name]
	if t == nil || t.Kind != RuleTarget {
		return starlark.None, nil
	}
	return ruleDict(t), nil
}

func nativeExistingRules(ev *eval, _ *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	if err := starlark.UnpackArgs("existing_rules", args, kwargs); err != nil {
		return nil, err
	}
	d := starlark.NewDict(len(ev.pkg.Targets))
	for _, n := range ev.pkg.Names() {
		if t := ev.pkg.Targets[n]; t.Kind == RuleTarget {
			_ = d.SetKey(starlark.String(n), ruleDict(t))
		}
	}
	return d, nil
}

func ruleDict(t *Target) *starlark.Dict {
	d := starlark.NewDict(len(t.Attrs) + 2)
	_ = d.SetKey(starlark.String("kind"), starlark.String(t.Rule.Name()))
	names := make([]string, 0, len(t.Attrs))
	for n := range t.Attrs {
		if !strings.HasPrefix(n, "_") {
			names = append(names, n)
		}
	}
	sort.Strings(names)
	for _, n := range names {
		_ = d.SetKey(starlark.String(n), spelled(t.Attrs[n], t.Package.Label))
	}
	return d
}

// spelled turns labels back into strings, as a BUILD file of the package would
// write them: that is what macros compare with.
func spelled(v starlark.Value, pkg label.Label) starlark.Value {
	switch x := v.(type) {
	case Label:
		if x.Package() == pkg {
			return starlark.String(":" + x.Name)
		}
		return starlark.String(x.String())
	case *starlark.List:
		out := make([]starlark.Value, x.Len())
		for i := range out {
			out[i] = spelled(x.Index(i), pkg)
		}
		return starlark.NewList(out)
	case *starlark.Dict:
		out := starlark.NewDict(x.Len())
		for _, it := range x.Items() {
			_ = out.SetKey(spelled(it[0], pkg), spelled(it[1], pkg))
		}
		return out
	case *Select:
		out := &Select{}
		for _, p := range x.Parts {
			np := SelectPart{NoMatch: p.NoMatch}
			if p.Value != nil {
				np.Value = spelled(p.Value, pkg)
			}
			for _, b := range p.Branches {
				b.Value = spelled(b.Value, pkg)
				np.Branches = append(np.Branches, b)
			}
			out.Parts = append(out.Parts, np)
		}
		return out
	}
	return v
}
