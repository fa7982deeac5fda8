package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"tool/core/execution/exec"
	"tool/core/execution/sandbox"
	"tool/core/language/analysis"
	"tool/core/language/graph"
	"tool/core/language/loader"
	"tool/core/language/workspace"
	"tool/core/model/label"
	"tool/core/storage/cas"
	"tool/core/storage/store"
	"tool/rules"
)

// engine is the phases wired together for one command.
type engine struct {
	ws       *workspace.Workspace
	view     *view
	loader   *loader.Loader
	graph    *graph.Graph
	analyzer *analysis.Analyzer
	cwd      string // the current folder as a package path
	settings workspace.Settings
	links    []string // made in .tool/out

	store   *store.Store // opened by openStore
	lease   *store.Lease // taken by executor: until what was built has its roots
	sources *sources
	runner  *sandbox.Runner
}

// openEngineHere opens the workspace around the current folder.
func openEngineHere(c *cli.Context) (*engine, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, withCode(exitEnvironment, err)
	}
	return openEngine(c, dir)
}

// openEngine opens the workspace around dir.
func openEngine(c *cli.Context, dir string) (*engine, error) {
	root, err := workspace.FindRoot(dir)
	if err != nil {
		return nil, withCode(exitUsage, err)
	}
	ws, err := workspace.Open(root)
	if err != nil {
		return nil, withCode(exitUsage, err)
	}
	e := &engine{ws: ws}
	rel, err := filepath.Rel(root, dir)
	if err != nil {
		return nil, withCode(exitEnvironment, err)
	}
	e.cwd = ws.PackageOf(rel)
	if err := checkFlags(c); err != nil {
		return nil, err
	}
	if e.settings, err = settingsOf(c, &ws.Config); err != nil {
		return nil, err
	}
	e.view = newView(c.App.ErrWriter, c.String("progress"))
	e.loader = loader.New(ws, rules.FS, e.view)
	e.graph = &graph.Graph{Loader: e.loader, Config: graph.Config{Define: e.settings.Define, CompilationMode: e.settings.CompilationMode}}
	e.analyzer = analysis.New(e.graph, e.view)
	if env := ws.Config.Build.Environment; env != "" {
		if e.analyzer.Environment, err = label.Parse(env, label.Label{}); err != nil {
			return nil, usageError("%s: build.environment: %v", workspace.ConfigFile, err)
		}
	}
	return e, nil
}

// settingsOf folds tool.toml, --config and flags together, the later winning.
func settingsOf(c *cli.Context, cfg *workspace.Config) (workspace.Settings, error) {
	s := workspace.Settings{Define: map[string]string{}, Jobs: cfg.Build.Jobs, KeepGoing: cfg.Build.KeepGoing}
	for _, name := range c.StringSlice("config") {
		n, ok := cfg.Config[name]
		if !ok {
			var all []string
			for k := range cfg.Config {
				all = append(all, k)
			}
			return s, usageError("--config=%s: %s has no [config.%s]%s", name, workspace.ConfigFile, name, nearest(name, all))
		}
		for k, v := range n.Define {
			s.Define[k] = v
		}
		if n.CompilationMode != "" {
			s.CompilationMode = n.CompilationMode
		}
		if n.Jobs > 0 {
			s.Jobs = n.Jobs
		}
		s.KeepGoing = s.KeepGoing || n.KeepGoing
	}
	for _, d := range c.StringSlice("define") {
		k, v, ok := strings.Cut(d, "=")
		if !ok || k == "" {
			return s, usageError("--define=%s: want KEY=VALUE", d)
		}
		s.Define[k] = v
	}
	switch m := c.String("compilation_mode"); m {
	case "":
	case "fastbuild", "dbg", "opt":
		s.CompilationMode = m
	default:
		return s, usageError("--compilation_mode=%s is none of fastbuild, dbg, opt", m)
	}
	if c.IsSet("jobs") {
		s.Jobs = c.Int("jobs")
	}
	s.KeepGoing = s.KeepGoing || c.Bool("keep_going")
	return s, nil
}

