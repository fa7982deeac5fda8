package main

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"tool/core/machines/deploy"
	"tool/core/model/event"
)

// machineInfo is a row of `tool info`.
type machineInfo struct {
	Name       string `json:"name"`
	Status     string `json:"status"`
	Type       string `json:"type"`
	ID         string `json:"resource_id"`
	Address    string `json:"ip_address"`
	Cluster    string `json:"cluster_address"`
	Generation int    `json:"generation"`
	Failure    string `json:"failure,omitempty"`
}

func runDeploymentInfo(c *cli.Context, d *deploy.Deployment) error {
	s, err := newSession(d, nil, event.Discard)
	if err != nil {
		return err
	}
	rows := []machineInfo{}
	for _, name := range d.MachineNames() {
		ms := d.Machines[name]
		r := machineInfo{Name: name, Type: ms.Backend, Generation: ms.Generation, Address: ms.Reach(), Cluster: ms.Address.Addr().String(), Failure: ms.Failure}
		o, err := s.Observe(c.Context, name)
		switch {
		case err != nil:
			r.Status, r.Failure = "Unknown", err.Error()
		case !o.Exists:
			r.Status = "Missing / " + freshness(d, ms)
		default:
			r.Status, r.ID = upDown(o.State)+" / "+freshness(d, ms), o.ID
		}
		rows = append(rows, r)
	}
	w := c.App.Writer
	if c.Bool("json") {
		return json.NewEncoder(w).Encode(map[string]any{
			"name": d.Name, "uuid": d.UUID, "description": d.Description, "label": d.Label, "workspace": d.Workspace, "network": d.Network,
			"generation": d.Active, "machines": rows,
		})
	}
	if c.Bool("plain") {
		for _, r := range rows {
			fmt.Fprintln(w, strings.Join([]string{r.Name, r.Status, r.Type, r.ID, r.Address}, "\t"))
		}
		return nil
	}
	fmt.Fprintf(w, "Network name: %s\nNetwork UUID: %s\nNetwork description: %s\nSource: %s in %s\n", d.Name, d.UUID, d.Description, d.Label, d.Workspace)
	if d.Active > 0 {
		fmt.Fprintf(w, "Generation: %d\n", d.Active)
	}
	fmt.Fprintln(w)
	var cells [][]string
	for _, r := range rows {
		cells = append(cells, []string{r.Name, r.Status, r.Type, r.ID, r.Address})
	}
	table(w, []string{"Name", "Status", "Type", "Resource Id", "IP address"}, cells)
	for _, r := range rows {
		if r.Failure != "" {
			fmt.Fprintf(w, "%s: the last attempt failed: %s\n", r.Name, r.Failure)
		}
	}
	return nil
}

func upDown(s deploy.State) string {
	if s == deploy.StateRunning {
		return "Up"
	}
	return strings.ToUpper(string(s[:1])) + string(s[1:])
}

// freshness compares with what the last command led to, without asking the
// machine: `tool check` does that.
func freshness(d *deploy.Deployment, ms *deploy.MachineState) string {
	switch {
	case ms.Confirmed == "":
		return "New"
	case d.Wanted(ms.Name) != ms.Confirmed || ms.Failure != "":
		return "Outdated"
	}
	return "Up-to-date"
}

func listCommand() *cli.Command {
	return &cli.Command{Name: "list", Usage: "list the deployments", Flags: []cli.Flag{jsonFlag()}, Action: runList}
}

func runList(c *cli.Context) error {
	b, err := openBook()
	if err != nil {
		return err
	}
	all, err := b.List()
	if err != nil {
		return withCode(exitEnvironment, err)
	}
	if c.Bool("json") {
		out := []map[string]any{}
		for _, d := range all {
			out = append(out, map[string]any{"uuid": d.UUID, "name": d.Name, "label": d.Label, "workspace": d.Workspace, "machines": len(d.Machines), "backend": d.Backend})
		}
		return json.NewEncoder(c.App.Writer).Encode(out)
	}
	var rows [][]string
	for _, d := range all {
		rows = append(rows, []string{d.UUID, d.Name, d.Description, strconv.Itoa(len(d.Machines)), d.Backend})
	}
	table(c.App.Writer, []string{"UUID", "Name", "Description", "# Machines", "Type"}, rows)
	return nil
}
