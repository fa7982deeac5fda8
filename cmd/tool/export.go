package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"tool/core/machines/deploy"
)

func exportCommand() *cli.Command {
	return &cli.Command{
		Name:  "export",
		Usage: "print a deployment's state as JSON, by UUID; private keys only with --include-keys",
		Flags: []cli.Flag{
			deploymentFlag(),
			&cli.BoolFlag{Name: "all", Usage: "all deployments"},
			&cli.BoolFlag{Name: "include-keys", Usage: "with the private keys, so that import can use it: whoever has the output has the machines"},
		},
		Action: runExport,
	}
}

func importCommand() *cli.Command {
	return &cli.Command{
		Name:        "import",
		Usage:       "read deployments that export --include-keys has printed",
		ArgsUsage:   "[FILE]",
		Description: "Reads standard input where no file is given.",
		Action:      runImport,
	}
}

// exported is a deployment in the output of export: what scripts ask for, in
// NixOps's shape, and the state itself.
type exported struct {
	Name        string                      `json:"name"`
	Description string                      `json:"description"`
	Resources   map[string]exportedResource `json:"resources"`
	State       *deploy.Deployment          `json:"state"`
}

type exportedResource struct {
	Type          string `json:"type"`
	PrivateIPv4   string `json:"privateIpv4"` // the address at which this host reaches the machine
	ClusterIPv4   string `json:"clusterIpv4"` // in the machines' own network
	PublicHostKey string `json:"publicHostKey"`
	ResourceID    string `json:"resourceId"`
	SSHPort       int    `json:"sshPort,omitempty"`
	System        string `json:"system,omitempty"`
	Generation    int    `json:"generation,omitempty"`
}

func runExport(c *cli.Context) error {
	var all []*deploy.Deployment
	if c.Bool("all") {
		b, err := openBook()
		if err != nil {
			return err
		}
		if all, err = b.List(); err != nil {
			return withCode(exitEnvironment, err)
		}
	} else {
		_, d, err := chooseDeployment(c)
		if err != nil {
			return err
		}
		all = append(all, d)
	}
	out := map[string]exported{}
	for _, d := range all {
		e := exported{Name: d.Name, Description: d.Description, Resources: map[string]exportedResource{}, State: d}
		if !c.Bool("include-keys") {
			e.State = d.WithoutKeys()
		}
		for name, m := range d.Machines {
			e.Resources[name] = exportedResource{
				Type: m.Backend, PrivateIPv4: m.Reach(), ClusterIPv4: m.Address.Addr().String(), PublicHostKey: m.HostKeyPub,
				ResourceID: m.ID, SSHPort: m.SSHPort, System: string(m.Confirmed), Generation: m.Generation,
			}
		}
		out[d.UUID] = e
	}
	enc := json.NewEncoder(c.App.Writer)
	enc.SetIndent("", "  ")
	return enc.Encode(out)
}

// maxImport bounds what import reads, in bytes.
const maxImport = 256 << 20

func runImport(c *cli.Context) error {
	in, name := io.Reader(c.App.Reader), "standard input"
	if c.Args().Len() > 1 {
		return usageError("import: want one file at most")
	}
	if f := c.Args().First(); f != "" && f != "-" {
		file, err := os.Open(f)
		if err != nil {
			return usageError("import: %v", err)
		}
		defer file.Close()
		in, name = file, f
	}
	data, err := io.ReadAll(io.LimitReader(in, maxImport))
	if err != nil {
		return withCode(exitEnvironment, fmt.Errorf("import: %w", err))
	}
	var all map[string]struct {
		State json.RawMessage `json:"state"`
	}
	if err := json.Unmarshal(data, &all); err != nil {
		return usageError("import: %s is not what `tool export --include-keys` prints: %v", name, err)
	}
	b, err := openBook()
	if err != nil {
		return err
	}
	for uuid, e := range all {
		d, err := deploy.ParseDeployment(e.State)
		if err != nil {
			return usageError("import: %s: deployment %s: %v", name, uuid, err)
		}
		if d, err = b.Import(d); err != nil {
			return withCode(exitUsage, err)
		}
		fmt.Fprintf(c.App.ErrWriter, "added deployment %s (%s)\n", d.Name, d.UUID)
	}
	return nil
}
