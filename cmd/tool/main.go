// Command tool builds and deploys fleets of machines from one graph.
//
// This package is wiring and what a terminal shows. It decides nothing: one
// file to a subcommand, each of which calls into core/.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/urfave/cli/v2"

	"tool/core/execution/sandbox"
)

func main() {
	sandbox.Main() // does not return in a sandbox worker
	os.Exit(Main(os.Args, os.Stdout, os.Stderr))
}

// Main runs the command line and returns its exit code. Tests drive it as the
// program itself would be.
func Main(args []string, stdout, stderr io.Writer) (code int) {
	defer func() {
		if r := recover(); r != nil {
			fmt.Fprintf(stderr, "tool: internal error: %v\nThis is a mistake in tool itself; the store and the workspace are as they were. Set TOOL_PANIC=1 to see where it happened.\n", r)
			if os.Getenv("TOOL_PANIC") != "" {
				panic(r)
			}
			code = exitInternal
		}
	}()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	app := newApp(stdout, stderr)
	return exitCode(app.RunContext(ctx, reorder(app, args)), stderr, newPalette(stderr))
}

// Exit codes; README.md lists them for users.
const (
	exitBuild       = 1
	exitUsage       = 2
	exitTests       = 3
	exitNoTests     = 4
	exitQuery       = 7
	exitInterrupted = 8
	exitLocked      = 9
	exitEnvironment = 36
	exitInternal    = 37
)

// codeError is an error that knows its exit code.
type codeError struct {
	code int
	err  error // nil: everything was said already
}

func (e *codeError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}
func (e *codeError) Unwrap() error { return e.err }

func withCode(code int, err error) error {
	if err == nil {
		return nil
	}
	var ce *codeError
	if errors.As(err, &ce) {
		return err
	}
	return &codeError{code, err}
}

func usageError(format string, args ...any) error {
	return &codeError{exitUsage, fmt.Errorf(format, args...)}
}

// exitCode prints err, once, and returns the code for it.
func exitCode(err error, stderr io.Writer, p palette) int {
	if err == nil {
		return 0
	}
	code := exitBuild
	var ce *codeError
	var usage cli.ExitCoder
	switch {
	case errors.As(err, &ce):
		code = ce.code
		if ce.err == nil {
			return code
		}
	case errors.As(err, &usage): // help for a command that does not exist
		code = exitUsage
	case errors.Is(err, context.Canceled):
		code = exitInterrupted
	}
	if errors.Is(err, context.Canceled) {
		fmt.Fprintln(stderr, p.red("interrupted"))
		return exitInterrupted
	}
	fmt.Fprintf(stderr, "%s %v\n", p.red("error:"), err)
	return code
}
