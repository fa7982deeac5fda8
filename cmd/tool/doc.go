package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"sort"
	"strings"

	"github.com/urfave/cli/v2"
	"go.starlark.net/starlark"

	"tool/core/language/loader"
	"tool/core/language/workspace"
	"tool/core/model/label"
	"tool/rules"
)

func docCommand() *cli.Command {
	return &cli.Command{
		Name: "doc", Usage: "print the documentation of a .star file's rules, functions and providers", ArgsUsage: "[LABEL [NAME]]",
		Description: "tool doc lists the rule library; tool doc @rules//service:defs.star documents a file of it.",
		Flags:       []cli.Flag{jsonFlag()}, Action: runDoc,
	}
}

// docEntry is one documented name.
type docEntry struct {
	Name  string    `json:"name"`
	Kind  string    `json:"kind"` // rule, provider, function
	Doc   string    `json:"doc"`
	Attrs []docAttr `json:"attrs,omitempty"`
	Call  string    `json:"call,omitempty"` // a function's signature
}

type docAttr struct {
	Name      string `json:"name"`
	Type      string `json:"type"`
	Mandatory bool   `json:"mandatory"`
	Default   string `json:"default,omitempty"`
	Doc       string `json:"doc"`
}

func runDoc(c *cli.Context) error {
	e, err := openEngineHere(c)
	if err != nil {
		return err
	}
	e.view.Close()
	e.view.quiet = true
	if !c.Args().Present() {
		return listLibrary(c)
	}
	lb, err := label.Parse(c.Args().First(), label.Label{Pkg: e.cwd})
	if err != nil {
		return withCode(exitUsage, err)
	}
	want := c.Args().Get(1)
	doc, entries, names, err := document(c.Context, e.loader, lb, want)
	if err != nil {
		return err
	}
	if want != "" && len(entries) == 0 {
		return usageError("%s has no %q%s", lb, want, nearest(want, names))
	}
	if c.Bool("json") {
		return json.NewEncoder(c.App.Writer).Encode(map[string]any{"file": lb.String(), "doc": doc, "entries": entries})
	}
	return printDoc(c.App.Writer, lb, doc, entries)
}

// document returns a .star file's doc string and the documentation of its
// public names, or of the one that is wanted; names are all of them.
func document(ctx context.Context, l *loader.Loader, lb label.Label, want string) (doc string, entries []docEntry, names []string, err error) {
	doc, globals, err := l.Module(ctx, lb)
	if err != nil {
		return "", nil, nil, err
	}
	for _, n := range globals.Keys() {
		if strings.HasPrefix(n, "_") {
			continue
		}
		names = append(names, n)
		if want == "" || want == n {
			if d, ok := documented(n, globals[n]); ok {
				entries = append(entries, d)
			}
		}
	}
	return doc, entries, names, nil
}

func documented(name string, v starlark.Value) (docEntry, bool) {
	switch v := v.(type) {
	case *loader.RuleClass:
		d := docEntry{Name: name, Kind: "rule", Doc: v.Doc}
		for _, n := range v.AttrNames() {
			a := v.Attrs[n]
			if strings.HasPrefix(n, "_") {
				continue
			}
			x := docAttr{Name: n, Type: string(a.Kind), Mandatory: a.Mandatory, Doc: a.Doc}
			if !a.Mandatory {
				x.Default = a.Zero().String()
			}
			if a.Setting != "" {
				x.Default = a.Setting + " of " + workspace.ConfigFile
			}
			d.Attrs = append(d.Attrs, x)
		}
		return d, true
	case *loader.Provider:
		d := docEntry{Name: name, Kind: "provider", Doc: v.Doc}
		for _, f := range v.Fields {
			d.Attrs = append(d.Attrs, docAttr{Name: f, Doc: v.Docs[f]})
		}
		return d, true
	case *starlark.Function:
		return docEntry{Name: name, Kind: "function", Doc: v.Doc(), Call: signature(v)}, true
	}
	return docEntry{}, false
}

// signature writes a function's parameters as its definition has them. The
// interpreter lists *args and **kwargs last, after those that only a keyword
// sets.
func signature(f *starlark.Function) string {
	n := f.NumParams()
	var kwargs, varargs string
	if f.HasKwargs() {
		n--
		p, _ := f.Param(n)
		kwargs = "**" + p
	}
	if f.HasVarargs() {
		n--
		p, _ := f.Param(n)
		varargs = "*" + p
	} else if f.NumKwonlyParams() > 0 {
		varargs = "*"
	}
	var ps []string
	for i := range n {
		if i == n-f.NumKwonlyParams() && varargs != "" {
			ps, varargs = append(ps, varargs), ""
		}
		p, _ := f.Param(i)
		if d := f.ParamDefault(i); d != nil {
			p += " = " + d.String()
		}
		ps = append(ps, p)
	}
	for _, p := range []string{varargs, kwargs} {
		if p != "" {
			ps = append(ps, p)
		}
	}
	return f.Name() + "(" + strings.Join(ps, ", ") + ")"
}

func printDoc(w io.Writer, lb label.Label, doc string, entries []docEntry) error {
	fmt.Fprintf(w, "# %s\n\n%s\n", lb, strings.TrimSpace(doc))
	for _, d := range entries {
		fmt.Fprintf(w, "\n## %s (%s)\n\n", d.Name, d.Kind)
		if d.Call != "" {
			fmt.Fprintf(w, "    %s\n\n", d.Call)
		}
		fmt.Fprintln(w, dedent(d.Doc))
		if len(d.Attrs) > 0 {
			fmt.Fprintln(w)
		}
		for _, a := range d.Attrs {
			var notes []string
			if a.Type != "" {
				notes = append(notes, a.Type)
			}
			switch {
			case a.Mandatory:
				notes = append(notes, "mandatory")
			case a.Default != "" && a.Default != "None" && a.Default != "\"\"" && a.Default != "[]" && a.Default != "{}" && a.Default != "False" && a.Default != "0":
				notes = append(notes, "default "+a.Default)
			}
			note := ""
			if len(notes) > 0 {
				note = " (" + strings.Join(notes, ", ") + ")"
			}
			fmt.Fprintf(w, "- %s%s: %s\n", a.Name, note, a.Doc)
		}
	}
	return nil
}

// dedent removes the indentation that a doc string has after its first line.
func dedent(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	indent := -1
	for _, l := range lines[1:] {
		if t := strings.TrimLeft(l, " "); t != "" && (indent < 0 || len(l)-len(t) < indent) {
			indent = len(l) - len(t)
		}
	}
	for i, l := range lines {
		if i > 0 && indent > 0 && len(l) >= indent {
			lines[i] = l[indent:]
		}
	}
	return strings.Join(lines, "\n")
}

func listLibrary(c *cli.Context) error {
	files, err := library()
	if err != nil {
		return err
	}
	if c.Bool("json") {
		return json.NewEncoder(c.App.Writer).Encode(map[string]any{"files": files})
	}
	fmt.Fprintln(c.App.Writer, strings.Join(files, "\n"))
	return nil
}

// library lists the labels of the rule library's files.
func library() ([]string, error) {
	var files []string
	dirs, err := rules.FS.ReadDir(".")
	if err != nil {
		return nil, err
	}
	for _, d := range dirs {
		es, err := rules.FS.ReadDir(d.Name())
		if err != nil {
			return nil, err
		}
		for _, e := range es {
			if path.Ext(e.Name()) == ".star" {
				files = append(files, "@rules//"+d.Name()+":"+e.Name())
			}
		}
	}
	sort.Strings(files)
	return files, nil
}
