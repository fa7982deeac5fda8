// Package loader is Bazel's loading phase: it evaluates BUILD.star and .star
// files, each once, in parallel, with cycles named, into packages of targets.
// It reads files and runs Starlark; it resolves no select and runs no rule.
package loader

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sort"
	"strings"
	"sync"

	starjson "go.starlark.net/lib/json"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"tool/core/language/workspace"
	"tool/core/model/event"
	"tool/core/model/label"
)

// RulesRepo is the repository name of the embedded rule library.
const RulesRepo = "rules"

// preludeFile defines the rules that BUILD files see without a load.
var preludeFile = label.Label{Repo: RulesRepo, Pkg: "prelude", Name: "prelude.star"}

// Loader loads packages and .star files and keeps them. It is safe for
// concurrent use. Set the fields before the first call.
type Loader struct {
	Workspace *workspace.Workspace
	Rules     fs.FS // the embedded rule library, @rules
	Events    event.Sink
	MaxSteps  uint64 // per file; 0: DefaultMaxSteps

	mu       sync.Mutex
	modules  map[label.Label]*moduleEntry
	packages map[label.Label]*packageEntry
	files    map[string]label.Label // file name in positions → its label
}

// module is an evaluated .star file.
type module struct {
	label   label.Label
	doc     string
	globals starlark.StringDict
	loads   []label.Label // direct
}

type moduleEntry struct {
	label    label.Label
	done     chan struct{}
	module   *module
	err      error
	waitsFor *moduleEntry // while it is being evaluated
}

type packageEntry struct {
	done chan struct{}
	pkg  *Package
	err  error
}

// New returns an empty Loader.
func New(w *workspace.Workspace, rules fs.FS, events event.Sink) *Loader {
	return &Loader{
		Workspace: w, Rules: rules, Events: events, MaxSteps: w.Config.Starlark.MaxSteps,
		modules: map[label.Label]*moduleEntry{}, packages: map[label.Label]*packageEntry{}, files: map[string]label.Label{},
	}
}

var fileOptions = &syntax.FileOptions{Set: true}

// NoPackageError says that there is no BUILD file for a package.
type NoPackageError struct {
	Package label.Label
	Hint    string
}

func (e *NoPackageError) Error() string {
	return fmt.Sprintf("no package %s: there is no %s in it%s", e.Package.PackageString(), workspace.BuildFile, e.Hint)
}

// PackageDir returns the folder of a package, relative to its repository.
func (l *Loader) PackageDir(pkg label.Label) (string, bool) {
	switch pkg.Repo {
	case "":
		return l.Workspace.PackageDir(pkg.Pkg)
	case RulesRepo:
		dir := pkg.Pkg
		if dir == "" {
			dir = "."
		}
		fi, err := fs.Stat(l.Rules, path.Join(dir, workspace.BuildFile))
		return dir, err == nil && fi.Mode().IsRegular()
	}
	return "", false
}

// displayName is how positions name a file of a repository.
func displayName(repo, file string) string {
	if repo != "" {
		return "@" + repo + "//" + file
	}
	return file
}

func (l *Loader) readFile(repo, file string) ([]byte, error) {
	switch repo {
	case "":
		return l.Workspace.ReadFile(file)
	case RulesRepo:
		b, err := fs.ReadFile(l.Rules, file)
		if err != nil {
			return nil, fmt.Errorf("@rules//%s: there is no such file in the rule library", file)
		}
		return b, nil
	}
	return nil, fmt.Errorf("there is no repository @%s; the only one is @%s", repo, RulesRepo)
}

// moduleFile finds the file of a .star label.
func (l *Loader) moduleFile(lb label.Label) (string, error) {
	if !strings.HasSuffix(lb.Name, ".star") && !strings.HasSuffix(lb.Name, ".bzl") {
		return "", fmt.Errorf("cannot load %s: only .star files can be loaded", lb)
	}
	if lb.Repo == RulesRepo {
		return path.Join(lb.Pkg, lb.Name), nil
	}
	if lb.Repo != "" {
		return "", fmt.Errorf("cannot load %s: there is no repository @%s; the only one is @%s", lb, lb.Repo, RulesRepo)
	}
	dir, ok := l.PackageDir(lb.Package())
	if !ok {
		return "", fmt.Errorf("cannot load %s: %w", lb, &NoPackageError{Package: lb.Package()})
	}
	file := path.Join(dir, lb.Name)
	if !l.Workspace.IsFile(file) {
		return "", fmt.Errorf("cannot load %s: there is no file %s%s", lb, file, l.nearestFile(dir, lb.Name))
	}
	return file, nil
}

