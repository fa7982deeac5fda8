package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"tool/core/machines/deploy"
)

// printResult tells what became of the machines; the error carries the exit
// code where some are not as they should be.
func printResult(c *cli.Context, d *deploy.Deployment, r *deploy.Result, took time.Duration) error {
	w, pal := c.App.Writer, newPalette(c.App.Writer)
	if r.Plan.Empty() {
		printPlan(w, r.Plan)
		return nil
	}
	width := 0
	for _, o := range r.Outcomes {
		width = max(width, len(o.Machine))
	}
	for _, o := range r.Outcomes {
		mark := string(o.State)
		switch o.State {
		case deploy.Failed, deploy.RevertFailed, deploy.RolledBack:
			mark = pal.red(mark)
		case deploy.Confirmed:
			mark = pal.green(mark)
		}
		why := ""
		if o.Err != nil {
			first, _, _ := strings.Cut(o.Err.Error(), "\n")
			why = ": " + first
		}
		fmt.Fprintf(w, "%-*s  %s%s\n", width, o.Machine, mark, why)
	}
	for _, o := range r.Outcomes {
		if o.Err != nil && strings.Contains(o.Err.Error(), "\n") {
			fmt.Fprintf(c.App.ErrWriter, "%s %s: %v\n", pal.red("error:"), o.Machine, o.Err)
		}
	}
	sent := ""
	if r.Sent > 0 {
		sent = ", " + bytesize(r.Sent) + " sent"
	}
	fmt.Fprintf(w, "%s: generation %d, %d of %d machines confirmed%s, in %s\n", d.Name, r.Plan.Generation,
		r.Count(deploy.Confirmed, deploy.Unchanged), len(r.Outcomes)-r.Count(deploy.Destroyed), sent, duration(took))
	switch bad := r.Bad(); {
	case r.Count(deploy.RevertFailed) > 0:
		return &codeError{exitRevertFailed, nil}
	case bad > 0 && bad == r.Count(deploy.RolledBack):
		return &codeError{exitRolledBack, nil}
	case bad > 0 || r.Count(deploy.Waiting) > 0:
		return &codeError{exitSomeFailed, nil}
	}
	return nil
}
