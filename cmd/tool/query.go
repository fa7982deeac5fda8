package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"tool/core/language/query"
	"tool/core/model/label"
)

func queryCommand() *cli.Command {
	return &cli.Command{
		Name:      "query",
		Usage:     "ask about the target graph, in Bazel's query language",
		ArgsUsage: "EXPRESSION",
		Description: "Such as 'deps(//cluster:marathon)', 'rdeps(//..., //packages:openssl-libs)',\n" +
			"'somepath(//a, //b)', 'kind(\"source file\", deps(//a))', 'attr(tags, manual, //...)'.\n" +
			"Nothing is built, and every branch of a select counts.",
		Flags: flags(queryFlags(), []cli.Flag{
			&cli.StringFlag{Name: "output", Value: "label", Usage: "`FORMAT`: " + strings.Join(query.Formats(), ", ")},
			&cli.StringFlag{Name: "order_output", Value: string(query.OrderAuto), Usage: "auto, no, deps or full"},
			&cli.BoolFlag{Name: "nograph:factored", Usage: "graph: a node for each target, rather than for each group with the same neighbours"},
			&cli.BoolFlag{Name: "graph:factored", Value: true, Usage: "graph: one node for targets with the same neighbours"},
			&cli.IntFlag{Name: "graph:node_limit", Value: 1024, Usage: "graph: cut a node's text after `N` characters; -1: never"},
			jsonFlag(),
		}, configFlags()),
		Action: runQuery,
	}
}

// queryFlags are what query and aquery share.
func queryFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "implicit_deps", Value: true, Usage: "follow dependencies that no BUILD file writes down"},
		&cli.BoolFlag{Name: "noimplicit_deps", Usage: "do not follow dependencies that no BUILD file writes down"},
		&cli.BoolFlag{Name: "tool_deps", Value: true, Usage: "accepted for compatibility: there is one configuration"},
		&cli.BoolFlag{Name: "notool_deps", Usage: "accepted for compatibility: there is one configuration"},
		&cli.BoolFlag{Name: "keep_going", Aliases: []string{"k"}, Usage: "leave out what cannot be loaded, and exit with 3"},
		&cli.StringFlag{Name: "universe_scope", Usage: "comma-separated `PATTERNS` that allrdeps and rbuildfiles search (default: //...)"},
		&cli.StringFlag{Name: "query_file", Usage: "read the expression from `FILE`"},
	}
}

// queryText joins the arguments, as Bazel does, or reads --query_file.
func queryText(c *cli.Context) (string, error) {
	if file := c.String("query_file"); file != "" {
		if c.Args().Present() {
			return "", usageError("tool %s: give an expression or --query_file, not both", c.Command.Name)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return "", withCode(exitUsage, fmt.Errorf("--query_file: %w", err))
		}
		return string(b), nil
	}
	text := strings.Join(c.Args().Slice(), " ")
	if strings.TrimSpace(text) == "" {
		return "", usageError("tool %s: no expression given; try 'deps(//...)'", c.Command.Name)
	}
	return text, nil
}

// evaluator returns an evaluator with the settings of queryFlags.
func (e *engine) evaluator(c *cli.Context) (*query.Evaluator, error) {
	ev := &query.Evaluator{Graph: e.graph, Cwd: e.cwd, KeepGoing: c.Bool("keep_going"),
		NoImplicitDeps: c.Bool("noimplicit_deps") || c.IsSet("implicit_deps") && !c.Bool("implicit_deps")}
	if s := c.String("universe_scope"); s != "" {
		for _, w := range strings.Split(s, ",") {
			p, err := label.ParsePattern(w, e.cwd)
			if err != nil {
				return nil, withCode(exitUsage, fmt.Errorf("--universe_scope: %w", err))
			}
			ev.Universe = append(ev.Universe, p)
		}
	}
	return ev, nil
}

func runQuery(c *cli.Context) error {
	text, err := queryText(c)
	if err != nil {
		return err
	}
	format := c.String("output")
	if c.Bool("json") {
		format = "json"
	}
	if !slices.Contains(query.Formats(), format) {
		return usageError("--output=%s is none of %s%s", format, strings.Join(query.Formats(), ", "), nearest(format, query.Formats()))
	}
	order := query.Order(c.String("order_output"))
	if !slices.Contains(query.Orders(), order) {
		return usageError("--order_output=%s is none of auto, no, deps, full", order)
	}
	expr, err := query.Parse(text)
	if err != nil {
		return withCode(exitQuery, err)
	}
	e, err := openEngineHere(c)
	if err != nil {
		return err
	}
	defer e.close()
	ev, err := e.evaluator(c)
	if err != nil {
		return err
	}
	r, err := ev.Eval(c.Context, expr, order)
	if err != nil {
		return queryError(c, err)
	}
	e.endView()
	opt := query.OutputOptions{Unfactored: c.Bool("nograph:factored") || !c.Bool("graph:factored"), NodeLimit: c.Int("graph:node_limit")}
	if err := r.Write(c.App.Writer, query.Format(format), opt); err != nil {
		return withCode(exitEnvironment, err)
	}
	if len(r.Targets) == 0 && len(r.Errors) == 0 {
		fmt.Fprintln(c.App.ErrWriter, "the result is empty")
	}
	return partial(r.Errors)
}

// partial is the error of a query that --keep_going let past mistakes.
func partial(errs []error) error {
	if len(errs) == 0 {
		return nil
	}
	return withCode(exitTests, fmt.Errorf("%w\nthe result is partial, as --keep_going asked for", joinDistinct(errs)))
}

func queryError(c *cli.Context, err error) error {
	if c.Context.Err() != nil {
		return c.Context.Err()
	}
	var ce *codeError
	if errors.As(err, &ce) {
		return err
	}
	return withCode(exitQuery, err)
}

// endView ends the progress lines, so that results can be printed.
func (e *engine) endView() {
	if !e.view.quiet {
		e.view.Close()
		e.view.quiet = true
	}
}
