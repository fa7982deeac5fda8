package main

import (
	"encoding/json"
	"fmt"
	"runtime"

	"github.com/urfave/cli/v2"

	"tool/core/execution/sandbox"
)

func infoCommand() *cli.Command {
	return &cli.Command{
		Name:  "info",
		Usage: "show a deployment's machines; without a deployment, where things are and whether this machine can build",
		Flags: []cli.Flag{
			deploymentFlag(), jsonFlag(),
			&cli.BoolFlag{Name: "plain", Usage: "a line to a machine, fields separated by tabs"},
			&cli.BoolFlag{Name: "host", Usage: "tell of this host and the workspace, even if there are deployments"},
		},
		Action: runInfo,
	}
}

func runInfo(c *cli.Context) error {
	if !c.Bool("host") {
		b, err := openBook()
		if err != nil {
			return err
		}
		if all, err := b.List(); err != nil || len(all) > 0 || c.String("deployment") != "" {
			_, d, err := chooseDeployment(c)
			if err != nil {
				return err
			}
			return runDeploymentInfo(c, d)
		}
	}
	s, ws, err := openHostStore()
	if err != nil {
		return err
	}
	defer s.Close()
	held, err := s.Info()
	if err != nil {
		return err
	}
	info := map[string]any{
		"version": version, "go": runtime.Version(), "store": s.Dir(), "objects": held.Objects, "blobs": held.Blobs, "bytes": held.Bytes, "sandbox": "ok",
	}
	if ws != nil {
		info["workspace"], info["name"], info["package_path"] = ws.Root, ws.Config.Workspace.Name, ws.Config.Workspace.PackagePath
	}
	if err := sandbox.Probe(); err != nil {
		info["sandbox"] = err.Error()
	}
	w := c.App.Writer
	if c.Bool("json") {
		return json.NewEncoder(w).Encode(info)
	}
	for _, k := range []string{"version", "go", "workspace", "name", "package_path", "store", "objects", "blobs", "bytes", "sandbox"} {
		if v, ok := info[k]; ok {
			fmt.Fprintf(w, "%-13s %v\n", k+":", v)
		}
	}
	return nil
}

func versionCommand() *cli.Command {
	return &cli.Command{Name: "version", Usage: "print the version", Flags: []cli.Flag{jsonFlag()}, Action: func(c *cli.Context) error {
		if c.Bool("json") {
			return json.NewEncoder(c.App.Writer).Encode(map[string]string{"version": version, "go": runtime.Version()})
		}
		_, err := fmt.Fprintf(c.App.Writer, "tool %s (%s)\n", version, runtime.Version())
		return err
	}}
}

func sandboxEnterCommand() *cli.Command {
	return &cli.Command{Name: "sandbox-enter", Usage: "enter a sandbox that --sandbox_debug has left", ArgsUsage: "DIR", Hidden: true, Action: func(c *cli.Context) error {
		if c.Args().Len() != 1 {
			return usageError("tool sandbox-enter: want the folder that --sandbox_debug printed")
		}
		return withCode(exitEnvironment, sandbox.Enter(c.Args().First()))
	}}
}
