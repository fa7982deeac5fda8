package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strings"

	"github.com/urfave/cli/v2"
	"go.starlark.net/starlark"

	"tool/core/execution/fetch"
	"tool/core/language/loader"
	"tool/core/language/workspace"
	"tool/core/model/event"
	"tool/core/model/label"
	"tool/core/packages/debian"
	"tool/core/packages/gomod"
	"tool/core/packages/lock"
)

func lockCommand() *cli.Command {
	return &cli.Command{
		Name:      "lock",
		Usage:     "resolve foreign packages and write the locks that pin them",
		ArgsUsage: "[PACKAGE...]",
		Description: "Reads the package sets, Go toolchains and Go modules that BUILD files declare, and pins\n" +
			"what they resolve to. What is pinned stays as it is where it still satisfies.",
		Flags: flags([]cli.Flag{
			&cli.BoolFlag{Name: "refresh", Usage: "move every pin to the newest version"},
			&cli.BoolFlag{Name: "check", Usage: "write nothing; fail if a lock would change"},
			&cli.StringFlag{Name: "progress", Value: "auto", Usage: "auto, terminal, plain or none"},
			jsonFlag(),
		}, configFlags()),
		Action: runLock,
	}
}

// lockRequest is all that is declared for one lock file.
type lockRequest struct {
	file    string // relative to the workspace
	sets    []debian.SetRequest
	modules []gomod.Module
}

// The library's rules that declare what a lock pins.
const (
	setRule       = "locked_debian_set"
	modulesRule   = "locked_go_modules"
	toolchainRule = "locked_go_toolchain"
)

// lockResult is what lock --json prints.
type lockResult struct {
	Locks []lockedFile `json:"locks"`
}

type lockedFile struct {
	File    string         `json:"file"`
	Changed bool           `json:"changed"` // it is, or with --check would be, other than before
	Written bool           `json:"written"`
	Debs    int            `json:"debs"`
	Modules int            `json:"modules"`
	Changes debian.Changes `json:"changes"`
}

func runLock(c *cli.Context) error {
	e, err := openEngineHere(c)
	if err != nil {
		return err
	}
	defer e.close()
	if err := e.openStore(); err != nil {
		return err
	}
	e.view.Send(event.PhaseStarted{Name: "loading"})
	requests, err := e.lockRequests(c.Context, c.Args().Slice())
	if err != nil {
		return err
	}
	if len(requests) == 0 {
		return usageError("nothing to lock: no debian_set, go_toolchain or go_modules is declared here")
	}
	res := lockResult{Locks: []lockedFile{}}
	m := newMirrors(e)
	for _, r := range requests {
		e.view.Send(event.PhaseStarted{Name: "resolving " + r.file})
		l, err := e.updateLock(c.Context, m, r, c.Bool("refresh"), c.Bool("check"))
		if err != nil {
			return fmt.Errorf("%s: %w", r.file, err)
		}
		res.Locks = append(res.Locks, *l)
	}
	e.view.Close()
	e.view.quiet = true
	if c.Bool("json") {
		if err := json.NewEncoder(c.App.Writer).Encode(res); err != nil {
			return err
		}
	}
	stale := false
	for _, l := range res.Locks {
		if !c.Bool("json") {
			fmt.Fprint(c.App.Writer, l.Changes.String())
			state := "unchanged"
			switch {
			case l.Written:
				state = "written"
			case l.Changed:
				state = "not up to date"
			}
			fmt.Fprintf(c.App.Writer, "%s: %d Debian packages, %d Go modules, %s\n", l.File, l.Debs, l.Modules, state)
		}
		stale = stale || l.Changed
	}
	if stale && c.Bool("check") {
		return withCode(exitBuild, errors.New("a lock is not up to date: run `tool lock`"))
	}
	return nil
}

func (e *engine) updateLock(ctx context.Context, m *mirrors, r *lockRequest, refresh, check bool) (*lockedFile, error) {
	old := &lock.Lock{}
	data, err := e.ws.ReadFile(r.file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	default:
		if old, err = lock.Parse(r.file, data); err != nil {
			return nil, err
		}
	}
	next := &lock.Lock{Debs: old.Debs, Members: old.Members, Files: old.Files}
	var changes debian.Changes
	if len(r.sets) > 0 || len(old.Debs) > 0 {
		sources, err := m.debian()
		if err != nil {
			return nil, err
		}
		if debian.HostTakesStale(ctx) {
			sources = slices.Clone(sources)
			for i := range sources {
				sources[i].Stale = true
			}
		}
		next, changes, err = debian.Update(ctx, debian.Options{
			Lock: old, Sets: r.sets, Arch: "amd64", Refresh: refresh, Sources: sources, Cache: filepath.Join(e.store.Dir(), "indexes"),
		})
		if err != nil {
			return nil, err
		}
	}
	next.Modules = nil
	if len(r.modules) > 0 {
		proxies, err := m.proxies()
		if err != nil {
			return nil, err
		}
		next.Modules, err = gomod.LockModules(ctx, fetch.Proxy{Fetcher: m.fetcher, Proxies: proxies}, r.modules, old)
		if err != nil {
			return nil, err
		}
	}
	next.Sort()
	out := next.Bytes()
	if changes == nil {
		changes = debian.Changes{} // a list in JSON, too
	}
	l := &lockedFile{File: r.file, Debs: len(next.Debs), Modules: len(next.Modules), Changes: changes, Changed: string(out) != string(data)}
	if l.Changed && !check {
		if err := workspace.WriteFileAtomic(e.ws.Abs(r.file), out, 0o644); err != nil {
			return nil, err
		}
		l.Written = true
	}
	return l, nil
}

