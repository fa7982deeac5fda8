package main

import (
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strings"

	"github.com/urfave/cli/v2"

	"tool/core/language/graph"
	"tool/core/storage/store"
)

func pathInfoCommand() *cli.Command {
	return &cli.Command{
		Name: "path-info", Usage: "tell of store objects: sizes, closures, what targets share", ArgsUsage: "TARGET|REF...",
		UseShortOptionHandling: true,
		Flags: flags([]cli.Flag{
			&cli.BoolFlag{Name: "recursive", Aliases: []string{"r"}, Usage: "the whole closure"},
			&cli.BoolFlag{Name: "size", Aliases: []string{"s"}, Usage: "show each object's size"},
			&cli.BoolFlag{Name: "closure-size", Aliases: []string{"S"}, Usage: "show the size of each object's closure; contents that objects share count once"},
			&cli.BoolFlag{Name: "human-readable", Aliases: []string{"H"}, Usage: "sizes in KB, MB and so on (-h too, as in -rSh)"},
			&cli.BoolFlag{Name: "shared", Usage: "show what the outputs share, and what each has for itself"},
			jsonFlag(),
		}, configFlags(), executionFlags()),
		Action: runPathInfo,
	}
}

// pathInfo is one line of path-info.
type pathInfo struct {
	Ref         string   `json:"ref"`
	Path        string   `json:"path"`
	Deriver     string   `json:"deriver,omitempty"`
	References  []string `json:"references"`
	Size        *int64   `json:"size,omitempty"`
	ClosureSize *int64   `json:"closure_size,omitempty"`
}

// sharing is what --shared adds.
type sharing struct {
	Shared  []string        `json:"shared"` // objects that all outputs need
	Bytes   int64           `json:"shared_bytes"`
	Outputs []outputSharing `json:"outputs"`
}

type outputSharing struct {
	Ref     string `json:"ref"`
	Closure int64  `json:"closure_bytes"`
	Own     int64  `json:"own_bytes"` // contents that no other output's closure has
}

func runPathInfo(c *cli.Context) error {
	if !c.Args().Present() {
		return usageError("tool path-info: name targets or store references")
	}
	s, refs, done, err := resolveRefs(c, c.Args().Slice())
	if err != nil {
		return err
	}
	defer done()
	list := refs
	if c.Bool("recursive") {
		if list, err = s.Closure(refs...); err != nil {
			return err
		}
	}
	infos := []pathInfo{}
	for _, r := range list {
		o, err := s.Get(r)
		if err != nil {
			return err
		}
		pi := pathInfo{Ref: string(r), Path: s.Path(r), Deriver: o.Deriver, References: []string{}}
		for _, x := range o.Refs {
			pi.References = append(pi.References, string(x))
		}
		if c.Bool("size") || c.Bool("json") {
			n, err := s.Size(r)
			if err != nil {
				return err
			}
			pi.Size = &n
		}
		if c.Bool("closure-size") {
			n, err := s.ClosureSize(r)
			if err != nil {
				return err
			}
			pi.ClosureSize = &n
		}
		infos = append(infos, pi)
	}
	var sh *sharing
	if c.Bool("shared") {
		if sh, err = shared(s, refs); err != nil {
			return err
		}
	}
	if c.Bool("json") {
		return json.NewEncoder(c.App.Writer).Encode(struct {
			Objects []pathInfo `json:"objects"`
			Sharing *sharing   `json:"sharing,omitempty"`
		}{infos, sh})
	}
	printPathInfo(c, infos, sh)
	return nil
}

func printPathInfo(c *cli.Context, infos []pathInfo, sh *sharing) {
	w := c.App.Writer
	size := func(n int64) string {
		if c.Bool("human-readable") {
			return bytesize(n)
		}
		return fmt.Sprint(n)
	}
	for _, i := range infos {
		line := i.Ref
		if i.Size != nil && c.Bool("size") {
			line += fmt.Sprintf("  %10s", size(*i.Size))
		}
		if i.ClosureSize != nil {
			line += fmt.Sprintf("  %10s", size(*i.ClosureSize))
		}
		fmt.Fprintln(w, line)
	}
	if sh == nil {
		return
	}
	fmt.Fprintf(w, "\nshared by all %d outputs: %s in %d objects\n", len(sh.Outputs), size(sh.Bytes), len(sh.Shared))
	printShared(w, sh, size)
}

