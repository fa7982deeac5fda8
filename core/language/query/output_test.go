package query_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"tool/core/language/query"
)

func TestOutput(t *testing.T) {
	ev := &query.Evaluator{Graph: open(t, world)}
	for _, c := range []struct {
		name, text string
		format     query.Format
		order      query.Order
		opt        query.OutputOptions
		want       string
	}{
		{name: "label_kind", text: "//lib:*", format: "label_kind", want: `
source file //lib:BUILD.star
alias rule //lib:al
package group //lib:friends
genrule rule //lib:gen
generated file //lib:gen.c
generated file //lib:gen.h
source file //lib:gen.in
lib rule //lib:lib
source file //lib:lib.c
check_test rule //lib:lib_test
package group //lib:more
lib rule //lib:util
`},
		{name: "location", text: "set(//lib //lib:gen.c //lib:lib.c //lib:friends //app:two-twin //app:BUILD.star) + loadfiles(//lib)", format: "location", want: `
defs.star:1:1: source file //:defs.star
app/BUILD.star:1:1: source file //app:BUILD.star
app/BUILD.star:17:5: lib rule //app:two-twin
lib/BUILD.star:7:14: package group //lib:friends
lib/BUILD.star:5:8: generated file //lib:gen.c
lib/BUILD.star:3:4: lib rule //lib:lib
lib/lib.c:1:1: source file //lib:lib.c
rules/base.star:1:1: source file //rules:base.star
`},
		{name: "package", text: "deps(//app/sub) + //:defs.star", format: "package", want: "\n\napp\napp/sub\nlib\ntools\n"},
		{name: "build", text: "//app:app + //app:two-twin + //lib:friends + //lib:lib.c + //lib:gen", format: "build", want: `
# app/BUILD.star:7:4
lib(
    name = "app",
    deps = ["//lib:lib"],
    fast = True,
    level = 3,
    srcs = ["//app:main.c"] + select({
        "//app:debug": ["//app:debug.c"],
        "//conditions:default": ["//app:release.c"],
    }),
    tags = [
        "manual",
        "binary",
    ],
    text = select({
        "//app:debug": "slow",
        "//conditions:default": "quick",
    }),
)

# app/BUILD.star:17:5
lib(
    name = "two-twin",
    deps = ["//app:two"],
    generator_function = "pair",
)

# lib/BUILD.star:7:14
package_group(
    name = "friends",
    packages = [
        "//app/...",
        "-//app/secret",
    ],
    includes = ["//lib:more"],
)

# lib/BUILD.star:5:8
genrule(
    name = "gen",
    cmd = "cp $< $@",
    outs = [
        "//lib:gen.c",
        "//lib:gen.h",
    ],
    srcs = ["//lib:gen.in"],
)

`},
		{name: "minrank", text: "deps(//app:app) - //app:debug", format: "minrank", want: `
0 //app:app
1 //app:debug.c
1 //app:main.c
1 //app:release.c
1 //lib:lib
1 //tools:cc
2 //lib:friends
2 //lib:lib.c
2 //lib:util
2 //tools:cc.sh
3 //lib:gen.c
3 //lib:more
4 //lib:gen
5 //lib:gen.in
`},
		{name: "maxrank", text: "deps(//app:app) ^ //lib:* + //tools:cc", format: "maxrank", want: `
0 //lib:lib
1 //lib:friends
1 //lib:lib.c
1 //lib:util
2 //lib:gen.c
2 //lib:more
2 //tools:cc
3 //lib:gen
4 //lib:gen.in
`},
		{name: "ranks of a cycle", text: "deps(//loop:top)", format: "maxrank", want: `
0 //loop:top
1 //loop:a
1 //loop:b
2 //loop:end
`},
		{name: "order survives a filter", text: "kind('^lib rule|source', deps(//app:app)) - //tools:*", format: "maxrank", want: `
0 //app:app
1 //app:debug.c
1 //app:main.c
1 //app:release.c
1 //lib:lib
2 //lib:lib.c
2 //lib:util
3 //lib:gen.in
`},
		{name: "somepath in its order", text: "somepath(//app:app, //lib:gen)", format: "label", want: `
//app:app
//lib:lib
//lib:util
//lib:gen.c
//lib:gen
`},
		{name: "a set around somepath", text: "somepath(//app:app, //lib:gen) + set()", format: "label", want: `
//app:app
//lib:gen
//lib:gen.c
//lib:lib
//lib:util
`},
		{name: "deps order", text: "somepath(//app:app, //lib:gen) + set()", order: query.OrderDeps, format: "label", want: `
//app:app
//lib:lib
//lib:util
//lib:gen.c
//lib:gen
`},
		{name: "full order", text: "deps(//lib) ^ //lib:*", order: query.OrderFull, format: "label", want: `
//lib:lib
//lib:util
//lib:lib.c
//lib:gen.c
//lib:gen
//lib:gen.in
//lib:friends
//lib:more
`},
		{name: "graph", text: "deps(//app:app) - //tools:*", format: "graph", want: `
digraph mygraph {
  node [shape=box];
  "//app:app"
  "//app:app" -> "//app:debug\n//app:debug.c\n//app:main.c\n//app:release.c"
  "//app:app" -> "//lib:lib"
  "//app:debug\n//app:debug.c\n//app:main.c\n//app:release.c"
  "//lib:friends"
  "//lib:friends" -> "//lib:more"
  "//lib:gen"
  "//lib:gen" -> "//lib:gen.in"
  "//lib:gen.c"
  "//lib:gen.c" -> "//lib:gen"
  "//lib:gen.in"
  "//lib:lib"
  "//lib:lib" -> "//lib:friends"
  "//lib:lib" -> "//lib:lib.c"
  "//lib:lib" -> "//lib:util"
  "//lib:lib.c"
  "//lib:more"
  "//lib:util"
  "//lib:util" -> "//lib:gen.c"
}
`},
		{name: "graph, node limit", text: "deps(//app:app, 1)", format: "graph", opt: query.OutputOptions{NodeLimit: 28}, want: `
digraph mygraph {
  node [shape=box];
  "//app:app"
  "//app:app" -> "//app:debug\n//app:debug.c\n...and 2 more items"
  "//app:app" -> "//lib:lib"
  "//app:app" -> "//tools:cc"
  "//app:debug\n//app:debug.c\n...and 2 more items"
  "//lib:lib"
  "//lib:lib" -> "//tools:cc"
  "//tools:cc"
}
`},
		{name: "graph, unfactored", text: "set(//lib //lib:util //lib:gen //lib:lib.c)", format: "graph", opt: query.OutputOptions{Unfactored: true}, want: `
digraph mygraph {
  node [shape=box];
  "//lib:gen"
  "//lib:lib"
  "//lib:lib" -> "//lib:lib.c"
  "//lib:lib" -> "//lib:util"
  "//lib:lib.c"
  "//lib:util"
}
`},
		{name: "json", text: "set(//app:app //lib:gen.c //lib:lib.c)", format: "json", want: `
[
{"label":"//app:app","kind":"lib rule","rule":"lib","location":"app/BUILD.star:7:4","visibility":["//app:__subpackages__"],"tags":["manual","binary"],"attributes":{"deps":["//lib:lib"],"fast":true,"level":3,"name":"app","srcs":{"select":[["//app:main.c"],{"branches":{"//app:debug":["//app:debug.c"],"//conditions:default":["//app:release.c"]}}]},"tags":["manual","binary"],"text":{"select":[{"branches":{"//app:debug":"slow","//conditions:default":"quick"}}]}},"deps":["//app:debug","//app:debug.c","//app:main.c","//app:release.c","//lib:lib","//tools:cc"]},
{"label":"//lib:gen.c","kind":"generated file","location":"lib/BUILD.star:5:8","made_by":"//lib:gen","visibility":["//visibility:private"],"deps":["//lib:gen"]},
{"label":"//lib:lib.c","kind":"source file","location":"lib/lib.c:1:1","visibility":["//visibility:private"],"deps":[]}
]
`},
		{name: "nothing", text: "set()", format: "json", want: "\n[]\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if strings.Contains(c.text, "//loop") {
				ev = &query.Evaluator{Graph: open(t, loop)}
			} else {
				ev = &query.Evaluator{Graph: ev.Graph}
			}
			order := c.order
			if order == "" {
				order = query.OrderAuto
			}
			got, err := eval(ev, c.text, order, c.format, c.opt)
			if err != nil {
				t.Fatal(err)
			}
			if got = "\n" + got; got != c.want {
				t.Errorf("got:%s\nwant:%s", got, c.want)
			}
			if c.format == "json" && !json.Valid([]byte(got)) {
				t.Error("this is not JSON")
			}
		})
		if strings.Contains(c.text, "//loop") {
			ev = &query.Evaluator{Graph: open(t, world)}
		}
	}
	if _, err := eval(ev, "//lib", query.OrderAuto, "lable", query.OutputOptions{}); err == nil || !strings.Contains(err.Error(), `did you mean "label"?`) {
		t.Errorf("got %v", err)
	}
}