// openStore opens the physical store that the workspace uses.
func (e *engine) openStore() error {
	if e.store != nil {
		return nil
	}
	s, err := openStore(&e.ws.Config)
	if err != nil {
		return err
	}
	e.store = s
	e.sources = newSources(e.ws, s.CAS())
	return nil
}

func openStore(cfg *workspace.Config) (*store.Store, error) {
	dir, err := cfg.StorePath()
	if err != nil {
		return nil, withCode(exitEnvironment, err)
	}
	s, err := store.Open(dir)
	if err != nil {
		return nil, withCode(exitEnvironment, fmt.Errorf("opening the store: %w", err))
	}
	return s, nil
}

// close ends the view and writes what was learnt.
func (e *engine) close() {
	if e.runner != nil {
		_ = e.runner.Close()
	}
	if e.sources != nil {
		_ = e.sources.index.Save()
	}
	if e.lease != nil {
		_ = e.lease.Release() // one of a process that ends is void anyway
	}
	if e.store != nil {
		_ = e.store.Close()
	}
	if e.view != nil {
		e.view.Close()
	}
}

// labels expands the command line's target patterns.
func (e *engine) labels(ctx context.Context, args []string, opt graph.ExpandOptions) ([]label.Label, error) {
	if len(args) == 0 {
		return nil, usageError("no targets given; name some, such as //... for all")
	}
	ps, err := e.patterns(args)
	if err != nil {
		return nil, err
	}
	return e.graph.Expand(ctx, ps, opt)
}

func (e *engine) patterns(args []string) ([]label.Pattern, error) {
	var ps []label.Pattern
	for _, a := range args {
		p, err := label.ParsePattern(a, e.cwd)
		if err != nil {
			return nil, withCode(exitUsage, err)
		}
		ps = append(ps, p)
	}
	return ps, nil
}

// executor returns the execution phase, ready to run.
func (e *engine) executor(c *cli.Context) (*exec.Executor, error) {
	if err := e.openStore(); err != nil {
		return nil, err
	}
	e.runner = sandbox.New(e.store.CAS(), e.settings.Jobs)
	bs, err := builtins(e)
	if err != nil {
		return nil, err
	}
	cache, err := openCache(e.store)
	if err != nil {
		return nil, err
	}
	logs, err := openLogs(e.store)
	if err != nil {
		return nil, err
	}
	if e.lease, err = e.store.Lease(c.Context); err != nil {
		return nil, withCode(exitEnvironment, err)
	}
	return &exec.Executor{
		Lease: e.lease, Store: e.store, Runner: e.runner, Cache: cache, Logs: logs, Builtins: bs,
		Sources: e.sources, Events: e.view, Jobs: e.settings.Jobs, KeepGoing: e.settings.KeepGoing, Keep: c.Bool("sandbox_debug"), Check: c.Bool("check"),
	}, nil
}

func openCache(s *store.Store) (*exec.DiskCache, error) {
	c, err := exec.OpenCache(filepath.Join(s.Dir(), "actions"))
	return c, withCode(exitEnvironment, err)
}

func openLogs(s *store.Store) (*exec.Logs, error) {
	l, err := exec.OpenLogs(filepath.Join(s.Dir(), "log"))
	return l, withCode(exitEnvironment, err)
}

// fullOnce leaves only the first of the errors of a full disk: the actions
// that ran at that moment all met it.
func fullOnce(err error) error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return err
	}
	var out []error
	full := false
	for _, e := range joined.Unwrap() {
		if is := cas.IsFull(e); !is || !full {
			full = full || is
			out = append(out, fullOnce(e))
		}
	}
	return errors.Join(out...)
}

// diskFull explains a full disk; other errors stay as they are.
func diskFull(err error) error {
	if cas.IsFull(err) {
		err = fullOnce(err)
		return withCode(exitEnvironment, fmt.Errorf("%w\nNothing is lost: free some space (tool gc) and run the same command again", err))
	}
	var un *sandbox.UnsupportedError
	if errors.As(err, &un) {
		return withCode(exitEnvironment, err)
	}
	return err
}
