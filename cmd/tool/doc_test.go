package main

import (
	"bytes"
	"context"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.starlark.net/starlark"

	"tool/core/language/loader"
	"tool/core/language/workspace"
	"tool/core/model/event"
	"tool/core/model/label"
	"tool/rules"
)

var update = flag.Bool("update", false, "write docs/rules anew")

const docsDir = "../../docs/rules"

// libraryDocs documents every file of the rule library, by path in docs/rules.
func libraryDocs(t *testing.T, each func(lb label.Label, doc string, entries []docEntry, globals starlark.StringDict)) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, workspace.ConfigFile), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	ws, err := workspace.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	l := loader.New(ws, rules.FS, event.Discard)
	files, err := library()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		lb, err := label.Parse(f, label.Label{})
		if err != nil {
			t.Fatal(err)
		}
		doc, entries, _, err := document(context.Background(), l, lb, "")
		if err != nil {
			t.Fatal(err)
		}
		_, globals, err := l.Module(context.Background(), lb)
		if err != nil {
			t.Fatal(err)
		}
		each(lb, doc, entries, globals)
	}
}

// TestLibraryDocs compares docs/rules with what `tool doc` prints; -update
// writes it.
func TestLibraryDocs(t *testing.T) {
	want := map[string]bool{}
	libraryDocs(t, func(lb label.Label, doc string, entries []docEntry, _ starlark.StringDict) {
		var b bytes.Buffer
		if err := printDoc(&b, lb, doc, entries); err != nil {
			t.Fatal(err)
		}
		p := filepath.Join(docsDir, lb.Pkg, strings.TrimSuffix(lb.Name, ".star")+".md")
		want[p] = true
		have, err := os.ReadFile(p)
		if err == nil && bytes.Equal(have, b.Bytes()) {
			return
		}
		if !*update {
			t.Errorf("%s is not what `tool doc %s` prints: run `go test ./cmd/tool -run TestLibraryDocs -update`", p, lb)
			return
		}
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	})
	err := filepath.WalkDir(docsDir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || want[p] {
			return err
		}
		if *update {
			return os.Remove(p)
		}
		t.Errorf("%s documents a file that is no more", p)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestEverythingIsDocumented sees to it that the library says of every file,
// rule, attribute, provider, field, function and parameter what it is.
func TestEverythingIsDocumented(t *testing.T) {
	libraryDocs(t, func(lb label.Label, doc string, entries []docEntry, globals starlark.StringDict) {
		if strings.TrimSpace(doc) == "" {
			t.Errorf("%s has no doc string", lb)
		}
		for _, d := range entries {
			if strings.TrimSpace(d.Doc) == "" {
				t.Errorf("%s: the %s %s has no doc string", lb, d.Kind, d.Name)
			}
			for _, a := range d.Attrs {
				if strings.TrimSpace(a.Doc) == "" {
					t.Errorf("%s: %s.%s has no doc string", lb, d.Name, a.Name)
				}
			}
			if d.Kind == "provider" && len(d.Attrs) == 0 {
				t.Errorf("%s: the provider %s tells no fields", lb, d.Name)
			}
			f, ok := globals[d.Name].(*starlark.Function)
			if !ok {
				continue
			}
			for i := range f.NumParams() {
				p, _ := f.Param(i)
				stars := ""
				switch {
				case f.HasKwargs() && i == f.NumParams()-1:
					stars = "**"
				case f.HasVarargs() && (i == f.NumParams()-1 || f.HasKwargs() && i == f.NumParams()-2):
					stars = "*"
				}
				if !strings.Contains(d.Doc, "\n      "+stars+p+": ") {
					t.Errorf("%s: %s does not document its parameter %s%s", lb, d.Name, stars, p)
				}
			}
		}
	})
}
