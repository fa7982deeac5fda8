package analysis_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tool/core/language/analysis"
	"tool/core/language/graph"
	"tool/core/language/loader"
	"tool/core/language/workspace"
	"tool/core/model/event"
	"tool/core/model/label"
	"tool/rules"

	"golang.org/x/tools/txtar"
)

// open makes a workspace of an archive's files and an Analyzer over it.
func open(t *testing.T, archive string) *analysis.Analyzer {
	t.Helper()
	dir := t.TempDir()
	for _, f := range txtar.Parse([]byte(archive)).Files {
		p := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "tool.toml"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	ws, err := workspace.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	l := loader.New(ws, rules.FS, event.Discard)
	return analysis.New(&graph.Graph{Loader: l}, event.Discard)
}

func analyze(t *testing.T, a *analysis.Analyzer, target string) (*analysis.Target, error) {
	t.Helper()
	l, err := label.Parse(target, label.Label{})
	if err != nil {
		t.Fatal(err)
	}
	return a.Analyze(context.Background(), l)
}

const hello = `
-- defs.star --
InfoA = provider(fields = ["x"])

def _impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".txt")
    ctx.actions.write(output = out, content = ctx.attr.text + "\n")
    return [DefaultInfo(files = depset([out])), InfoA(x = ctx.attr.text)]

hello = rule(
    implementation = _impl,
    attrs = {"text": attr.string(mandatory = True), "deps": attr.label_list(providers = [InfoA]), "_hidden": attr.string(default = "h")},
)

def _cat_impl(ctx):
    args = ctx.actions.args()
    args.add_all(ctx.files.srcs, before_each = "-i")
    args.add("-o", ctx.outputs.out)
    ctx.actions.run(outputs = [ctx.outputs.out], inputs = ctx.files.srcs, executable = "/bin/cat", arguments = [args], mnemonic = "Cat")

cat = rule(implementation = _cat_impl, attrs = {"srcs": attr.label_list(allow_files = [".txt"]), "out": attr.output(mandatory = True)})

def macro(name, **kwargs):
    hello(name = name, text = "from a macro", **kwargs)
-- BUILD.star --
load(":defs.star", "cat", "hello", "macro")
hello(name = "a", text = "A")
hello(name = "b", text = "B", deps = [":a"])
macro(name = "m")
filegroup(name = "both", srcs = [":a", ":b"])
cat(name = "c", srcs = [":both", "file.txt"], out = "c.out")
alias(name = "al", actual = ":c")
-- file.txt --
hi
`

func TestAnalyze(t *testing.T) {
	a := open(t, hello)
	tg, err := analyze(t, a, "//:al")
	if err != nil {
		t.Fatal(err)
	}
	fs := tg.Files()
	if len(fs) != 1 || fs[0].Artifact.Path != "out/c.out" {
		t.Fatalf("files: %v", fs)
	}
	act := a.Actions.Actions[fs[0].Artifact.Producer]
	var words []string
	for _, w := range act.Args {
		words = append(words, w.Text)
	}
	if got, want := strings.Join(words, " "), "/bin/cat -i out/a.txt -i out/b.txt -i file.txt -o out/c.out"; got != want {
		t.Errorf("args: %s, want %s", got, want)
	}
	if len(a.Actions.Actions) != 3 {
		t.Errorf("%d actions, want 3: two writes and a cat", len(a.Actions.Actions))
	}
}

func TestErrors(t *testing.T) {
	for _, c := range []struct{ name, build, target, want string }{
		{"missing label", `hello(name = "x", text = "t", deps = [":aa"])`, "//t:x", `no target //t:aa`},
		{"misspelt attribute", `hello(name = "x", tekst = "t")`, "//t:x", `there is no attribute "tekst"; did you mean "text"?`},
		{"wrong type", `hello(name = "x", text = 3)`, "//t:x", `attribute "text": got int 3, want string`},
		{"mandatory", `hello(name = "x")`, "//t:x", `the attribute "text" is missing`},
		{"private attribute", `hello(name = "x", text = "t", _hidden = "y")`, "//t:x", `there is no attribute "_hidden"`},
		{"duplicate", `hello(name = "x", text = "t")
hello(name = "x", text = "t")`, "//t:x", `hello rule //t:x is already declared at t/BUILD.star:2:6`},
		{"cycle", `hello(name = "x", text = "t", deps = [":y"])
hello(name = "y", text = "t", deps = [":x"])`, "//t:x", `these targets depend on each other: //t:x → //t:y → //t:x`},
		{"invisible", `hello(name = "x", text = "t", deps = ["//:a"])`, "//t:x", `//:a is not visible from //t:x; give it visibility = ["//t:__pkg__"]`},
		{"file where a rule is wanted", `hello(name = "x", text = "t", deps = ["f.txt"])`, "//t:x", `is a file, but only rule targets are allowed here`},
		{"provider", `filegroup(name = "g")
hello(name = "x", text = "t", deps = [":g"])`, "//t:x", `//t:g does not provide InfoA`},
		{"extension", `cat(name = "x", srcs = ["BUILD.star"], out = "o")`, "//t:x", `does not end in .txt`},
		{"def in BUILD", `def f(): pass`, "//t:x", `t/BUILD.star:2:1: def is not allowed in BUILD.star`},
		{"if in BUILD", "if True:\n  pass", "//t:x", `an if statement is not allowed in BUILD.star`},
		{"star args", `hello(*["a"])`, "//t:x", `*args is not allowed in BUILD.star`},
		{"undefined", `helo(name = "x")`, "//t:x", `t/BUILD.star:2:1: undefined: helo (did you mean hello?)`},
		{"empty glob", `filegroup(name = "x", srcs = glob(["*.nothing"]))`, "//t:x", `nothing matches ["*.nothing"]; if that is fine, say allow_empty = True`},
		{"huge range", `X = list(range(1 << 62))`, "//t:x", `range: more than 50000000 elements`},
		{"select without match", `config_setting(name = "c", define_values = {"a": "b"})
hello(name = "x", text = select({":c": "1"}))`, "//t:x", `no condition of select() holds for compilation_mode=fastbuild: tried :c`},
		{"unknown package", `hello(name = "x", text = "t", deps = ["//nowhere:x"])`, "//t:x", `no package //nowhere`},
		{"two actions for one output", `twice(name = "x")`, "//t:x", `two actions make out/t/x.txt: the other one is at defs2.star:`},
		{"forgotten output", `forget(name = "x")`, "//t:x", `the output out/t/x.txt was declared, but no action makes it`},
		{"bad return", `returns(name = "x")`, "//t:x", `the implementation must return a list of providers, it returned int`},
		{"fail in a rule", `failing(name = "x")`, "//t:x", `t/BUILD.star:2:8: failing //t:x: it broke 3`},
		{"endless loop", `endless(name = "x")`, "//t:x", `an endless loop?`},
		{"recursion", `recursive(name = "x")`, "//t:x", `called recursively`},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := open(t, hello+`
-- defs2.star --
def _twice(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".txt")
    ctx.actions.write(output = out, content = "1")
    ctx.actions.write(output = out, content = "2")
twice = rule(implementation = _twice)
def _forget(ctx):
    ctx.actions.declare_file(ctx.label.name + ".txt")
forget = rule(implementation = _forget)
def _returns(ctx):
    return 3
returns = rule(implementation = _returns)
def _failing(ctx):
    fail("it broke", 3)
failing = rule(implementation = _failing)
def _endless(ctx):
    x = 0
    for i in range(50000000):
        for j in range(50000000):
            x += 1
endless = rule(implementation = _endless)
def _recursive(ctx):
    return _recursive(ctx)
recursive = rule(implementation = _recursive)
-- t/f.txt --
-- t/BUILD.star --
load("//:defs.star", "cat", "hello"); load("//:defs2.star", "twice", "forget", "returns", "failing", "endless", "recursive")
`+c.build+"\n")
			a.Graph.Loader.MaxSteps = 1_000_000
			_, err := analyze(t, a, c.target)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v\nwant …%s…", err, c.want)
			}
		})
	}
}