func (l *Loader) nearestFile(dir, name string) string {
	es, err := l.Workspace.List(path.Join(dir, path.Dir(name)))
	if err != nil {
		return ""
	}
	var names []string
	for _, e := range es {
		names = append(names, path.Join(path.Dir(name), e.Name()))
	}
	return didYouMean(name, names)
}

// load returns the module, evaluating it if nobody has; waiter is the module
// on whose behalf this is, for finding cycles.
func (l *Loader) load(ctx context.Context, lb label.Label, waiter *moduleEntry) (*module, error) {
	l.mu.Lock()
	e := l.modules[lb]
	if e == nil {
		e = &moduleEntry{label: lb, done: make(chan struct{})}
		l.modules[lb] = e
		if waiter != nil {
			waiter.waitsFor = e
		}
		l.mu.Unlock()
		e.module, e.err = l.evalModule(ctx, e)
		close(e.done)
	} else {
		if waiter != nil {
			if cycle := findCycle(e, waiter); cycle != nil {
				l.mu.Unlock()
				return nil, fmt.Errorf("these files load each other: %s", strings.Join(cycle, " → "))
			}
			waiter.waitsFor = e
		}
		l.mu.Unlock()
		<-e.done
	}
	if waiter != nil {
		l.mu.Lock()
		waiter.waitsFor = nil
		l.mu.Unlock()
	}
	return e.module, e.err
}

// findCycle follows who waits for whom from e; if that reaches waiter, the
// files on the way are a cycle. l.mu is held.
func findCycle(e, waiter *moduleEntry) []string {
	names := []string{waiter.label.String()}
	for x := e; x != nil; x = x.waitsFor {
		select {
		case <-x.done:
			return nil
		default:
		}
		names = append(names, x.label.String())
		if x == waiter {
			return names
		}
	}
	return nil
}

func (l *Loader) evalModule(ctx context.Context, e *moduleEntry) (*module, error) {
	file, err := l.moduleFile(e.label)
	if err != nil {
		return nil, err
	}
	data, err := l.readFile(e.label.Repo, file)
	if err != nil {
		return nil, err
	}
	name := displayName(e.label.Repo, file)
	l.mu.Lock()
	l.files[name] = e.label
	l.mu.Unlock()
	f, err := fileOptions.Parse(name, data, 0)
	if err != nil {
		return nil, Explain(err)
	}
	m := &module{label: e.label, doc: docString(f)}
	if m.loads, err = l.fileLoads(f, e.label.Package()); err != nil {
		return nil, err
	}
	pre, err := l.predeclared(ctx, e.label.Repo)
	if err != nil {
		return nil, err
	}
	prog, err := starlark.FileProgram(f, pre.Has)
	if err != nil {
		return nil, explainUndefined(err, pre)
	}
	l.prefetch(ctx, m.loads)
	thread := l.newThread(name, &eval{loader: l, file: e.label})
	thread.Load = l.loadFunc(ctx, e.label.Package(), e)
	stop := context.AfterFunc(ctx, func() { thread.Cancel("interrupted") })
	defer stop()
	err = Guard(thread, func() error {
		m.globals, err = prog.Init(thread, pre)
		return Explain(err)
	})
	if err != nil {
		return nil, err
	}
	for _, n := range m.globals.Keys() { // sorted, for one name of several to win always
		switch v := m.globals[n].(type) {
		case *RuleClass:
			if v.name == "" && v.module == e.label {
				v.name = n
			}
		case *Provider:
			if v.name == "" && v.module == e.label {
				v.name = n
			}
		}
	}
	m.globals.Freeze()
	return m, nil
}

func docString(f *syntax.File) string {
	if len(f.Stmts) == 0 {
		return ""
	}
	if es, ok := f.Stmts[0].(*syntax.ExprStmt); ok {
		if lit, ok := es.X.(*syntax.Literal); ok {
			if s, ok := lit.Value.(string); ok {
				return s
			}
		}
	}
	return ""
}

