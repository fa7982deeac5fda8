package graph_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"tool/core/language/graph"
	"tool/core/language/loader"
	"tool/core/language/workspace"
	"tool/core/model/event"
	"tool/core/model/label"
	"tool/rules"
)

var ctx = context.Background()

// open makes a workspace of an archive's files and a Graph over it.
func open(t *testing.T, archive string) *graph.Graph {
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
	return &graph.Graph{Loader: loader.New(ws, rules.FS, event.Discard)}
}

func target(t *testing.T, g *graph.Graph, s string) *loader.Target {
	t.Helper()
	l, err := label.Parse(s, label.Label{})
	if err != nil {
		t.Fatal(err)
	}
	tg, err := g.Target(ctx, l)
	if err != nil {
		t.Fatal(err)
	}
	return tg
}

func TestVisible(t *testing.T) {
	g := open(t, `
-- a/BUILD.star --
filegroup(name = "a")
-- a/b/BUILD.star --
filegroup(name = "b")
-- a/b/secret/BUILD.star --
filegroup(name = "secret")
-- other/BUILD.star --
filegroup(name = "other")
-- lib/BUILD.star --
filegroup(name = "none")
filegroup(name = "public", visibility = ["//visibility:public"])
filegroup(name = "private", visibility = ["//visibility:private"])
filegroup(name = "a", visibility = ["//a:__pkg__"])
filegroup(name = "tree", visibility = ["//a:__subpackages__", "//other:__pkg__"])
filegroup(name = "everything", visibility = ["//:__subpackages__"])
filegroup(name = "group", visibility = [":friends"])
filegroup(name = "circle", visibility = [":round"])
filegroup(name = "bad", visibility = [":public"])
filegroup(name = "gone", visibility = [":nothing"])
genrule(name = "gen", outs = ["gen.out"], cmd = "", visibility = ["//a:__pkg__"])
package_group(name = "friends", packages = ["//a/...", "-//a/b/..."], includes = ["//other:secret"])
package_group(name = "round", packages = ["//other"], includes = [":round2"])
package_group(name = "round2", includes = [":round"])
exports_files(["open.txt"])
alias(name = "door", actual = ":private", visibility = ["//visibility:public"])
-- lib/open.txt --
-- lib/closed.txt --
-- other/BUILD.star --
filegroup(name = "other")
package_group(name = "secret", packages = ["//a/b/secret"])
`)
	from := []string{"//a", "//a/b", "//a/b/secret", "//other", "//lib:none"}
	for _, c := range []struct{ to, want string }{
		{"//lib:none", "//lib:none"},
		{"//lib:public", "//a //a/b //a/b/secret //other //lib:none"},
		{"//lib:private", "//lib:none"},
		{"//lib:a", "//a //lib:none"},
		{"//lib:tree", "//a //a/b //a/b/secret //other //lib:none"},
		{"//lib:everything", "//a //a/b //a/b/secret //other //lib:none"},
		{"//lib:group", "//a //a/b/secret //lib:none"}, // a negative counts in its own group only
		{"//lib:circle", "//other //lib:none"},
		{"//lib:gen.out", "//a //lib:none"},
		{"//lib:friends", "//a //a/b //a/b/secret //other //lib:none"},
		{"//lib:open.txt", "//a //a/b //a/b/secret //other //lib:none"},
		{"//lib:closed.txt", "//lib:none"},
		{"//lib:door", "//a //a/b //a/b/secret //other //lib:none"},
	} {
		var got []string
		for _, f := range from {
			ok, err := g.Visible(ctx, target(t, g, f), target(t, g, c.to))
			if err != nil {
				t.Error(err)
			}
			if checked := g.CheckVisible(ctx, target(t, g, f), target(t, g, c.to)); ok != (checked == nil) {
				t.Errorf("Visible says %t, CheckVisible %v", ok, checked)
			}
			if ok {
				got = append(got, f)
			}
		}
		if s := strings.Join(got, " "); s != c.want {
			t.Errorf("%s is visible from %s, want %s", c.to, s, c.want)
		}
	}
	for _, c := range []struct{ to, want string }{
		{"//lib:none", `a/BUILD.star:1:10: //lib:none is not visible from //a:a; give it visibility = ["//a:__pkg__"]`},
		{"//lib:closed.txt", `write exports_files(["closed.txt"]) in lib/BUILD.star`},
		{"//lib:bad", "//lib:public is a filegroup rule, not a package_group"},
		{"//lib:gone", "no target //lib:nothing"},
	} {
		if err := g.CheckVisible(ctx, target(t, g, "//a"), target(t, g, c.to)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v\nwant …%s…", err, c.want)
		}
	}
}

