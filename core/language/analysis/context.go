package analysis

import (
	"context"
	"fmt"
	"path"
	"sort"
	"strings"

	"go.starlark.net/starlark"

	"tool/core/language/action"
	"tool/core/language/graph"
	"tool/core/language/loader"
	"tool/core/model/label"
)

const ruleKey = "tool.rule"

// ruleContext is ctx, the argument of a rule's implementation.
type ruleContext struct {
	analyzer *Analyzer
	ctx      context.Context
	loaded   *loader.Target
	actions0 int
	actions  []int
	declared []*File

	attr, file, files, executable, outputs *loader.Struct
	deps                                   map[label.Label]*Target // for expand_location
	byAttr                                 map[string][]*Target
}

var _ starlark.HasAttrs = (*ruleContext)(nil)

func (c *ruleContext) String() string { return "<rule context of " + c.loaded.Label.String() + ">" }
func (c *ruleContext) Type() string   { return "ctx" }
func (c *ruleContext) Freeze()        {}
func (c *ruleContext) Truth() starlark.Bool {
	return true
}
func (c *ruleContext) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable type: ctx") }

var contextAttrs = []string{"actions", "attr", "bin_dir", "build_file_path", "executable", "expand_location", "features", "file", "files", "genfiles_dir",
	"label", "outputs", "runfiles", "var", "workspace_name"}

// AttrNames implements starlark.HasAttrs.
func (c *ruleContext) AttrNames() []string { return contextAttrs }

// Attr implements starlark.HasAttrs.
func (c *ruleContext) Attr(name string) (starlark.Value, error) {
	switch name {
	case "actions":
		return &actionFactory{c}, nil
	case "attr":
		return c.attr, nil
	case "file":
		return c.file, nil
	case "files":
		return c.files, nil
	case "executable":
		return c.executable, nil
	case "outputs":
		return c.outputs, nil
	case "label":
		return loader.Label{Label: c.loaded.Label}, nil
	case "bin_dir", "genfiles_dir":
		return loader.NewStruct(map[string]starlark.Value{"path": starlark.String(strings.TrimSuffix(action.OutPrefix, "/"))}), nil
	case "build_file_path":
		return starlark.String(c.loaded.Package.File), nil
	case "features":
		return starlark.NewList(nil), nil
	case "workspace_name":
		return starlark.String(c.analyzer.Graph.Loader.Workspace.Config.Workspace.Name), nil
	case "var":
		return c.vars(), nil
	case "runfiles":
		return starlark.NewBuiltin("ctx.runfiles", c.makeRunfiles), nil
	case "expand_location":
		return starlark.NewBuiltin("ctx.expand_location", c.expandLocation), nil
	}
	return nil, starlark.NoSuchAttrError(fmt.Sprintf("ctx has no field %q", name))
}

func (c *ruleContext) vars() starlark.Value {
	cfg := c.analyzer.Graph.Config
	d := starlark.NewDict(len(cfg.Define) + 3)
	mode := cfg.CompilationMode
	if mode == "" {
		mode = "fastbuild"
	}
	_ = d.SetKey(starlark.String("COMPILATION_MODE"), starlark.String(mode))
	_ = d.SetKey(starlark.String("TARGET_CPU"), starlark.String(graph.CPU))
	_ = d.SetKey(starlark.String("BINDIR"), starlark.String(strings.TrimSuffix(action.OutPrefix, "/")))
	keys := make([]string, 0, len(cfg.Define))
	for k := range cfg.Define {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		_ = d.SetKey(starlark.String(k), starlark.String(cfg.Define[k]))
	}
	return d
}

