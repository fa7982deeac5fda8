package loader_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tool/core/language/workspace"
)

func TestGlob(t *testing.T) {
	l, _ := open(t, `
-- p/BUILD.star --
filegroup(name = "made.c")
-- p/a.c --
-- p/b.h --
-- p/made.c --
-- p/.hidden.c --
-- p/.dir/x.c --
-- p/d/c.c --
-- p/d/e/d.c --
-- p/d/e/d.h --
-- p/sub/BUILD.star --
-- p/sub/s.c --
-- p/sub/deep/t.c --
-- p/.tool/out/u.c --
-- p/Z.c --
-- p/a?b --
`)
	dir := l.Workspace.Abs("p")
	for link, to := range map[string]string{"loop": ".", "d/up": "..", "gone.c": "nowhere", "linked.c": "a.c", "linkdir": "d/e"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	p, err := load(l, "p")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		include, exclude string
		dirs             bool
		want             string
	}{
		{include: "*.c", want: "Z.c a.c linked.c"},
		{include: "*", want: ".hidden.c Z.c a.c a?b b.h linked.c"},
		{include: ".*.c", want: ".hidden.c"},
		{include: "**", want: ".dir/x.c .hidden.c Z.c a.c a?b b.h d/c.c d/e/d.c d/e/d.h linkdir/d.c linkdir/d.h linked.c"},
		{include: "**/*.c", want: ".dir/x.c Z.c a.c d/c.c d/e/d.c linkdir/d.c linked.c"},
		{include: "**/*.c", exclude: "**/d.c d/*.c", want: ".dir/x.c Z.c a.c linked.c"},
		{include: "d/**", want: "d/c.c d/e/d.c d/e/d.h"},
		{include: "d/**", exclude: "**", want: ""},
		{include: "**/e/**", want: "d/e/d.c d/e/d.h"},
		{include: "**/**/d.h", want: "d/e/d.h linkdir/d.h"},
		{include: "d/*/d.*", want: "d/e/d.c d/e/d.h"},
		{include: "*/c.c", want: "d/c.c"},
		{include: "a.c nothing.c", want: "a.c"},
		{include: "a.c *.c a.c", want: "Z.c a.c linked.c"},
		{include: "made.c", want: ""},
		{include: "BUILD.star", want: ""},
		{include: "sub/s.c", want: ""},
		{include: "sub/**", want: ""},
		{include: "sub/deep/t.c", want: ""},
		{include: "d/e", want: ""},
		{include: "d/e", dirs: true, want: "d/e"},
		{include: "*", dirs: true, exclude: "*.* .* a?b", want: "d linkdir"},
		{include: "d/e/**", dirs: true, want: "d/e/d.c d/e/d.h"},
		{include: "*b", want: "a?b"},
		{include: "*.*", want: "Z.c a.c b.h linked.c"},
	} {
		got, err := l.Glob(p, strings.Fields(c.include), strings.Fields(c.exclude), c.dirs)
		if err != nil {
			t.Errorf("%s: %v", c.include, err)
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s, without %s:\ngot  %s\nwant %s", c.include, c.exclude, s, c.want)
		}
	}
}

// TestGlobStars holds that many stars do not take exponential time.
func TestGlobStars(t *testing.T) {
	l, _ := open(t, "-- BUILD.star --\n-- "+strings.Repeat("a", 200)+" --\n")
	p, err := load(l, "")
	if err != nil {
		t.Fatal(err)
	}
	got, err := l.Glob(p, []string{strings.Repeat("a*", 60) + "b"}, nil, false)
	if err != nil || len(got) != 0 {
		t.Errorf("got %v, %v", got, err)
	}
	if got, err = l.Glob(p, []string{strings.Repeat("a*", 60)}, nil, false); err != nil || len(got) != 1 {
		t.Errorf("got %v, %v", got, err)
	}
}

