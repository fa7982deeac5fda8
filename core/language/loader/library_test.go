package loader_test

import (
	"context"
	"strings"
	"testing"
	"testing/fstest"

	"tool/core/language/loader"
	"tool/core/model/event"
	"tool/core/model/label"
)

// TestLibraryFile shows that the rule library reads its own files, and nobody
// else does.
func TestLibraryFile(t *testing.T) {
	l, _ := open(t, "")
	files := fstest.MapFS{
		"a/src/main.go": {Data: []byte("package main\n")},
		"a/good.star":   {Data: []byte("TEXT = native.library_file(\"a/src/main.go\")\n")},
		"a/bad.star":    {Data: []byte("TEXT = native.library_file(\"a/none\")\n")},
		"a/out.star":    {Data: []byte("TEXT = native.library_file(\"../a/src/main.go\")\n")},
	}
	l = loader.New(l.Workspace, files, event.Discard)
	for name, want := range map[string]string{
		"good.star": "\"package main\\n\"",
		"bad.star":  "error: @rules//a/none: there is no such file in the rule library",
		"out.star":  "error: @rules//../a/src/main.go: there is no such file in the rule library",
	} {
		_, globals, err := l.Module(context.Background(), label.Label{Repo: loader.RulesRepo, Pkg: "a", Name: name})
		got := ""
		if err != nil {
			got = "error: " + err.Error()
		} else {
			got = globals["TEXT"].String()
		}
		if want, bad := strings.CutPrefix(want, "error: "); bad && !strings.Contains(got, want) || !bad && got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
	if got := say(t, "print(native.library_file(\"prelude/prelude.star\"))"); !strings.HasPrefix(got, "error: ") || !strings.Contains(got, "library_file") {
		t.Errorf("a workspace reads the library: %s", got)
	}
}
