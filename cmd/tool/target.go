package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"tool/core/language/workspace"
	"tool/core/machines/deploy"
	"tool/core/model/label"
	"tool/core/storage/store"
)

// target is what a deployment is built from.
type target struct {
	dir   string // the workspace's root
	label string // canonical
}

// targetHere reads a target on the command line.
func targetHere(arg string) (*target, error) {
	dir, err := os.Getwd()
	if err != nil {
		return nil, withCode(exitEnvironment, err)
	}
	root, err := workspace.FindRoot(dir)
	if err != nil {
		return nil, withCode(exitUsage, err)
	}
	ws, err := workspace.Open(root)
	if err != nil {
		return nil, withCode(exitUsage, err)
	}
	rel, err := filepath.Rel(root, dir)
	if err != nil {
		return nil, withCode(exitEnvironment, err)
	}
	l, err := label.Parse(arg, label.Label{Pkg: ws.PackageOf(rel)})
	if err != nil {
		return nil, withCode(exitUsage, err)
	}
	return &target{root, l.String()}, nil
}

func nameOfLabel(l string) string { return l[strings.LastIndexAny(l, ":/")+1:] }

// resolve finds the deployment that deploy or plan is about. One that is not
// there yet is made in memory only.
func resolve(c *cli.Context, b *deploy.Book) (*deploy.Deployment, *target, error) {
	if c.Args().Len() > 1 {
		return nil, nil, usageError("%s takes one target, the deployment's; %d are given", c.Command.Name, c.Args().Len())
	}
	if c.Args().Len() == 0 {
		_, d, err := chooseDeployment(c)
		if err != nil {
			return nil, nil, err
		}
		if _, err := os.Stat(filepath.Join(d.Workspace, workspace.ConfigFile)); err != nil {
			return nil, nil, usageError("deployment %s is built from %s in %s, which is not there any more; deploy it from where it is now: tool deploy -d %s %s", d.Name, d.Label, d.Workspace, d.Name, d.Label)
		}
		return d, &target{d.Workspace, d.Label}, nil
	}
	t, err := targetHere(c.Args().First())
	if err != nil {
		return nil, nil, err
	}
	name := c.String("deployment")
	if name == "" {
		all, err := b.List()
		if err != nil {
			return nil, nil, withCode(exitEnvironment, err)
		}
		for _, d := range all {
			if d.Label == t.label && d.Workspace == t.dir {
				return d, t, nil
			}
		}
		name = nameOfLabel(t.label)
	}
	d, err := b.Find(name)
	if errors.As(err, new(*deploy.NotFoundError)) {
		d, err = b.Provisional(name, t.label, t.dir)
		return d, t, withCode(exitUsage, err)
	}
	if err != nil {
		return nil, nil, withCode(exitEnvironment, err)
	}
	if c.String("deployment") == "" && (d.Label != t.label || d.Workspace != t.dir) {
		return nil, nil, usageError("there is a deployment %s already, of %s in %s; give this one another name with -d NAME, or say -d %s to deploy %s to its machines", d.Name, d.Label, d.Workspace, d.Name, t.label)
	}
	return d, t, nil
}

// checkDeploymentTarget analyses the target: that it is a deployment would
// otherwise only be found out much later.
func checkDeploymentTarget(c *cli.Context, t *target) error {
	e, err := openEngine(c, t.dir)
	if err != nil {
		return err
	}
	defer e.close()
	ts, err := e.analyze(c.Context, []string{t.label})
	if err != nil {
		return err
	}
	if fs, ok := ts[0].Group("manifest"); !ok || len(fs) == 0 {
		return notDeployment(t.label)
	}
	return nil
}

func notDeployment(label string) error {
	return usageError("%s is not a deployment; `tool query 'kind(deployment, //...)'` lists those there are", label)
}

// buildTarget builds some output groups of a target, from memory if nothing
// has changed.
func buildTarget(c *cli.Context, t *target, groups string) (*buildResult, error) {
	req := &buildRequest{Dir: t.dir, Targets: []string{t.label}, Groups: groups}
	q, err := newQuestion(c, req)
	if err != nil {
		return nil, err
	}
	if r := q.result(); r != nil {
		return r, nil
	}
	start := time.Now()
	e, err := openEngine(c, t.dir)
	if err != nil {
		return nil, err
	}
	defer e.close()
	r, err := e.build(c, req, q)
	if err != nil {
		return nil, diskFull(err)
	}
	r.Seconds = time.Since(start).Seconds()
	return r, nil
}

// built is a deployment's products.
type built struct {
	object   store.Ref
	emulator store.Ref
	result   *buildResult
}

// emulatorName is what the emulator rule calls its tree.
const emulatorName = "emulator"

func buildDeployment(c *cli.Context, t *target) (*built, error) {
	r, err := buildTarget(c, t, "+emulator")
	if err != nil {
		return nil, err
	}
	out := &built{result: r}
	for _, bt := range r.Targets {
		for _, o := range bt.Outputs {
			switch name := store.Ref(o.Ref).Name(); {
			case name == "deployment.json":
				out.object = store.Ref(o.Ref)
			case strings.HasPrefix(name, "qemu") || name == emulatorName:
				out.emulator = store.Ref(o.Ref)
			}
		}
	}
	if out.object == "" {
		return nil, notDeployment(t.label)
	}
	return out, nil
}

// buildImages builds what machines are made from; uefi tells that some start by
// UEFI which are not declared so.
func buildImages(c *cli.Context, t *target, s *store.Store, uefi bool) (*deploy.Images, error) {
	group := "images"
	if uefi {
		group = "images_uefi"
	}
	r, err := buildTarget(c, t, group)
	if err != nil {
		return nil, err
	}
	im := &deploy.Images{ESP: map[string]string{}}
	for _, o := range r.Targets[0].Outputs {
		if name := store.Ref(o.Ref).Name(); name == "root.img" {
			im.Root = s.Path(store.Ref(o.Ref))
		} else {
			im.ESP[name] = s.Path(store.Ref(o.Ref))
		}
	}
	if im.Root == "" {
		return nil, fmt.Errorf("building the images of %s gave no root.img", t.label)
	}
	return im, nil
}
