package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"
)

// version is set by the linker when //:tool builds the program.
var version = "development"

func newApp(stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:                   "tool",
		Usage:                  "build machines from source files, and run them, over one graph",
		Version:                version,
		HideVersion:            true,
		Writer:                 stdout,
		ErrWriter:              stderr,
		EnableBashCompletion:   true,
		Suggest:                true,
		UseShortOptionHandling: false,
		CustomAppHelpTemplate:  "",
		ExitErrHandler:         func(*cli.Context, error) {}, // Main prints
		OnUsageError:           onUsageError,
		Commands: []*cli.Command{
			buildCommand(), testCommand(), createCommand(), deployCommand(), planCommand(), infoCommand(), listCommand(), checkCommand(),
			sshCommand(), execCommand(), logsCommand(), consoleCommand(), generationsCommand(), rollbackCommand(), diffCommand(),
			startCommand(), stopCommand(), rebootCommand(), snapshotCommand(), destroyCommand(), deleteCommand(), exportCommand(), importCommand(),
			queryCommand(), aqueryCommand(), whyCommand(), pathInfoCommand(), lockCommand(),
			gcCommand(), rootsCommand(), storeCommand(), logCommand(), docCommand(), versionCommand(),
			completionCommand(), sandboxEnterCommand(), vmSwitchCommand(), agentCommand(),
		},
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return usageError("there is no command %q%s; `tool help` lists them", c.Args().First(), suggestCommand(c.App, c.Args().First()))
			}
			return cli.ShowAppHelp(c)
		},
	}
	for _, cmd := range app.Commands {
		cmd.OnUsageError = onUsageError
		for _, sub := range cmd.Subcommands {
			sub.OnUsageError = onUsageError
		}
	}
	return app
}

func onUsageError(c *cli.Context, err error, _ bool) error {
	name := c.App.Name
	if c.Command != nil && c.Command.HelpName != "" {
		name = c.Command.HelpName // with the commands above it: tool roots rm
	}
	if flag, ok := strings.CutPrefix(err.Error(), "flag provided but not defined: -"); ok {
		return usageError("%s: there is no flag %s%s; `%s --help` lists the flags", name, dashed(flag), nearestFlag(c, flag), name)
	}
	return usageError("%s: %v; `%s --help` lists the flags", name, err, name)
}

// dashed writes a flag as one types it.
func dashed(flag string) string {
	if len(flag) == 1 {
		return "-" + flag
	}
	return "--" + flag
}

func nearestFlag(c *cli.Context, flag string) string {
	if c.Command == nil || len(flag) == 1 {
		return ""
	}
	var names []string
	for _, f := range c.Command.Flags {
		names = append(names, f.Names()...)
	}
	if n := labelNearest(flag, names); n != "" {
		return "; did you mean " + dashed(n) + "?"
	}
	return ""
}

func suggestCommand(app *cli.App, name string) string {
	var names []string
	for _, c := range app.Commands {
		if !c.Hidden {
			names = append(names, c.Name)
		}
	}
	return nearest(name, names)
}

// reorder moves flags before the arguments, since Bazel's users write them
// anywhere and urfave/cli stops at the first argument. Everything after "--"
// stays where it is.
func reorder(app *cli.App, args []string) []string {
	if len(args) < 2 || args[len(args)-1] == "--"+cli.BashCompletionFlag.Names()[0] {
		return args // the completion's flag must stay last
	}
	cmds := app.Commands
	var cmd *cli.Command
	i := 1
	for i < len(args) {
		next := findCommand(cmds, args[i])
		if next == nil {
			break
		}
		cmd, cmds, i = next, next.Subcommands, i+1
	}
	if cmd == nil {
		return args
	}
	takesValue := map[string]bool{}
	for _, f := range cmd.Flags {
		_, isBool := f.(*cli.BoolFlag)
		for _, n := range f.Names() {
			takesValue[n] = !isBool
		}
	}
	out := append([]string(nil), args[:i]...)
	var rest []string
	for ; i < len(args); i++ {
		a := args[i]
		if a == "--" {
			rest = append(append(rest, "--"), args[i+1:]...)
			break
		}
		name := strings.TrimLeft(a, "-")
		if !strings.HasPrefix(a, "-") || a == "-" || strings.HasPrefix(name, "/") {
			rest = append(rest, a)
			continue
		}
		// Nix's users write path-info -rSh; urfave/cli keeps -h for help.
		if cmd.Name == "path-info" && !strings.HasPrefix(a, "--") && len(name) > 1 {
			a = strings.ReplaceAll(a, "h", "H")
		}
		out = append(out, a)
		// -j4 as make's and Bazel's users write it
		if !strings.HasPrefix(a, "--") && len(name) > 1 && takesValue[name[:1]] && !takesValue[name] && !strings.Contains(name, "=") {
			out[len(out)-1] = "-" + name[:1] + "=" + name[1:]
			continue
		}
		if takesValue[name] && i+1 < len(args) {
			i++
			out = append(out, args[i])
		}
	}
	if len(rest) > 0 && rest[0] != "--" {
		out = append(out, "--")
	} else if len(rest) > 0 {
		rest = rest[1:]
		out = append(out, "--")
	}
	// A "--" in the middle only marks where flags end; by now it has done so.
	for j, a := range rest {
		if a == "--" {
			rest = append(rest[:j:j], rest[j+1:]...)
			break
		}
	}
	return append(out, rest...)
}

func findCommand(cmds []*cli.Command, name string) *cli.Command {
	for _, c := range cmds {
		if c.HasName(name) {
			return c
		}
	}
	return nil
}

// Flags that several commands share.
func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "print JSON for programs"}
}

func configFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "config", Usage: "settings `NAME` from [config.NAME] in tool.toml"},
		&cli.StringSliceFlag{Name: "define", Usage: "set `KEY=VALUE`, for select()"},
		&cli.StringFlag{Name: "compilation_mode", Aliases: []string{"c"}, Usage: "fastbuild, dbg or opt, for select()"},
	}
}

func executionFlags() []cli.Flag {
	return []cli.Flag{
		&cli.BoolFlag{Name: "keep_going", Aliases: []string{"k"}, Usage: "go on with what does not depend on a failure"},
		&cli.IntFlag{Name: "jobs", Aliases: []string{"j"}, Usage: "actions at a time (default: processors)"},
		&cli.BoolFlag{Name: "sandbox_debug", Usage: "leave the sandboxes of failed commands, and tell how to enter them"},
		&cli.StringFlag{Name: "progress", Value: "auto", Usage: "auto, terminal, plain or none"},
	}
}

// checkFlags finds wrong values of the execution flags. It comes first: an
// answer that is remembered must not hide them.
func checkFlags(c *cli.Context) error {
	if c.IsSet("jobs") && c.Int("jobs") < 1 {
		return usageError("--jobs=%d: want at least 1", c.Int("jobs"))
	}
	switch m := c.String("progress"); m {
	case "", "auto", "terminal", "plain", "none":
	default:
		return usageError("--progress=%s is none of auto, terminal, plain, none", m)
	}
	return nil
}

func flags(sets ...[]cli.Flag) []cli.Flag {
	var out []cli.Flag
	for _, s := range sets {
		out = append(out, s...)
	}
	return out
}

func nearest(name string, all []string) string {
	if n := labelNearest(name, all); n != "" {
		return fmt.Sprintf("; did you mean %q?", n)
	}
	return ""
}
