package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/urfave/cli/v2"

	"tool/core/machines/activate"
	"tool/core/machines/deploy"
)

func startCommand() *cli.Command {
	return powerCommand("start", "start machines and wait until they answer", "", func(ctx context.Context, s *deploy.Session, name string, _ *cli.Context) error {
		return s.Start(ctx, name)
	})
}

func stopCommand() *cli.Command {
	return powerCommand("stop", "shut machines down", "", func(ctx context.Context, s *deploy.Session, name string, _ *cli.Context) error {
		return s.Stop(ctx, name)
	})
}

func rebootCommand() *cli.Command {
	cmd := powerCommand("reboot", "restart machines and wait until they answer",
		"A generation that was deployed with --mode=boot is checked once it has started, and confirmed; a machine that is not well with\n"+
			"it, or cannot even start it, goes back to the one before.", func(ctx context.Context, s *deploy.Session, name string, c *cli.Context) error {
			return s.Reboot(ctx, name, c.Bool("hard"))
		})
	cmd.Flags = append(cmd.Flags, &cli.BoolFlag{Name: "hard", Usage: "by stopping and starting it from outside"})
	return cmd
}

// powerCommand is a command that does one thing with each machine.
func powerCommand(name, usage, description string, do func(context.Context, *deploy.Session, string, *cli.Context) error) *cli.Command {
	return &cli.Command{
		Name: name, Usage: usage, ArgsUsage: "[MACHINE...]", Description: description,
		Flags: []cli.Flag{deploymentFlag(), progressFlag()},
		Action: func(c *cli.Context) error {
			return eachMachine(c, c.Args().Slice(), nil, func(s *deploy.Session, name string) error { return do(c.Context, s, name, c) })
		},
	}
}

// eachMachine does one thing with several machines of a deployment at once, or
// with all if names is empty, and holds the deployment's lease meanwhile. Ask may
// refuse before anything is done.
func eachMachine(c *cli.Context, names []string, ask func([]string) error, do func(*deploy.Session, string) error) error {
	d, names, lease, err := lockedMachines(c, names)
	if err != nil {
		return err
	}
	defer lease.Release()
	if ask != nil {
		if err := ask(names); err != nil {
			return err
		}
	}
	st, err := storeOf(d)
	if err != nil {
		return err
	}
	defer st.Close()
	v := newView(c.App.ErrWriter, c.String("progress"))
	s, err := newSession(d, st, v)
	if err != nil {
		return err
	}
	errs := s.Each(names, func(n string) error { return do(s, n) })
	v.Close()
	s.Settled()
	if err := d.Save(); err != nil {
		return withCode(exitEnvironment, err)
	}
	return failures(c, names, errs)
}

// lockedMachines chooses a deployment, takes its lease, and finds the machines
// that a command names, or all.
func lockedMachines(c *cli.Context, names []string) (*deploy.Deployment, []string, *deploy.Lease, error) {
	_, d, err := chooseDeployment(c)
	if err != nil {
		return nil, nil, nil, err
	}
	lease, err := lockDeployment(d, c)
	if err != nil {
		return nil, nil, nil, err
	}
	if names, err = machinesOf(d, names); err != nil {
		lease.Release()
		return nil, nil, nil, err
	}
	return d, names, lease, nil
}

// confirm asks a person whether to go on, unless --yes was given. Without a
// terminal there is nobody to ask: a script says what it means.
func confirm(c *cli.Context, question string) error {
	in, ok := c.App.Reader.(*os.File)
	if !ok || c.Bool("yes") || !isTerminal(in) || !isTerminal(c.App.ErrWriter) {
		return nil
	}
	fmt.Fprintf(c.App.ErrWriter, "%s [y/N] ", question)
	var answer string
	_, _ = fmt.Fscanln(in, &answer) // no answer is no
	if a := strings.ToLower(answer); a != "y" && a != "yes" {
		return usageError("nothing was done")
	}
	return nil
}

// failures prints what went wrong with which machine.
func failures(c *cli.Context, names []string, errs map[string]error) error {
	if c.Context.Err() != nil {
		return c.Context.Err()
	}
	p := newPalette(c.App.ErrWriter)
	for _, n := range names {
		if errs[n] != nil {
			fmt.Fprintf(c.App.ErrWriter, "%s %s: %v\n", p.red("error:"), n, errs[n])
		}
	}
	if len(errs) == 0 {
		return nil
	}
	code := exitRolledBack
	for _, err := range errs {
		var back *deploy.SwitchError
		switch {
		case !errors.As(err, &back):
			code = exitSomeFailed
		case back.Status.Result != activate.ResultReverted:
			return &codeError{exitRevertFailed, nil}
		}
	}
	return &codeError{code, nil}
}

func destroyCommand() *cli.Command {
	return &cli.Command{
		Name:        "destroy",
		Usage:       "remove machines with their data; adopted ones are given back as they were; what was built stays",
		ArgsUsage:   "[MACHINE...]",
		Description: "Asks before it does so, on a terminal.",
		Flags: []cli.Flag{deploymentFlag(), yesFlag(),
			&cli.BoolFlag{Name: "forget", Usage: "leave adopted machines as they are, such as those that are gone"}, progressFlag()},
		Action: runDestroy,
	}
}

// yesFlag is for commands that ask with confirm.
func yesFlag() cli.Flag {
	return &cli.BoolFlag{Name: "yes", Aliases: []string{"y"}, Usage: "do not ask"}
}

func runDestroy(c *cli.Context) error {
	d, names, lease, err := lockedMachines(c, c.Args().Slice())
	if err != nil {
		return err
	}
	defer lease.Release()
	if len(names) == 0 {
		fmt.Fprintf(c.App.ErrWriter, "deployment %s has no machines\n", d.Name)
		return nil
	}
	question := fmt.Sprintf("Destroy %s of deployment %s, with the data on their disks?", strings.Join(names, ", "), d.Name)
	if err := confirm(c, question); err != nil {
		return err
	}
	v := newView(c.App.ErrWriter, c.String("progress"))
	s, err := newSession(d, nil, v)
	if err != nil {
		return err
	}
	errs := s.DestroyAll(c.Context, names, c.Bool("forget"))
	v.Close()
	return failures(c, names, errs)
}

func deleteCommand() *cli.Command {
	return &cli.Command{
		Name: "delete", Usage: "forget a deployment that has no machines any more, with its generations",
		Flags: []cli.Flag{deploymentFlag()}, Action: runDelete,
	}
}

func runDelete(c *cli.Context) error {
	if c.Args().Present() {
		return usageError("delete: say which deployment with -d NAME")
	}
	b, d, err := chooseDeployment(c)
	if err != nil {
		return err
	}
	lease, err := lockDeployment(d, c)
	if err != nil {
		return err
	}
	defer lease.Release()
	if n := len(d.Machines); n > 0 {
		return usageError("deployment %s has %s; destroy them first: tool destroy -d %s", d.Name, count(n, "machine"), d.Name)
	}
	s, err := storeOf(d)
	if err != nil {
		return err
	}
	defer s.Close()
	if _, err := s.Rotate(d.RootPrefix(), 0); err != nil {
		return withCode(exitEnvironment, err)
	}
	return withCode(exitEnvironment, b.Delete(d))
}
