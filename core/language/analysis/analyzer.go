// Package analysis is Bazel's analysis phase: it runs the implementations of
// rules, bottom up, and collects the actions that they declare. It does no
// I/O: what an action will find in its inputs is not known here.
package analysis

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.starlark.net/starlark"

	"tool/core/language/action"
	"tool/core/language/graph"
	"tool/core/language/loader"
	"tool/core/model/event"
	"tool/core/model/label"
)

// Analyzer analyses targets, each once, into one action graph. It is not safe
// for concurrent use.
type Analyzer struct {
	Graph       *graph.Graph
	Events      event.Sink
	Environment label.Label // the default root file system of commands; zero: none

	Actions action.Graph

	targets map[label.Label]*Target
	failed  map[label.Label]error
	path    []label.Label // what is being analysed, outermost first
	files   map[string]*File
}

// New returns an empty Analyzer.
func New(g *graph.Graph, events event.Sink) *Analyzer {
	return &Analyzer{Graph: g, Events: events, targets: map[label.Label]*Target{}, failed: map[label.Label]error{}, files: map[string]*File{}}
}

// Analyze returns the analysed target.
func (a *Analyzer) Analyze(ctx context.Context, lb label.Label) (*Target, error) {
	if t := a.targets[lb]; t != nil {
		return t, nil
	}
	if err := a.failed[lb]; err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	for i, p := range a.path {
		if p == lb {
			return nil, a.cycle(append(append([]label.Label(nil), a.path[i:]...), lb))
		}
	}
	a.path = append(a.path, lb)
	t, err := a.analyze(ctx, lb)
	a.path = a.path[:len(a.path)-1]
	if err != nil {
		a.failed[lb] = err
		return nil, err
	}
	a.targets[lb] = t
	return t, nil
}

func (a *Analyzer) cycle(ls []label.Label) error {
	names := make([]string, len(ls))
	for i, l := range ls {
		names[i] = l.String()
	}
	e := &loader.Error{Msg: "these targets depend on each other: " + strings.Join(names, " → ")}
	if t, err := a.Graph.Target(context.Background(), ls[0]); err == nil {
		e.Pos = t.Pos
	}
	return e
}

func (a *Analyzer) analyze(ctx context.Context, lb label.Label) (*Target, error) {
	lt, err := a.Graph.Target(ctx, lb)
	if err != nil {
		return nil, err
	}
	switch lt.Kind {
	case loader.SourceFile:
		return a.fileTarget(lt, a.source(lt)), nil
	case loader.GeneratedFile:
		if _, err := a.Analyze(ctx, lt.Made.Label); err != nil {
			return nil, err
		}
		f := a.files[pathOf(lb, true)]
		if f == nil {
			return nil, &loader.Error{Pos: lt.Pos, Msg: fmt.Sprintf("%s: %s does not make it", lb, lt.Made.Label)}
		}
		return a.fileTarget(lt, f), nil
	case loader.PackageGroup:
		return &Target{Label: lb, Loaded: lt, files: loader.NewDepset(nil)}, nil
	}
	switch lt.Rule.Name() {
	case "alias":
		v, err := a.Graph.Attr(ctx, lt, "actual")
		if err != nil {
			return nil, err
		}
		return a.dep(ctx, lt, v.(loader.Label).Label)
	case "config_setting":
		return &Target{Label: lb, Loaded: lt, files: loader.NewDepset(nil)}, nil
	case "test_suite":
		return a.suite(ctx, lt)
	}
	return a.rule(ctx, lt)
}

func (a *Analyzer) fileTarget(lt *loader.Target, f *File) *Target {
	t := &Target{Label: lt.Label, Loaded: lt, files: loader.NewDepset([]starlark.Value{f}), Providers: map[*loader.Provider]*loader.Struct{}}
	t.Providers[loader.DefaultInfo] = loader.DefaultInfo.New("files", t.files)
	t.executable = f
	return t
}

