package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"tool/core/execution/exec"
	"tool/core/language/graph"
)

func logCommand() *cli.Command {
	return &cli.Command{
		Name: "log", Usage: "print what the last run of a target's actions wrote", ArgsUsage: "TARGET...",
		Flags: flags([]cli.Flag{jsonFlag()}, configFlags()), Action: runLog,
	}
}

func runLog(c *cli.Context) error {
	e, err := openEngineHere(c)
	if err != nil {
		return err
	}
	defer e.close()
	labels, err := e.labels(c.Context, c.Args().Slice(), graph.ExpandOptions{Manual: true})
	if err != nil {
		return err
	}
	if err := e.openStore(); err != nil {
		return err
	}
	logs, err := openLogs(e.store)
	if err != nil {
		return err
	}
	var all []exec.Log
	for _, l := range labels {
		ls, err := logs.Logs(l.String())
		if err != nil {
			return err
		}
		all = append(all, ls...)
	}
	e.view.Close()
	e.view.quiet = true
	if c.Bool("json") {
		if all == nil {
			all = []exec.Log{}
		}
		return json.NewEncoder(c.App.Writer).Encode(map[string]any{"logs": all})
	}
	if len(all) == 0 {
		return withCode(exitBuild, errors.New("no action of this target has run here yet: what is cached has no log of its own"))
	}
	p := newPalette(c.App.Writer)
	for _, l := range all {
		state := "ok"
		if l.Error != "" {
			state = "failed"
		}
		fmt.Fprintf(c.App.Writer, "%s\n", p.bold(fmt.Sprintf("%s %s → %s: %s in %s, %s", l.Owner, l.Mnemonic, l.Output, state, duration(l.Took), l.At.Local().Format("2006-01-02 15:04:05"))))
		for _, b := range [][]byte{l.Stdout, l.Stderr, []byte(l.Error)} {
			if s := strings.TrimRight(string(b), "\n"); s != "" {
				fmt.Fprintln(c.App.Writer, s)
			}
		}
	}
	return nil
}
