package rules_test

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.starlark.net/starlark"

	"tool/core/language/analysis"
	"tool/core/language/graph"
	"tool/core/language/loader"
	"tool/core/language/workspace"
	"tool/core/model/event"
	"tool/core/model/label"
	"tool/rules"
)

// TestRules runs the tests that are written in Starlark, testdata/*.star. Each
// file is a package of its own in one workspace: its function targets declares
// what the BUILD file of the package has, and each function test_x gets one
// argument that analyses targets and compares; see harness.
func TestRules(t *testing.T) {
	files, err := filepath.Glob("testdata/*.star")
	if err != nil || len(files) == 0 {
		t.Fatalf("no tests: %v", err)
	}
	dir := t.TempDir()
	write := func(name string, content []byte) {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("tool.toml", []byte("[build]\nenvironment = \"//env:shell\"\n"))
	write("env/BUILD.star", []byte("load(\"@rules//environment:defs.star\", \"environment\")\nenvironment(name = \"shell\", packages = [], env = {\"SHELL\": \"bash\"})\n"))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		pkg := strings.TrimSuffix(filepath.Base(f), ".star")
		write(pkg+"/test.star", b)
		write(pkg+"/BUILD.star", []byte("load(\":test.star\", \"targets\")\ntargets()\n"))
	}
	ws, err := workspace.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	l := loader.New(ws, rules.FS, event.Discard)
	a := analysis.New(&graph.Graph{Loader: l}, event.Discard)
	a.Environment = label.Label{Pkg: "env", Name: "shell"}
	for _, f := range files {
		pkg := strings.TrimSuffix(filepath.Base(f), ".star")
		t.Run(pkg, func(t *testing.T) {
			file := label.Label{Pkg: pkg, Name: "test.star"}
			_, globals, err := l.Module(context.Background(), file)
			if err != nil {
				t.Fatal(err)
			}
			ran := 0
			for _, name := range globals.Keys() {
				fn, ok := globals[name].(*starlark.Function)
				if !ok || !strings.HasPrefix(name, "test_") {
					continue
				}
				ran++
				t.Run(strings.TrimPrefix(name, "test_"), func(t *testing.T) {
					thread := l.NewThread(name, file)
					h := &harness{t: t, a: a, pkg: label.Label{Pkg: pkg}}
					err := loader.Guard(thread, func() error {
						_, err := starlark.Call(thread, fn, starlark.Tuple{h.value()}, nil)
						return loader.Explain(err)
					})
					if err != nil {
						t.Error(err)
					}
				})
			}
			if ran == 0 {
				t.Error("it has no test")
			}
		})
	}
}

// TestEmbedded sees to it that every .star file of this folder is in the binary.
func TestEmbedded(t *testing.T) {
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(p) != ".star" || strings.HasPrefix(p, "testdata/") {
			return err
		}
		if _, err := rules.FS.Open(p); errors.Is(err, fs.ErrNotExist) {
			t.Errorf("rules.go embeds no %s", p)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
