package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"tool/core/execution/exec"
	"tool/core/language/analysis"
	"tool/core/language/graph"
	"tool/core/language/workspace"
	"tool/core/model/digest"
	"tool/core/model/event"
	"tool/core/model/label"
	"tool/core/model/merkle"
	"tool/core/storage/store"
)

func buildCommand() *cli.Command {
	return &cli.Command{
		Name:      "build",
		Usage:     "build targets and list what they made",
		ArgsUsage: "TARGET...",
		Flags: flags(configFlags(), executionFlags(), []cli.Flag{
			jsonFlag(),
			&cli.BoolFlag{Name: "check", Usage: "build everything again and compare with what the store has"},
			&cli.StringFlag{Name: "output_groups", Usage: "comma-separated `GROUPS`; +g adds to the default outputs"},
			&cli.BoolFlag{Name: "nobuild", Usage: "load and analyse only"},
		}),
		Action: runBuild,
	}
}

// buildRequest is what a command wants built.
type buildRequest struct {
	Dir     string   // where the patterns are relative to
	Targets []string // patterns
	Groups  string   // output groups, as --output_groups has them
	Check   bool
	NoBuild bool
}

// buildResult is what build --json prints.
type buildResult struct {
	Targets []builtTarget `json:"targets"`
	Actions actionCounts  `json:"actions"`
	Seconds float64       `json:"seconds"`
}

type builtTarget struct {
	Label   string        `json:"label"`
	Outputs []builtOutput `json:"outputs"`
	Failed  bool          `json:"failed,omitempty"` // with --keep_going: some output is missing
}

type builtOutput struct {
	Path   string        `json:"path"` // where it is on this machine
	Ref    string        `json:"ref"`
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"` // bytes; of a directory, those of its distinct files
}

type actionCounts struct {
	Total    int `json:"total"`
	Executed int `json:"executed"`
	Cached   int `json:"cached"`
}

func runBuild(c *cli.Context) error {
	start := time.Now()
	if err := checkFlags(c); err != nil {
		return err
	}
	dir, err := os.Getwd()
	if err != nil {
		return withCode(exitEnvironment, err)
	}
	req := &buildRequest{Dir: dir, Targets: c.Args().Slice(), Groups: c.String("output_groups"), Check: c.Bool("check"), NoBuild: c.Bool("nobuild")}
	q, err := newQuestion(c, req)
	if err != nil {
		return err
	}
	if !req.Check && !req.NoBuild {
		if ok, err := q.answer(c, start); ok || err != nil {
			return err
		}
	}
	e, err := openEngine(c, dir)
	if err != nil {
		return err
	}
	defer e.close()
	r, err := e.build(c, req, q)
	if r != nil && (err == nil || e.settings.KeepGoing) {
		r.Seconds = time.Since(start).Seconds()
		e.view.Close()
		e.view.quiet = true
		if perr := printBuild(c, r); err == nil {
			err = perr
		}
	}
	return diskFull(err)
}

// build analyses and executes; the result is nil if nothing could be built.
func (e *engine) build(c *cli.Context, req *buildRequest, q *question) (*buildResult, error) {
	ctx := c.Context
	e.view.Send(event.PhaseStarted{Name: "loading and analysing"})
	targets, err := e.analyze(ctx, req.Targets)
	if err != nil && (len(targets) == 0 || !e.settings.KeepGoing) {
		return nil, err
	}
	if req.NoBuild {
		return &buildResult{}, err
	}
	ex, xerr := e.executor(c)
	if xerr != nil {
		return nil, xerr
	}
	wanted := make([][]*analysis.File, len(targets))
	var ids []int
	for i, t := range targets {
		if wanted[i], xerr = outputsOf(t, req.Groups); xerr != nil {
			return nil, xerr
		}
		for _, f := range wanted[i] {
			ids = append(ids, f.Artifact.ID)
		}
	}
	e.view.Send(event.PhaseStarted{Name: "building"})
	ex.Unflushed = true
	report, xerr := ex.Build(ctx, &e.analyzer.Actions, ids)
	// The kernel takes its time to end the workers; nothing waits for that here.
	go e.runner.Close()
	err = errors.Join(err, xerr)
	var r *buildResult
	if report != nil && (err == nil || e.settings.KeepGoing) {
		var refs []store.Ref
		if r, refs, xerr = e.register(ctx, targets, wanted, report); xerr == nil {
			xerr = e.root(ctx, q, req.Targets, refs, report.Keys)
		}
		if xerr != nil {
			r, err = nil, xerr
		}
	}
	// One sync covers the build, its objects and its root; after a failure too:
	// what succeeded should survive a loss of power.
	if ferr := e.store.CAS().Flush(); ferr != nil {
		r, err = nil, errors.Join(err, ferr)
	}
	if r != nil && err == nil {
		q.keep(e, r)
	}
	return r, err
}

