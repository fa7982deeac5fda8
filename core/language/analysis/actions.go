package analysis

import (
	"fmt"
	"sort"
	"strings"
	"time"

	"go.starlark.net/starlark"

	"tool/core/language/action"
	"tool/core/language/loader"
	"tool/core/model/label"
)

// actionFactory is ctx.actions.
type actionFactory struct{ c *ruleContext }

var _ starlark.HasAttrs = (*actionFactory)(nil)

func (f *actionFactory) String() string        { return "<actions>" }
func (f *actionFactory) Type() string          { return "actions" }
func (f *actionFactory) Freeze()               {}
func (f *actionFactory) Truth() starlark.Bool  { return true }
func (f *actionFactory) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable type: actions") }

type factoryMethod func(*ruleContext, *starlark.Thread, starlark.Tuple, []starlark.Tuple) (starlark.Value, error)

var factoryMethods = map[string]factoryMethod{
	"args": (*ruleContext).newArgs, "declare_file": (*ruleContext).declareFile, "declare_directory": (*ruleContext).declareDirectory,
	"run": (*ruleContext).run, "run_shell": (*ruleContext).runShell, "write": (*ruleContext).write, "symlink": (*ruleContext).symlink,
	"expand_template": (*ruleContext).expandTemplate, "do_nothing": (*ruleContext).doNothing, "builtin": (*ruleContext).builtin,
}