func printShared(w io.Writer, sh *sharing, size func(int64) string) {
	for _, r := range sh.Shared {
		fmt.Fprintf(w, "  %s\n", r)
	}
	for _, o := range sh.Outputs {
		fmt.Fprintf(w, "%s: closure %s, of which nobody else has %s\n", o.Ref, size(o.Closure), size(o.Own))
	}
}

// shared compares the closures of outputs: by object for what to list, by
// content for bytes, since two objects may hold the same files. An output that
// reaches another one (a deployment its machines) is not compared with it.
func shared(s *store.Store, refs []store.Ref) (*sharing, error) {
	closures := map[store.Ref]map[store.Ref]bool{}
	for _, r := range refs {
		cl, err := s.Closure(r)
		if err != nil {
			return nil, err
		}
		m := map[store.Ref]bool{}
		for _, x := range cl {
			m[x] = true
		}
		closures[r] = m
	}
	var tops []store.Ref
	for _, r := range refs {
		reaches := false
		for _, o := range refs {
			reaches = reaches || o != r && closures[r][o]
		}
		if !reaches {
			tops = append(tops, r)
		}
	}
	if len(tops) == 0 {
		tops = refs
	}
	sh := &sharing{Shared: []string{}, Outputs: []outputSharing{}}
	for x := range closures[tops[0]] {
		all := true
		for _, r := range tops {
			all = all && closures[r][x]
		}
		if all {
			sh.Shared = append(sh.Shared, string(x))
		}
	}
	sort.Strings(sh.Shared)
	var err error
	if sh.Bytes, err = s.ClosureSize(asRefs(sh.Shared)...); err != nil {
		return nil, err
	}
	everything, err := s.ClosureSize(tops...)
	if err != nil {
		return nil, err
	}
	for i, r := range tops {
		n, err := s.ClosureSize(r)
		if err != nil {
			return nil, err
		}
		others := append(append([]store.Ref(nil), tops[:i]...), tops[i+1:]...)
		rest, err := s.ClosureSize(others...)
		if err != nil {
			return nil, err
		}
		sh.Outputs = append(sh.Outputs, outputSharing{string(r), n, everything - rest})
	}
	return sh, nil
}

func asRefs(names []string) []store.Ref {
	out := make([]store.Ref, len(names))
	for i, n := range names {
		out[i] = store.Ref(n)
	}
	return out
}

// resolveRefs turns words of a command line into store references: a REF as
// it is, a target by building it (a null build if nothing changed).
func resolveRefs(c *cli.Context, args []string) (*store.Store, []store.Ref, func(), error) {
	var refs []store.Ref
	var targets []string
	for _, a := range args {
		if r, err := store.ParseRef(strings.TrimPrefix(a, "/tool/store/")); err == nil && !strings.ContainsAny(a, ":") {
			refs = append(refs, r)
		} else {
			targets = append(targets, a)
		}
	}
	if len(targets) == 0 {
		s, _, err := openHostStore()
		if err != nil {
			return nil, nil, nil, err
		}
		return s, refs, func() { s.Close() }, nil
	}
	e, err := openEngineHere(c)
	if err != nil {
		return nil, nil, nil, err
	}
	built, err := e.buildTargets(c, targets)
	if err != nil {
		e.close()
		return nil, nil, nil, diskFull(err)
	}
	return e.store, append(refs, built...), e.close, nil
}

// buildTargets builds and returns the objects made, in order, each once.
func (e *engine) buildTargets(c *cli.Context, patterns []string) ([]store.Ref, error) {
	labels, err := e.labels(c.Context, patterns, graph.ExpandOptions{})
	if err != nil {
		return nil, err
	}
	ex, err := e.executor(c)
	if err != nil {
		return nil, err
	}
	var ids []int
	var names, owners []string
	for _, l := range labels {
		t, err := e.analyzer.Analyze(c.Context, l)
		if err != nil {
			return nil, err
		}
		for _, f := range t.Files() {
			ids = append(ids, f.Artifact.ID)
			names = append(names, store.NameOf(f.Artifact.Path))
			owners = append(owners, t.Label.String())
		}
	}
	report, err := ex.Build(c.Context, &e.analyzer.Actions, ids)
	if err != nil {
		return nil, err
	}
	seen := map[store.Ref]bool{}
	var refs []store.Ref
	for i, made := range report.Wanted {
		r, err := e.store.Add(c.Context, store.Object{Name: names[i], Node: made.Node, Refs: made.Refs, Deriver: owners[i]})
		if err != nil {
			return nil, err
		}
		if !seen[r] {
			seen[r] = true
			refs = append(refs, r)
		}
	}
	return refs, nil
}
