package main

import (
	"io"
	"os"

	"golang.org/x/term"

	"tool/core/model/label"
)

// palette colours text for terminals; elsewhere, and with NO_COLOR, it leaves
// text alone.
type palette struct{ on bool }

func newPalette(w io.Writer) palette {
	return palette{isTerminal(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (p palette) paint(code, s string) string {
	if !p.on {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p palette) red(s string) string   { return p.paint("1;31", s) }
func (p palette) green(s string) string { return p.paint("32", s) }
func (p palette) bold(s string) string  { return p.paint("1", s) }
func (p palette) dim(s string) string   { return p.paint("2", s) }

func labelNearest(name string, all []string) string { return label.Nearest(name, all) }
