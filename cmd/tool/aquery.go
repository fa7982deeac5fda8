package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"tool/core/language/action"
	"tool/core/language/loader"
	"tool/core/language/query"
)

var aqueryFormats = []string{"commands", "json", "summary", "text"}

func aqueryCommand() *cli.Command {
	return &cli.Command{
		Name:      "aquery",
		Usage:     "show the actions of targets: commands, inputs, outputs",
		ArgsUsage: "EXPRESSION",
		Description: "The expression is one of query's, over the configured graph; around it may stand\n" +
			"inputs(REGEXP, x), outputs(REGEXP, x) and mnemonic(REGEXP, x), which match whole paths.\n" +
			"Nothing is executed. Such as 'mnemonic(\"Go.*\", deps(//:tool))'.",
		Flags: flags(queryFlags(), []cli.Flag{
			&cli.StringFlag{Name: "output", Value: "text", Usage: "`FORMAT`: " + strings.Join(aqueryFormats, ", ")},
			&cli.BoolFlag{Name: "noinclude_commandline", Usage: "text: leave command lines out"},
			&cli.BoolFlag{Name: "noinclude_artifacts", Usage: "text: leave inputs and outputs out"},
			jsonFlag(),
		}, configFlags()),
		Action: runAquery,
	}
}

// actionJSON is one action of aquery --json.
type actionJSON struct {
	Target      string   `json:"target"`
	Mnemonic    string   `json:"mnemonic"`
	Progress    string   `json:"progress,omitempty"`
	Position    string   `json:"position"` // of the target, or of the call in the rule's implementation
	Builtin     string   `json:"builtin,omitempty"`
	Params      any      `json:"params,omitempty"`    // of a builtin
	Arguments   []string `json:"arguments,omitempty"` // parameter files written out
	Environment []string `json:"environment,omitempty"`
	Root        string   `json:"root,omitempty"` // the tree that the command sees as its root file system
	Inputs      []string `json:"inputs"`
	Outputs     []string `json:"outputs"`
	Timeout     float64  `json:"timeout_seconds,omitempty"`
}

func runAquery(c *cli.Context) error {
	text, err := queryText(c)
	if err != nil {
		return err
	}
	format := c.String("output")
	if c.Bool("json") {
		format = "json"
	}
	if !slices.Contains(aqueryFormats, format) {
		return usageError("--output=%s is none of %s%s", format, strings.Join(aqueryFormats, ", "), nearest(format, aqueryFormats))
	}
	expr, filters, err := query.ParseActions(text)
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
	ev.Configured = true
	r, err := ev.Eval(c.Context, expr, query.OrderAuto)
	if err != nil {
		return queryError(c, err)
	}
	actions, errs, err := e.actionsOf(c, r.Targets)
	if err != nil {
		return queryError(c, err)
	}
	actions = slices.DeleteFunc(actions, func(a *action.Action) bool { return !e.passes(a, filters) })
	e.endView()
	w := c.App.Writer
	switch format {
	case "json":
		err = e.writeActionJSON(w, actions)
	case "summary":
		writeActionSummary(w, actions)
	case "commands":
		for _, a := range actions {
			if a.Builtin == "" {
				fmt.Fprintln(w, oneLine(quoteAll(e.words(a.Args))))
			}
		}
	default:
		for _, a := range actions {
			e.writeAction(w, a, !c.Bool("noinclude_commandline"), !c.Bool("noinclude_artifacts"))
		}
	}
	if err != nil {
		return withCode(exitEnvironment, err)
	}
	if len(actions) == 0 {
		fmt.Fprintln(c.App.ErrWriter, "no action is chosen")
	}
	return partial(append(r.Errors, errs...))
}

// actionsOf analyses targets and returns their actions, each once; of a
// generated file it is the one that makes it.
func (e *engine) actionsOf(c *cli.Context, targets []*loader.Target) ([]*action.Action, []error, error) {
	var out []*action.Action
	var errs []error
	seen := map[int]bool{}
	add := func(id int) {
		if id >= 0 && !seen[id] {
			seen[id] = true
			out = append(out, e.analyzer.Actions.Actions[id])
		}
	}
	for _, t := range targets {
		at, err := e.analyzer.Analyze(c.Context, t.Label)
		if err != nil {
			if !c.Bool("keep_going") || c.Context.Err() != nil {
				return nil, nil, err
			}
			errs = append(errs, err)
			continue
		}
		for _, id := range at.Actions {
			add(id)
		}
		if t.Kind == loader.GeneratedFile {
			for _, f := range at.Files() {
				add(f.Artifact.Producer)
			}
		}
	}
	return out, errs, nil
}

func (e *engine) passes(a *action.Action, filters []query.ActionFilter) bool {
	some := func(f query.ActionFilter, ids []int) bool {
		return slices.ContainsFunc(ids, func(id int) bool { return f.Pattern.MatchString(e.artifact(id)) })
	}
	for _, f := range filters {
		ok := false
		switch f.Function {
		case "inputs":
			ok = some(f, a.Inputs) || a.Root >= 0 && some(f, []int{a.Root})
		case "outputs":
			ok = some(f, a.Outputs)
		case "mnemonic":
			ok = f.Pattern.MatchString(a.Mnemonic)
		}
		if !ok {
			return false
		}
	}
	return true
}

