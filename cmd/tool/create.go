package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"tool/backends/virtualbox"
	"tool/core/machines/deploy"
)

func createCommand() *cli.Command {
	return &cli.Command{
		Name:      "create",
		Usage:     "make a deployment of a target, without machines, and print its UUID",
		ArgsUsage: "TARGET",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "deployment", Aliases: []string{"d"}, Usage: "its `NAME` (default: the target's)"},
			&cli.StringFlag{Name: "backend", Usage: "where its machines run: `NAME` of auto, virtualbox, qemu, ssh"},
			&cli.StringFlag{Name: "cidr", Usage: "its private `NETWORK`, instead of the target's"},
		},
		Action: runCreate,
	}
}

func runCreate(c *cli.Context) error {
	if c.Args().Len() != 1 {
		return usageError("create: want one target, such as //cluster:marathon")
	}
	t, err := targetHere(c.Args().First())
	if err != nil {
		return err
	}
	b, err := openBook()
	if err != nil {
		return err
	}
	if err := checkDeploymentTarget(c, t); err != nil {
		return err
	}
	name := c.String("deployment")
	if name == "" {
		name = nameOfLabel(t.label)
	}
	backend := c.String("backend")
	if backend != "" && backend != "auto" {
		if backend, _, err = chooseBackend(c.Context, backend); err != nil {
			return err
		}
	}
	network := deploy.Network{Name: name, CIDR: c.String("cidr")}
	if network.CIDR != "" {
		if err := network.Check(); err != nil {
			return usageError("--cidr: %v", err)
		}
	}
	d, err := b.Create(name, t.label, t.dir)
	if err != nil {
		return withCode(exitUsage, err)
	}
	d.Backend, d.CIDR = backend, network.CIDR
	if err := d.Save(); err != nil {
		return withCode(exitEnvironment, err)
	}
	fmt.Fprintf(c.App.ErrWriter, "created deployment %s of %s\n", d.Name, d.Label)
	_, err = fmt.Fprintln(c.App.Writer, d.UUID)
	return err
}

// settle decides what a deployment without machines may still choose: its
// backend and its network.
func settle(c *cli.Context, d *deploy.Deployment, o *deploy.Object) (note string, err error) {
	if len(d.Machines) > 0 {
		if n := c.String("cidr"); n != "" && n != d.Network.CIDR {
			return "", usageError("--cidr: deployment %s has machines in %s; destroy them first (tool destroy -d %s)", d.Name, d.Network.CIDR, d.Name)
		}
		if b := c.String("backend"); b != "" && b != "auto" && b != d.Backend {
			return "", usageError("--backend: deployment %s has machines of backend %s; destroy them first (tool destroy -d %s)", d.Name, d.Backend, d.Name)
		}
		return "", nil
	}
	if n := c.String("cidr"); n != "" {
		d.CIDR = n
	}
	d.Network = o.Network
	if d.CIDR != "" {
		d.Network.CIDR = d.CIDR
	}
	if err := d.Network.Check(); err != nil {
		return "", usageError("%v", err)
	}
	choice := c.String("backend")
	if choice == "" {
		choice = d.Backend
	}
	if choice == "" {
		choice = o.Backend
	}
	d.Backend, note, err = chooseBackend(c.Context, choice)
	return note, err
}

func chooseBackend(ctx context.Context, name string) (chosen, note string, err error) {
	all := machineBackends(nil)
	if name == "" || name == "auto" {
		v := all[virtualbox.Name]
		err := v.Usable(ctx)
		if err == nil {
			return v.Name(), "backend auto: virtualbox, which this host has", nil
		}
		if ctx.Err() != nil {
			return "", "", ctx.Err()
		}
		why, _, _ := strings.Cut(err.Error(), "\n")
		return "qemu", "backend auto: qemu, which needs nothing of this host (not virtualbox: " + why + ")", nil
	}
	b := all[name]
	if b == nil {
		var have []string
		for n := range all {
			have = append(have, n)
		}
		return "", "", usageError("there is no backend %q%s", name, nearest(name, have))
	}
	if err := b.Usable(ctx); err != nil {
		return "", "", withCode(exitEnvironment, fmt.Errorf("backend %s cannot be used here: %w", name, err))
	}
	return name, "", nil
}
