package loader_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/tools/txtar"

	"tool/core/language/loader"
	"tool/core/language/workspace"
	"tool/core/model/event"
	"tool/core/model/label"
	"tool/rules"
)

// printed collects what print() says.
type printed struct {
	mu    sync.Mutex
	lines []string
}

func (p *printed) Send(e event.Event) {
	if e, ok := e.(event.Printed); ok {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.lines = append(p.lines, e.Text)
	}
}

// open makes a workspace of an archive's files, with an empty root package, and a Loader over it.
func open(t testing.TB, archive string) (*loader.Loader, *printed) {
	t.Helper()
	dir := t.TempDir()
	for _, f := range append([]txtar.File{{Name: "tool.toml"}, {Name: "BUILD.star"}}, txtar.Parse([]byte(archive)).Files...) {
		p := filepath.Join(dir, f.Name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, f.Data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ws, err := workspace.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	out := &printed{}
	return loader.New(ws, rules.FS, out), out
}

func load(l *loader.Loader, pkg string) (*loader.Package, error) {
	return l.Package(context.Background(), label.Label{Pkg: pkg})
}

// say evaluates Starlark code in a function that BUILD.star calls, and returns
// what it printed.
func say(t *testing.T, code string) string {
	t.Helper()
	l, out := open(t, "-- d.star --\ndef f():\n    "+strings.ReplaceAll(strings.TrimSpace(code), "\n", "\n    ")+"\n-- BUILD.star --\nload(\"d.star\", \"f\")\nf()\n")
	if _, err := load(l, ""); err != nil {
		return "error: " + err.Error()
	}
	return strings.Join(out.lines, "\n")
}

func TestValues(t *testing.T) {
	const diamond = `
a = depset(["a"], order = %[1]q)
b = depset(["b"], transitive = [a], order = %[1]q)
c = depset(["c"], transitive = [a], order = %[1]q)
print(depset(["d"], transitive = [b, c], order = %[1]q).to_list())`
	for _, c := range []struct{ name, code, want string }{
		{"postorder", fmt.Sprintf(diamond, "postorder"), `["a", "b", "c", "d"]`},
		{"preorder", fmt.Sprintf(diamond, "preorder"), `["d", "b", "a", "c"]`},
		{"topological", fmt.Sprintf(diamond, "topological"), `["d", "b", "c", "a"]`},
		{"default", fmt.Sprintf(diamond, "default"), `["a", "b", "c", "d"]`},
		{"depset has each once", `print(depset(["a", "b", "a"], transitive = [depset(["b"])]).to_list())`, `["b", "a"]`},
		{"depset of structs", `print(len(depset([struct(x = 1), struct(x = 1), struct(x = 2)]).to_list()))`, "2"},
		{"depset of tuples", `print(depset([(1, 2), (1, 2)]).to_list())`, "[(1, 2)]"},
		{"depset text", `print(depset(["a"], order = "preorder"))`, `depset(["a"], order = "preorder")`},
		{"empty depset", `print(bool(depset()), bool(depset([1])), bool(depset(transitive = [depset()])))`, "False True False"},
		{"orders that clash", `depset(transitive = [depset(["a"], order = "preorder")], order = "postorder")`, `order "postorder" is incompatible with a transitive depset's "preorder"`},
		{"unknown order", `depset(order = "stable")`, `order "stable" is none of`},
		{"mixed types", `depset(["a", 1])`, "cannot add an element of type int to a depset of string"},
		{"mixed types below", `depset(["a"], transitive = [depset([1])])`, "cannot add an element of type int to a depset of string"},
		{"mutable element", `depset([[]])`, "must not be mutable values such as list"},
		{"depset as list", `depset(depset(["a"]))`, "direct: got depset, want list"},
		{"deep depset", "d = depset([0])\nfor i in range(100000):\n    d = depset([i], transitive = [d])\nprint(len(d.to_list()))", "100000"},

		{"struct", `print(struct(b = 1, a = "x"), struct(a = 1) == struct(a = 1), struct(a = 1) != struct(a = 2))`, `struct(a = "x", b = 1) True True`},
		{"struct sum", `print(struct(a = 1) + struct(b = 2))`, "struct(a = 1, b = 2)"},
		{"struct sum clash", `print(struct(a = 1) + struct(a = 2))`, `both sides have the field "a"`},
		{"struct field", `print(struct(name = 1).nmae)`, `struct has no field "nmae"`},
		{"struct is constant", "s = struct(a = 1)\ns.a = 2", "can't assign to .a field of struct"},
		{"struct positional", `struct(1)`, "unexpected positional arguments"},
		{"struct order", `print(struct(a = 1) < struct(a = 2))`, "struct values have no order"},
		{"struct round a circle", "l = []\ns = struct(l = l)\nl.append(s)\nprint(s)\nprint(l)", "struct(l = [...])"},
		{"select round a circle", "l = []\ns = select({\"//:c\": l})\nl.append(s)\nprint(s)", `select({"//:c": [...]})`},
		{"select text", `print([1] + select({"//:c": [2]}) + [3])`, `[1] + select({"//:c": [2]}) + [3]`},
		{"deep list", "l = []\nfor i in range(5000):\n    l = [l]\nprint(len(str(l)))", "10002"},
		{"deep struct", "s = struct()\nfor i in range(20000):\n    s = struct(s = s)\nprint(len(str(s)))", "240008"},
		{"huge text", `print(len("a" * (1 << 40)))`, "error: "},
		{"huge list", `print(len([0] * (1 << 40)))`, "error: "},
		{"huge number", `print(1 << 100000000)`, "error: "},
		{"fail", `fail("a", 1, sep = "-")`, "d.star:2:9: a-1"},
		{"fail with attr", `fail("bad", attr = "srcs")`, "attribute srcs: bad"},
		{"json", `print(json.encode(struct(a = [1, None])))`, `{"a":[1,null]}`},

		{"Label", `print(Label(":x"), Label("//a/b").package, Label("//a:b").name, Label(":x") == Label("//:x"))`, "//:x a/b b True"},
		{"Label relative", `print(Label("//a:b").relative(":c"), Label("//a:b").same_package_label("d"))`, "//a:c //a:d"},
		{"bad label", `Label("//a//b")`, `invalid label "//a//b"`},
		{"Label order", `print(sorted([Label("//b"), Label("//a:z")]))`, "[//a:z, //b:b]"},
		{"native misspelt", `native.genrul(name = "x")`, `native has no "genrul" (did you mean .genrule?)`},
		{"package_name", `print([native.package_name(), native.repo_name(), native.package_relative_label("x")])`, `["", "", //:x]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := say(t, c.code); !strings.Contains(got, c.want) {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestProviders(t *testing.T) {
	const defs = `
-- d.star --
Plain = provider(fields = ["x", "y"])
Open = provider()
Documented = provider(doc = "D", fields = {"x": "the x"})
def _init(x, y = 2):
    if x < 0:
        fail("x must not be negative")
    return {"x": x, "y": y}
Checked, raw = provider(fields = ["x", "y"], init = _init)
def _bad(): return 3
Bad, _ = provider(init = _bad)
def f():
    `
	for _, c := range []struct{ name, code, want string }{
		{"instance", "print(Plain(x = 1))", "Plain(x = 1)"},
		{"equality", "print(Plain(x = 1) == Plain(x = 1), Plain(x = 1) == Open(x = 1), type(Plain(x = 1)))", "True False Plain"},
		{"absent field", "print(Plain(x = 1).y)", `this Plain has no value for the field "y"`},
		{"hasattr", "print(hasattr(Plain(x = 1), 'y'), hasattr(Plain(x = 1), 'x'))", "False True"},
		{"unknown field", "Plain(z = 1)", `Plain has no field "z"`},
		{"misspelt field", "print(Documented(x = 1).xx)", `Documented has no field "xx"`},
		{"open", "print(Open(anything = 1))", "Open(anything = 1)"},
		{"init", "print(Checked(1), Checked(x = 1, y = 3))", "Checked(x = 1, y = 2) Checked(x = 1, y = 3)"},
		{"init fails", "Checked(-1)", "x must not be negative"},
		{"raw", "print(raw(x = -1))", "Checked(x = -1)"},
		{"init of a wrong type", "Bad()", "Bad: init returned int, want dict"},
		{"key", "print({Plain: 1}[Plain])", "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, out := open(t, defs+c.code+"\n-- BUILD.star --\nload('d.star', 'f')\nf()\n")
			got := ""
			if _, err := load(l, ""); err != nil {
				got = err.Error()
			}
			if got += strings.Join(out.lines, "\n"); !strings.Contains(got, c.want) {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	for _, c := range []struct{ name, files, want string }{
		{"cycle", "-- a.star --\nload('b.star', 'b')\na = 1\n-- b.star --\nload('c.star', 'c')\nb = 1\n-- c.star --\nload('a.star', 'a')\nc = 1\n-- BUILD.star --\nload('a.star', 'a')\n",
			"these files load each other: //:c.star → //:a.star → //:b.star → //:c.star"},
		{"cycle of one", "-- a.star --\nload('a.star', 'a')\n-- BUILD.star --\nload('a.star', 'a')\n", "these files load each other: //:a.star → //:a.star"},
		{"private name", "-- a.star --\n_x = 1\n-- BUILD.star --\nload('a.star', '_x')\n", "BUILD.star:1:17: load: _x is private to //:a.star"},
		{"private name renamed", "-- a.star --\n_x = 1\n-- BUILD.star --\nload('a.star', y = '_x')\n", "_x is private to //:a.star"},
		{"no such name", "-- a.star --\nabc = 1\n-- BUILD.star --\nload('a.star', 'abd')\n", "abd not found in module a.star (did you mean abc?)"},
		{"not re-exported", "-- a.star --\nx = 1\n-- b.star --\nload('a.star', 'x')\n-- BUILD.star --\nload('b.star', 'x')\n", "x not found in module"},
		{"no such file", "-- defs.star --\n-- BUILD.star --\nload('def.star', 'x')\n", `cannot load //:def.star: there is no file def.star; did you mean "defs.star"?`},
		{"no package", "-- BUILD.star --\nload('//a:b.star', 'x')\n", "cannot load //a:b.star: no package //a"},
		{"no .star", "-- a.txt --\n-- BUILD.star --\nload('a.txt', 'x')\n", "only .star files can be loaded"},
		{"other repository", "-- BUILD.star --\nload('@other//a:b.star', 'x')\n", "there is no repository @other; the only one is @rules"},
		{"mistake below", "-- a.star --\nload('b.star', 'b')\n-- b.star --\nb = 1 +\n-- BUILD.star --\nload('a.star', 'b')\n", "b.star:1:8: got newline, want primary expression"},
		{"fail below", "-- a.star --\ndef f():\n  fail('no')\nf()\n-- BUILD.star --\nload('a.star', 'f')\n", "a.star:2:7: no"},
		{"frozen", "-- a.star --\nl = []\n-- b.star --\ndef f(x): x.append(1)\n-- BUILD.star --\nload('a.star', 'l')\nload('b.star', 'f')\nf(l)\n", "cannot append to frozen list"},
		{"a rule without a name", "-- a.star --\nrules = struct(x = rule(implementation = lambda ctx: []))\n-- BUILD.star --\nload('a.star', 'rules')\nrules.x(name = 'x')\n", "a rule must be assigned to a global variable of its .star file before it is used"},
		{"a target at the top of a .star file", "-- a.star --\nnative.filegroup(name = 'x')\n-- BUILD.star --\nload('a.star', 'x')\n", "targets can only be made while a BUILD.star file is loaded"},
		{"glob at the top of a .star file", "-- a.star --\nx = native.glob(['*'])\n-- BUILD.star --\nload('a.star', 'x')\n", "glob: only possible while a BUILD.star file is loaded"},
		{"rule in BUILD", "-- BUILD.star --\nx = rule(implementation = None)\n", "BUILD.star:1:5: undefined: rule"},
		{"lambda in BUILD", "-- BUILD.star --\nx = [lambda: 1]\n", "BUILD.star:1:6: lambda is not allowed in BUILD.star"},
		{"for in BUILD", "-- BUILD.star --\nfor x in []: pass\n", "a for statement is not allowed in BUILD.star"},
		{"kwargs in BUILD", "-- BUILD.star --\nfilegroup(**{'name': 'x'})\n", "**args is not allowed in BUILD.star"},
		{"a comprehension in BUILD is fine", "-- BUILD.star --\n[filegroup(name = n) for n in ['a', 'b'] if n != 'b']\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, _ := open(t, c.files)
			_, err := load(l, "")
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
				t.Errorf("got  %v\nwant …%s…", err, c.want)
			}
		})
	}
}

// TestParallel loads packages that share files from many goroutines; -race
// looks on. Cycles between files must come out however it interleaves.
func TestParallel(t *testing.T) {
	var b strings.Builder
	b.WriteString("-- BUILD.star --\n-- base.star --\nx = rule(implementation = lambda ctx: [])\nnamed = x\nbox = struct(r = rule(implementation = lambda ctx: []), p = provider())\n")
	const n = 20
	for i := range n {
		fmt.Fprintf(&b, "-- s%d.star --\nload('base.star', 'x', 'box')\nr%d = box.r\nP%d = box.p\ndef f(name): x(name = name)\n", i, i, i)
		fmt.Fprintf(&b, "-- p%d/BUILD.star --\nload('//:s%d.star', f1 = 'f')\nload('//:s%d.star', f2 = 'f')\nf1(name = 'a')\nf2(name = 'b')\n", i, i, (i+1)%n)
		fmt.Fprintf(&b, "-- c%d.star --\nload('base.star', 'x')\nload('c%d.star', 'y')\n-- q%d/BUILD.star --\nload('//:c%d.star', 'y')\n", i, (i+1)%n, i, i)
	}
	l, _ := open(t, b.String())
	var wg sync.WaitGroup
	for i := range 2 * n {
		wg.Go(func() {
			p, err := load(l, fmt.Sprintf("p%d", i%n))
			if err != nil {
				t.Error(err)
				return
			}
			if k := p.Targets["a"].KindString(); k != "named rule" {
				t.Errorf("kind %s, want the first name of the rule's own file", k)
			}
			if _, err := load(l, fmt.Sprintf("q%d", i%n)); err == nil || !strings.Contains(err.Error(), "these files load each other") {
				t.Errorf("got %v", err)
			}
		})
	}
	wg.Wait()
}

func TestInterrupted(t *testing.T) {
	l, _ := open(t, "-- a.star --\ndef f():\n  for i in range(50000000):\n    for j in range(50000000):\n      pass\n-- BUILD.star --\nload('a.star', 'f')\nf()\n")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := l.Package(ctx, label.Label{}); err == nil {
		t.Error("an interrupted evaluation went on to its end")
	}
	l, _ = open(t, "-- a.star --\ndef f():\n  for i in range(50000000):\n    for j in range(50000000):\n      pass\n-- BUILD.star --\nload('a.star', 'f')\nf()\n")
	l.MaxSteps = 1000
	if _, err := load(l, ""); err == nil || !strings.Contains(err.Error(), "this took more than 1000 steps") {
		t.Errorf("got %v", err)
	}
}

func TestNoPackage(t *testing.T) {
	l, _ := open(t, "-- cluster/BUILD.star --\n")
	_, err := load(l, "clustr")
	var none *loader.NoPackageError
	if !errors.As(err, &none) || !strings.Contains(err.Error(), "did you mean //cluster?") {
		t.Errorf("got %v", err)
	}
	if _, err := l.Package(context.Background(), label.Label{Repo: "other"}); !errors.As(err, &none) {
		t.Errorf("got %v", err)
	}
}