func (e *engine) artifact(id int) string { return e.analyzer.Actions.Artifacts[id].Path }

func (e *engine) artifacts(ids []int) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = e.artifact(id)
	}
	return out
}

// words shows a command line as far as it is known before execution: the
// files of a directory are shown as {files of DIR}.
func (e *engine) words(args []action.Arg) []string {
	var out []string
	for i := range args {
		switch a := &args[i]; {
		case a.ParamFile:
			out = append(out, e.words(a.Params)...)
		case a.Expand:
			if a.Before != "" {
				out = append(out, a.Before)
			}
			s := "{files of " + e.artifact(a.Tree) + "}"
			if a.Format != "" {
				s = strings.ReplaceAll(strings.Replace(strings.ReplaceAll(a.Format, "%%", "\x00"), "%s", s, 1), "\x00", "%")
			}
			out = append(out, s)
		default:
			out = append(out, a.Text)
		}
	}
	return out
}

// maxParams is how much of a builtin's parameters the text output shows: the
// content of a written file can be long.
const maxParams = 1000

func (e *engine) writeAction(w io.Writer, a *action.Action, commandline, artifacts bool) {
	title := a.Progress
	if title == "" {
		title = a.Mnemonic + " " + a.Owner
	}
	fmt.Fprintf(w, "action '%s'\n  Mnemonic: %s\n  Target: %s\n  Position: %s\n", title, a.Mnemonic, a.Owner, a.Position)
	if a.Builtin != "" {
		fmt.Fprintf(w, "  Builtin: %s\n", a.Builtin)
	}
	if artifacts {
		fmt.Fprintf(w, "  Inputs: [%s]\n  Outputs: [%s]\n", strings.Join(e.artifacts(a.Inputs), ", "), strings.Join(e.artifacts(a.Outputs), ", "))
	}
	if a.Root >= 0 {
		fmt.Fprintf(w, "  Root: %s\n", e.artifact(a.Root))
	}
	if len(a.Env) > 0 {
		fmt.Fprintf(w, "  Environment: [%s]\n", strings.Join(a.Env, ", "))
	}
	if a.Timeout > 0 {
		fmt.Fprintf(w, "  Timeout: %s\n", a.Timeout)
	}
	switch {
	case !commandline:
	case a.Builtin == "":
		fmt.Fprintf(w, "  Command Line: (exec %s)\n", strings.Join(quoteAll(e.words(a.Args)), " \\\n    "))
	case len(a.Params) > maxParams:
		fmt.Fprintf(w, "  Params: %s… (%d bytes; --json has all)\n", strings.ToValidUTF8(a.Params[:maxParams], ""), len(a.Params))
	default:
		fmt.Fprintf(w, "  Params: %s\n", a.Params)
	}
	fmt.Fprintln(w)
}

func writeActionSummary(w io.Writer, actions []*action.Action) {
	fmt.Fprintf(w, "%d total actions.\n", len(actions))
	count := func(title string, key func(*action.Action) string) {
		n := map[string]int{}
		var keys []string
		for _, a := range actions {
			k := key(a)
			if n[k]++; n[k] == 1 {
				keys = append(keys, k)
			}
		}
		slices.SortFunc(keys, func(a, b string) int {
			if n[a] != n[b] {
				return n[b] - n[a]
			}
			return strings.Compare(a, b)
		})
		fmt.Fprintf(w, "\n%s:\n", title)
		for _, k := range keys {
			fmt.Fprintf(w, "  %s: %d\n", k, n[k])
		}
	}
	if len(actions) == 0 {
		return
	}
	count("Mnemonics", func(a *action.Action) string { return a.Mnemonic })
	count("Runs as", func(a *action.Action) string {
		if a.Builtin != "" {
			return a.Builtin
		}
		return "command"
	})
	count("Targets", func(a *action.Action) string { return a.Owner })
}

func (e *engine) writeActionJSON(w io.Writer, actions []*action.Action) error {
	out := make([]actionJSON, 0, len(actions))
	for _, a := range actions {
		j := actionJSON{Target: a.Owner, Mnemonic: a.Mnemonic, Progress: a.Progress, Position: a.Position, Builtin: a.Builtin,
			Environment: a.Env, Inputs: e.artifacts(a.Inputs), Outputs: e.artifacts(a.Outputs), Timeout: a.Timeout.Seconds()}
		if a.Builtin == "" {
			j.Arguments = e.words(a.Args)
		} else if a.Params != "" {
			j.Params = json.RawMessage(a.Params)
		}
		if a.Root >= 0 {
			j.Root = e.artifact(a.Root)
		}
		out = append(out, j)
	}
	return json.NewEncoder(w).Encode(map[string]any{"actions": out})
}

// oneLine joins quoted words; a line break in one of them is written as
// $'\n', which bash reads as one.
func oneLine(words []string) string {
	return strings.ReplaceAll(strings.Join(words, " "), "\n", `'$'\n''`)
}

// quoteAll quotes words for a shell where they need it.
func quoteAll(words []string) []string {
	out := make([]string, len(words))
	for i, s := range words {
		safe := func(r rune) bool {
			return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("@%+=:,./_-", r)
		}
		if s != "" && strings.IndexFunc(s, func(r rune) bool { return !safe(r) }) < 0 {
			out[i] = s
		} else {
			out[i] = "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
		}
	}
	return out
}
