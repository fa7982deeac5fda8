package query_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"tool/core/language/graph"
	"tool/core/language/loader"
	"tool/core/language/query"
	"tool/core/language/workspace"
	"tool/core/model/event"
	"tool/core/model/label"
	"tool/rules"
)

// open makes a workspace of an archive's files and a graph over it.
func open(t testing.TB, archive string) *graph.Graph {
	t.Helper()
	dir := t.TempDir()
	files := txtar.Parse([]byte(archive)).Files
	for _, f := range append(files, txtar.File{Name: "tool.toml"}) {
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
	return &graph.Graph{Loader: loader.New(ws, rules.FS, event.Discard)}
}

// eval evaluates text and writes it in a format.
func eval(ev *query.Evaluator, text string, order query.Order, f query.Format, opt query.OutputOptions) (string, error) {
	x, err := query.Parse(text)
	if err != nil {
		return "", err
	}
	r, err := ev.Eval(context.Background(), x, order)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	err = r.Write(&b, f, opt)
	return b.String(), err
}

// labels evaluates text and returns the labels on one line.
func labels(t *testing.T, ev *query.Evaluator, text string) string {
	t.Helper()
	out, err := eval(ev, text, query.OrderAuto, "label", query.OutputOptions{})
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return strings.Join(strings.Fields(out), " ")
}

func parseLabel(t *testing.T, s string) label.Label {
	t.Helper()
	l, err := label.Parse(s, label.Label{})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// world is what most tests ask about:
//
//	//app:app → //app:main.c, //lib:lib → //lib:util, //lib:lib.c
//	//lib:util → //lib:gen.c ← //lib:gen (a genrule) → //lib:gen.in
//	every lib → //tools:cc, implicitly
const world = `
-- defs.star --
load("//rules:base.star", "impl")

lib = rule(
    implementation = impl,
    attrs = {
        "srcs": attr.label_list(allow_files = True),
        "deps": attr.label_list(),
        "out": attr.output(),
        "level": attr.int(default = 1),
        "fast": attr.bool(default = False),
        "text": attr.string(default = "plain"),
        "extra": attr.label(default = None),
        "names": attr.string_dict(),
        "_cc": attr.label(default = "//tools:cc"),
    },
)

check_test = rule(implementation = impl, test = True, attrs = {"deps": attr.label_list()})

def pair(name, **kwargs):
    lib(name = name, **kwargs)
    lib(name = name + "-twin", deps = [":" + name])
-- rules/BUILD.star --
-- rules/base.star --
def impl(ctx):
    return []
-- BUILD.star --
-- tools/BUILD.star --
filegroup(name = "cc", srcs = ["cc.sh"], visibility = ["//visibility:public"])
exports_files(["cc.sh"])
-- tools/cc.sh --
-- tools/unused.sh --
-- app/BUILD.star --
load("//:defs.star", "check_test", "lib", "pair")

package(default_visibility = ["//app:__subpackages__"], default_testonly = False)

config_setting(name = "debug", values = {"compilation_mode": "dbg"})

lib(
    name = "app",
    srcs = ["main.c"] + select({":debug": ["debug.c"], "//conditions:default": ["release.c"]}),
    deps = ["//lib"],
    tags = ["manual", "binary"],
    fast = True,
    level = 3,
    text = select({":debug": "slow", "//conditions:default": "quick"}),
)

pair(name = "two", srcs = ["main.c"], names = {"k": "v"})

check_test(name = "small_test", size = "small", deps = [":app"], tags = ["unit"])
check_test(name = "large_test", size = "large", deps = ["//lib"])
check_test(name = "manual_test", tags = ["manual"])
test_suite(name = "all_tests")
test_suite(name = "quick", tests = [":small_test", ":large_test", "//lib:lib_test", ":main_suite"], tags = ["-large"])
test_suite(name = "main_suite", tests = [":quick", ":large_test"], tags = ["unit"])
-- app/main.c --
-- app/debug.c --
-- app/release.c --
-- app/not-mentioned.txt --
-- lib/BUILD.star --
load("//:defs.star", "check_test", "lib")

lib(name = "lib", srcs = ["lib.c"], deps = [":util"], visibility = [":friends"])
lib(name = "util", srcs = [":gen.c"], visibility = ["//visibility:public"], testonly = False)
genrule(name = "gen", srcs = ["gen.in"], outs = ["gen.c", "gen.h"], cmd = "cp $< $@")
check_test(name = "lib_test", deps = [":lib"], visibility = ["//app:__pkg__"])
package_group(name = "friends", packages = ["//app/...", "-//app/secret"], includes = [":more"])
package_group(name = "more", packages = ["//tools"])
alias(name = "al", actual = ":util")
-- lib/lib.c --
-- lib/gen.in --
-- app/sub/BUILD.star --
load("//:defs.star", "lib")
lib(name = "sub", deps = ["//app", "//app:two"])
-- app/secret/BUILD.star --
load("//:defs.star", "lib")
lib(name = "secret")
`