// lockRequests reads from the BUILD files what each lock is to pin.
func (e *engine) lockRequests(ctx context.Context, args []string) ([]*lockRequest, error) {
	if len(args) == 0 {
		args = []string{"//..."}
	}
	for i, a := range args { // a package stands for all its targets
		if !strings.Contains(a, ":") && !strings.HasSuffix(a, "...") {
			args[i] = a + ":all"
		}
	}
	ps, err := e.patterns(args)
	if err != nil {
		return nil, err
	}
	byFile := map[string]*lockRequest{}
	for _, p := range ps {
		pkgs := []string{p.Label.Pkg}
		if p.Recursive {
			if pkgs, err = e.ws.Packages(p.Label.Pkg); err != nil {
				return nil, err
			}
		}
		for _, name := range pkgs {
			pkg, err := e.loader.Package(ctx, label.Label{Pkg: name})
			if err != nil {
				return nil, err
			}
			if err := e.lockPackage(ctx, pkg, byFile); err != nil {
				return nil, err
			}
		}
	}
	out := make([]*lockRequest, 0, len(byFile))
	for _, r := range byFile {
		out = append(out, r)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].file < out[j].file })
	return out, nil
}

func (e *engine) lockPackage(ctx context.Context, pkg *loader.Package, byFile map[string]*lockRequest) error {
	seen := map[gomod.Module]bool{}
	for _, n := range pkg.Names() {
		t := pkg.Targets[n]
		if t.Kind != loader.RuleTarget {
			continue
		}
		rule := t.Rule.Name()
		if t.Rule.File.Repo != loader.RulesRepo || rule != setRule && rule != modulesRule && rule != toolchainRule {
			continue
		}
		file := path.Join(pkg.Dir, t.String("lock"))
		r := byFile[file]
		if r == nil {
			r = &lockRequest{file: file}
			byFile[file] = r
		}
		switch rule {
		case setRule:
			have, err := e.setNames(ctx, t)
			if err != nil {
				return err
			}
			r.sets = append(r.sets, debian.SetRequest{
				Name: t.Label.Name, Install: words(t.Attrs["packages"]), Exclude: words(t.Attrs["exclude"]), Suites: words(t.Attrs["suites"]), Have: have,
			})
		case toolchainRule:
			r.modules = append(r.modules, gomod.ToolchainModule(t.String("version"), "linux", "amd64"))
		case modulesRule:
			ms, err := e.modules(ctx, t)
			if err != nil {
				return err
			}
			for _, m := range ms {
				if !seen[m] {
					seen[m] = true
					r.modules = append(r.modules, m)
				}
			}
		}
	}
	return nil
}

// setNames are the sets that a set builds on: its deps of the same lock.
func (e *engine) setNames(ctx context.Context, t *loader.Target) ([]string, error) {
	var names []string
	for _, l := range loader.Labels(t.Attrs["deps"]) {
		d, err := e.graph.Target(ctx, l)
		if err != nil {
			return nil, &loader.Error{Pos: t.Pos, Msg: fmt.Sprintf("%s depends on %s: %v", t.Label, l, err)}
		}
		if d.Kind == loader.RuleTarget && d.Rule.Name() == setRule {
			if d.Package != t.Package || d.String("lock") != t.String("lock") {
				return nil, &loader.Error{Pos: t.Pos, Msg: fmt.Sprintf("%s builds on %s, which another lock pins; sets that build on each other share one lock", t.Label, l)}
			}
			names = append(names, l.Name)
		}
	}
	return names, nil
}

func (e *engine) modules(ctx context.Context, t *loader.Target) ([]gomod.Module, error) {
	read := func(attr string) ([]byte, error) {
		ls := loader.Labels(t.Attrs[attr])
		if len(ls) == 0 {
			return nil, nil
		}
		f, err := e.graph.Target(ctx, ls[0])
		if err != nil {
			return nil, err
		}
		if f.Kind != loader.SourceFile {
			return nil, &loader.Error{Pos: t.Pos, Msg: fmt.Sprintf("%s: %s must be a source file, for `tool lock` to read it", t.Label, attr)}
		}
		return e.ws.ReadFile(f.File)
	}
	mod, err := read("go_mod")
	if err != nil {
		return nil, err
	}
	sum, err := read("go_sum")
	if err != nil {
		return nil, err
	}
	ms, err := gomod.Plan(mod, sum)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", t.Label, err)
	}
	return ms, nil
}

func words(v starlark.Value) []string {
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