// analyze returns the targets that could be analysed; with keep-going the
// error lists the others.
func (e *engine) analyze(ctx context.Context, args []string) ([]*analysis.Target, error) {
	labels, err := e.labels(ctx, args, graph.ExpandOptions{})
	if err != nil {
		return nil, err
	}
	if len(labels) == 0 {
		return nil, usageError("the patterns match no target")
	}
	var targets []*analysis.Target
	var errs []error
	for _, l := range labels {
		t, err := e.analyzer.Analyze(ctx, l)
		if err != nil {
			errs = append(errs, err)
			if !e.settings.KeepGoing {
				return nil, err
			}
			continue
		}
		targets = append(targets, t)
	}
	return targets, joinDistinct(errs)
}

// joinDistinct joins errors, leaving out those that say the same.
func joinDistinct(errs []error) error {
	seen := map[string]bool{}
	var out []error
	for _, err := range errs {
		if !seen[err.Error()] {
			seen[err.Error()] = true
			out = append(out, err)
		}
	}
	return errors.Join(out...)
}

// outputsOf picks the files of a target that the command asked for.
func outputsOf(t *analysis.Target, groups string) ([]*analysis.File, error) {
	if groups == "" {
		return t.Files(), nil
	}
	var out []*analysis.File
	seen := map[*analysis.File]bool{}
	add := func(fs []*analysis.File) {
		for _, f := range fs {
			if !seen[f] {
				seen[f] = true
				out = append(out, f)
			}
		}
	}
	names := strings.Split(groups, ",")
	if strings.HasPrefix(names[0], "+") || strings.HasPrefix(names[0], "-") {
		add(t.Files())
	}
	for _, n := range names {
		drop := strings.HasPrefix(n, "-")
		fs, ok := t.Group(strings.TrimLeft(n, "+-"))
		if !ok {
			continue // as Bazel: targets without the group simply add nothing
		}
		if drop {
			gone := map[*analysis.File]bool{}
			for _, f := range fs {
				gone[f] = true
			}
			kept := out[:0]
			for _, f := range out {
				if !gone[f] {
					kept = append(kept, f)
				}
			}
			out = kept
			continue
		}
		add(fs)
	}
	return out, nil
}

// register makes store objects of the outputs and shows them in .tool/out.
func (e *engine) register(ctx context.Context, targets []*analysis.Target, wanted [][]*analysis.File, report *exec.Report) (*buildResult, []store.Ref, error) {
	var objects []store.Object
	k := 0
	for i, t := range targets {
		for _, f := range wanted[i] {
			if made := report.Wanted[k]; made.Node.Kind != 0 { // else it failed
				objects = append(objects, store.Object{Name: store.NameOf(f.Artifact.Path), Node: made.Node, Refs: made.Refs, Deriver: t.Label.String()})
			}
			k++
		}
	}
	objects, err := e.store.Publish(ctx, e.lease, objects)
	if err != nil {
		return nil, nil, err
	}
	r := &buildResult{Actions: actionCounts{report.Total, report.Executed, report.Cached}}
	refs := make([]store.Ref, 0, len(objects))
	k = 0
	for i, t := range targets {
		bt := builtTarget{Label: t.Label.String(), Outputs: []builtOutput{}}
		for _, f := range wanted[i] {
			made := report.Wanted[k]
			k++
			if made.Node.Kind == 0 {
				bt.Failed = true
				continue
			}
			o := objects[len(refs)]
			refs = append(refs, o.Ref)
			p := e.store.Path(o.Ref)
			if err := e.linkOut(f.Artifact.Path, p); err != nil {
				return nil, nil, err
			}
			size := made.Node.Digest.Size
			if made.Node.Kind == merkle.Dir {
				size = o.Size
			}
			bt.Outputs = append(bt.Outputs, builtOutput{Path: p, Ref: string(o.Ref), Digest: made.Node.Digest, Size: size})
		}
		r.Targets = append(r.Targets, bt)
	}
	return r, refs, nil
}

// outDir holds links to what was built last.
func outDir(root string) string { return filepath.Join(root, workspace.StateDir, "out") }

