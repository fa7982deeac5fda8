package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"tool/core/language/workspace"
)

// defaultKeepGenerations is how many generations of a deployment gc -d keeps.
const defaultKeepGenerations = 5

// collectMachines drops a deployment's old generations, here and on its
// machines, and has the machines collect.
func collectMachines(c *cli.Context) error {
	_, d, err := chooseDeployment(c)
	if err != nil {
		return err
	}
	keep := defaultKeepGenerations
	if ws, err := workspace.Open(d.Workspace); err == nil && ws.Config.GC.KeepGenerations != nil {
		keep = *ws.Config.GC.KeepGenerations
	}
	if c.IsSet("keep") {
		keep = c.Int("keep")
	}
	if keep < 1 {
		return usageError("gc: %d generations cannot be kept; 1 is the least", keep)
	}
	lease, err := lockDeployment(d, c)
	if err != nil {
		return err
	}
	defer lease.Release()
	s, err := storeOf(d)
	if err != nil {
		return err
	}
	defer s.Close()
	v := newView(c.App.ErrWriter, "auto")
	session, err := newSession(d, s, v)
	if err != nil {
		return err
	}
	dropped, err := session.Prune(keep)
	if err != nil {
		v.Close()
		return withCode(exitEnvironment, err)
	}
	names := d.MachineNames()
	freed, errs := session.Collect(c.Context, names, keep)
	v.Close()
	for _, n := range dropped {
		fmt.Fprintf(c.App.Writer, "dropped generation %d of %s\n", n, d.Name)
	}
	for _, n := range names {
		if f := freed[n]; f != nil {
			fmt.Fprintf(c.App.Writer, "%s: removed %d objects, %d blobs: %s\n", n, f.Freed.Objects, f.Freed.Blobs, bytesize(f.Freed.Bytes))
		}
	}
	return failures(c, names, errs)
}
