package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"

	"tool/core/storage/store"
)

func rootsCommand() *cli.Command {
	return &cli.Command{
		Name:   "roots",
		Usage:  "list what keeps objects from being collected",
		Flags:  []cli.Flag{jsonFlag()},
		Action: runRoots,
		Subcommands: []*cli.Command{{
			Name: "rm", Usage: "remove roots by name; the next gc takes what only they kept", ArgsUsage: "NAME...",
			Action: runRootsRemove,
		}},
	}
}

func runRoots(c *cli.Context) error {
	if c.Args().Present() {
		return usageError("tool roots takes no arguments; `tool roots rm NAME` removes a root")
	}
	s, _, err := openHostStore()
	if err != nil {
		return err
	}
	defer s.Close()
	roots, err := s.Roots()
	if err != nil {
		return err
	}
	if c.Bool("json") {
		if roots == nil {
			roots = []store.Root{}
		}
		return json.NewEncoder(c.App.Writer).Encode(map[string]any{"roots": roots})
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tLABEL\tMADE\tWORKSPACE\tOBJECTS")
	for _, r := range roots {
		names := make([]string, len(r.Refs))
		for i, ref := range r.Refs {
			names[i] = string(ref)
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", r.Name, r.Label, r.Created.Local().Format("2006-01-02 15:04:05"), r.Workspace, strings.Join(names, " "))
	}
	return w.Flush()
}

func runRootsRemove(c *cli.Context) error {
	if !c.Args().Present() {
		return usageError("tool roots rm: name the roots, as `tool roots` lists them")
	}
	s, _, err := openHostStore()
	if err != nil {
		return err
	}
	defer s.Close()
	for _, name := range c.Args().Slice() {
		err := s.RemoveRoot(name)
		if errors.Is(err, fs.ErrNotExist) {
			return usageError("there is no root %q; `tool roots` lists them", name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