// TestGlobAgain holds that the fingerprints of what a glob depends on are
// recorded: without them a later run would not see a new file.
func TestGlobAgain(t *testing.T) {
	l, _ := open(t, "-- p/BUILD.star --\nfilegroup(name = 'x', srcs = glob(['**/*.c']))\n-- p/d/c.c --\n")
	if _, err := load(l, "p"); err != nil {
		t.Fatal(err)
	}
	all := l.Workspace.Record.All()
	for _, name := range []string{"p", "p/d", "p/BUILD.star", "p/d/" + workspace.BuildFile} {
		if _, ok := all[name]; !ok {
			t.Errorf("%s is not recorded", name)
		}
	}
}

func TestPackages(t *testing.T) {
	const defs = `
-- d.star --
lib = rule(implementation = lambda ctx: [], attrs = {"srcs": attr.label_list(allow_files = True), "out": attr.output(), "n": attr.int()})
a_test = rule(implementation = lambda ctx: [], test = True)
def names():
    print(native.existing_rules().keys())
def look():
    print(native.existing_rule("x"))
    print(native.existing_rule("gone"))
def again():
    lib(name = "m1")
    lib(name = "m2")
-- p/BUILD.star --
load("//:d.star", "lib", "a_test", "names", "look", "again")
`
	for _, c := range []struct{ name, code, want string }{
		{"package twice", "package()\npackage()", "package: it may be called only once"},
		{"package late", "lib(name = 'x')\npackage()", "package: it must come before the first target"},
		{"package argument", "package(visibility = [])", `unexpected keyword argument "visibility"`},
		{"default visibility", "package(default_visibility = ['//visibility:public', '//a:__pkg__'])", "public and private cannot be combined"},
		{"visibility word", "lib(name = 'x', visibility = ['//visibility:legacy'])", "is none of //visibility:public, //visibility:private"},
		{"visibility is a string", "lib(name = 'x', visibility = '//a:__pkg__')", `attribute "visibility": got string "//a:__pkg__", want list of strings`},
		{"select in visibility", "lib(name = 'x', visibility = select({':c': []}))", "visibility: select() is not possible here"},
		{"select in name", "lib(name = select({':c': 'x'}))", "name: got select, want string"},
		{"select in output", "lib(name = 'x', out = select({':c': 'x'}))", "select() is not possible here"},
		{"empty select", "lib(name = 'x', srcs = select({}))", "an empty dict can never match"},
		{"select key", "lib(name = 'x', srcs = select({1: []}))", "keys are labels, got int"},
		{"select of a wrong type", "lib(name = 'x', srcs = select({':c': 3}))", `attribute "srcs": select: ":c": got int 3, want list of labels`},
		{"name twice", "lib(name = 'x')\nfilegroup(name = 'x')", "lib rule //p:x is already declared at p/BUILD.star:2:4"},
		{"output clashes", "lib(name = 'x', out = 'y')\nlib(name = 'z', out = 'y')", "output //p:y clashes with the generated file declared at p/BUILD.star:2:4"},
		{"name of an output", "lib(name = 'x', out = 'y')\nlib(name = 'y')", "generated file //p:y is already declared"},
		{"output elsewhere", "lib(name = 'x', out = '//q:y')", "output //q:y is not in this package"},
		{"no name", "lib()", `the attribute "name" is missing`},
		{"bad name", "lib(name = '../x')", `target name "../x" holds the segment ".."`},
		{"positional", "lib('x')", "unexpected positional arguments"},
		{"test name", "a_test(name = 'x')", "the name of a test must end in _test"},
		{"label twice", "lib(name = 'x', srcs = ['a', ':a'])", "label //p:a appears twice"},
		{"unknown attribute", "lib(name = 'x', scrs = [])", `there is no attribute "scrs"; did you mean "srcs"?`},
		{"bad pattern", "glob(['/a'])", "it may not be empty nor start or end with /"},
		{"bad pattern with **", "glob(['a**'])", "** must be a whole segment"},
		{"bad pattern with ..", "glob(['../*'])", `the segment ".."`},
		{"bad pattern with ?", "glob(['a?'])", "? is not a wildcard"},
		{"empty glob", "glob(['*.x'])", "say allow_empty = True"},
		{"exports elsewhere", "exports_files(['//q:x'])", "exports_files: //q:x is not in this package"},
		{"package_group", "package_group(name = 'g', packages = ['q'])", `package "q" must start with //`},
		{"existing rules", "lib(name = 'x')\nfilegroup(name = 'a')\nnames()", `["a", "x"]`},
		{"existing rule", "lib(name = 'x', srcs = ['a', '//q:b'], out = 'o')\nlook()", `{"kind": "lib", "deprecation": "", "exec_compatible_with": [], "features": [], "n": 0, "name": "x", "out": ":o", "srcs": [":a", "//q:b"], "tags": [], "target_compatible_with": [], "testonly": False, "visibility": []}`},
		{"no existing rule", "look()", "None\nNone"},
		{"macro", "again()\nnames()", `["m1", "m2"]`},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, out := open(t, defs+c.code+"\n")
			got := ""
			if _, err := load(l, "p"); err != nil {
				got = err.Error()
			}
			if got += strings.Join(out.lines, "\n"); !strings.Contains(got, c.want) {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestDefaults(t *testing.T) {
	l, _ := open(t, `
-- d.star --
def pair(name):
    native.filegroup(name = name + "1")
    inner(name)
def inner(name):
    native.filegroup(name = name + "2")
-- p/BUILD.star --
load("//:d.star", "pair")
package(default_visibility = ["//a:__subpackages__"], default_testonly = True, default_deprecation = "old")
filegroup(name = "x")
filegroup(name = "y", visibility = ["//visibility:public"], testonly = False, deprecation = "older", tags = ["t"])
filegroup(name = "z", visibility = [])
genrule(name = "g", outs = ["g.out"], cmd = "", visibility = [":__pkg__"])
exports_files(["open.txt"])
exports_files(["closed.txt"], visibility = ["//visibility:private"])
pair(name = "m")
-- p/open.txt --
-- p/closed.txt --
-- p/other.txt --
`)
	p, err := load(l, "p")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range []string{"x", "y", "z", "g", "g.out", "open.txt", "closed.txt", "other.txt", "m1", "m2"} {
		tg, err := l.Target(p, n)
		if err != nil {
			t.Fatal(err)
		}
		v := tg.Visibility[0]
		vis := "group"
		switch {
		case v.Public:
			vis = "public"
		case v.Private:
			vis = "private"
		case v.Tree:
			vis = v.Package.Pkg + "/..."
		case v.Group.IsZero():
			vis = v.Package.Pkg
		}
		got = append(got, fmt.Sprintf("%s: %s, %s, testonly %t, %q, tags %v, macro %q, at %s", n, tg.KindString(), vis, tg.TestOnly, tg.Deprecated, tg.Tags, tg.Generator, tg.Pos))
	}
	const want = `x: filegroup rule, a/..., testonly true, "old", tags [], macro "", at p/BUILD.star:3:10
y: filegroup rule, public, testonly false, "older", tags [t], macro "", at p/BUILD.star:4:10
z: filegroup rule, private, testonly true, "old", tags [], macro "", at p/BUILD.star:5:10
g: genrule rule, p, testonly true, "old", tags [], macro "", at p/BUILD.star:6:8
g.out: generated file, p, testonly true, "", tags [], macro "", at p/BUILD.star:6:8
open.txt: source file, public, testonly false, "", tags [], macro "", at p/BUILD.star:1:1
closed.txt: source file, private, testonly false, "", tags [], macro "", at p/BUILD.star:1:1
other.txt: source file, private, testonly false, "", tags [], macro "", at p/BUILD.star:1:1
m1: filegroup rule, a/..., testonly true, "old", tags [], macro "pair", at p/BUILD.star:9:5
m2: filegroup rule, a/..., testonly true, "old", tags [], macro "pair", at p/BUILD.star:9:5`
	if s := strings.Join(got, "\n"); s != want {
		t.Errorf("got:\n%s\nwant:\n%s", s, want)
	}
	if s := strings.Join(p.Exports(), " "); s != "closed.txt open.txt" {
		t.Errorf("exports %s", s)
	}
}

func TestTarget(t *testing.T) {
	l, _ := open(t, `
-- p/BUILD.star --
filegroup(name = "cluster")
-- p/a/b.txt --
-- p/sub/BUILD.star --
-- p/sub/s.txt --
-- p/sub/deep/t.txt --
`)
	p, err := load(l, "p")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, want string }{
		{"cluster", "filegroup rule"},
		{"a/b.txt", "source file"},
		{"BUILD.star", "source file"},
		{"a", `//p:a is a folder; name its files with glob(["a/**"])`},
		{"sub/s.txt", "label //p:sub/s.txt crosses into the package //p/sub; write //p/sub:s.txt"},
		{"sub/deep/t.txt", "label //p:sub/deep/t.txt crosses into the package //p/sub; write //p/sub:deep/t.txt"},
		{"clustr", `no target //p:clustr: p/BUILD.star declares none of that name and there is no such file; did you mean "cluster"?`},
		{"a/c.txt", `did you mean "a/b.txt"?`},
	} {
		tg, err := l.Target(p, c.name)
		got := fmt.Sprint(err)
		if err == nil {
			got = tg.KindString()
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: got %s\nwant %s", c.name, got, c.want)
		}
	}
}

func TestSubpackages(t *testing.T) {
	l, out := open(t, `
-- d.star --
def f():
    print(native.subpackages(include = ["**"]))
    print(native.subpackages(include = ["*"], exclude = ["a-*"]))
    print(native.subpackages(include = ["no"], allow_empty = True))
-- p/BUILD.star --
load("//:d.star", "f")
f()
-- p/a/BUILD.star --
-- p/a/c/BUILD.star --
-- p/a-b/BUILD.star --
-- p/x/y/BUILD.star --
-- p/x/y/z/BUILD.star --
`)
	if _, err := load(l, "p"); err != nil {
		t.Fatal(err)
	}
	const want = `["a", "a-b", "x/y"] ["a"] []`
	if got := strings.Join(out.lines, " "); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	l, _ = open(t, "-- BUILD.star --\nsubpackages(include = ['x'])\n")
	if _, err := load(l, ""); err == nil || !strings.Contains(err.Error(), "say allow_empty = True") {
		t.Errorf("got %v", err)
	}
}

func TestCoerce(t *testing.T) {
	for _, c := range []struct{ kind, value, want string }{
		{"bool", "True", "True"}, {"bool", "1", "True"}, {"bool", "0", "False"}, {"bool", "2", "got int 2, want bool"}, {"bool", "'x'", "want bool"},
		{"int", "3", "3"}, {"int", "True", "want int"}, {"int", "1.5", "want int"},
		{"string", "'x'", `"x"`}, {"string", "['x']", `got list ["x"], want string`},
		{"int_list", "[1, 2]", "[1, 2]"}, {"int_list", "(1,)", "[1]"}, {"int_list", "['x']", "got an element of type string, want int"},
		{"string_list", "['a', 'a']", `["a", "a"]`}, {"string_list", "'ab'", `got string "ab", want list of strings`}, {"string_list", "[1]", "got an element of type int, want string"}, {"string_list", "{'a': 1}", "want list of strings"},
		{"string_dict", "{'a': 'b'}", `{"a": "b"}`}, {"string_dict", "{'a': 1}", `value of key "a": got an element of type int, want string`}, {"string_dict", "[]", "want dict of strings to strings"},
		{"string_list_dict", "{'a': ['b']}", `{"a": ["b"]}`}, {"string_list_dict", "{'a': 'b'}", "want list of strings"},
		{"label", "':x'", "//p:x"}, {"label", "'//a'", "//a:a"}, {"label", "Label('//q:z')", "//q:z"}, {"label", "'//a//b'", "invalid label"}, {"label", "3", "got int 3, want a label"},
		{"label_list", "['x', '//a:b']", "[//p:x, //a:b]"}, {"label_list", "['x', '//p:x']", "label //p:x appears twice"}, {"label_list", "'x'", "want list of labels"},
		{"label_keyed_string_dict", "{':x': 'v'}", `{//p:x: "v"}`}, {"label_keyed_string_dict", "{':x': 'v', 'x': 'w'}", "label //p:x appears twice"}, {"label_keyed_string_dict", "{'x': 1}", "want string"},
		{"string_keyed_label_dict", "{'k': ':x'}", `{"k": //p:x}`},
		{"output", "'o'", "//p:o"}, {"output_list", "['o', 'o2']", "[//p:o, //p:o2]"}, {"output_list", "['o', 'o']", "appears twice"},
		{"string", "select({':c': 'x', '//conditions:default': None})", `select({":c": "x", "//conditions:default": None})`},
		{"string_list", "['a'] + select({'//q:c': ['b']}) + ['c']", `["a"] + select({"//q:c": ["b"]}) + ["c"]`},
		{"string_dict", "{'a': 'b'} | select({':c': {'d': 'e'}})", `{"a": "b"} + select({":c": {"d": "e"}})`},
		{"string", "'" + strings.Repeat("é", 100) + "' + 3", "unknown binary op"},
		{"int", "'" + strings.Repeat("é", 100) + "'", "é…, want int"},
	} {
		t.Run(c.kind+" "+c.value, func(t *testing.T) {
			l, _ := open(t, fmt.Sprintf("-- d.star --\nr = rule(implementation = lambda ctx: [], attrs = {'v': attr.%s()})\n-- p/BUILD.star --\nload('//:d.star', 'r')\nr(name = 't', v = %s)\n", c.kind, c.value))
			p, err := load(l, "p")
			got := ""
			if err != nil {
				got = err.Error()
			} else {
				got = p.Targets["t"].Attrs["v"].String()
			}
			if !strings.Contains(got, c.want) || err == nil && got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestRules(t *testing.T) {
	for _, c := range []struct{ name, rule, call, want string }{
		{"mandatory", "attrs = {'v': attr.string(mandatory = True)}", "", `the attribute "v" is missing`},
		{"values", "attrs = {'v': attr.string(values = ['small', 'large'])}", "v = 'smal'", `got "smal", want one of "small", "large"; did you mean "small"?`},
		{"values of int", "attrs = {'v': attr.int(values = [1, 2])}", "v = 3", "got 3, want one of 1, 2"},
		{"not empty", "attrs = {'v': attr.label_list(allow_empty = False)}", "v = []", "it must not be empty"},
		{"None is the default", "attrs = {'v': attr.string(default = 'd')}", "v = None", ""},
		{"private attribute", "attrs = {'_v': attr.label(default = '//x')}", "_v = ':y'", `there is no attribute "_v"`},
		{"private without default", "attrs = {'_v': attr.label()}", "", `the private attribute "_v" needs a default`},
		{"common attribute", "attrs = {'tags': attr.string()}", "", `the attribute "tags" exists on every rule`},
		{"bad attribute name", "attrs = {'a-b': attr.string()}", "", `"a-b" is not a valid attribute name`},
		{"not an attribute", "attrs = {'v': 3}", "", "attrs maps names to attr.…()"},
		{"bad default", "attrs = {'v': attr.int(default = 'x')}", "", "attr.int: default: got string"},
		{"executable without cfg", "attrs = {'v': attr.label(executable = True)}", "", "executable = True needs cfg"},
		{"allow_files of a string", "attrs = {'v': attr.string(allow_files = True)}", "", "are for label attributes"},
		{"misspelt kind", "attrs = {'v': attr.lable()}", "", `attr has no "lable"`},
		{"not configurable", "attrs = {'v': attr.string(configurable = False)}", "v = select({':c': 'x'})", "select() is not possible here"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l, _ := open(t, fmt.Sprintf("-- d.star --\nr = rule(implementation = lambda ctx: [], %s)\n-- p/BUILD.star --\nload('//:d.star', 'r')\nr(name = 't', %s)\n", c.rule, c.call))
			_, err := load(l, "p")
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}
