package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"tool/core/machines/deploy"
	"tool/core/model/event"
)

func logsCommand() *cli.Command {
	return &cli.Command{
		Name:      "logs",
		Usage:     "print a machine's journal",
		ArgsUsage: "MACHINE",
		Flags: []cli.Flag{
			deploymentFlag(),
			&cli.StringFlag{Name: "unit", Aliases: []string{"u"}, Usage: "only of this `UNIT`"},
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on printing what comes"},
			&cli.IntFlag{Name: "lines", Aliases: []string{"n"}, Value: 50, Usage: "how many `LINES`"},
		},
		Action: runLogs,
	}
}

func runLogs(c *cli.Context) error {
	if c.Args().Len() != 1 {
		return usageError("logs: name one machine")
	}
	l, err := connected(c, c.Args().First())
	if err != nil {
		return err
	}
	defer l.Close()
	args := []string{"journalctl", "--no-pager", "-n", fmt.Sprint(c.Int("lines"))}
	if u := c.String("unit"); u != "" {
		args = append(args, "--unit="+u)
	}
	if c.Bool("follow") {
		args = append(args, "-f")
	}
	return exitOf(l.Run(c.Context, shellWords(args), nil, &printable{w: c.App.Writer}, c.App.ErrWriter))
}

// printable passes on text without what it could do to a terminal.
type printable struct{ w io.Writer }

func (p *printable) Write(b []byte) (int, error) {
	_, err := io.WriteString(p.w, deploy.Printable(string(b)))
	return len(b), err
}

func consoleCommand() *cli.Command {
	return &cli.Command{
		Name:      "console",
		Usage:     "print what a machine wrote to its serial console",
		ArgsUsage: "MACHINE",
		Flags: []cli.Flag{
			deploymentFlag(),
			&cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on printing what comes"},
		},
		Action: runConsole,
	}
}

func runConsole(c *cli.Context) error {
	if c.Args().Len() != 1 {
		return usageError("console: name one machine")
	}
	_, d, err := chooseDeployment(c)
	if err != nil {
		return err
	}
	name := c.Args().First()
	if _, err := machinesOf(d, []string{name}); err != nil {
		return err
	}
	s, err := newSession(d, nil, event.Discard)
	if err != nil {
		return err
	}
	path := s.Console(name)
	if path == "" {
		return usageError("machines of backend %s have no console that is kept", d.Machines[name].Backend)
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return usageError("machine %s has no console yet: it was never started", name)
	}
	if err != nil {
		return withCode(exitEnvironment, fmt.Errorf("console of %s: %w", name, err))
	}
	defer f.Close()
	out := &printable{w: c.App.Writer}
	for {
		if _, err := io.Copy(out, f); err != nil {
			return err
		}
		if !c.Bool("follow") {
			return nil
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-c.Context.Done():
			return nil
		}
	}
}
