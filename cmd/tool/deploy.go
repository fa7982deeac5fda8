package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"tool/core/machines/deploy"
	"tool/core/storage/store"
)

func deployFlags() []cli.Flag {
	return flags([]cli.Flag{
		deploymentFlag(),
		&cli.StringSliceFlag{Name: "on", Usage: "only these `MACHINES`"},
		&cli.StringFlag{Name: "mode", Value: "switch", Usage: "switch: now and at every boot; boot: at the next boot; test: now, until the next boot"},
		&cli.StringFlag{Name: "backend", Usage: "where the machines of a new deployment run: `NAME` of auto, virtualbox, qemu, ssh"},
		&cli.StringFlag{Name: "cidr", Usage: "private `NETWORK` of a deployment without machines, instead of its target's"},
		&cli.IntFlag{Name: "parallel", Usage: "switch at most `N` machines at a time, within what their rollout groups allow"},
		&cli.BoolFlag{Name: "allow-destroy", Usage: "let machines be destroyed or replaced, with their data"},
		&cli.BoolFlag{Name: "allow-epoch", Usage: "let services go back to programs that may not read their data"},
	}, configFlags(), executionFlags())
}

func deployCommand() *cli.Command {
	return &cli.Command{
		Name:      "deploy",
		Usage:     "build a deployment, plan, and bring its machines to it",
		ArgsUsage: "[TARGET]",
		Description: "The first deploy of a target makes a deployment of the same name (or -d NAME) with its machines.\n" +
			"Everything is built, and the whole plan printed, before any machine is touched. A machine that does not\n" +
			"pass its health checks goes back by itself.",
		Flags: flags([]cli.Flag{
			&cli.StringFlag{Name: "plan", Usage: "execute the plan in `FILE`, as it is, or refuse it as stale"},
			&cli.BoolFlag{Name: "dry-run", Usage: "print the plan; touch nothing"},
			&cli.BoolFlag{Name: "build-only", Usage: "build what would be deployed"},
			&cli.BoolFlag{Name: "copy-only", Usage: "send the closures; switch nothing"},
		}, deployFlags()),
		Action: runDeploy,
	}
}

func planCommand() *cli.Command {
	return &cli.Command{
		Name:      "plan",
		Usage:     "print what deploy would do: resources, machines, packages and bytes, units with reasons",
		ArgsUsage: "[TARGET]",
		Flags: flags([]cli.Flag{
			&cli.StringFlag{Name: "out", Aliases: []string{"o"}, Usage: "save the plan in `FILE`, for deploy --plan"},
			&cli.BoolFlag{Name: "detailed-exitcode", Usage: fmt.Sprintf("exit with %d if there is something to do", exitChanges)},
			jsonFlag(),
		}, deployFlags()),
		Action: runPlan,
	}
}

func checkMode(c *cli.Context) error {
	switch m := c.String("mode"); m {
	case "switch", "boot", "test":
		return nil
	default:
		return usageError("--mode=%s is none of switch, boot, test", m)
	}
}

// deployment is a deploy, plan or roll-back that is ready to begin.
type deployment struct {
	c       *cli.Context
	book    *deploy.Book
	target  *target
	session *deploy.Session
	object  *deploy.Object
	options *deploy.Options
	built   *built
	view    *view
	lease   *store.Lease
}

// open opens what all of them need.
func (w *deployment) open(d *deploy.Deployment) error {
	s, err := storeOf(d)
	if err != nil {
		return err
	}
	w.view = newView(w.c.App.ErrWriter, w.c.String("progress"))
	if w.session, err = newSession(d, s, w.view); err != nil {
		return err
	}
	a, err := allocator(w.book, d)
	if err != nil {
		return err
	}
	w.options = &deploy.Options{
		Mode: w.c.String("mode"), Parallel: w.c.Int("parallel"), On: onMachines(w.c), Allocator: a,
		AllowDestroy: w.c.Bool("allow-destroy"), AllowEpoch: w.c.Bool("allow-epoch"), CopyOnly: w.c.Bool("copy-only"),
		Images: func(context.Context) (*deploy.Images, error) { return buildImages(w.c, w.target, s, w.object.UEFI()) },
	}
	// Until the generation has its root, nothing else may keep what was built.
	w.lease, err = s.Lease(w.c.Context)
	return withCode(exitEnvironment, err)
}

// load reads the object that is deployed and keeps it.
func (w *deployment) load(ref store.Ref) error {
	if err := w.lease.AdoptRefs(ref); err != nil {
		return withCode(exitEnvironment, err)
	}
	var err error
	w.object, err = deploy.LoadObject(w.session.Store, ref)
	return err
}

func (w *deployment) quiet() {
	if w.view != nil {
		w.view.Close()
		w.view.quiet = true
	}
}

func (w *deployment) close() {
	w.quiet()
	if w.lease != nil {
		_ = w.lease.Release()
	}
	if w.session != nil && w.session.Store != nil {
		_ = w.session.Store.Close()
	}
}

