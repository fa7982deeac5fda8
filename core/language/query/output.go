package query

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strings"

	"tool/core/language/loader"
	"tool/core/model/label"
)

// Format names an output format.
type Format string

// formats are the output formats and their writers.
var formats = []struct {
	name  Format
	write func(*Result, *bufio.Writer, OutputOptions) error
}{
	{"build", (*Result).writeBuild},
	{"graph", (*Result).writeGraph},
	{"json", (*Result).writeJSON},
	{"label", (*Result).writeLabel},
	{"label_kind", (*Result).writeLabelKind},
	{"location", (*Result).writeLocation},
	{"maxrank", (*Result).writeMaxRank},
	{"minrank", (*Result).writeMinRank},
	{"package", (*Result).writePackage},
}

// Formats lists the output formats.
func Formats() []string {
	var out []string
	for _, f := range formats {
		out = append(out, string(f.name))
	}
	return out
}

// OutputOptions are the settings of single formats.
type OutputOptions struct {
	Unfactored bool // graph: a node for each target, rather than for each group with the same neighbours
	NodeLimit  int  // graph: characters of a node's text; longer ones are cut; -1: no limit; 0: 1024
}

// Write prints the result in a format.
func (r *Result) Write(out io.Writer, f Format, opt OutputOptions) error {
	for _, known := range formats {
		if known.name == f {
			w := bufio.NewWriter(out)
			if err := known.write(r, w, opt); err != nil {
				return fmt.Errorf("writing the result: %w", err)
			}
			if err := w.Flush(); err != nil {
				return fmt.Errorf("writing the result: %w", err)
			}
			return nil
		}
	}
	hint := ""
	if n := label.Nearest(string(f), Formats()); n != "" {
		hint = fmt.Sprintf("; did you mean %q?", n)
	}
	return fmt.Errorf("output %q is none of %s%s", f, strings.Join(Formats(), ", "), hint)
}

func (r *Result) writeLabel(w *bufio.Writer, _ OutputOptions) error {
	for _, t := range r.Targets {
		fmt.Fprintln(w, t.Label)
	}
	return nil
}

func (r *Result) writeLabelKind(w *bufio.Writer, _ OutputOptions) error {
	for _, t := range r.Targets {
		fmt.Fprintln(w, t.KindString(), t.Label)
	}
	return nil
}

func (r *Result) writeLocation(w *bufio.Writer, _ OutputOptions) error {
	for _, t := range r.Targets {
		fmt.Fprintf(w, "%s: %s %s\n", Location(t), t.KindString(), t.Label)
	}
	return nil
}

// Location returns "file:line:col" of a target: where a rule is made, for a
// generated file that of its rule, for a source file its first line.
func Location(t *loader.Target) string {
	if t.Kind != loader.SourceFile || t.File == "" {
		return t.Pos
	}
	if t.Label.Repo != "" {
		return "@" + t.Label.Repo + "//" + t.File + ":1:1"
	}
	return t.File + ":1:1"
}

// writePackage prints packages as Bazel does, without // in the workspace.
func (r *Result) writePackage(w *bufio.Writer, _ OutputOptions) error {
	seen := map[label.Label]bool{}
	var pkgs []label.Label
	for _, t := range r.Targets {
		if p := t.Label.Package(); !seen[p] {
			seen[p] = true
			pkgs = append(pkgs, p)
		}
	}
	slices.SortFunc(pkgs, label.Compare)
	for _, p := range pkgs {
		if p.Repo != "" {
			fmt.Fprintln(w, p.PackageString())
		} else {
			fmt.Fprintln(w, p.Pkg)
		}
	}
	return nil
}

func (r *Result) writeMinRank(w *bufio.Writer, _ OutputOptions) error { return r.writeRank(w, false) }
func (r *Result) writeMaxRank(w *bufio.Writer, _ OutputOptions) error { return r.writeRank(w, true) }

func (r *Result) writeRank(w *bufio.Writer, longest bool) error {
	ranks := r.ranks(longest)
	order := make([]int, len(ranks))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		if ranks[a] != ranks[b] {
			return ranks[a] - ranks[b]
		}
		return r.compare(a, b)
	})
	for _, i := range order {
		fmt.Fprintln(w, ranks[i], r.Targets[i].Label)
	}
	return nil
}
