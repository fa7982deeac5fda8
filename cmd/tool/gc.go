package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"tool/core/language/workspace"
	"tool/core/storage/store"
)

func gcCommand() *cli.Command {
	return &cli.Command{
		Name:  "gc",
		Usage: "remove what no root reaches from the store",
		Description: "Roots are the newest builds of each label in each workspace (gc.keep_builds in tool.toml)\n" +
			"and what running builds use. Builds of labels that a BUILD file no longer has are dropped first.",
		Flags: []cli.Flag{
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
	s, _, err := openHostStore()
	if err != nil {
		return err
	}
	defer s.Close()
	cache, err := openCache(s)
	if err != nil {
		return err
	}
	plan, err := s.PlanGC(c.Context, store.GCOptions{OlderThan: age, Results: cache})
	if err != nil {
		return gcError(err)
	}
	r := gcResult{DryRun: c.Bool("dry-run"), Objects: plan.Objects, Blobs: len(plan.Blobs), Results: len(plan.Results), Bytes: plan.Bytes}
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
	for _, o := range r.Objects {
		fmt.Fprintf(w, "%s %s  %s\n", verb, o.Ref, bytesize(o.Size))
	}
	fmt.Fprintf(w, "%s %d objects, %d blobs, %d action results: %s\n", verb, len(r.Objects), r.Blobs, r.Results, bytesize(r.Bytes))
	return nil
}
