package exec_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"tool/core/execution/exec"
	"tool/core/language/action"
)

func TestCommands(t *testing.T) {
	l := newLab(t, t.TempDir())
	g := newGraph()
	root := l.sandboxed(g)
	l.src.files["a"] = "A"
	b := g.write("out/x/b", "B")
	c := g.cat(root, "out/x/c", g.source("a"), b) // reads b beside its own output
	d := g.cat(root, "out/y/d", c, b)
	r := l.build(g, d)
	if got := l.text(r.Wanted[0]); got != "ABB" || r.Executed != 3 {
		t.Errorf("%q %+v", got, r)
	}
	if r := l.build(g, d); r.Cached != 3 {
		t.Errorf("%+v", r)
	}
}

func TestCommandLines(t *testing.T) {
	l := newLab(t, t.TempDir())
	g := newGraph()
	root := l.sandboxed(g)
	tree := g.builtin("merge@1", `{"files":[{"path":"z","content":"Z"},{"path":"a/b","content":"AB"},{"path":"a-c","content":"AC"}],"symlinks":[{"path":"l","target":"z"}]}`, "out/t/")
	lib := g.write("out/lib", "library")
	run := func(name string, args ...action.Arg) string {
		t.Helper()
		args = append([]action.Arg{{Text: "/bin/helper"}, {Text: "helper"}, {Text: "out/" + name}}, args...)
		out := g.add(action.Action{Root: root, Args: args, Env: []string{"X=" + g.Artifacts[lib].Placeholder()}}, "out/"+name, lib, tree)
		return l.text(l.build(g, out).Wanted[0])
	}
	for name, c := range map[string]struct {
		arg  action.Arg
		want string
	}{
		"expand":    {action.Arg{Expand: true, Tree: tree, Format: "@%s", Before: ","}, ",AC,AB,Z,Z"},
		"plain":     {action.Arg{Expand: true, Tree: tree}, "out/t/a-cout/t/a/bout/t/lout/t/z"},
		"joined":    {action.Arg{Expand: true, Tree: tree, Format: "<%s>", Joined: true, Join: ":"}, "<out/t/a-c>:<out/t/a/b>:<out/t/l>:<out/t/z>"},
		"short":     {action.Arg{ParamFile: true, Text: "@%s", Params: []action.Arg{{Text: "one "}, {Text: "two"}}}, "one two"},
		"always":    {action.Arg{ParamFile: true, Always: true, Text: "@%s", Params: []action.Arg{{Text: "it's"}, {Text: ""}}}, `'it'\''s'` + "\n''\n"},
		"multiline": {action.Arg{ParamFile: true, Always: true, Multiline: true, Text: "@%s", Params: []action.Arg{{Text: "it's"}, {Text: "so"}}}, "it's\nso\n"},
		"long":      {action.Arg{ParamFile: true, Multiline: true, Text: "@%s", Params: []action.Arg{{Text: strings.Repeat("x", 101<<10)}}}, strings.Repeat("x", 101<<10) + "\n"},
		"read":      {action.Arg{Text: "@" + g.Artifacts[lib].Placeholder()}, "library"},
	} {
		if got := run(name, c.arg); got != c.want {
			t.Errorf("%s: got %.300q, want %.300q", name, got, c.want)
		}
	}
	// A command that writes an object's path into its output refers to it, and
	// who uses that output sees the object.
	args := []action.Arg{{Text: "/bin/helper"}, {Text: "helper"}, {Text: "out/app"}, {Text: g.Artifacts[lib].Placeholder()}}
	app := g.add(action.Action{Root: root, Args: args}, "out/app", lib)
	r := l.build(g, app)
	if len(r.Wanted[0].Refs) != 1 || r.Wanted[0].Refs[0].Name() != "lib" {
		t.Fatalf("refs %q", r.Wanted[0].Refs)
	}
	args = []action.Arg{{Text: "/bin/helper"}, {Text: "helper"}, {Text: "out/use"}, {Text: "@" + l.text(r.Wanted[0])}}
	if r = l.build(g, g.add(action.Action{Root: root, Args: args}, "out/use", app)); l.text(r.Wanted[0]) != "library" {
		t.Errorf("%q", l.text(r.Wanted[0]))
	}
}

func TestFailedCommand(t *testing.T) {
	l := newLab(t, t.TempDir())
	g := newGraph()
	root := l.sandboxed(g)
	args := []action.Arg{{Text: "/bin/helper"}, {Text: "helper"}, {Text: "out/x"}, {Text: "!"}, {Text: "two words"}}
	bad := g.add(action.Action{Root: root, Args: args, Mnemonic: "Bad"}, "out/x")
	_, err := l.try(g, bad)
	want := "BUILD.star:1:2: //x: Bad failed: exit status 9\n  command: /bin/helper helper out/x '!' 'two words'\nfirst complaint\nlast complaint"
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	logs, err := l.ex.Logs.Logs("//x")
	if err != nil || len(logs) != 1 || string(logs[0].Stdout) != "on stdout\n" || logs[0].Error+"\n"+strings.TrimSpace(string(logs[0].Stderr)) != want || logs[0].Mnemonic != "Bad" {
		t.Errorf("logs %+v, %v", logs, err)
	}
	args = []action.Arg{{Text: "/bin/helper"}, {Text: "helper"}, {Text: "-"}}
	lazy := g.add(action.Action{Root: root, Args: args, Mnemonic: "Lazy"}, "out/dir/y")
	_, err = l.try(g, lazy)
	var e *exec.ActionError
	if !errors.As(err, &e) || len(e.Missing) != 1 || !strings.Contains(err.Error(), "it did not write out/dir/y") {
		t.Errorf("got %v", err)
	}
	if logs, err := l.ex.Logs.Logs("//none"); err != nil || logs != nil {
		t.Errorf("logs %v, %v", logs, err)
	}
}

func TestManyCommandsAndLostBlobs(t *testing.T) {
	l := newLab(t, t.TempDir())
	g := newGraph()
	root := l.sandboxed(g)
	var last []int
	for i := range 8 {
		l.src.files[fmt.Sprint("s", i)] = fmt.Sprint(i)
		last = append(last, g.cat(root, fmt.Sprintf("out/c%d", i), g.source(fmt.Sprint("s", i))))
	}
	all := g.cat(root, "out/all", last...)
	for range 3 {
		r := l.build(g, all)
		if got := l.text(r.Wanted[0]); got != "01234567" {
			t.Fatalf("got %q", got)
		}
		for _, k := range []string{"01234567", "3", "5"} {
			if err := l.st.CAS().Remove(digestOf(k)); err != nil {
				t.Fatal(err)
			}
		}
	}
}