const loop = `
-- loop/BUILD.star --
filegroup(name = "top", srcs = [":a"])
filegroup(name = "a", srcs = [":b"])
filegroup(name = "b", srcs = [":a", ":end"])
filegroup(name = "end")
`

// TestLarge asks about a chain that is deep and a package that is wide.
func TestLarge(t *testing.T) {
	const n = 20_000
	g := open(t, fmt.Sprintf(`
-- big/BUILD.star --
[filegroup(name = "c%%d" %% i, srcs = [":c%%d" %% (i + 1)] if i < %[1]d else []) for i in range(%[1]d + 1)]
`, n))
	ev := &query.Evaluator{Graph: g}
	for _, c := range []struct {
		text   string
		format query.Format
		lines  int
		last   string
	}{
		{"deps(//big:c0)", "label", n + 1, ""},
		{"rdeps(//..., //big:c20000)", "maxrank", n + 1, "20000 //big:c20000"},
		{"somepath(//big:c0, //big:c20000)", "label", n + 1, "//big:c20000"},
		{"filter('0000$', allpaths(//big:c0, //big:c20000))", "minrank", 2, "1 //big:c20000"},
	} {
		out, err := eval(ev, c.text, query.OrderAuto, c.format, query.OutputOptions{})
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if len(lines) != c.lines || c.last != "" && lines[len(lines)-1] != c.last {
			t.Errorf("%s: %d lines, the last is %s", c.text, len(lines), lines[len(lines)-1])
		}
	}
}