// linkOut makes .tool/out/<pkg>/<name> point at an output.
func (e *engine) linkOut(execPath, target string) error {
	top, rel := outDir(e.ws.Root), strings.TrimPrefix(execPath, "out/")
	e.links = append(e.links, rel)
	link := filepath.Join(top, rel)
	old, err := os.Readlink(link)
	if err == nil && old == target {
		return nil
	}
	// Making one where there is none needs no other name to be whole.
	if errors.Is(err, os.ErrNotExist) && os.Symlink(target, link) == nil {
		return nil
	}
	dir := filepath.Dir(link)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		// An output that was a file may have become a folder of outputs.
		if err = clearWay(top, dir); err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	tmp := filepath.Join(dir, fmt.Sprintf(".link-%d", os.Getpid()))
	_ = os.Remove(tmp)
	if err := os.Symlink(target, tmp); err != nil {
		return err
	}
	if fi, err := os.Lstat(link); err == nil && fi.IsDir() {
		if err := os.RemoveAll(link); err != nil {
			return err
		}
	}
	return os.Rename(tmp, link)
}

// clearWay removes symlinks between top and dir.
func clearWay(top, dir string) error {
	for d := dir; len(d) > len(top); d = filepath.Dir(d) {
		if fi, err := os.Lstat(d); err == nil && !fi.IsDir() {
			return os.Remove(d)
		}
	}
	return nil
}

// root keeps what was built from being collected. Roots are numbered for each
// command (its target patterns); tool.toml's gc.keep_builds says how many stay.
func (e *engine) root(ctx context.Context, q *question, patterns []string, refs []store.Ref, keys []digest.Digest) error {
	keep := 1
	if n := e.ws.Config.GC.KeepBuilds; n != nil {
		keep = max(*n, 1)
	}
	name, err := e.rootLabel(ctx, patterns)
	if err != nil {
		return err
	}
	r := store.Root{Kind: "build", Refs: refs, Label: name, Created: time.Now().UTC(), Workspace: e.ws.Root}
	if k := e.ws.Config.GC.KeepInputs; k == nil || *k {
		r.Actions = keys
	}
	name, err = e.store.AddNumberedRoot(rootPrefix(e.ws.Root, name), r, keep)
	if err != nil {
		return fmt.Errorf("keeping %s from collection: %w", r.Label, err)
	}
	q.kept = name
	return nil
}

// rootLabel is what a command's patterns are called, wherever it was run.
func (e *engine) rootLabel(ctx context.Context, args []string) (string, error) {
	ps, err := e.patterns(args)
	if err != nil {
		return "", err
	}
	words := make([]string, len(ps))
	for i, p := range ps {
		words[i] = p.String()
		if p.Guess != "" {
			p.Negative = false
			ls, err := e.graph.Expand(ctx, []label.Pattern{p}, graph.ExpandOptions{Manual: true})
			if err != nil {
				return "", err
			}
			words[i] = ls[0].String()
		}
	}
	return strings.Join(words, " "), nil
}

// rootPrefix names the builds of some patterns in a workspace.
func rootPrefix(root, patterns string) string {
	return "build/" + shortHash(root) + "/" + patterns
}

func shortHash(s string) string { return digest.Of([]byte(s)).Hex()[:8] }

func printBuild(c *cli.Context, r *buildResult) error {
	w := c.App.Writer
	if c.Bool("json") {
		if r.Targets == nil {
			r.Targets = []builtTarget{}
		}
		return json.NewEncoder(w).Encode(r)
	}
	_, err := fmt.Fprintf(w, "%s%s", targetText(r.Targets, newPalette(w)), summary(r.Actions, time.Duration(r.Seconds*float64(time.Second))))
	return err
}

// targetText lists targets with their outputs, for people.
func targetText(targets []builtTarget, p palette) []byte {
	var b []byte
	for _, t := range targets {
		mark := ""
		if t.Failed {
			mark = p.red("  failed")
		}
		b = fmt.Appendf(b, "%s%s\n", p.bold(t.Label), mark)
		for _, o := range t.Outputs {
			b = fmt.Appendf(b, "  %s  %s\n", o.Path, p.dim(bytesize(o.Size)))
		}
	}
	return b
}

func summary(a actionCounts, took time.Duration) string {
	return fmt.Sprintf("%d actions: %d executed, %d cached, in %s\n", a.Total, a.Executed, a.Cached, duration(took))
}
