package query_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"tool/core/language/query"
	"tool/core/model/label"
)

func TestEval(t *testing.T) {
	g := open(t, world)
	for _, c := range []struct{ text, want string }{
		// Patterns: manual targets stay, :* knows the files that rules name.
		{"//app:app", "//app:app"},
		{"//lib", "//lib:lib"},
		{"lib:util", "//lib:util"},
		{"lib/gen.in", "//lib:gen.in"},
		{"//app/...", "//app:all_tests //app:app //app:debug //app:large_test //app:main_suite //app:manual_test //app:quick //app:small_test //app:two //app:two-twin //app/secret:secret //app/sub:sub"},
		{"//lib:all", "//lib:al //lib:gen //lib:lib //lib:lib_test //lib:util"},
		{"//lib:*", "//lib:BUILD.star //lib:al //lib:friends //lib:gen //lib:gen.c //lib:gen.h //lib:gen.in //lib:lib //lib:lib.c //lib:lib_test //lib:more //lib:util"},
		{"//tools:*", "//tools:BUILD.star //tools:cc //tools:cc.sh"},
		{"set()", ""},
		{"set(//lib //lib:util '//app:app')", "//app:app //lib:lib //lib:util"},

		// Operators have one precedence and go left to right.
		{"//lib + //lib:util", "//lib:lib //lib:util"},
		{"//lib:all ^ set(//lib //app:app)", "//lib:lib"},
		{"//lib:all - //lib:gen except //lib:lib_test - //lib:al", "//lib:lib //lib:util"},
		{"//lib + //lib:util ^ //lib:util", "//lib:util"},
		{"//lib + (//lib:util ^ //lib:util)", "//lib:lib //lib:util"},
		{"//lib - //lib + //lib", "//lib:lib"},
		{"//lib - (//lib + //lib)", ""},
		{"let x = //lib:all in $x intersect //lib:gen union //lib", "//lib:gen //lib:lib"},
		{"let x = //lib in let y = //lib:util in $x + $y", "//lib:lib //lib:util"},
		{"let x = //lib in (let x = //lib:util in $x) + $x", "//lib:lib //lib:util"},

		// Closures.
		{"deps(//lib:util)", "//lib:gen //lib:gen.c //lib:gen.in //lib:util //tools:cc //tools:cc.sh"},
		{"deps(//lib:util, 0)", "//lib:util"},
		{"deps(//lib:util, 1)", "//lib:gen.c //lib:util //tools:cc"},
		{"deps(//lib:util, 2)", "//lib:gen //lib:gen.c //lib:util //tools:cc //tools:cc.sh"},
		{"deps(//lib) - deps(//lib:util)", "//lib:friends //lib:lib //lib:lib.c //lib:more"},
		{"deps(//app:app) ^ //app:*", "//app:app //app:debug //app:debug.c //app:main.c //app:release.c"},
		{"rdeps(//..., //lib:util)", "//app:all_tests //app:app //app:large_test //app:main_suite //app:quick //app:small_test //app/sub:sub //lib:al //lib:lib //lib:lib_test //lib:util"},
		{"rdeps(//..., //lib:util, 1)", "//lib:al //lib:lib //lib:util"},
		{"rdeps(//..., //lib:util, 0)", "//lib:util"},
		{"rdeps(//lib, //lib:gen.in)", "//lib:gen //lib:gen.c //lib:gen.in //lib:lib //lib:util"},
		{"rdeps(//lib, //app:app)", ""},
		{"allrdeps(//lib:gen.h)", ""}, // nothing in //... needs it,
		{"allrdeps(//lib:util, 1)", "//lib:al //lib:lib //lib:util"},
		{"same_pkg_direct_rdeps(//lib:util)", "//lib:al //lib:lib"},
		{"same_pkg_direct_rdeps(//tools:cc)", ""},
		{"same_pkg_direct_rdeps(//lib:gen)", "//lib:gen.c //lib:gen.h"},
		{"allpaths(//app:app, //lib:util)", "//app:app //lib:lib //lib:util"},
		{"allpaths(//app:app, //tools:cc)", "//app:app //lib:lib //lib:util //tools:cc"},
		{"allpaths(//lib:util, //app:app)", ""},
		{"somepath(//app/sub + //app:app, //lib:gen.in)", "//app:app //lib:lib //lib:util //lib:gen.c //lib:gen //lib:gen.in"},
		{"somepath(//app/sub, //tools:cc)", "//app/sub:sub //tools:cc"},
		{"somepath(//lib, //app:app)", ""},
		{"somepath(//lib, //lib)", "//lib:lib"},

		// Filters.
		{"kind('source file', deps(//lib))", "//lib:gen.in //lib:lib.c //tools:cc.sh"},
		{"kind(rule, deps(//lib:util))", "//lib:gen //lib:util //tools:cc"},
		{"kind('generated file', //lib:*)", "//lib:gen.c //lib:gen.h"},
		{"kind('package group', //lib:*)", "//lib:friends //lib:more"},
		{"kind('^lib rule$', //lib:*)", "//lib:lib //lib:util"},
		{"kind(test, //app:all)", "//app:all_tests //app:large_test //app:main_suite //app:manual_test //app:quick //app:small_test"},
		{"filter(//lib:, deps(//lib:util))", "//lib:gen //lib:gen.c //lib:gen.in //lib:util"},
		{`filter("\.c$", deps(//lib))`, "//lib:gen.c //lib:lib.c"},
		{"attr(tags, '[\\[ ]binary[,\\]]', //app:all)", "//app:app"},
		{"attr(tags, manual, //...)", "//app:app //app:manual_test"},
		{"attr(fast, 1, //...)", "//app:app"},
		{"attr(fast, 0, //lib:all)", "//lib:lib //lib:util"},
		{"attr(level, '^3$', //...)", "//app:app"},
		{"attr(level, 1, //lib:all)", "//lib:lib //lib:util"},
		{"attr(text, quick, //...)", "//app:app"},
		{"attr(text, slow, //...)", "//app:app"},
		{"attr(text, plain, //lib:all)", "//lib:lib //lib:util"},
		{"attr(srcs, '^.//app:main.c, //app:debug.c.$', //app:all)", "//app:app"},
		{"attr(srcs, '^.//app:main.c, //app:release.c.$', //app:all)", "//app:app"},
		{"attr(srcs, '\\[\\]', kind('^lib rule', //app:all))", "//app:two-twin"},
		{"attr(deps, '//lib:util', //...)", "//lib:lib"},
		{"attr(names, '{k=v}', //...)", "//app:two"},
		{"attr(extra, '', //lib:all)", ""},
		{"attr(nothing, '', //...)", ""},
		{"attr(visibility, '//app:__subpackages__', //app:app + //lib)", "//app:app"},
		{"attr(visibility, private, //app/sub)", "//app/sub:sub"},
		{"attr(testonly, 1, //lib:all)", ""},
		{"attr(generator_function, pair, //...)", "//app:two //app:two-twin"},
		{"attr(name, '^two$', //...)", "//app:two"},
		{"attr(size, small, //...)", "//app:small_test"},
		{"attr(size, medium, //...)", "//app:manual_test //lib:lib_test"},
		{"labels(srcs, //app:app)", "//app:debug.c //app:main.c //app:release.c"},
		{"labels(outs, //lib:gen)", "//lib:gen.c //lib:gen.h"},
		{"labels(_cc, //lib)", "//tools:cc"},
		{"labels(text, //app:app)", ""},
		{"labels(srcs, //lib:lib.c)", ""},
		{"visible(//app:app, //lib:*)", "//lib:friends //lib:lib //lib:lib_test //lib:more //lib:util"},
		{"visible(//app/secret, //lib:all)", "//lib:util"},
		{"visible(//tools:cc, //lib:all)", "//lib:lib //lib:util"},
		{"visible(//app/sub + //tools:cc, //lib:all)", "//lib:lib //lib:util"},
		{"visible(//lib, //lib:gen)", "//lib:gen"},
		{"visible(//lib, //tools:*)", "//tools:cc //tools:cc.sh"},

		// Tests and suites.
		{"tests(//app:all_tests)", "//app:large_test //app:small_test"},
		{"tests(//app:quick)", "//app:small_test //lib:lib_test"},
		{"tests(//app:main_suite)", "//app:small_test"},
		{"tests(//lib:all + //app:manual_test + //lib:lib.c)", "//app:manual_test //lib:lib_test"},
		{"some(//lib:all)", "//lib:al"},
		{"some(//lib:all, 2)", "//lib:al //lib:gen"},
		{"some(//lib, 10)", "//lib:lib"},

		// Files that define packages.
		{"siblings(//tools:cc.sh)", "//tools:BUILD.star //tools:cc //tools:cc.sh"},
		{"buildfiles(//lib)", "//:BUILD.star //:defs.star //lib:BUILD.star //rules:BUILD.star //rules:base.star"},
		{"buildfiles(//tools:cc)", "//tools:BUILD.star"},
		{"loadfiles(//lib + //tools:cc)", "//:defs.star //rules:base.star"},
		{"rbuildfiles(rules/base.star) ^ filter(//app, rbuildfiles(defs.star))", "//app:BUILD.star //app/secret:BUILD.star //app/sub:BUILD.star"},
		{"rbuildfiles(tools/BUILD.star, lib/BUILD.star)", "//lib:BUILD.star //tools:BUILD.star"},
		{"rbuildfiles(rules/BUILD.star)", "//rules:BUILD.star"},
		{"rbuildfiles(lib/lib.c)", ""},

		// Words and white space.
		{"  deps (\n//lib:util ,\t1 ) ", "//lib:gen.c //lib:util //tools:cc"},
		{`"//lib:util"`, "//lib:util"},
		{`filter("union|gen", //lib:all)`, "//lib:gen"},
	} {
		t.Run(c.text, func(t *testing.T) {
			ev := &query.Evaluator{Graph: g}
			if got := labels(t, ev, c.text); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestSettings(t *testing.T) {
	g := open(t, world)
	for _, c := range []struct {
		name string
		ev   query.Evaluator
		text string
		want string
	}{
		{"relative patterns", query.Evaluator{Cwd: "app"}, "app + sub + :two", "//app:app //app:two //app/sub:sub"},
		{"relative wildcard", query.Evaluator{Cwd: "lib"}, "... - :gen", "//lib:al //lib:lib //lib:lib_test //lib:util"},
		{"no implicit deps", query.Evaluator{NoImplicitDeps: true}, "deps(//lib)", "//lib:friends //lib:gen //lib:gen.c //lib:gen.in //lib:lib //lib:lib.c //lib:more //lib:util"},
		{"universe", query.Evaluator{Universe: []label.Pattern{{Label: label.Label{Pkg: "app", Name: "app"}}}}, "allrdeps(//lib:util)", "//app:app //lib:lib //lib:util"},
		{"chosen branches", query.Evaluator{Configured: true}, "kind('source file', deps(//app:app)) + attr(text, quick, //app:app)", "//app:app //app:main.c //app:release.c //lib:gen.in //lib:lib.c //tools:cc.sh"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.ev.Graph = g
			if got := labels(t, &c.ev, c.text); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// TestAgain asks one Evaluator twice: what it knows may not change answers.
func TestAgain(t *testing.T) {
	ev := &query.Evaluator{Graph: open(t, world)}
	first := labels(t, ev, "deps(//lib:util)")
	labels(t, ev, "rdeps(//..., //lib:gen.in)")
	if again := labels(t, ev, "deps(//lib:util)"); again != first {
		t.Errorf("got %s, then %s", first, again)
	}
}

func TestMistakes(t *testing.T) {
	g := open(t, world)
	for _, c := range []struct{ text, want string }{
		{"", "want a target pattern, a function or ( here, found end of the query\n  \n  ^"},
		{"dep(//lib)", "there is no function \"dep\"; did you mean \"deps\"?\n  dep(//lib)\n  ^"},
		{"zzzzzz(//lib)", `there is no function "zzzzzz"; there are allpaths, allrdeps, attr, buildfiles, deps`},
		{"deps(//lib", `want "," here, found end of the query`},
		{"deps()", `want a target pattern, a function or ( here, found ")"`},
		{"deps(//lib, x)", "want a whole number here, found \"x\"; it is deps(x[, depth])\n  deps(//lib, x)\n              ^"},
		{"deps(//lib, -1)", `want a word here, found "-"`},
		{"deps(//lib, 1, 2)", "deps has too many arguments; it is deps(x[, depth])"},
		{"rdeps(//lib)", "rdeps has too few arguments; it is rdeps(universe, x[, depth])"},
		{"kind(a b, //lib)", "want \",\" here, found \"b\"\n  kind(a b, //lib)\n         ^"},
		{"kind('(', //lib)", "kind: error parsing regexp: missing closing ): `(`"},
		{"//lib //app", `want an operator or the end here, found "//app"`},
		{"//lib +", "found end of the query"},
		{"+ //lib", `found "+"`},
		{"(//lib", `want ")" here`},
		{"//lib)", `want an operator or the end here, found ")"`},
		{"'//lib", "this quotation mark is never closed"},
		{"*.c", "a word that starts with * must be quoted"},
		{"//lib & //app", `'&' cannot stand outside of quotation marks`},
		{"//lib:a=b", `want an operator or the end here, found "="`},
		{"let = //lib in $x", `want a word here, found "="`},
		{"let 1x = //lib in $x", `"1x" is not a name of a variable`},
		{"let x //lib in $x", `want "=" here`},
		{"let x = //lib", `want "in" here, found end of the query`},
		{"$x", "no let defines $x here"},
		{"let total = //lib in $totl", "no let defines $totl here; did you mean $total?"},
		{"(let x = //lib in $x) + $x", "no let defines $x here"},
		{"$", `"$" is not a name of a variable`},
		{"set(//lib, //app)", "separated by spaces, not commas"},
		{"set(deps(//lib))", `want ")" here, found "("`},
		{"in", `found "in"`},
		{"some(set())", "some: this set is empty\n  some(set())\n       ^"},
		{"some(//lib, 0)", "the count must be at least 1"},
		{`"-//lib"`, "a query subtracts with except"},
		{"//lib:nothing", "no target //lib:nothing"},
		{"//lib:gne", `did you mean "gen"?`},
		{"//nowhere/...", "matches no package"},
		{"deps(//lbi)", "no package //lbi: there is no BUILD.star in it; did you mean //lib?\n  deps(//lbi)\n       ^"},
		{"//a//b", "invalid target pattern"},
		{"inputs(x, //lib)", "inputs() chooses actions, so it is for aquery"},
		{"rbuildfiles(//lib:x)", "rbuildfiles takes paths"},
		{"//lib +\n  dep(//lib)", "there is no function \"dep\"; did you mean \"deps\"?\n    dep(//lib)\n    ^"},
		{strings.Repeat("(", 1000) + "//lib", "more than 200 levels of nesting"},
	} {
		t.Run(c.text, func(t *testing.T) {
			_, err := eval(&query.Evaluator{Graph: g}, c.text, query.OrderAuto, "label", query.OutputOptions{})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("got %v\nwant …%s…", err, c.want)
			}
			if qe := (*query.Error)(nil); !errors.As(err, &qe) || qe.Query != c.text {
				t.Errorf("got %#v, want a *query.Error that knows its query", err)
			}
		})
	}
}

// TestLongChain holds that operators of a machine-made query do not nest.
func TestLongChain(t *testing.T) {
	ev := &query.Evaluator{Graph: open(t, world)}
	if got := labels(t, ev, "//lib"+strings.Repeat(" + //lib:util - //lib:util", 20_000)); got != "//lib:lib" {
		t.Errorf("got %s", got)
	}
}

const broken = world + `
-- bad/BUILD.star --
lib(name = "x"
-- dangling/BUILD.star --
load("//:defs.star", "lib")
lib(name = "a", deps = [":gone", "//nowhere:x", "//bad:x"])
lib(name = "b", deps = [":a", "//lib:util"])
`

func TestKeepGoing(t *testing.T) {
	g := open(t, broken)
	for _, c := range []struct {
		text, want string
		errs       []string
	}{
		{"deps(//dangling:b) - deps(//lib:util)", "//dangling:a //dangling:b", []string{
			"dangling/BUILD.star:2:4: //dangling:a depends on //dangling:gone: no target //dangling:gone",
			"//dangling:a depends on //nowhere:x: no package //nowhere",
			"bad/BUILD.star:2:1: got end of file, want ')'"}},
		{"filter(:util, //...)", "//lib:util", []string{"bad/BUILD.star:2:1"}},
		{"//lib:util + //lib:gone", "//lib:util", []string{"no target //lib:gone"}},
		{"set(//bad:x //lib:util)", "//lib:util", []string{"bad/BUILD.star:2:1"}},
		{"tests(//lib:all)", "//lib:lib_test", nil},
	} {
		t.Run(c.text, func(t *testing.T) {
			x, err := query.Parse(c.text)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := (&query.Evaluator{Graph: g}).Eval(context.Background(), x, query.OrderAuto); (err != nil) != (c.errs != nil) {
				t.Errorf("without KeepGoing: %v", err)
			}
			r, err := (&query.Evaluator{Graph: g, KeepGoing: true}).Eval(context.Background(), x, query.OrderAuto)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, tg := range r.Targets {
				got = append(got, tg.Label.String())
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("got %s, want %s", s, c.want)
			}
			if len(r.Errors) != len(c.errs) {
				t.Errorf("errors: %v", r.Errors)
			}
			all := fmt.Sprint(errors.Join(r.Errors...))
			for _, want := range c.errs {
				if !strings.Contains(all, want) {
					t.Errorf("errors: %v\nwant …%s…", all, want)
				}
			}
		})
	}
}

func TestPath(t *testing.T) {
	ev := &query.Evaluator{Graph: open(t, world)}
	for _, c := range []struct{ from, to, want string }{
		{"//app:app", "//lib:gen.in", "//app:app -deps→ //lib:lib -deps→ //lib:util -srcs→ //lib:gen.c -generator→ //lib:gen -srcs→ //lib:gen.in"},
		{"//app:app", "//app:debug", "//app:app -srcs→ //app:debug"},
		{"//lib:lib", "//lib:more", "//lib:lib -visibility→ //lib:friends -includes→ //lib:more"},
		{"//lib:lib", "//tools:cc", "//lib:lib -_cc→ //tools:cc"},
		{"//lib:lib", "//lib:lib", "//lib:lib"},
		{"//lib:lib", "//app:app", ""},
	} {
		steps, err := ev.Path(context.Background(), parseLabel(t, c.from), parseLabel(t, c.to))
		if err != nil {
			t.Fatal(err)
		}
		var b strings.Builder
		for _, s := range steps {
			b.WriteString(s.Target.Label.String())
			if s.Attr != "" {
				b.WriteString(" -" + s.Attr + "→ ")
			}
		}
		if b.String() != c.want {
			t.Errorf("%s to %s: got %s\nwant %s", c.from, c.to, b.String(), c.want)
		}
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	x, err := query.Parse("deps(//...)")
	if err != nil {
		t.Fatal(err)
	}
	for _, keep := range []bool{false, true} {
		ev := &query.Evaluator{Graph: open(t, world), KeepGoing: keep}
		if _, err := ev.Eval(ctx, x, query.OrderAuto); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want context.Canceled", err)
		}
	}
}
