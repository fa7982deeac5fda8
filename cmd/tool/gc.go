package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"tool/core/language/graph"
	"tool/core/language/loader"
	"tool/core/language/workspace"
	"tool/core/model/event"
	"tool/core/model/label"
	"tool/core/storage/store"
	"tool/rules"
)

func gcCommand() *cli.Command {
	return &cli.Command{
		Name:  "gc",
		Usage: "remove what no root reaches from the store",
		Description: "Roots are the newest builds of each label in each workspace (gc.keep_builds in tool.toml)\n" +
			"and what running builds use, and all generations of deployments. Builds of labels that a BUILD file no\n" +
			"longer has are dropped first. With -d, a deployment's old generations (beyond gc.keep_generations) are dropped\n" +
			"too, and its machines collect what they no longer need.",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "deployment", Aliases: []string{"d"}, Usage: "also the machines and old generations of the deployment `NAME`"},
			&cli.IntFlag{Name: "keep", Usage: "with -d: keep `N` generations (default: gc.keep_generations of tool.toml, or 5)"},
			&cli.BoolFlag{Name: "dry-run", Usage: "list what would go; remove nothing"},
			&cli.StringFlag{Name: "older-than", Usage: "spare what was used within `AGE`, such as 12h or 30d"},
			jsonFlag(),
		},
		Action: runGC,
	}
}

// workspaceConfig returns the settings of the workspace around the current
// folder, or nil outside of one: store commands work anywhere.
func workspaceConfig() (*workspace.Workspace, error) {
	root, err := workspace.FindRoot(".")
	if err != nil {
		return nil, nil
	}
	ws, err := workspace.Open(root)
	if err != nil {
		return nil, withCode(exitUsage, err)
	}
	return ws, nil
}

func openHostStore() (*store.Store, *workspace.Workspace, error) {
	ws, err := workspaceConfig()
	if err != nil {
		return nil, nil, err
	}
	var cfg *workspace.Config
	if ws != nil {
		cfg = &ws.Config
	}
	s, err := openStore(cfg)
	return s, ws, err
}

// parseAge reads Go's durations and whole days: 90s, 12h, 30d.
func parseAge(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, usageError("--older-than=%s: want a time such as 12h or 30d", s)
	}
	return d, nil
}

// gcResult is what gc --json prints.
type gcResult struct {
	DryRun  bool               `json:"dry_run"`
	Roots   []string           `json:"roots"` // of targets and workspaces that are no more
	Objects []store.DeadObject `json:"objects"`
	Blobs   int                `json:"blobs"`
	Results int                `json:"action_results"`
	Bytes   int64              `json:"bytes"`
}

func runGC(c *cli.Context) error {
	age, err := parseAge(c.String("older-than"))
	if err != nil {
		return err
	}
	if c.String("deployment") != "" && !c.Bool("dry-run") {
		if err := collectMachines(c); err != nil {
			return err
		}
	}
	s, ws, err := openHostStore()
	if err != nil {
		return err
	}
	defer s.Close()
	drop, err := staleRoots(c, s, ws)
	if err != nil {
		return err
	}
	cache, err := openCache(s)
	if err != nil {
		return err
	}
	plan, err := s.PlanGC(c.Context, store.GCOptions{OlderThan: age, Results: cache, Drop: drop})
	if err != nil {
		return gcError(err)
	}
	r := gcResult{DryRun: c.Bool("dry-run"), Roots: drop, Objects: plan.Objects, Blobs: len(plan.Blobs), Results: len(plan.Results), Bytes: plan.Bytes}
	if r.Objects == nil {
		r.Objects = []store.DeadObject{}
	}
	if !r.DryRun {
		freed, err := plan.Execute(c.Context, nil)
		if err != nil {
			return gcError(err)
		}
		r.Blobs, r.Results, r.Bytes = freed.Blobs, freed.Results, freed.Bytes
	}
	w := c.App.Writer
	if c.Bool("json") {
		return json.NewEncoder(w).Encode(r)
	}
	verb := "removed"
	if r.DryRun {
		verb = "would remove"
	}
	for _, name := range r.Roots {
		fmt.Fprintf(w, "%s the root %s: its target is no more\n", verb, name)
	}
	for _, o := range r.Objects {
		fmt.Fprintf(w, "%s %s  %s\n", verb, o.Ref, bytesize(o.Size))
	}
	fmt.Fprintf(w, "%s %d objects, %d blobs, %d action results: %s\n", verb, len(r.Objects), r.Blobs, r.Results, bytesize(r.Bytes))
	return nil
}

// staleRoots names the roots of builds whose label the workspace no longer
// has, and of workspaces whose folder is gone. A BUILD file that cannot be
// read makes no label stale.
func staleRoots(c *cli.Context, s *store.Store, ws *workspace.Workspace) ([]string, error) {
	roots, err := s.Roots()
	if err != nil {
		return nil, err
	}
	stale := []string{}
	g := &graph.Graph{}
	if ws != nil {
		g.Loader = loader.New(ws, rules.FS, event.Discard)
	}
	for _, r := range roots {
		if r.Kind != "build" || r.Workspace == "" {
			continue
		}
		if ws == nil || r.Workspace != ws.Root {
			if _, err := os.Stat(r.Workspace); errors.Is(err, fs.ErrNotExist) {
				stale = append(stale, r.Name)
			}
			continue
		}
		l, err := label.Parse(r.Label, label.Label{})
		if err != nil || strings.HasSuffix(r.Label, "...") || l.Name == "all" {
			continue // a pattern never goes stale
		}
		pkg, err := g.Loader.Package(c.Context, l.Package())
		var none *loader.NoPackageError
		if errors.As(err, &none) {
			stale = append(stale, r.Name)
			continue
		}
		if err != nil {
			continue
		}
		if _, err := g.Loader.Target(pkg, l.Name); err != nil {
			stale = append(stale, r.Name)
		}
	}
	return stale, nil
}