// AttrNames implements starlark.HasAttrs.
func (f *actionFactory) AttrNames() []string {
	names := make([]string, 0, len(factoryMethods))
	for n := range factoryMethods {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// Attr implements starlark.HasAttrs.
func (f *actionFactory) Attr(name string) (starlark.Value, error) {
	m := factoryMethods[name]
	if m == nil {
		return nil, starlark.NoSuchAttrError(fmt.Sprintf("ctx.actions has no %q", name))
	}
	return starlark.NewBuiltin("ctx.actions."+name, func(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		v, err := m(f.c, thread, args, kwargs)
		if err != nil {
			return nil, fmt.Errorf("ctx.actions.%s: %w", name, err)
		}
		return v, nil
	}), nil
}

func (c *ruleContext) newArgs(_ *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	return &Args{}, starlark.UnpackArgs("args", args, kwargs)
}

func (c *ruleContext) declareFile(_ *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	return c.declareNamed("declare_file", args, kwargs, action.File)
}

func (c *ruleContext) declareDirectory(_ *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	return c.declareNamed("declare_directory", args, kwargs, action.Tree)
}

func (c *ruleContext) declareNamed(fn string, args starlark.Tuple, kwargs []starlark.Tuple, kind action.Kind) (starlark.Value, error) {
	var name string
	var sibling *File
	if err := starlark.UnpackArgs(fn, args, kwargs, "filename", &name, "sibling?", &sibling); err != nil {
		return nil, err
	}
	l := c.loaded.Label
	l.Name = name
	if sibling != nil {
		if i := strings.LastIndexByte(sibling.owner.Name, '/'); i >= 0 {
			l.Name = sibling.owner.Name[:i+1] + name
		}
	}
	if err := label.CheckName(l.Name); err != nil {
		return nil, err
	}
	f, err := c.declare(l, kind)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// newAction registers an action that makes outs.
func (c *ruleContext) newAction(thread *starlark.Thread, act *action.Action, outs []*File, ins []*File) error {
	g := &c.analyzer.Actions
	if len(outs) == 0 {
		return fmt.Errorf("an action needs at least one output")
	}
	act.ID = len(g.Actions)
	act.Owner = c.loaded.Label.String()
	act.Position = c.position(thread)
	for _, o := range outs {
		if o.owner != c.loaded.Label || !strings.HasPrefix(o.Artifact.Path, action.OutPrefix) {
			return fmt.Errorf("%s is not an output of %s: declare it with ctx.actions.declare_file", o.Artifact.Path, c.loaded.Label)
		}
		if p := o.Artifact.Producer; p >= 0 {
			return fmt.Errorf("two actions make %s: the other one is at %s", o.Artifact.Path, g.Actions[p].Position)
		}
	}
	for _, o := range outs {
		o.Artifact.Producer = act.ID
		act.Outputs = append(act.Outputs, o.Artifact.ID)
	}
	seen := map[int]bool{}
	for _, f := range ins {
		if !seen[f.Artifact.ID] {
			seen[f.Artifact.ID] = true
			act.Inputs = append(act.Inputs, f.Artifact.ID)
		}
	}
	for _, o := range act.Outputs {
		if seen[o] {
			return fmt.Errorf("%s is both an input and an output", g.Artifacts[o].Path)
		}
	}
	sort.Slice(act.Inputs, func(i, j int) bool {
		return g.Artifacts[act.Inputs[i]].Path < g.Artifacts[act.Inputs[j]].Path
	})
	sort.Strings(act.Env)
	g.Actions = append(g.Actions, act)
	c.actions = append(c.actions, act.ID)
	return nil
}

// position is where errors of an action point: the call that made it, in the
// user's own rule; for a rule of the library, whose lines mean nothing to who
// only uses it, the target in the BUILD file.
func (c *ruleContext) position(thread *starlark.Thread) string {
	for i := range thread.CallStackDepth() {
		p := thread.CallFrame(i).Pos
		if p.Line > 0 && !strings.HasPrefix(p.Filename(), "@") {
			return fmt.Sprintf("%s:%d:%d", p.Filename(), p.Line, p.Col)
		}
	}
	return c.loaded.Pos
}

// command holds the parameters that run and run_shell share.
type command struct {
	outputs, inputs, tools, arguments starlark.Value
	mnemonic, progress                string
	env                               *starlark.Dict
	root                              starlark.Value
	timeout                           int
	ignored                           starlark.Value
}

func (k *command) pairs() []any {
	return []any{"outputs", &k.outputs, "inputs?", &k.inputs, "tools?", &k.tools, "arguments?", &k.arguments, "mnemonic?", &k.mnemonic,
		"progress_message?", &k.progress, "env?", &k.env, "root?", &k.root, "timeout?", &k.timeout,
		"execution_requirements?", &k.ignored, "use_default_shell_env?", &k.ignored, "input_manifests?", &k.ignored,
		"exec_group?", &k.ignored, "shadowed_action?", &k.ignored, "resource_set?", &k.ignored, "toolchain?", &k.ignored, "unused_inputs_list?", &k.ignored}
}

// SourceDateEpoch is the time that commands are told it is: 1980-01-01, the
// earliest that zip archives can hold, in seconds since 1970.
const SourceDateEpoch = "315532800"

func (c *ruleContext) newCommand(k *command) (act *action.Action, ins, outs []*File, err error) {
	if outs, err = filesOf("outputs", k.outputs); err != nil {
		return nil, nil, nil, err
	}
	if ins, err = filesOf("inputs", k.inputs); err != nil {
		return nil, nil, nil, err
	}
	tools, err := filesOf("tools", k.tools)
	if err != nil {
		return nil, nil, nil, err
	}
	ins = append(ins, tools...)
	act = &action.Action{Mnemonic: k.mnemonic, Progress: c.progress(k.progress, ins, outs), Root: -1, Timeout: time.Duration(k.timeout) * time.Second}
	if act.Mnemonic == "" {
		act.Mnemonic = "Action"
	}
	env := map[string]string{"HOME": "/tmp", "LANG": "C.UTF-8", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "SOURCE_DATE_EPOCH": SourceDateEpoch, "TMPDIR": "/tmp", "TZ": "UTC"}
	root, rootEnv, err := c.root(k.root)
	if err != nil {
		return nil, nil, nil, err
	}
	if root != nil {
		act.Root = root.Artifact.ID
		for key, v := range rootEnv {
			env[key] = v
		}
	}
	if k.env != nil {
		for _, it := range k.env.Items() {
			key, ok1 := starlark.AsString(it[0])
			v, ok2 := starlark.AsString(it[1])
			if !ok1 || !ok2 || key == "" || strings.ContainsAny(key, "=\x00") {
				return nil, nil, nil, fmt.Errorf("env must map names to strings, got %s: %s", it[0], it[1])
			}
			env[key] = v
		}
	}
	for key, v := range env {
		act.Env = append(act.Env, key+"="+v)
	}
	switch a := k.arguments.(type) {
	case nil, starlark.NoneType:
	case starlark.Iterable:
		it := a.Iterate()
		defer it.Done()
		var v starlark.Value
		for it.Next(&v) {
			if args, ok := v.(*Args); ok {
				act.Args = append(act.Args, args.final()...)
				continue
			}
			s, err := word(v)
			if err != nil {
				return nil, nil, nil, fmt.Errorf("arguments: %w", err)
			}
			act.Args = append(act.Args, action.Arg{Text: s})
		}
	default:
		return nil, nil, nil, fmt.Errorf("arguments: got %s, want list", k.arguments.Type())
	}
	return act, ins, outs, nil
}

// progress fills %{label}, %{input} and %{output} in.
func (c *ruleContext) progress(s string, ins, outs []*File) string {
	if !strings.Contains(s, "%{") {
		return s
	}
	first := func(fs []*File) string {
		if len(fs) == 0 {
			return ""
		}
		return fs[0].Artifact.Path
	}
	return strings.NewReplacer("%{label}", c.loaded.Label.String(), "%{input}", first(ins), "%{output}", first(outs)).Replace(s)
}

// root finds the tree that a command sees as its root file system: the one
// given, or the workspace's default environment.
func (c *ruleContext) root(v starlark.Value) (*File, map[string]string, error) {
	switch x := v.(type) {
	case nil, starlark.NoneType:
		env := c.analyzer.Environment
		if env.IsZero() {
			return nil, nil, nil
		}
		t, err := c.analyzer.Analyze(c.ctx, env)
		if err != nil {
			return nil, nil, err
		}
		return environmentOf(t)
	case *Target:
		return environmentOf(x)
	case *File:
		if x.Artifact.Kind != action.Tree {
			return nil, nil, fmt.Errorf("root: %s is a file, want a directory", x.Artifact.Path)
		}
		return x, nil, nil
	}
	return nil, nil, fmt.Errorf("root: got %s, want a directory File or a target with EnvironmentInfo", v.Type())
}

func environmentOf(t *Target) (*File, map[string]string, error) {
	info := t.Providers[loader.EnvironmentInfo]
	if info == nil {
		return nil, nil, fmt.Errorf("%s cannot be the environment of a command: it does not provide EnvironmentInfo", t.Label)
	}
	f, ok := info.Get("root").(*File)
	if !ok {
		return nil, nil, fmt.Errorf("%s: EnvironmentInfo.root is not a File", t.Label)
	}
	env := map[string]string{}
	if d, ok := info.Get("env").(*starlark.Dict); ok {
		for _, it := range d.Items() {
			k, _ := starlark.AsString(it[0])
			env[k], _ = starlark.AsString(it[1])
		}
	}
	return f, env, nil
}

// callable is a path that no one looks up in PATH.
func callable(f *File) string {
	if p := f.Artifact.Path; strings.Contains(p, "/") {
		return p
	}
	return "./" + f.Artifact.Path
}

func (c *ruleContext) run(thread *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var k command
	var exe starlark.Value
	if err := starlark.UnpackArgs("run", args, kwargs, append(k.pairs(), "executable", &exe)...); err != nil {
		return nil, err
	}
	act, ins, outs, err := c.newCommand(&k)
	if err != nil {
		return nil, err
	}
	var program string
	switch x := exe.(type) {
	case starlark.String:
		program = string(x)
	case *File:
		program = callable(x)
		ins = append(ins, x)
		for _, t := range c.deps {
			if t.executable == x {
				ins = append(ins, (&filesToRun{t}).all()...)
			}
		}
	case *filesToRun:
		if x.t.executable == nil {
			return nil, fmt.Errorf("executable: %s is not executable", x.t.Label)
		}
		program = callable(x.t.executable)
		ins = append(ins, x.all()...)
	default:
		return nil, fmt.Errorf("executable: got %s, want File, string or files_to_run", exe.Type())
	}
	if program == "" {
		return nil, fmt.Errorf("executable: it is empty")
	}
	act.Args = append([]action.Arg{{Text: program}}, act.Args...)
	return starlark.None, c.newAction(thread, act, outs, ins)
}

func (c *ruleContext) runShell(thread *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var k command
	var cmd string
	if err := starlark.UnpackArgs("run_shell", args, kwargs, append(k.pairs(), "command", &cmd)...); err != nil {
		return nil, err
	}
	act, ins, outs, err := c.newCommand(&k)
	if err != nil {
		return nil, err
	}
	if act.Root < 0 {
		return nil, fmt.Errorf("there is no shell: give root = a target with EnvironmentInfo, or set build.environment in tool.toml")
	}
	argv := []action.Arg{{Text: "/bin/bash"}, {Text: "-c"}, {Text: cmd}}
	if len(act.Args) > 0 {
		argv = append(argv, action.Arg{Text: ""}) // $0
	}
	act.Args = append(argv, act.Args...)
	return starlark.None, c.newAction(thread, act, outs, ins)
}

func (c *ruleContext) write(thread *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var out *File
	var content starlark.Value
	var executable bool
	var mnemonic string
	var refs starlark.Value
	if err := starlark.UnpackArgs("write", args, kwargs, "output", &out, "content", &content, "is_executable?", &executable, "mnemonic?", &mnemonic, "inputs?", &refs); err != nil {
		return nil, err
	}
	var text string
	switch x := content.(type) {
	case starlark.String:
		text = string(x)
	case *Args:
		var err error
		if text, err = x.lines(); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("content: got %s, want string or Args", content.Type())
	}
	if mnemonic == "" {
		mnemonic = "FileWrite"
	}
	ins, err := filesOf("inputs", refs) // those whose store_path the content holds
	if err != nil {
		return nil, err
	}
	return starlark.None, c.newBuiltin(thread, "write@1", mnemonic, map[string]any{"content": text, "executable": executable}, []*File{out}, ins)
}

func (c *ruleContext) symlink(thread *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var out, target *File
	var targetPath starlark.Value
	var executable bool
	var progress string
	if err := starlark.UnpackArgs("symlink", args, kwargs, "output", &out, "target_file?", &target, "target_path?", &targetPath, "is_executable?", &executable, "progress_message?", &progress); err != nil {
		return nil, err
	}
	if target == nil {
		return nil, fmt.Errorf("target_file is missing (an unresolved target_path is not supported; make a directory that holds the link)")
	}
	if target.Artifact.Kind != out.Artifact.Kind {
		return nil, fmt.Errorf("the output %s is a %s, but %s is a %s", out.Artifact.Path, out.Artifact.Kind, target.Artifact.Path, target.Artifact.Kind)
	}
	// In a content-addressed store a copy costs as little as a link.
	return starlark.None, c.newBuiltin(thread, "copy@1", "Symlink", map[string]any{}, []*File{out}, []*File{target})
}

func (c *ruleContext) expandTemplate(thread *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var out, template *File
	var subst *starlark.Dict
	var executable bool
	var refs, computed starlark.Value
	if err := starlark.UnpackArgs("expand_template", args, kwargs, "output", &out, "template", &template, "substitutions?", &subst, "is_executable?", &executable, "inputs?", &refs, "computed_substitutions?", &computed); err != nil {
		return nil, err
	}
	pairs := map[string]string{}
	if subst != nil {
		for _, it := range subst.Items() {
			k, ok1 := starlark.AsString(it[0])
			v, ok2 := starlark.AsString(it[1])
			if !ok1 || !ok2 || k == "" {
				return nil, fmt.Errorf("substitutions must map non-empty strings to strings, got %s: %s", it[0], it[1])
			}
			pairs[k] = v
		}
	}
	ins, err := filesOf("inputs", refs)
	if err != nil {
		return nil, err
	}
	params := map[string]any{"template": template.Artifact.Path, "substitutions": pairs, "executable": executable}
	return starlark.None, c.newBuiltin(thread, "template@1", "ExpandTemplate", params, []*File{out}, append(ins, template))
}

func (c *ruleContext) doNothing(_ *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var mnemonic string
	var inputs starlark.Value
	return starlark.None, starlark.UnpackArgs("do_nothing", args, kwargs, "mnemonic?", &mnemonic, "inputs?", &inputs)
}
