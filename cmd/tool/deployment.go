package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"tool/backends/qemu"
	"tool/backends/ssh"
	"tool/backends/virtualbox"
	"tool/core/language/workspace"
	"tool/core/machines/deploy"
	"tool/core/model/event"
	"tool/core/storage/store"
)

// deploymentFlag names the deployment of a command that works on one.
func deploymentFlag() cli.Flag {
	return &cli.StringFlag{Name: "deployment", Aliases: []string{"d"}, EnvVars: []string{"TOOL_DEPLOYMENT"}, Usage: "the deployment's `NAME` or UUID (default: $TOOL_DEPLOYMENT, or the only one there is)"}
}

func progressFlag() cli.Flag {
	return &cli.StringFlag{Name: "progress", Value: "auto", Usage: "auto, terminal, plain or none"}
}

// stateDir is where deployments are remembered.
func stateDir() (string, error) {
	if d := os.Getenv("TOOL_STATE"); d != "" {
		return d, nil
	}
	if d := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(d) {
		return filepath.Join(d, "tool"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("finding where deployments are kept: %w; set TOOL_STATE", err)
	}
	return filepath.Join(home, ".local", "state", "tool"), nil
}

func openBook() (*deploy.Book, error) {
	dir, err := stateDir()
	if err == nil {
		var b *deploy.Book
		if b, err = deploy.OpenBook(dir); err == nil {
			return b, nil
		}
	}
	return nil, withCode(exitEnvironment, err)
}

// chooseDeployment finds the deployment that a command is about.
func chooseDeployment(c *cli.Context) (*deploy.Book, *deploy.Deployment, error) {
	b, err := openBook()
	if err != nil {
		return nil, nil, err
	}
	if name := c.String("deployment"); name != "" {
		d, err := b.Find(name)
		return b, d, deployError(err)
	}
	all, err := b.List()
	if err != nil {
		return nil, nil, withCode(exitEnvironment, err)
	}
	switch len(all) {
	case 0:
		return nil, nil, usageError("there is no deployment yet; `tool deploy //package:target` makes one")
	case 1:
		return b, all[0], nil
	}
	var names []string
	for _, d := range all {
		names = append(names, d.Name)
	}
	return nil, nil, usageError("there are %d deployments (%s): say which with -d NAME or $TOOL_DEPLOYMENT", len(all), strings.Join(names, ", "))
}

// storeOf opens the store that a deployment is built in.
func storeOf(d *deploy.Deployment) (*store.Store, error) {
	var cfg *workspace.Config
	if ws, err := workspace.Open(d.Workspace); err == nil {
		cfg = &ws.Config
	}
	return openStore(cfg)
}

// machineBackends returns all kinds of machines that this program can make.
func machineBackends(agent *deploy.Binary) map[string]deploy.Backend {
	exe, err := os.Executable()
	if err != nil {
		exe = os.Args[0]
	}
	q := qemu.New(qemu.Options{Switch: []string{exe, vmSwitchName}})
	s := &ssh.Backend{Binary: agent}
	v := virtualbox.New(virtualbox.Options{Program: os.Getenv("TOOL_VBOXMANAGE"), Driver: os.Getenv("TOOL_VBOXDRV")})
	return map[string]deploy.Backend{q.Name(): q, s.Name(): s, v.Name(): v}
}

// newSession is a command's work on d, whose store may be nil where the command
// needs none.
func newSession(d *deploy.Deployment, s *store.Store, events event.Sink) (*deploy.Session, error) {
	program := func() (string, error) {
		dir, err := stateDir()
		if err != nil {
			return "", err
		}
		return staticProgram(dir)
	}
	binary := &deploy.Binary{Find: program}
	return &deploy.Session{D: d, Store: s, Backends: machineBackends(binary), Binary: binary, Events: events}, nil
}

// allocator knows what other deployments and other programs have taken.
func allocator(b *deploy.Book, d *deploy.Deployment) (*deploy.Allocator, error) {
	all, err := b.List()
	if err != nil {
		return nil, withCode(exitEnvironment, err)
	}
	a := &deploy.Allocator{Busy: portBusy}
	for _, o := range all {
		if o.UUID != d.UUID {
			a.Others = append(a.Others, o)
		}
	}
	return a, nil
}

func portBusy(port int) bool {
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return true
	}
	l.Close()
	return false
}

// lockDeployment takes the deployment's lease for a command.
func lockDeployment(d *deploy.Deployment, c *cli.Context) (*deploy.Lease, error) {
	l, err := d.Lock(strings.Join(append([]string{"tool", c.Command.Name}, c.Args().Slice()...), " "))
	return l, deployError(err)
}

// Exit codes of commands that change machines; README.md lists them.
const (
	exitChanges      = 50
	exitSomeFailed   = 51
	exitRolledBack   = 52
	exitRevertFailed = 53
	exitHeld         = 54
)

// deployError gives errors of core/machines/deploy their exit codes.
func deployError(err error) error {
	var held *deploy.LockedError
	var none *deploy.NotFoundError
	var unreachable *deploy.UnreachableError
	var refused *deploy.RefusedError
	var stale *deploy.StaleError
	switch {
	case err == nil, errors.Is(err, context.Canceled):
		return err
	case errors.As(err, &held):
		return withCode(exitHeld, err)
	case errors.As(err, &none), errors.As(err, &refused), errors.As(err, &stale), errors.As(err, new(*deploy.ModeError)):
		return withCode(exitUsage, err)
	case errors.As(err, &unreachable), errors.As(err, new(*deploy.AwayError)):
		return withCode(exitSomeFailed, err)
	}
	return diskFull(err)
}

// machinesOf returns the machines that the arguments name, or all.
func machinesOf(d *deploy.Deployment, names []string) ([]string, error) {
	if len(names) == 0 {
		return d.MachineNames(), nil
	}
	for _, n := range names {
		if d.Machines[n] == nil {
			return nil, usageError("deployment %s has no machine %q%s", d.Name, n, nearest(n, d.MachineNames()))
		}
	}
	return names, nil
}

// onMachines reads --on, which may be given several times and hold commas.
func onMachines(c *cli.Context) []string {
	var names []string
	for _, n := range c.StringSlice("on") {
		names = append(names, strings.Split(n, ",")...)
	}
	return names
}