// fileLoads lists the labels of a file's load statements, checking each.
func (l *Loader) fileLoads(f *syntax.File, in label.Label) ([]label.Label, error) {
	var out []label.Label
	for _, s := range f.Stmts {
		ld, ok := s.(*syntax.LoadStmt)
		if !ok {
			continue
		}
		lb, err := label.Parse(ld.ModuleName(), in)
		if err != nil {
			return nil, &Error{Pos: posString(ld.Module.TokenPos), Msg: "load: " + err.Error()}
		}
		for _, from := range ld.From {
			if strings.HasPrefix(from.Name, "_") {
				return nil, &Error{Pos: posString(from.NamePos), Msg: fmt.Sprintf("load: %s is private to %s, as its name starts with an underscore", from.Name, lb)}
			}
		}
		out = append(out, lb)
	}
	return out, nil
}

// prefetch begins to load what a file will ask for, so that independent files
// are evaluated side by side.
func (l *Loader) prefetch(ctx context.Context, loads []label.Label) {
	if len(loads) < 2 {
		return
	}
	for _, lb := range loads[1:] {
		go func() { _, _ = l.load(ctx, lb, nil) }()
	}
}

func (l *Loader) loadFunc(ctx context.Context, in label.Label, waiter *moduleEntry) func(*starlark.Thread, string) (starlark.StringDict, error) {
	return func(thread *starlark.Thread, name string) (starlark.StringDict, error) {
		lb, err := label.Parse(name, in)
		if err != nil {
			return nil, err
		}
		m, err := l.load(ctx, lb, waiter)
		if err != nil {
			var inner *Error
			if !errors.As(err, &inner) {
				err = &Error{Pos: posString(thread.CallFrame(0).Pos), Msg: err.Error(), Err: err}
			}
			return nil, err
		}
		return m.globals, nil
	}
}

// Module evaluates a .star file for documentation: its doc string and its
// public globals.
func (l *Loader) Module(ctx context.Context, lb label.Label) (doc string, globals starlark.StringDict, err error) {
	m, err := l.load(ctx, lb, nil)
	if err != nil {
		return "", nil, err
	}
	return m.doc, m.globals, nil
}

// universe is what every file may use without a load.
func (l *Loader) universe() starlark.StringDict {
	return starlark.StringDict{
		"struct":              starlark.NewBuiltin("struct", makeStruct),
		"provider":            starlark.NewBuiltin("provider", makeProvider),
		"depset":              starlark.NewBuiltin("depset", makeDepset),
		"select":              starlark.NewBuiltin("select", makeSelect),
		"rule":                starlark.NewBuiltin("rule", makeRule),
		"attr":                attrModule{},
		"configuration_field": starlark.NewBuiltin("configuration_field", l.configurationField),
		"Label":               starlark.NewBuiltin("Label", l.makeLabel),
		"fail":                starlark.NewBuiltin("fail", makeFail),
		"range":               starlark.NewBuiltin("range", boundedRange),
		"json":                starjson.Module,

		"DefaultInfo":     DefaultInfo,
		"OutputGroupInfo": OutputGroupInfo,
		"EnvironmentInfo": EnvironmentInfo,
	}
}

// predeclared adds to the universe what BUILD files and macros see: the
// prelude's rules, as themselves in BUILD files and as native.x elsewhere.
func (l *Loader) predeclared(ctx context.Context, repo string) (starlark.StringDict, error) {
	pre := l.universe()
	pre["native"] = &native{loader: l, ctx: ctx, library: repo == RulesRepo}
	return pre, nil
}

// loadClosure lists loads and all that they load, sorted.
func (l *Loader) loadClosure(direct []label.Label) []label.Label {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := map[label.Label]bool{}
	var visit func([]label.Label)
	visit = func(ls []label.Label) {
		for _, lb := range ls {
			if seen[lb] {
				continue
			}
			seen[lb] = true
			if e := l.modules[lb]; e != nil && e.module != nil {
				visit(e.module.loads)
			}
		}
	}
	visit(direct)
	out := make([]label.Label, 0, len(seen))
	for lb := range seen {
		out = append(out, lb)
	}
	sort.Slice(out, func(i, j int) bool { return label.Less(out[i], out[j]) })
	return out
}

// Providers that the engine itself reads.
var (
	DefaultInfo = NewProvider("DefaultInfo", "What a target gives when nothing more specific is asked for.",
		"data_runfiles", "default_runfiles", "executable", "files", "runfiles")
	EnvironmentInfo = NewProvider("EnvironmentInfo", "A root file system that commands can run in, and the environment variables it needs.", "env", "root")
	OutputGroupInfo = &Provider{name: "OutputGroupInfo", Doc: "Named sets of further outputs, chosen by --output_groups."}
)