// resolve analyses the dependencies and fills attr, file, files, executable
// and outputs.
func (c *ruleContext) resolve() error {
	lt := c.loaded
	attr, file, files, exe, outs := map[string]starlark.Value{}, map[string]starlark.Value{}, map[string]starlark.Value{}, map[string]starlark.Value{}, map[string]starlark.Value{}
	c.deps, c.byAttr = map[label.Label]*Target{}, map[string][]*Target{}
	for _, name := range lt.Rule.AttrNames() {
		a := lt.Rule.Attrs[name]
		v, err := c.analyzer.Graph.Attr(c.ctx, lt, name)
		if err != nil {
			return err
		}
		switch {
		case name == "target_compatible_with" || name == "exec_compatible_with":
			continue
		case a.IsOutput():
			var fs []starlark.Value
			for _, l := range loader.Labels(v) {
				f, err := c.declare(l, action.File)
				if err != nil {
					return &loader.Error{Pos: lt.Pos, Msg: err.Error()}
				}
				fs = append(fs, f)
			}
			if a.Kind == loader.AttrOutput {
				outs[name] = starlark.None
				if len(fs) > 0 {
					outs[name] = fs[0]
				}
			} else {
				outs[name] = starlark.NewList(fs)
			}
			attr[name] = v
		case a.IsLabels():
			tv, err := c.labelAttr(name, a, v)
			if err != nil {
				return err
			}
			attr[name] = tv
			if err := c.fileViews(name, a, file, files, exe); err != nil {
				return err
			}
		default:
			attr[name] = v
		}
	}
	c.attr, c.file, c.files = loader.NewStruct(attr), loader.NewStruct(file), loader.NewStruct(files)
	c.executable, c.outputs = loader.NewStruct(exe), loader.NewStruct(outs)
	for _, s := range []*loader.Struct{c.attr, c.file, c.files, c.executable, c.outputs} {
		s.Freeze()
	}
	return nil
}

func (c *ruleContext) labelAttr(name string, a *loader.Attr, v starlark.Value) (starlark.Value, error) {
	get := func(v starlark.Value) (starlark.Value, error) {
		l, ok := v.(loader.Label)
		if !ok {
			return v, nil // the string of a label-keyed dict, or None
		}
		t, err := c.depend(name, a, l.Label)
		if err != nil {
			return nil, err
		}
		return t, nil
	}
	switch x := v.(type) {
	case *starlark.List:
		out := make([]starlark.Value, 0, x.Len())
		for i := range x.Len() {
			t, err := get(x.Index(i))
			if err != nil {
				return nil, err
			}
			out = append(out, t)
		}
		return starlark.NewList(out), nil
	case *starlark.Dict:
		d := starlark.NewDict(x.Len())
		for _, it := range x.Items() {
			k, err := get(it[0])
			if err != nil {
				return nil, err
			}
			e, err := get(it[1])
			if err != nil {
				return nil, err
			}
			if err := d.SetKey(k, e); err != nil {
				return nil, err
			}
		}
		return d, nil
	}
	return get(v)
}

// depend analyses one dependency and checks it against the attribute.
func (c *ruleContext) depend(name string, a *loader.Attr, l label.Label) (*Target, error) {
	var t *Target
	var err error
	if a.Setting != "" && !c.loaded.Explicit[name] {
		// The workspace chose it for all packages, so it need not be visible
		// from each.
		t, err = c.analyzer.Analyze(c.ctx, l)
	} else {
		t, err = c.analyzer.dep(c.ctx, c.loaded, l)
	}
	if err != nil {
		return nil, err
	}
	bad := func(format string, args ...any) error {
		return &loader.Error{Pos: c.loaded.Pos, Msg: fmt.Sprintf("%s %s: attribute %q: %s %s", c.loaded.Rule.Name(), c.loaded.Label, name, l, fmt.Sprintf(format, args...))}
	}
	isFile := t.Loaded.Kind != loader.RuleTarget
	switch {
	case isFile && !a.AllowFiles:
		return nil, bad("is a file, but only rule targets are allowed here")
	case isFile && a.Extensions != nil:
		if !hasExtension(l.Name, a.Extensions) {
			return nil, bad("does not end in %s", strings.Join(a.Extensions, " or "))
		}
	case !isFile && !t.satisfies(a.Providers):
		return nil, bad("does not provide %s", providerSetNames(a.Providers))
	}
	if !isFile && a.Extensions != nil && a.Providers == nil {
		for _, f := range t.Files() {
			if f.Artifact.Kind == action.File && !hasExtension(f.Artifact.Path, a.Extensions) {
				return nil, bad("makes %s, which does not end in %s", f.Artifact.Path, strings.Join(a.Extensions, " or "))
			}
		}
	}
	if a.Executable && t.executable == nil {
		return nil, bad("is not executable")
	}
	c.deps[l] = t
	c.byAttr[name] = append(c.byAttr[name], t)
	return t, nil
}

