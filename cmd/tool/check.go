package main

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"tool/core/machines/deploy"
)

// Bits of check's exit code: the first five are NixOps's.
const (
	checkMissing     = 1
	checkDown        = 2
	checkUnreachable = 4
	checkDisk        = 8
	checkUnits       = 16
	checkDrift       = 32
)

func checkCommand() *cli.Command {
	return &cli.Command{
		Name:      "check",
		Usage:     "look whether the machines are there, up, reachable, and as they were deployed",
		ArgsUsage: "[MACHINE...]",
		Description: fmt.Sprintf("Exits with the sum of what is wrong with any machine: %d it does not exist, %d it is down, %d it cannot be\n"+
			"reached, %d its disk is nearly full, %d units or their checks fail, %d it is not as it was deployed.", checkMissing, checkDown, checkUnreachable, checkDisk, checkUnits, checkDrift),
		Flags:  []cli.Flag{deploymentFlag(), jsonFlag()},
		Action: runCheck,
	}
}

type checkedMachine struct {
	Name      string   `json:"name"`
	Exists    bool     `json:"exists"`
	Up        bool     `json:"up"`
	Reachable bool     `json:"reachable"`
	DiskOK    *bool    `json:"disk_ok"` // null where the machine was not reached
	Units     []string `json:"failed_units"`
	Unwell    []string `json:"failed_checks"`
	Drift     []string `json:"drift"`
	Notes     []string `json:"notes"`
	Code      int      `json:"code"`
}

func runCheck(c *cli.Context) error {
	_, d, err := chooseDeployment(c)
	if err != nil {
		return err
	}
	names, err := machinesOf(d, c.Args().Slice())
	if err != nil {
		return err
	}
	v := newView(c.App.ErrWriter, "auto")
	s, err := newSession(d, nil, v)
	if err != nil {
		return err
	}
	reports, err := s.Check(c.Context, names)
	v.Close()
	if err != nil {
		return deployError(err)
	}
	code := 0
	var rows [][]string
	out := []checkedMachine{}
	for i := range reports {
		m := checked(&reports[i])
		code |= m.Code
		out = append(out, m)
		rows = append(rows, []string{
			m.Name, yesNo(m.Exists), yesNo(m.Up), yesNo(m.Reachable), diskCell(m.DiskOK),
			strings.Join(m.Units, "\n"), strings.Join(slices.Concat(m.Unwell, m.Drift, m.Notes), "\n"),
		})
	}
	if c.Bool("json") {
		err = json.NewEncoder(c.App.Writer).Encode(out)
	} else {
		table(c.App.Writer, []string{"Name", "Exists", "Up", "Reachable", "Disk OK", "Failed units", "Notes"}, rows)
	}
	if code != 0 && err == nil {
		return &codeError{code, nil}
	}
	return err
}

func yesNo(b bool) string {
	if b {
		return "Yes"
	}
	return "No"
}

func diskCell(ok *bool) string {
	if ok == nil {
		return "?"
	}
	return yesNo(*ok)
}

func checked(r *deploy.Checked) checkedMachine {
	none := []string{} // not null, for whoever reads the JSON
	m := checkedMachine{
		Name: r.Machine, Exists: r.Exists, Up: r.Up, Reachable: r.Reachable,
		Units: append(none, r.FailedUnits...), Unwell: append(none, r.Unwell...), Drift: append(none, r.Drift...), Notes: append(none, r.Notes...),
	}
	if r.Reachable {
		m.DiskOK = &r.DiskOK
	}
	bit := func(wrong bool, b int) {
		if wrong {
			m.Code |= b
		}
	}
	bit(!m.Exists, checkMissing)
	bit(m.Exists && !m.Up, checkDown)
	bit(m.Up && !m.Reachable, checkUnreachable)
	bit(m.DiskOK != nil && !*m.DiskOK, checkDisk)
	bit(len(m.Units)+len(m.Unwell) > 0, checkUnits)
	bit(len(m.Drift) > 0, checkDrift)
	return m
}