// prepare builds the deployment and opens all that deploying it needs. With
// keep, a deployment that is not there yet is made, and locked.
func prepare(c *cli.Context, keep bool) (_ *deployment, _ *deploy.Lease, err error) {
	if err := checkFlags(c); err != nil {
		return nil, nil, err
	}
	if err := checkMode(c); err != nil {
		return nil, nil, err
	}
	b, err := openBook()
	if err != nil {
		return nil, nil, err
	}
	d, t, err := resolve(c, b)
	if err != nil {
		return nil, nil, err
	}
	w := &deployment{c: c, book: b, target: t}
	if w.built, err = buildDeployment(c, t); err != nil {
		return nil, nil, err
	}
	var lease *deploy.Lease
	defer func() {
		if err != nil {
			w.close()
			if lease != nil {
				lease.Release()
			}
		}
	}()
	if keep {
		if _, serr := os.Stat(d.Dir()); serr != nil {
			if d, err = b.CreateAs(d.Name, t.label, t.dir, d.UUID); err != nil {
				return nil, nil, withCode(exitEnvironment, err)
			}
			fmt.Fprintf(c.App.ErrWriter, "created deployment %s (%s)\n", d.Name, d.UUID)
		}
		if lease, err = lockDeployment(d, c); err != nil {
			return nil, nil, err
		}
		d.Workspace, d.Label = t.dir, t.label
	}
	if err := w.open(d); err != nil {
		return nil, nil, err
	}
	if err := w.load(w.built.object); err != nil {
		return nil, nil, err
	}
	if w.options.Note, err = settle(c, d, w.object); err != nil {
		return nil, nil, err
	}
	d.Emulator = w.built.emulator
	return w, lease, nil
}

func runPlan(c *cli.Context) error {
	w, _, err := prepare(c, false)
	if err != nil {
		return deployError(err)
	}
	defer w.close()
	p, err := w.session.Preview(c.Context, w.object, w.options)
	if err != nil {
		return deployError(err)
	}
	w.quiet()
	if out := c.String("out"); out != "" {
		b, err := p.Encode()
		if err == nil {
			err = writeFile(out, b)
		}
		if err != nil {
			return withCode(exitEnvironment, fmt.Errorf("saving the plan: %w", err))
		}
	}
	if c.Bool("json") {
		err = json.NewEncoder(c.App.Writer).Encode(p)
	} else {
		printPlan(c.App.Writer, p)
	}
	if err == nil && !p.Empty() && c.Bool("detailed-exitcode") {
		return &codeError{exitChanges, nil}
	}
	return err
}

// writeFile replaces a file of the user's by rename.
func writeFile(path string, b []byte) error {
	tmp := fmt.Sprintf("%s.tmp%d", path, os.Getpid())
	defer os.Remove(tmp)
	if err := os.WriteFile(tmp, b, 0o644); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}

func runDeploy(c *cli.Context) error {
	start := time.Now()
	if f := c.String("plan"); f != "" {
		return runSavedPlan(c, f)
	}
	if c.Bool("build-only") {
		return buildOnly(c)
	}
	w, lease, err := prepare(c, !c.Bool("dry-run"))
	if err != nil {
		return deployError(err)
	}
	defer w.close()
	if lease != nil {
		defer lease.Release()
	}
	return w.deploy(start)
}

func buildOnly(c *cli.Context) error {
	b, err := openBook()
	if err != nil {
		return err
	}
	_, t, err := resolve(c, b)
	if err != nil {
		return err
	}
	w, err := buildDeployment(c, t)
	if err != nil {
		return err
	}
	return printBuild(c, w.result)
}

func (w *deployment) deploy(start time.Time) error {
	c := w.c
	if c.Bool("dry-run") {
		p, err := w.session.Preview(c.Context, w.object, w.options)
		if err != nil {
			return deployError(err)
		}
		w.quiet()
		printPlan(c.App.Writer, p)
		return nil
	}
	w.options.Approve = func(p *deploy.Plan) error {
		if !p.Empty() {
			w.view.Above(func() { printPlan(c.App.ErrWriter, p) })
		}
		return nil
	}
	r, err := w.session.Deploy(c.Context, w.object, w.options)
	w.quiet()
	if r != nil && r.Plan != nil && len(r.Outcomes) > 0 {
		if perr := printResult(c, w.session.D, r, time.Since(start)); err == nil {
			err = perr
		}
	}
	return deployError(err)
}

// runSavedPlan executes a plan as it was saved.
func runSavedPlan(c *cli.Context, file string) error {
	start := time.Now()
	b, err := os.ReadFile(file)
	if err != nil {
		return usageError("--plan: %v", err)
	}
	p, err := deploy.ParsePlan(b)
	if err != nil {
		return usageError("--plan=%s is not what `tool plan -o` saves: %v", file, err)
	}
	book, err := openBook()
	if err != nil {
		return err
	}
	d, err := book.Find(p.Deployment)
	if errors.As(err, new(*deploy.NotFoundError)) {
		t, terr := targetHere(p.Label)
		if terr != nil {
			return terr
		}
		d, err = book.CreateAs(p.Name, p.Label, t.dir, p.Deployment)
	}
	if err != nil {
		return deployError(err)
	}
	lease, err := lockDeployment(d, c)
	if err != nil {
		return err
	}
	defer lease.Release()
	w := &deployment{c: c, book: book, target: &target{d.Workspace, d.Label}}
	if len(d.Machines) == 0 {
		d.Network, d.Backend = p.Network, p.Backend
	}
	if d.Emulator == "" {
		if w.built, err = buildDeployment(c, w.target); err != nil {
			return err
		}
		d.Emulator = w.built.emulator
	}
	defer w.close()
	if err := w.open(d); err != nil {
		return err
	}
	if err := w.load(p.Object); err != nil {
		return fmt.Errorf("what the plan deploys is not in the store any more; make a new plan: %w", err)
	}
	w.options.Saved, w.options.Mode, w.options.Note, w.options.On, w.options.Parallel = p, p.Mode, p.Note, p.On, p.Parallel
	return w.deploy(start)
}