func hasExtension(name string, exts []string) bool {
	for _, e := range exts {
		if strings.HasSuffix(name, e) {
			return true
		}
	}
	return false
}

func providerSetNames(sets [][]*loader.Provider) string {
	var alts []string
	for _, s := range sets {
		var names []string
		for _, p := range s {
			names = append(names, p.Name())
		}
		alts = append(alts, strings.Join(names, " and "))
	}
	return strings.Join(alts, ", or ")
}

func (c *ruleContext) fileViews(name string, a *loader.Attr, file, files, exe map[string]starlark.Value) error {
	var all []starlark.Value
	seen := map[*File]bool{}
	for _, t := range c.byAttr[name] {
		for _, f := range t.Files() {
			if !seen[f] {
				seen[f] = true
				all = append(all, f)
			}
		}
	}
	files[name] = starlark.NewList(all)
	if a.SingleFile {
		file[name] = starlark.None
		if len(c.byAttr[name]) > 0 {
			if len(all) != 1 {
				return &loader.Error{Pos: c.loaded.Pos, Msg: fmt.Sprintf("%s %s: attribute %q: %s makes %d files, want exactly one", c.loaded.Rule.Name(), c.loaded.Label, name, c.byAttr[name][0].Label, len(all))}
			}
			file[name] = all[0]
		}
	}
	if a.Executable {
		exe[name] = starlark.None
		if ts := c.byAttr[name]; len(ts) > 0 {
			exe[name] = orNone(ts[0].executable)
		}
	}
	return nil
}

// declare makes an output artifact.
func (c *ruleContext) declare(l label.Label, kind action.Kind) (*File, error) {
	p := pathOf(l, true)
	if old := c.analyzer.files[p]; old != nil {
		return nil, fmt.Errorf("the output %s is declared by %s already", p, old.owner)
	}
	for d := path.Dir(p); d != "." && d != "out"; d = path.Dir(d) {
		if old := c.analyzer.files[d]; old != nil {
			return nil, fmt.Errorf("the output %s lies inside the output %s of %s", p, d, old.owner)
		}
	}
	f := c.analyzer.addFile(c.loaded.Label, &action.Artifact{Path: p, Kind: kind, Owner: c.loaded.Label.String(), Producer: -1})
	c.declared = append(c.declared, f)
	return f, nil
}

// checkOutputs reports declared outputs that no action makes.
func (c *ruleContext) checkOutputs() error {
	for _, f := range c.declared {
		if f.Artifact.Producer < 0 {
			return fmt.Errorf("the output %s was declared, but no action makes it", f.Artifact.Path)
		}
	}
	return nil
}

func (c *ruleContext) makeRunfiles(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var files starlark.Value
	var transitive *loader.Depset
	var symlinks, rootSymlinks starlark.Value
	var collect bool
	if err := starlark.UnpackArgs("runfiles", args, kwargs, "files?", &files, "transitive_files?", &transitive, "collect_default?", &collect,
		"collect_data?", &collect, "symlinks?", &symlinks, "root_symlinks?", &rootSymlinks); err != nil {
		return nil, err
	}
	fs, err := filesOf("runfiles: files", files)
	if err != nil {
		return nil, err
	}
	var sets []*loader.Depset
	if transitive != nil {
		sets = append(sets, transitive)
	}
	return &Runfiles{loader.NewDepset(fileValues(fs), sets...)}, nil
}
