package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"tool/core/language/graph"
	"tool/core/language/workspace"
	"tool/core/machines/deploy"
	"tool/core/model/event"
	"tool/core/storage/store"
)

func testCommand() *cli.Command {
	return &cli.Command{
		Name:        "test",
		Usage:       "build and run tests",
		ArgsUsage:   "TARGET...",
		Description: "Tests are targets of deployment_test: each deploys machines of its own, takes steps with them and destroys\nthem. One that passed is not run again until what it deploys, its steps or this program change.",
		Flags: flags([]cli.Flag{
			&cli.StringFlag{Name: "test_output", Value: "errors", Usage: "summary, errors (logs of failed tests), all, or streamed"},
			&cli.BoolFlag{Name: "nocache_test_results", Usage: "run tests that passed before, too"},
			&cli.BoolFlag{Name: "keep", Usage: "leave the machines of failed tests, to look at"},
		}, configFlags(), executionFlags()),
		Action: runTest,
	}
}

// testRun is one test.
type testRun struct {
	label    string
	manifest store.Ref
	path     string
	cached   bool
	took     time.Duration
	err      error
	log      bytes.Buffer
}

func runTest(c *cli.Context) error {
	if err := checkFlags(c); err != nil {
		return err
	}
	switch o := c.String("test_output"); o {
	case "summary", "errors", "all", "streamed":
	default:
		return usageError("--test_output=%s is none of summary, errors, all, streamed", o)
	}
	root, tests, err := buildTests(c)
	if err != nil {
		return err
	}
	if len(tests) == 0 {
		return &codeError{exitNoTests, errors.New("the patterns match no test")}
	}
	id, err := programID()
	if err != nil {
		return withCode(exitEnvironment, err)
	}
	failed, ran := 0, 0
	for _, t := range tests {
		memory := filepath.Join(root, workspace.StateDir, "tests", shortHash(t.label))
		key := string(t.manifest) + " " + shortHash(id) + "\n"
		if b, err := os.ReadFile(memory); err == nil && string(b) == key && !c.Bool("nocache_test_results") {
			t.cached = true
		} else {
			_ = os.Remove(memory)
			start := time.Now()
			t.err = t.run(c, root)
			t.took = time.Since(start)
			ran++
			if c.Context.Err() != nil {
				return c.Context.Err()
			}
			if t.err != nil {
				failed++
			} else if err := os.MkdirAll(filepath.Dir(memory), 0o755); err == nil {
				_ = writeFile(memory, []byte(key)) // that it cannot be kept costs only time
			}
		}
		t.print(c, root)
	}
	fmt.Fprintf(c.App.Writer, "\nExecuted %d out of %s: %d passed, %d failed.\n", ran, count(len(tests), "test"), len(tests)-failed, failed)
	if failed > 0 {
		return &codeError{exitTests, nil}
	}
	return nil
}

// buildTests builds the tests that the patterns match.
func buildTests(c *cli.Context) (root string, tests []*testRun, err error) {
	e, err := openEngineHere(c)
	if err != nil {
		return "", nil, err
	}
	defer e.close()
	labels, err := e.labels(c.Context, c.Args().Slice(), graph.ExpandOptions{TestOnly: true})
	if err != nil {
		return "", nil, err
	}
	var words []string
	for _, l := range labels {
		t, err := e.analyzer.Analyze(c.Context, l)
		if err != nil {
			return "", nil, err
		}
		if fs, ok := t.Group("deployment_test"); !ok || len(fs) != 1 {
			return "", nil, usageError("%s is not a deployment_test, which is what this version runs; `tool query 'kind(deployment_test, //...)'` lists those there are", l)
		}
		words = append(words, l.String())
	}
	if len(words) == 0 {
		return e.ws.Root, nil, nil
	}
	req := &buildRequest{Dir: e.ws.Root, Targets: words, Groups: "deployment_test"}
	q, err := newQuestion(c, req)
	if err != nil {
		return "", nil, err
	}
	r, err := e.build(c, req, q)
	if err != nil {
		return "", nil, diskFull(err)
	}
	for _, bt := range r.Targets {
		for _, o := range bt.Outputs {
			tests = append(tests, &testRun{label: bt.Label, manifest: store.Ref(o.Ref), path: o.Path})
		}
	}
	return e.ws.Root, tests, nil
}

func (t *testRun) logFile(root string) string {
	return filepath.Join(root, workspace.StateDir, "testlogs", shortHash(t.label), "test.log")
}

