package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"tool/core/language/graph"
	"tool/core/language/query"
	"tool/core/model/label"
	"tool/core/storage/store"
)

func whyCommand() *cli.Command {
	return &cli.Command{
		Name:      "why",
		Usage:     "tell why one target needs another, or what keeps an object",
		ArgsUsage: "TARGET TARGET | REF REF",
		Description: "Shows a shortest path of dependencies between the two and, where both are in the store,\n" +
			"the path of references that remains at run time. Exits with 1 if there is no path.",
		Flags: flags([]cli.Flag{
			&cli.StringFlag{Name: "root", Usage: "tell what keeps this `REF|DIGEST` from being collected"},
			&cli.BoolFlag{Name: "runtime", Usage: "build both first, so that there is a run-time path to show"},
			jsonFlag(),
		}, configFlags(), executionFlags()),
		Action: runWhy,
	}
}

// whyResult is what why --json prints.
type whyResult struct {
	From    string    `json:"from"`
	To      string    `json:"to"`
	Path    []whyStep `json:"path"`    // of targets; empty: none
	Runtime []string  `json:"runtime"` // of store objects; empty: none
	Known   bool      `json:"runtime_known"`
}

type whyStep struct {
	Label    string `json:"label"`
	Kind     string `json:"kind"`
	Location string `json:"location"`
	Attr     string `json:"attribute,omitempty"` // by which it needs the next one
}

func runWhy(c *cli.Context) error {
	if x := c.String("root"); x != "" {
		if c.Args().Present() {
			return usageError("tool why --root takes one object and no target")
		}
		return whyKept(c, x)
	}
	if c.Args().Len() != 2 {
		return usageError("tool why: want two targets, or two store references: tool why //cluster:node //packages:openssl-libs")
	}
	from, to := c.Args().Get(0), c.Args().Get(1)
	a, isRefA := storeRef(from)
	b, isRefB := storeRef(to)
	if isRefA && isRefB {
		s, _, err := openHostStore()
		if err != nil {
			return err
		}
		defer s.Close()
		r := &whyResult{From: from, To: to, Known: true}
		if r.Runtime, err = runtimePath(s, []store.Ref{a}, []store.Ref{b}); err != nil {
			return err
		}
		return printWhy(c, r, nil)
	}
	if isRefA || isRefB {
		return usageError("tool why: want two targets or two store references, not one of each")
	}
	return whyNeeded(c, from, to)
}

// storeRef reads "/tool/store/<ref>" and "<ref>".
func storeRef(s string) (store.Ref, bool) {
	if strings.Contains(s, ":") {
		return "", false
	}
	r, err := store.ParseRef(strings.TrimPrefix(s, "/tool/store/"))
	return r, err == nil
}

func whyNeeded(c *cli.Context, from, to string) error {
	e, err := openEngineHere(c)
	if err != nil {
		return err
	}
	defer e.close()
	ends, err := e.oneLabelEach(c, from, to)
	if err != nil {
		return err
	}
	r := &whyResult{From: ends[0].String(), To: ends[1].String()}
	ev := &query.Evaluator{Graph: e.graph, Cwd: e.cwd}
	steps, err := ev.Path(c.Context, ends[0], ends[1])
	if err != nil {
		return queryError(c, err)
	}
	for _, s := range steps {
		r.Path = append(r.Path, whyStep{s.Target.Label.String(), s.Target.KindString(), query.Location(s.Target), s.Attr})
	}
	var back []query.Step
	if steps == nil {
		if back, err = ev.Path(c.Context, ends[1], ends[0]); err != nil {
			return queryError(c, err)
		}
	}
	if err := e.whyAtRuntime(c, ends, r); err != nil {
		return diskFull(err)
	}
	e.endView()
	return printWhy(c, r, back)
}

// oneLabelEach reads two words that name one target each.
func (e *engine) oneLabelEach(c *cli.Context, words ...string) ([]label.Label, error) {
	out := make([]label.Label, len(words))
	for i, w := range words {
		ls, err := e.labels(c.Context, []string{w}, graph.ExpandOptions{Manual: true})
		if err != nil {
			return nil, queryError(c, err)
		}
		if len(ls) != 1 {
			return nil, usageError("%s names %d targets, want one; for sets there is tool query 'somepath(…, …)'", w, len(ls))
		}
		out[i] = ls[0]
	}
	return out, nil
}

