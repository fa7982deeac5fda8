// Package core_test holds the house to its plan.
package core_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestImports checks every import between packages of this repository against
// the table in ARCHITECTURE.md.
func TestImports(t *testing.T) {
	table := readTable(t)
	found := map[string]bool{}
	check := func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(p, ".go") || filepath.Dir(p) == "." {
			return err
		}
		pkg := path.Base(path.Dir(filepath.ToSlash(p)))
		found[pkg] = true
		allowed, ok := table[pkg]
		if !ok {
			t.Errorf("%s: package %s is not in the table", p, pkg)
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), p, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, imp := range f.Imports {
			name := strings.Trim(imp.Path.Value, `"`)
			rel, ok := strings.CutPrefix(name, "tool/")
			if !ok {
				continue
			}
			// A test may use whatever it needs to set its stage.
			if strings.HasSuffix(p, "_test.go") || slices.Contains(allowed, path.Base(rel)) && (strings.HasPrefix(rel, "core/") || strings.HasPrefix(rel, "backends/")) {
				continue
			}
			t.Errorf("%s imports %s, which the table in ARCHITECTURE.md does not allow", p, name)
		}
		return nil
	}
	for _, dir := range []string{".", "../backends"} {
		if err := filepath.WalkDir(dir, check); err != nil {
			t.Fatal(err)
		}
	}
	for pkg := range table {
		if !found[pkg] {
			t.Errorf("ARCHITECTURE.md lists %s, which does not exist", pkg)
		}
	}
}

func readTable(t *testing.T) map[string][]string {
	b, err := os.ReadFile("../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok1 := strings.Cut(string(b), "<!-- imports -->\n```\n")
	text, _, ok2 := strings.Cut(rest, "```\n<!-- /imports -->")
	if !ok1 || !ok2 {
		t.Fatal("ARCHITECTURE.md has no import table")
	}
	table := map[string][]string{}
	for line := range strings.Lines(text) {
		name, deps, ok := strings.Cut(line, ":")
		if !ok {
			t.Fatalf("line of the import table: %q", line)
		}
		table[name] = strings.Fields(deps)
	}
	return table
}
