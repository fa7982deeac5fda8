package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"tool/core/machines/deploy"
	"tool/core/machines/system"
	"tool/core/storage/store"
)

func generationsCommand() *cli.Command {
	return &cli.Command{
		Name: "generations", Usage: "list what the machines of a deployment were brought to",
		Flags: []cli.Flag{deploymentFlag(), jsonFlag()}, Action: runGenerations,
	}
}

func runGenerations(c *cli.Context) error {
	_, d, err := chooseDeployment(c)
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return json.NewEncoder(c.App.Writer).Encode(map[string]any{"active": d.Active, "generations": d.Generations})
	}
	var rows [][]string
	for _, g := range d.Generations {
		mark := ""
		if g.Number == d.Active {
			mark = "current"
		}
		rows = append(rows, []string{strconv.Itoa(g.Number), g.Created.Local().Format(time.DateTime), g.State, strconv.Itoa(len(g.Machines)), mark, g.Note})
	}
	table(c.App.Writer, []string{"Generation", "Created", "State", "Machines", "Now", "Note"}, rows)
	return nil
}

func rollbackCommand() *cli.Command {
	return &cli.Command{
		Name:      "rollback",
		Usage:     "bring the machines back to an earlier generation: the one before, or the given one",
		ArgsUsage: "[GENERATION]",
		Description: "Nothing is built and, if the machines still have that generation, nothing is sent. On a machine that\n" +
			"cannot be reached from here, `tool agent rollback` does the same without a network.",
		Flags: []cli.Flag{
			deploymentFlag(),
			&cli.StringSliceFlag{Name: "on", Usage: "only these `MACHINES`"},
			&cli.StringFlag{Name: "mode", Value: "switch", Usage: "switch, boot or test, as for deploy"},
			&cli.IntFlag{Name: "parallel", Usage: "switch at most `N` machines at a time"},
			&cli.BoolFlag{Name: "allow-destroy", Usage: "let machines be destroyed that the generation does not have"},
			&cli.BoolFlag{Name: "allow-epoch", Usage: "let services go back to programs that may not read their data"},
			&cli.BoolFlag{Name: "dry-run", Usage: "print the plan; touch nothing"},
			progressFlag(),
		},
		Action: runRollback,
	}
}

func runRollback(c *cli.Context) error {
	start := time.Now()
	if err := checkMode(c); err != nil {
		return err
	}
	book, d, err := chooseDeployment(c)
	if err != nil {
		return err
	}
	lease, err := lockDeployment(d, c)
	if err != nil {
		return err
	}
	defer lease.Release()
	g, err := earlierGeneration(d, c.Args().First())
	if err != nil {
		return err
	}
	w := &deployment{c: c, book: book, target: &target{d.Workspace, d.Label}}
	defer w.close()
	if err := w.open(d); err != nil {
		return err
	}
	if err := w.load(g.Object); err != nil {
		return fmt.Errorf("generation %d: %w", g.Number, err)
	}
	w.options.Generation = g.Number
	return w.deploy(start)
}

// earlierGeneration is the one that a roll-back goes to.
func earlierGeneration(d *deploy.Deployment, arg string) (*deploy.Generation, error) {
	if arg != "" {
		return generationOf(d, arg)
	}
	if g := d.Before(); g != nil {
		return g, nil
	}
	return nil, usageError("deployment %s has no generation before the current one", d.Name)
}

func generationOf(d *deploy.Deployment, arg string) (*deploy.Generation, error) {
	n, err := strconv.Atoi(arg)
	if err != nil {
		return nil, usageError("%q is not a generation's number; `tool generations -d %s` lists them", arg, d.Name)
	}
	for i := range d.Generations {
		if d.Generations[i].Number == n {
			return &d.Generations[i], nil
		}
	}
	return nil, usageError("deployment %s has no generation %d; `tool generations -d %s` lists them", d.Name, n, d.Name)
}

func diffCommand() *cli.Command {
	return &cli.Command{
		Name: "diff", Usage: "compare two generations: packages, versions, sizes, units", ArgsUsage: "GENERATION GENERATION",
		Flags: []cli.Flag{deploymentFlag(), jsonFlag()}, Action: runDiff,
	}
}

// machineDiff is what differs for one machine.
type machineDiff struct {
	Machine string          `json:"machine"`
	From    store.Ref       `json:"from,omitempty"`
	To      store.Ref       `json:"to,omitempty"`
	OldSize int64           `json:"old_closure_bytes"`
	NewSize int64           `json:"new_closure_bytes"`
	Changes *system.Changes `json:"changes,omitempty"`
}

func runDiff(c *cli.Context) error {
	if c.Args().Len() != 2 {
		return usageError("diff: want two generations; `tool generations` lists them")
	}
	_, d, err := chooseDeployment(c)
	if err != nil {
		return err
	}
	a, err := generationOf(d, c.Args().Get(0))
	if err != nil {
		return err
	}
	b, err := generationOf(d, c.Args().Get(1))
	if err != nil {
		return err
	}
	s, err := storeOf(d)
	if err != nil {
		return err
	}
	defer s.Close()
	names := maps.Clone(a.Machines)
	maps.Copy(names, b.Machines)
	var out []machineDiff
	for _, n := range slices.Sorted(maps.Keys(names)) {
		m, err := diffMachine(s, n, a.Machines[n], b.Machines[n])
		if err != nil {
			return fmt.Errorf("machine %s: %w", n, err)
		}
		out = append(out, *m)
	}
	if c.Bool("json") {
		return json.NewEncoder(c.App.Writer).Encode(out)
	}
	printDiff(c, out)
	return nil
}

func diffMachine(s *store.Store, name string, from, to store.Ref) (*machineDiff, error) {
	m := &machineDiff{Machine: name, From: from, To: to}
	if from == to {
		return m, nil
	}
	side := func(r store.Ref) (*system.Manifest, int64, error) {
		if r == "" {
			return nil, 0, nil
		}
		man, err := deploy.LoadManifest(s, r)
		if err != nil {
			return nil, 0, err
		}
		size, err := s.ClosureSize(r)
		return man, size, err
	}
	old, oldSize, err := side(from)
	if err != nil {
		return nil, err
	}
	new, newSize, err := side(to)
	if err != nil {
		return nil, err
	}
	m.OldSize, m.NewSize, m.Changes = oldSize, newSize, system.Diff(old, new)
	return m, nil
}

func printDiff(c *cli.Context, all []machineDiff) {
	w, pal := c.App.Writer, newPalette(c.App.Writer)
	for _, m := range all {
		if m.From == m.To {
			fmt.Fprintf(w, "%s: the same\n", m.Machine)
			continue
		}
		fmt.Fprintf(w, "%s: closure %s → %s\n", pal.bold(m.Machine), bytesize(m.OldSize), bytesize(m.NewSize))
		for _, p := range m.Changes.Packages {
			fmt.Fprintf(w, "    %s\n", packageText(pal, p))
		}
		for _, u := range m.Changes.Units {
			fmt.Fprintf(w, "    %s %s: %s\n", u.Action, u.Unit, reasonsText(u.Reasons))
		}
		if k := m.Changes.RebootNeeded; k != nil {
			fmt.Fprintf(w, "    after the next reboot: %s\n", k.Reason)
		}
	}
}
