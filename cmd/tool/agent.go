package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/urfave/cli/v2"

	"tool/core/machines/activate"
)

// agentCommand is the machine's side: the same program is the agent on every
// machine, outside of its generations.
func agentCommand() *cli.Command {
	root := &cli.StringFlag{Name: "root", Value: "/", Usage: "the machine's root file system is at `DIR`"}
	sub := func(name, usage, args, description string, action func(*cli.Context, *activate.Machine) error, extra ...cli.Flag) *cli.Command {
		return &cli.Command{Name: name, Usage: usage, ArgsUsage: args, Description: description, Flags: append(extra, root), Action: func(c *cli.Context) error {
			return withMachine(c, action)
		}}
	}
	return &cli.Command{
		Name:  "agent",
		Usage: "be the agent of a machine: boot, switch, roll back (runs on the machine)",
		Description: "These commands run on a machine that tool manages. Deploying runs them over SSH; people need `status`, `generations` and\n" +
			"`rollback`, which work without a network. docs/machine.md tells what lies where.",
		Subcommands: []*cli.Command{
			sub("boot", "make the root file system ready for systemd; the initrd runs it in a chroot", " ",
				"Takes in a seed disk that is new, decides which generation starts (tool.generation=N of the kernel's command line, a trial,\nthe confirmed one), and writes /usr, /etc and the network's files.",
				runAgentBoot, &cli.StringFlag{Name: "seed", Usage: "seed disk: a block device or file, `DEVICE`"}),
			sub("serve", "speak the agent's protocol on stdin and stdout, for a controller", " ", "", runAgentServe),
			sub("switch", "do the switch that was prepared, to its end", "GENERATION",
				"Runs in a unit of its own, tool-switch-GENERATION, and goes on where one that was killed stopped.", runAgentSwitch),
			sub("settle", "go on with the switch that this start of the machine is part of", " ", "", runAgentSettle),
			sub("status", "show the generations in use and the last switch", " ", "", runAgentStatus, jsonFlag()),
			sub("generations", "list the generations", " ", "", runAgentGenerations, jsonFlag()),
			sub("rollback", "switch to an earlier generation, without a network", "[GENERATION]",
				"Without a number, to the one that was confirmed before the active one. It is confirmed when its units are well, and taken\nback when they are not.",
				runAgentRollback, &cli.BoolFlag{Name: "no-wait", Usage: "return when it has begun"}),
			sub("confirm", "confirm the generation that waits for it", "GENERATION", "", runAgentConfirm),
			sub("gc", "remove old generations and what only they need", " ", "", runAgentGC, &cli.IntFlag{Name: "keep", Value: 5, Usage: "keep the newest `N` generations"}),
			sub("drift", "tell in what the machine is not as its generation says", " ", "", runAgentDrift, jsonFlag()),
			sub("adopt", "take over a Debian machine that was set up otherwise", " ",
				"Nothing changes for what runs: the machine's own /usr becomes generation 0, and `tool agent rollback 0` gives it back.\nIt takes systemd and a merged /usr on the root file system.",
				runAgentAdopt),
			sub("release", "give back a machine that was taken over, once it is at generation 0", " ",
				"Its own /usr is a folder again, and nothing of tool is started any more. What is left below /tool may be removed then.",
				runAgentRelease),
		},
	}
}

func withMachine(c *cli.Context, action func(*cli.Context, *activate.Machine) error) error {
	if err := checkAgentArgs(c); err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return withCode(exitEnvironment, fmt.Errorf("%s: it takes root: it works on the whole machine", c.Command.HelpName))
	}
	root := c.String("root")
	if name := c.Command.Name; name != "boot" && name != "adopt" && !activate.IsManaged(root) {
		return withCode(exitEnvironment, fmt.Errorf("%s: the machine at %s is not managed by tool; `tool deploy` makes machines, `tool agent adopt` takes over one that is there", c.Command.HelpName, root))
	}
	m, err := activate.Open(root, activate.Systemctl{})
	if err != nil {
		return withCode(exitEnvironment, err)
	}
	defer m.Close()
	m.Log = func(format string, args ...any) { fmt.Fprintf(c.App.ErrWriter, "tool: "+format+"\n", args...) }
	return action(c, m)
}

// checkAgentArgs finds wrong arguments before anything is looked at.
func checkAgentArgs(c *cli.Context) error {
	least, most := 0, 0
	switch c.Command.Name {
	case "switch", "confirm":
		least, most = 1, 1
	case "rollback":
		most = 1
	case "gc":
		if c.Int("keep") < 1 {
			return usageError("%s: --keep=%d: at least one generation must stay", c.Command.HelpName, c.Int("keep"))
		}
	}
	switch n := c.Args().Len(); {
	case n > most:
		return usageError("%s: %q is too much; `%s --help` shows what it takes", c.Command.HelpName, c.Args().Get(most), c.Command.HelpName)
	case n < least:
		return usageError("%s: name a generation; `tool agent generations` lists them", c.Command.HelpName)
	case n == 0:
		return nil
	}
	_, err := generationArg(c)
	return err
}

// generationArg reads a generation's number.
func generationArg(c *cli.Context) (int, error) {
	n, err := strconv.Atoi(c.Args().First())
	if err != nil || n < 0 {
		return 0, usageError("%s: %q is no number of a generation; `tool agent generations` lists them", c.Command.HelpName, c.Args().First())
	}
	return n, nil
}