func TestSelect(t *testing.T) {
	const settings = `
config_setting(name = "x", define_values = {"x": "1"})
config_setting(name = "x_again", values = {"define": "x=1"})
config_setting(name = "y", define_values = {"y": "1"})
config_setting(name = "xy", define_values = {"x": "1", "y": "1"})
config_setting(name = "opt", values = {"compilation_mode": "opt"})
config_setting(name = "linux", values = {"os": "linux", "cpu": "x86_64"})
config_setting(name = "empty")
config_setting(name = "unknown", values = {"colour": "red"})
alias(name = "ex", actual = ":x")
`
	for _, c := range []struct{ name, define, value, want string }{
		{"default", "", `select({":x": "x", "//conditions:default": "d"})`, `"d"`},
		{"match", "x=1", `select({":x": "x", "//conditions:default": "d"})`, `"x"`},
		{"through an alias", "x=1", `select({":ex": "x", "//conditions:default": "d"})`, `"x"`},
		{"the most special one", "x=1 y=1", `select({":x": "x", ":xy": "xy", ":y": "y"})`, `"xy"`},
		{"unrelated", "x=1 y=1", `select({":x": "x", ":y": "y"})`, "both :x and :y hold, and neither is a special case of the other"},
		{"unrelated, but they agree", "x=1 y=1", `select({":x": "z", ":y": "z"})`, `"z"`},
		{"two names of one condition", "x=1", `select({":x": "x", ":x_again": "again"})`, "both :x and :x_again hold"},
		{"two names that agree", "x=1", `select({":x": "x", ":x_again": "x"})`, `"x"`},
		{"two names that agree, and a general one", "x=1", `select({":linux": "l", ":x": "x", ":x_again": "x"})`, "both :linux and :x hold"},
		{"compilation mode", "", `select({":opt": "opt", "//conditions:default": "d"})`, `"d"`},
		{"platform", "", `select({":linux": "linux"})`, `"linux"`},
		{"no match", "", `select({":x": "x", ":y": "y"})`, `p/BUILD.star:11:2: //p:t: attribute "v": no condition of select() holds for compilation_mode=fastbuild: tried :x, :y`},
		{"own words", "", `select({":x": "x"}, no_match_error = "only with x")`, "only with x"},
		{"None is the default value", "x=1", `select({":x": None, "//conditions:default": "d"})`, `"zero"`},
		{"concatenation", "x=1", `"a" + select({":x": "x", "//conditions:default": ""}) + select({":y": "y", "//conditions:default": "-"}) + "b"`, `"ax-b"`},
		{"not a setting", "", `select({":no_setting": "x"})`, "//p:no_setting is a filegroup rule, not a config_setting"},
		{"a setting without values", "", `select({":empty": "x"})`, "a config_setting needs values or define_values"},
		{"an unknown setting", "", `select({":unknown": "x"})`, `there is no setting "colour"`},
		{"no such setting", "", `select({":gone": "x"})`, "no target //p:gone"},
		{"a private setting elsewhere", "", `select({"//q:private": "x", "//conditions:default": "d"})`, "//q:private is not visible from //p:t"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := open(t, "-- d.star --\nr = rule(implementation = lambda ctx: [], attrs = {'v': attr.string(default = 'zero')})\n-- q/BUILD.star --\nconfig_setting(name = 'private', define_values = {'q': '1'})\n-- p/BUILD.star --\nload('//:d.star', 'r')"+
				settings+"r(name = 't', v = "+c.value+")\nfilegroup(name = 'no_setting')\n")
			g.Config.Define = map[string]string{}
			for _, d := range strings.Fields(c.define) {
				k, v, _ := strings.Cut(d, "=")
				g.Config.Define[k] = v
			}
			v, err := g.Attr(ctx, target(t, g, "//p:t"), "v")
			got := fmt.Sprint(v)
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestSelectLists(t *testing.T) {
	g := open(t, `
-- d.star --
r = rule(implementation = lambda ctx: [], attrs = {"d": attr.string_dict(), "l": attr.label_list(allow_files = True)})
-- p/BUILD.star --
load("//:d.star", "r")
config_setting(name = "opt", values = {"compilation_mode": "opt"})
r(
    name = "t",
    d = {"a": "1"} | select({":opt": {"b": "2"}, "//conditions:default": {}}),
    l = ["x"] + select({":opt": ["y"], "//conditions:default": ["z"]}) + ["w"],
)
`)
	g.Config.CompilationMode = "opt"
	for name, want := range map[string]string{"d": `{"a": "1", "b": "2"}`, "l": "[//p:x, //p:y, //p:w]"} {
		v, err := g.Attr(ctx, target(t, g, "//p:t"), name)
		if err != nil || v.String() != want {
			t.Errorf("%s: got %v, %v; want %s", name, v, err, want)
		}
	}
	var got []string
	for _, e := range graph.Edges(target(t, g, "//p:t")) {
		got = append(got, fmt.Sprintf("%s %s %t", e.Attr, e.Label, e.Implicit))
	}
	const want = "d //p:opt false; l //p:opt false; l //p:x false; l //p:y false; l //p:z false; l //p:w false"
	if s := strings.Join(got, "; "); s != want {
		t.Errorf("edges: %s\nwant   %s", s, want)
	}
}

func TestExpand(t *testing.T) {
	g := open(t, `
-- d.star --
a_test = rule(implementation = lambda ctx: [], test = True)
-- BUILD.star --
filegroup(name = "root", srcs = ["readme.txt"])
-- readme.txt --
-- stray.txt --
-- a/BUILD.star --
load("//:d.star", "a_test")
filegroup(name = "a", srcs = ["x.txt", "gone.txt", "//a/b:y.txt"])
filegroup(name = "m", tags = ["manual"])
genrule(name = "g", outs = ["g.out"], cmd = "", srcs = [":g.out2"])
config_setting(name = "c", define_values = {"c": "1"})
package_group(name = "pg")
a_test(name = "t_test")
test_suite(name = "s")
exports_files(["e.txt", "dir"])
-- a/x.txt --
-- a/e.txt --
-- a/stray.txt --
-- a/dir/d.txt --
-- a/b/BUILD.star --
filegroup(name = "b")
filegroup(name = "c")
-- a/b/y.txt --
-- ab/BUILD.star --
filegroup(name = "ab")
-- empty/none.txt --
`)
	for _, c := range []struct {
		cwd, patterns string
		opt           graph.ExpandOptions
		want          string
	}{
		{"", "//...", graph.ExpandOptions{}, "//:root //a:a //a:g //a:s //a:t_test //a/b:b //a/b:c //ab:ab"},
		{"", "//...", graph.ExpandOptions{Manual: true}, "//:root //a:a //a:c //a:g //a:m //a:s //a:t_test //a/b:b //a/b:c //ab:ab"},
		{"", "//...", graph.ExpandOptions{TestOnly: true}, "//a:s //a:t_test"},
		{"", "//a/...", graph.ExpandOptions{}, "//a:a //a:g //a:s //a:t_test //a/b:b //a/b:c"},
		{"a", "...", graph.ExpandOptions{}, "//a:a //a:g //a:s //a:t_test //a/b:b //a/b:c"},
		{"", "//a:all", graph.ExpandOptions{}, "//a:a //a:g //a:s //a:t_test"},
		{"a", ":all", graph.ExpandOptions{}, "//a:a //a:g //a:s //a:t_test"},
		{"", "//a:*", graph.ExpandOptions{Manual: true}, "//a:BUILD.star //a:a //a:c //a:e.txt //a:g //a:g.out //a:m //a:pg //a:s //a:t_test //a:x.txt"},
		{"", "//:*", graph.ExpandOptions{}, "//:BUILD.star //:readme.txt //:root"},
		{"", "//a:m", graph.ExpandOptions{}, "//a:m"},
		{"", "//a:g.out", graph.ExpandOptions{}, "//a:g.out"},
		{"", "//a/... -//a/b/...", graph.ExpandOptions{}, "//a:a //a:g //a:s //a:t_test"},
		{"", "//a/b:all -//a/b:b //a/b:b", graph.ExpandOptions{}, "//a/b:b //a/b:c"},
		{"", "-//a/b:b //a/b:all", graph.ExpandOptions{}, "//a/b:b //a/b:c"},
		{"", "//a/b:all -//a/b:nothing", graph.ExpandOptions{}, "//a/b:b //a/b:c"},
		{"", "//ab //a //ab", graph.ExpandOptions{}, "//ab:ab //a:a"},
		{"", "//a:all -//a:m", graph.ExpandOptions{Manual: true}, "//a:a //a:c //a:g //a:s //a:t_test"},
		// Words without // are packages, else targets or files of the package above.
		{"", "a", graph.ExpandOptions{}, "//a:a"},
		{"", "a/b", graph.ExpandOptions{}, "//a/b:b"},
		{"", "a/x.txt", graph.ExpandOptions{}, "//a:x.txt"},
		{"", "a/dir/d.txt", graph.ExpandOptions{}, "//a:dir/d.txt"},
		{"a", "b", graph.ExpandOptions{}, "//a/b:b"},
		{"a", "m", graph.ExpandOptions{}, "//a:m"},
		{"", "root", graph.ExpandOptions{}, "//:root"},
		{"a/b", "c", graph.ExpandOptions{}, "//a/b:c"},
		// Mistakes
		{"", "//c", graph.ExpandOptions{}, "error: no package //c"},
		{"", "//a:gone", graph.ExpandOptions{}, "error: no target //a:gone"},
		{"", "//empty/...", graph.ExpandOptions{}, `error: pattern "//empty/..." matches no package`},
		{"", "zzz", graph.ExpandOptions{}, "error: no target //:zzz"},
		{"", "a/zzz", graph.ExpandOptions{}, "error: no target //a:zzz"},
		{"", "@rules//...", graph.ExpandOptions{}, "error: pattern \"@rules//...\": ... is not possible in @rules"},
	} {
		t.Run(c.patterns, func(t *testing.T) {
			var ps []label.Pattern
			for _, s := range strings.Fields(c.patterns) {
				p, err := label.ParsePattern(s, c.cwd)
				if err != nil {
					t.Fatal(err)
				}
				ps = append(ps, p)
			}
			ls, err := g.Expand(ctx, ps, c.opt)
			var got []string
			for _, l := range ls {
				got = append(got, l.String())
			}
			s := strings.Join(got, " ")
			if err != nil {
				s = "error: " + err.Error()
			}
			if s != c.want && !(strings.HasPrefix(c.want, "error: ") && strings.HasPrefix(s, c.want)) {
				t.Errorf("got  %s\nwant %s", s, c.want)
			}
		})
	}
}

// TestLoadErrors holds that one broken package does not hide the others.
func TestLoadErrors(t *testing.T) {
	g := open(t, "-- a/BUILD.star --\nx(\n-- b/BUILD.star --\nfilegroup(name = 'b')\n")
	err := g.Load(ctx, []label.Label{{Pkg: "b"}, {Pkg: "a"}, {Pkg: "gone"}})
	if err == nil || !strings.Contains(err.Error(), "a/BUILD.star:2:1") {
		t.Errorf("got %v", err)
	}
	target(t, g, "//b")
}

func TestConfigString(t *testing.T) {
	c := graph.Config{Define: map[string]string{"b": "2", "a": "1"}}
	if got := c.String(); got != "compilation_mode=fastbuild define=a=1 define=b=2" {
		t.Error(got)
	}
}
