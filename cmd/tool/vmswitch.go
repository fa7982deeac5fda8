package main

import (
	"github.com/urfave/cli/v2"

	"tool/backends/qemu/vswitch"
)

// vmSwitchName is the command that serves a deployment's private network.
const vmSwitchName = "vm-switch"

func vmSwitchCommand() *cli.Command {
	return &cli.Command{Name: vmSwitchName, Usage: "be the private network of a deployment's QEMU machines", ArgsUsage: "DIR", Hidden: true, Action: func(c *cli.Context) error {
		if c.Args().Len() != 1 {
			return usageError("tool %s: want the network's folder", vmSwitchName)
		}
		return withCode(exitEnvironment, vswitch.Run(c.Context, c.Args().First()))
	}}
}