// whyAtRuntime looks for the path between what the two targets made. It takes
// what the store has; only --runtime builds.
func (e *engine) whyAtRuntime(c *cli.Context, ends []label.Label, r *whyResult) error {
	sides := make([][]store.Ref, 2)
	if c.Bool("runtime") {
		for i, l := range ends {
			var err error
			if sides[i], err = e.buildTargets(c, []string{l.String()}); err != nil {
				return err
			}
		}
	} else {
		if err := e.openStore(); err != nil {
			return err
		}
		roots, err := e.store.Roots()
		if err != nil {
			return err
		}
		objects, err := e.store.Objects()
		if err != nil {
			return err
		}
		if sides[0] = newestBuild(roots, e.ws.Root, ends[0]); sides[0] == nil {
			sides[0] = madeFor(objects, ends[0])
		}
		sides[1] = append(newestBuild(roots, e.ws.Root, ends[1]), madeFor(objects, ends[1])...)
	}
	if len(sides[0]) == 0 || len(sides[1]) == 0 {
		return nil
	}
	r.Known = true
	var err error
	r.Runtime, err = runtimePath(e.store, sides[0], sides[1])
	return err
}

// newestBuild returns the objects of a label's newest build in a workspace.
func newestBuild(roots []store.Root, workspace string, l label.Label) []store.Ref {
	var newest *store.Root
	for i := range roots {
		r := &roots[i]
		if r.Kind == "build" && r.Label == l.String() && r.Workspace == workspace && (newest == nil || r.Created.After(newest.Created)) {
			newest = r
		}
	}
	if newest == nil {
		return nil
	}
	return slices.Clone(newest.Refs)
}

// madeFor returns the objects that were ever made for a label and are still
// there; most are parts of other targets' builds.
func madeFor(objects []*store.Object, l label.Label) []store.Ref {
	var out []store.Ref
	for _, o := range objects {
		if o.Deriver == l.String() {
			out = append(out, o.Ref)
		}
	}
	return out
}

// runtimePath returns a shortest chain of references from one of a to one of b.
func runtimePath(s *store.Store, a, b []store.Ref) ([]string, error) {
	var best []store.Ref
	for _, x := range a {
		for _, y := range b {
			p, err := s.WhyDepends(x, y)
			if err != nil {
				return nil, err
			}
			if p != nil && (best == nil || len(p) < len(best)) {
				best = p
			}
		}
	}
	var out []string
	for _, r := range best {
		out = append(out, string(r))
	}
	return out, nil
}

func printWhy(c *cli.Context, r *whyResult, back []query.Step) error {
	w := c.App.Writer
	p := newPalette(w)
	if c.Bool("json") {
		if r.Path == nil {
			r.Path = []whyStep{}
		}
		if r.Runtime == nil {
			r.Runtime = []string{}
		}
		if err := json.NewEncoder(w).Encode(r); err != nil {
			return err
		}
		if len(r.Path) == 0 && len(r.Runtime) == 0 {
			return &codeError{code: exitBuild}
		}
		return nil
	}
	if len(r.Path) == 0 && len(r.Runtime) == 0 {
		hint := ""
		if back != nil {
			hint = fmt.Sprintf("; the other way round it does: tool why %s %s", r.To, r.From)
		}
		return withCode(exitBuild, fmt.Errorf("%s does not need %s%s", r.From, r.To, hint))
	}
	for _, s := range r.Path {
		fmt.Fprintf(w, "%s  %s\n", p.bold(s.Label), p.dim(s.Kind+", "+s.Location))
		if s.Attr != "" {
			fmt.Fprintf(w, "  %s →\n", s.Attr)
		}
	}
	if len(r.Path) > 0 {
		switch {
		case len(r.Runtime) > 0:
			fmt.Fprintln(w, "\nat run time:")
		case r.Known:
			fmt.Fprintf(w, "\nat run time: no reference leads from one to the other; %s only takes part in building\n", r.To)
		default:
			fmt.Fprintln(w, "\nat run time: not known, as not both are built; --runtime builds them")
		}
	}
	for i, ref := range r.Runtime {
		arrow := "→ "
		if i == 0 {
			arrow = "  "
		}
		fmt.Fprintf(w, "  %s%s\n", arrow, ref)
	}
	return nil
}

// whyKept tells which root keeps an object, blob or tree.
func whyKept(c *cli.Context, x string) error {
	s, _, err := openHostStore()
	if err != nil {
		return err
	}
	defer s.Close()
	chain, err := s.WhyAlive(strings.TrimPrefix(x, "/tool/store/"))
	if err != nil {
		return withCode(exitUsage, err)
	}
	if c.Bool("json") {
		if chain == nil {
			chain = []string{}
		}
		if err := json.NewEncoder(c.App.Writer).Encode(map[string]any{"object": x, "chain": chain}); err != nil {
			return err
		}
		if len(chain) == 0 {
			return &codeError{code: exitBuild}
		}
		return nil
	}
	if chain == nil {
		return withCode(exitBuild, fmt.Errorf("nothing keeps %s: no root reaches it, and the next tool gc removes it", x))
	}
	for i, line := range chain {
		fmt.Fprintf(c.App.Writer, "%s%s\n", strings.Repeat("  ", i), line)
	}
	return nil
}