func runAgentBoot(c *cli.Context, m *activate.Machine) error {
	if exe, err := os.Executable(); err == nil && m.AgentSHA256() == "" {
		if err := m.InstallAgent(exe); err != nil {
			return err
		}
	}
	return m.Boot(c.Context, c.String("seed"))
}

func runAgentSwitch(c *cli.Context, m *activate.Machine) error {
	n, err := generationArg(c)
	if err != nil {
		return err
	}
	return m.RunSwitch(c.Context, n)
}

func runAgentSettle(c *cli.Context, m *activate.Machine) error { return m.Settle(c.Context) }

func runAgentConfirm(c *cli.Context, m *activate.Machine) error {
	n, err := generationArg(c)
	if err != nil {
		return err
	}
	return m.Confirm(n)
}

func runAgentAdopt(c *cli.Context, m *activate.Machine) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	return m.Adopt(c.Context, exe)
}

func runAgentRelease(c *cli.Context, m *activate.Machine) error { return m.Release(c.Context) }

func runAgentGC(c *cli.Context, m *activate.Machine) error {
	got, err := m.GC(c.Context, c.Int("keep"))
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "%d generations, %d objects, %d MiB removed\n", len(got.Generations), got.Freed.Objects, got.Freed.Bytes>>20)
	return nil
}

func runAgentDrift(c *cli.Context, m *activate.Machine) error {
	drift, err := m.FindDrift(c.Context)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		if drift == nil {
			drift = []activate.Drift{}
		}
		return json.NewEncoder(c.App.Writer).Encode(map[string]any{"drift": drift})
	}
	for _, d := range drift {
		fmt.Fprintf(c.App.Writer, "%s %s: %s\n", d.Kind, d.Path, d.Detail)
	}
	return nil
}

func runAgentGenerations(c *cli.Context, m *activate.Machine) error {
	all, err := m.Generations()
	if err != nil {
		return err
	}
	if c.Bool("json") {
		if all == nil {
			all = []activate.Generation{}
		}
		return json.NewEncoder(c.App.Writer).Encode(map[string]any{"generations": all})
	}
	marks := map[int]string{}
	for _, p := range []activate.Pointer{activate.Staged, activate.Active, activate.Confirmed} {
		n, err := m.Pointer(p)
		if err != nil {
			return err
		}
		marks[n] += " " + string(p)
	}
	w := tabwriter.NewWriter(c.App.Writer, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "GENERATION\tMADE\tLABEL\tSYSTEM\t")
	for _, g := range all {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%s\n", g.Number, g.Created.Local().Format("2006-01-02 15:04:05"), g.Label, g.Ref, marks[g.Number])
	}
	return w.Flush()
}

func runAgentStatus(c *cli.Context, m *activate.Machine) error {
	if err := m.Resume(c.Context); err != nil {
		fmt.Fprintf(c.App.ErrWriter, "tool: the switch under way cannot be continued: %v\n", err)
	}
	s, err := m.Status()
	if err != nil {
		return err
	}
	pointers := map[activate.Pointer]int{}
	for _, p := range []activate.Pointer{activate.Staged, activate.Active, activate.Confirmed} {
		if pointers[p], err = m.Pointer(p); err != nil {
			return err
		}
	}
	if c.Bool("json") {
		return json.NewEncoder(c.App.Writer).Encode(map[string]any{
			"staged": pointers[activate.Staged], "active": pointers[activate.Active], "confirmed": pointers[activate.Confirmed], "booted": m.Booted(), "switch": s})
	}
	fmt.Fprintf(c.App.Writer, "staged %d, active %d, confirmed %d, booted %d\n", pointers[activate.Staged], pointers[activate.Active], pointers[activate.Confirmed], m.Booted())
	if s != nil {
		fmt.Fprintf(c.App.Writer, "last switch: %s\n", s)
		printFailures(c, s)
	}
	return nil
}

func printFailures(c *cli.Context, s *activate.SwitchStatus) {
	for _, f := range s.Failures {
		fmt.Fprintf(c.App.Writer, "%s", f.What)
		if f.Exit != "" {
			fmt.Fprintf(c.App.Writer, " (%s)", f.Exit)
		}
		fmt.Fprintln(c.App.Writer)
		for _, r := range f.Reasons {
			fmt.Fprintf(c.App.Writer, "  changed: %s\n", r)
		}
		for _, l := range f.Journal {
			fmt.Fprintf(c.App.Writer, "  | %s\n", l)
		}
	}
}

func runAgentRollback(c *cli.Context, m *activate.Machine) error {
	n := -1
	if c.Args().Present() {
		var err error
		if n, err = generationArg(c); err != nil {
			return err
		}
	}
	s, err := m.Rollback(c.Context, n)
	if err != nil {
		return err
	}
	if c.Bool("no-wait") {
		return nil
	}
	s, err = waitForEnd(c.Context, m, s)
	if err != nil {
		return err
	}
	if s.Result != activate.ResultConfirmed {
		printFailures(c, s)
		return fmt.Errorf("roll back: %s", s)
	}
	fmt.Fprintf(c.App.Writer, "generation %d is active and confirmed\n", s.Generation)
	return nil
}

func waitForEnd(ctx context.Context, m *activate.Machine, s *activate.SwitchStatus) (*activate.SwitchStatus, error) {
	for !s.Over() {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(300 * time.Millisecond):
		}
		now, err := m.Status()
		if err != nil {
			return nil, err
		}
		s = now
	}
	return s, nil
}