func (t *testRun) print(c *cli.Context, root string) {
	w, p := c.App.Writer, newPalette(c.App.Writer)
	file := t.logFile(root)
	if !t.cached {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err == nil {
			_ = writeFile(file, t.log.Bytes()) // it is printed too
		}
	}
	out := c.String("test_output")
	if !t.cached && (out == "all" || out == "errors" && t.err != nil) {
		fmt.Fprintf(w, "%s", t.log.Bytes())
	}
	switch {
	case t.cached:
		fmt.Fprintf(w, "%s  %s\n", t.label, p.green("(cached) PASSED"))
	case t.err != nil:
		fmt.Fprintf(w, "%s  %s in %s\n  %v\n  log: %s\n", t.label, p.red("FAILED"), duration(t.took), t.err, file)
	default:
		fmt.Fprintf(w, "%s  %s in %s\n", t.label, p.green("PASSED"), duration(t.took))
	}
}

// say writes a line to the test's log, and to the terminal where it is streamed.
func (t *testRun) say(c *cli.Context, format string, args ...any) {
	line := fmt.Sprintf(format, args...) + "\n"
	t.log.WriteString(line)
	if c.String("test_output") == "streamed" {
		io.WriteString(c.App.ErrWriter, line)
	}
}

// testManifest is what deployment_test writes; docs/format.md describes it.
type testManifest struct {
	Version    int        `json:"version"`
	Label      string     `json:"label"`
	Deployment string     `json:"deployment"`
	Timeout    int        `json:"timeout"`
	Steps      []testStep `json:"steps"`
}

// run deploys, takes the steps, and destroys.
func (t *testRun) run(c *cli.Context, root string) (err error) {
	b, err := os.ReadFile(t.path)
	if err != nil {
		return err
	}
	var m testManifest
	if err := json.Unmarshal(b, &m); err != nil || m.Version != 1 {
		return fmt.Errorf("%s is not a test of this version: %v", t.path, err)
	}
	book, err := openBook()
	if err != nil {
		return err
	}
	name := "test-" + nameOfLabel(t.label) + "-" + shortHash(root+t.label)
	if err := clearDeployment(c, book, name); err != nil {
		return fmt.Errorf("removing what an earlier run left: %w", err)
	}
	w := &deployment{c: c, book: book, target: &target{root, m.Deployment}}
	if w.built, err = buildDeployment(c, w.target); err != nil {
		return err
	}
	d, err := book.Create(name, m.Deployment, root)
	if err != nil {
		return err
	}
	err = t.deployAndStep(c, w, d, &m)
	if err != nil && c.Bool("keep") {
		t.say(c, "the machines stay: tool info -d %s; tool destroy -d %s && tool delete -d %s", name, name, name)
		return err
	}
	return errors.Join(err, clearDeployment(c, book, name))
}

func (t *testRun) deployAndStep(c *cli.Context, w *deployment, d *deploy.Deployment, m *testManifest) error {
	ctx, stop := context.WithTimeout(c.Context, time.Duration(m.Timeout)*time.Second)
	defer stop()
	lease, err := lockDeployment(d, c)
	if err != nil {
		return err
	}
	defer lease.Release()
	defer w.close()
	if err := w.open(d); err != nil {
		return err
	}
	w.view.Close()
	w.view = newView(&lineWriter{say: func(l string) { t.say(c, "%s", l) }}, "plain")
	w.session.Events = w.view
	err = t.steps(ctx, w, m)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) && c.Context.Err() == nil {
		err = fmt.Errorf("it took longer than its timeout of %d seconds: %w", m.Timeout, err)
	}
	return err
}

// clearDeployment destroys and forgets a test's deployment, if there is one. It
// goes on after an interrupt: machines must not be left.
func clearDeployment(c *cli.Context, book *deploy.Book, name string) error {
	d, err := book.Find(name)
	if errors.As(err, new(*deploy.NotFoundError)) {
		return nil
	}
	if err != nil {
		return err
	}
	lease, err := lockDeployment(d, c)
	if err != nil {
		return err
	}
	defer lease.Release()
	s, err := storeOf(d)
	if err != nil {
		return err
	}
	defer s.Close()
	session, err := newSession(d, s, event.Discard)
	if err != nil {
		return err
	}
	ctx, stop := context.WithTimeout(context.WithoutCancel(c.Context), 5*time.Minute)
	defer stop()
	for n, err := range session.DestroyAll(ctx, d.MachineNames(), false) {
		return fmt.Errorf("destroying %s: %w", n, err)
	}
	if _, err := s.Rotate(d.RootPrefix(), 0); err != nil {
		return err
	}
	return book.Delete(d)
}

// lineWriter gives whole lines to a function.
type lineWriter struct {
	say  func(string)
	rest string
}

func (l *lineWriter) Write(b []byte) (int, error) {
	l.rest += string(b)
	for {
		line, rest, ok := strings.Cut(l.rest, "\n")
		if !ok {
			return len(b), nil
		}
		l.say(line)
		l.rest = rest
	}
}
