package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"tool/core/storage/store"
)

func storeCommand() *cli.Command {
	return &cli.Command{
		Name:  "store",
		Usage: "look after the store",
		Action: func(c *cli.Context) error {
			if !c.Args().Present() {
				return cli.ShowSubcommandHelp(c)
			}
			return usageError("tool store: there is no command %q%s; `tool store --help` lists them", c.Args().First(), nearest(c.Args().First(), []string{"verify"}))
		},
		Subcommands: []*cli.Command{{
			Name: "verify", Usage: "hash every blob and check every object",
			Flags:  []cli.Flag{jsonFlag(), &cli.BoolFlag{Name: "repair", Usage: "remove what is damaged, so that the next build makes it again"}},
			Action: runVerify,
		}},
	}
}

func gcError(err error) error {
	var busy *store.BusyError
	if errors.As(err, &busy) {
		return withCode(exitLocked, err)
	}
	return diskFull(err)
}

func runVerify(c *cli.Context) error {
	s, _, err := openHostStore()
	if err != nil {
		return err
	}
	defer s.Close()
	r, err := s.Verify(c.Context, c.Bool("repair"), nil)
	if err != nil {
		return gcError(err)
	}
	w := c.App.Writer
	bad, repaired, onlyRoots := 0, 0, true
	for _, p := range r.Problems {
		if p.Repaired {
			repaired++
		}
		onlyRoots = onlyRoots && p.Kind == store.ProblemRoot
		// What a repair took away leaves roots that only a build can satisfy.
		if !p.Repaired && !(c.Bool("repair") && p.Kind == store.ProblemRoot) {
			bad++
		}
	}
	if c.Bool("json") {
		if r.Problems == nil {
			r.Problems = []store.Problem{}
		}
		if err := json.NewEncoder(w).Encode(map[string]any{"blobs": r.Blobs, "objects": r.Objects, "bytes": r.Bytes, "problems": r.Problems}); err != nil {
			return err
		}
	} else {
		for _, p := range r.Problems {
			state, name := "", ""
			switch {
			case p.Repaired:
				state = " (removed; the next build makes it again)"
			case c.Bool("repair") && p.Kind == store.ProblemRoot:
				state = " (build it again)"
			}
			if n := problemName(p); n != "" && !strings.Contains(p.Detail, n) {
				name = n + ": "
			}
			fmt.Fprintf(w, "%s: %s%s%s\n", p.Kind, name, p.Detail, state)
		}
		fmt.Fprintf(w, "%d blobs (%s) and %d objects checked: %d problems", r.Blobs, bytesize(r.Bytes), r.Objects, len(r.Problems))
		if repaired > 0 {
			fmt.Fprintf(w, ", %d repaired", repaired)
		}
		fmt.Fprintln(w)
	}
	if bad > 0 && onlyRoots {
		return withCode(exitBuild, errors.New("what these roots name is not in the store: build it again, or remove them with `tool roots rm`"))
	}
	if bad > 0 {
		return withCode(exitBuild, errors.New("the store is damaged: run `tool store verify --repair`, then build again"))
	}
	return nil
}

// problemName is what a problem is about, as a person would look for it.
func problemName(p store.Problem) string {
	if p.Ref != "" {
		return string(p.Ref)
	}
	return p.Path
}
