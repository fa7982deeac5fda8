package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"tool/core/machines/deploy"
	"tool/core/model/event"
)

func snapshotCommand() *cli.Command {
	machineFlags := []cli.Flag{deploymentFlag(), progressFlag()}
	subs := []*cli.Command{
		{
			Name: "take", Usage: "keep the state of machines under a name: their disks, and their memory if they run", ArgsUsage: "NAME [MACHINE...]",
			Flags:  append([]cli.Flag{&cli.StringFlag{Name: "description", Usage: "one line of `TEXT` for people"}}, machineFlags...),
			Action: snapshotAction(nil, (*deploy.Session).TakeSnapshot),
		},
		{
			Name: "list", Usage: "print the snapshots of machines, oldest first", ArgsUsage: "[MACHINE...]",
			Flags:  []cli.Flag{deploymentFlag(), jsonFlag()},
			Action: runSnapshotList,
		},
		{
			Name: "restore", Usage: "bring machines back to a snapshot; what changed since is lost", ArgsUsage: "NAME [MACHINE...]",
			Description: "Asks before it does so, on a terminal. Machines that run are stopped and started again.\n" +
				"What they have then may be older than the deployment's generation: `tool deploy` brings them to it.",
			Flags: append([]cli.Flag{yesFlag()}, machineFlags...),
			Action: snapshotAction(confirmRestore, func(s *deploy.Session, ctx context.Context, machine string, sn deploy.Snapshot) error {
				return s.RestoreSnapshot(ctx, machine, sn.Name)
			}),
		},
		{
			Name: "delete", Usage: "forget a snapshot; what the machines have stays", ArgsUsage: "NAME [MACHINE...]",
			Flags: machineFlags,
			Action: snapshotAction(nil, func(s *deploy.Session, ctx context.Context, machine string, sn deploy.Snapshot) error {
				return s.DeleteSnapshot(ctx, machine, sn.Name)
			}),
		},
	}
	return &cli.Command{
		Name: "snapshot", Usage: "keep states of machines to go back to, where their backend can (virtualbox)", Subcommands: subs,
		Action: func(c *cli.Context) error {
			if !c.Args().Present() {
				return cli.ShowSubcommandHelp(c)
			}
			var names []string
			for _, s := range subs {
				names = append(names, s.Name)
			}
			return usageError("tool snapshot: there is no command %q%s; `tool snapshot --help` lists them", c.Args().First(), nearest(c.Args().First(), names))
		},
	}
}

// snapshotAction does one thing with a snapshot of several machines. Ask may
// refuse before anything is done.
func snapshotAction(ask func(*cli.Context, []string) error, do func(*deploy.Session, context.Context, string, deploy.Snapshot) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		if !c.Args().Present() {
			return usageError("snapshot %s: name the snapshot first, then machines if not all", c.Command.Name)
		}
		sn := deploy.Snapshot{Name: c.Args().First(), Description: c.String("description")}
		if err := deploy.CheckSnapshotName(sn.Name); err != nil {
			return usageError("%v", err)
		}
		before := func(names []string) error {
			if ask == nil {
				return nil
			}
			return ask(c, names)
		}
		return eachMachine(c, c.Args().Tail(), before, func(s *deploy.Session, name string) error { return do(s, c.Context, name, sn) })
	}
}

func confirmRestore(c *cli.Context, names []string) error {
	return confirm(c, fmt.Sprintf("Go back to %s on %s, and lose what changed since?", c.Args().First(), strings.Join(names, ", ")))
}

func runSnapshotList(c *cli.Context) error {
	_, d, err := chooseDeployment(c)
	if err != nil {
		return err
	}
	names, err := machinesOf(d, c.Args().Slice())
	if err != nil {
		return err
	}
	s, err := newSession(d, nil, event.Discard)
	if err != nil {
		return err
	}
	all := map[string][]deploy.Snapshot{}
	var rows [][]string
	for _, n := range names {
		sns, err := s.Snapshots(c.Context, n)
		if err != nil {
			return withCode(exitSomeFailed, fmt.Errorf("%s: %w", n, err))
		}
		all[n] = sns
		for _, sn := range sns {
			current := ""
			if sn.Current {
				current = "*"
			}
			rows = append(rows, []string{n, sn.Name, current, sn.Description})
		}
	}
	if c.Bool("json") {
		return json.NewEncoder(c.App.Writer).Encode(all)
	}
	if len(rows) == 0 {
		fmt.Fprintln(c.App.ErrWriter, "there are no snapshots")
		return nil
	}
	table(c.App.Writer, []string{"Machine", "Snapshot", "Current", "Description"}, rows)
	return nil
}
