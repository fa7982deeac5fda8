package main

import (
	"io"
	"os"

	"github.com/urfave/cli/v2"

	"tool/core/machines/activate"
	"tool/core/machines/agent"
)

// stdio is the SSH session as one stream.
type stdio struct {
	io.Reader
	io.Writer
}

func runAgentServe(c *cli.Context, m *activate.Machine) error {
	m.Log = nil // the controller is told through the protocol
	return agent.Serve(c.Context, m, stdio{os.Stdin, os.Stdout})
}