func (a *Analyzer) source(lt *loader.Target) *File {
	p := pathOf(lt.Label, false)
	if f := a.files[p]; f != nil {
		return f
	}
	return a.addFile(lt.Label, &action.Artifact{Path: p, Producer: -1, Owner: lt.Label.String(), Source: lt.File, Embedded: lt.Label.Repo == loader.RulesRepo})
}

func (a *Analyzer) addFile(owner label.Label, art *action.Artifact) *File {
	art.ID = len(a.Actions.Artifacts)
	a.Actions.Artifacts = append(a.Actions.Artifacts, art)
	f := &File{Artifact: art, owner: owner}
	a.files[art.Path] = f
	return f
}

// dep analyses a dependency of from and checks that from may have it.
func (a *Analyzer) dep(ctx context.Context, from *loader.Target, lb label.Label) (*Target, error) {
	to, err := a.Graph.Target(ctx, lb)
	if err != nil {
		var le *loader.Error
		if errors.As(err, &le) {
			return nil, err
		}
		return nil, &loader.Error{Pos: from.Pos, Msg: fmt.Sprintf("%s depends on %s: %v", from.Label, lb, err), Err: err}
	}
	if err := a.Graph.CheckVisible(ctx, from, to); err != nil {
		return nil, err
	}
	if to.TestOnly && !from.TestOnly && from.Kind == loader.RuleTarget && !from.Rule.Test {
		return nil, &loader.Error{Pos: from.Pos, Msg: fmt.Sprintf("%s may not depend on %s, which is testonly; set testonly = True here too", from.Label, lb)}
	}
	if to.Deprecated != "" && from.Label.Package() != to.Label.Package() {
		a.Events.Send(event.Warning{Position: from.Pos, Text: fmt.Sprintf("%s depends on %s, which is deprecated: %s", from.Label, lb, to.Deprecated)})
	}
	return a.Analyze(ctx, lb)
}

func (a *Analyzer) suite(ctx context.Context, lt *loader.Target) (*Target, error) {
	t := &Target{Label: lt.Label, Loaded: lt, Providers: map[*loader.Provider]*loader.Struct{}}
	var sets []*loader.Depset
	for _, l := range graph.SuiteTests(lt) {
		d, err := a.dep(ctx, lt, l)
		if err != nil {
			return nil, err
		}
		sets = append(sets, d.files)
	}
	t.files = loader.NewDepset(nil, sets...)
	t.Providers[loader.DefaultInfo] = loader.DefaultInfo.New("files", t.files)
	return t, nil
}

// rule runs a rule's implementation.
func (a *Analyzer) rule(ctx context.Context, lt *loader.Target) (*Target, error) {
	c := &ruleContext{analyzer: a, ctx: ctx, loaded: lt, actions0: len(a.Actions.Actions)}
	if err := c.resolve(); err != nil {
		return nil, err
	}
	thread := a.Graph.Loader.NewThread(lt.Label.String(), lt.Rule.File)
	thread.SetLocal(ruleKey, c)
	stop := context.AfterFunc(ctx, func() { thread.Cancel("interrupted") })
	defer stop()
	var result starlark.Value
	err := loader.Guard(thread, func() (err error) {
		result, err = starlark.Call(thread, lt.Rule.Impl, starlark.Tuple{c}, nil)
		return loader.Explain(err)
	})
	if err == nil {
		err = c.checkOutputs()
	}
	var t *Target
	if err == nil {
		t, err = c.target(result)
	}
	if err != nil {
		return nil, a.inRule(lt, err)
	}
	return t, nil
}

// inRule puts the BUILD file's position first: that is the user's file, and
// where the mistake most likely is.
func (a *Analyzer) inRule(lt *loader.Target, err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	e := &loader.Error{Pos: lt.Pos, Msg: fmt.Sprintf("%s %s: %v", lt.Rule.Name(), lt.Label, err), Err: err}
	var le *loader.Error
	if errors.As(err, &le) {
		e.Msg = fmt.Sprintf("%s %s: %s", lt.Rule.Name(), lt.Label, le.Msg)
		if le.Pos != "" {
			e.Stack = append([]string{le.Pos + ": in its implementation"}, le.Stack...)
		}
	}
	return e
}
