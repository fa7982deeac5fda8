package analysis_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tool/core/language/analysis"
	"tool/core/language/graph"
	"tool/core/language/loader"
	"tool/core/language/workspace"
	"tool/core/model/event"
	"tool/core/model/label"
	"tool/rules"
)

const builtins = `
-- defs.star --
def _files_impl(ctx):
    lib = ctx.actions.declare_file("lib")
    ctx.actions.write(output = lib, content = "library")
    conf = ctx.actions.declare_file("conf")
    ctx.actions.write(output = conf, content = "use " + lib.store_path, inputs = depset([lib]))
    made = ctx.actions.declare_file("made")
    ctx.actions.expand_template(output = made, template = conf, substitutions = {"use": lib.store_path}, inputs = [lib])
    tree = ctx.actions.declare_directory("tree")
    ctx.actions.builtin(name = "merge@1", outputs = [tree], inputs = [lib], params = {}, progress_message = "merging %{input} into %{output} for %{label}")
    return [DefaultInfo(files = depset([tree]))]

files = rule(implementation = _files_impl)

def _x_test_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.write(output = out, content = "", is_executable = True)
    return [DefaultInfo(executable = out)]

x_test = rule(implementation = _x_test_impl, test = True)
-- BUILD.star --
load(":defs.star", "files", "x_test")
files(name = "files")
x_test(name = "a_test")
x_test(name = "b_test", tags = ["manual"])
test_suite(name = "all_tests")
test_suite(name = "chosen", tests = [":b_test"])
`

func TestBuiltins(t *testing.T) {
	a := open(t, builtins)
	lt, err := analyze(t, a, "//:files")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, id := range lt.Actions {
		act := a.Actions.Actions[id]
		var ins []string
		for _, in := range act.Inputs {
			ins = append(ins, a.Actions.Artifacts[in].Path)
		}
		got = append(got, strings.TrimSpace(act.Builtin+" "+strings.Join(ins, ",")+" "+act.Params+" "+act.Progress))
	}
	want := []string{
		`write@1  {"content":"library","executable":false}`,
		`write@1 out/lib {"content":"use /tool/store/@{out/lib}","executable":false}`,
		`template@1 out/conf,out/lib {"executable":false,"substitutions":{"use":"/tool/store/@{out/lib}"},"template":"out/conf"}`,
		`merge@1 out/lib {} merging out/lib into out/tree for //:files`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// TestSuites shows that a suite without tests leaves manual ones out, as query
// says.
func TestSuites(t *testing.T) {
	a := open(t, builtins)
	for suite, want := range map[string]string{"//:all_tests": "out/a_test", "//:chosen": "out/b_test"} {
		lt, err := analyze(t, a, suite)
		if err != nil {
			t.Fatal(err)
		}
		if fs := lt.Files(); len(fs) != 1 || fs[0].Artifact.Path != want {
			t.Errorf("%s: got %v, want %s", suite, fs, want)
		}
	}
}

// openWith is open for a workspace with settings.
func openWith(t *testing.T, config string, files map[string]string) *analysis.Analyzer {
	t.Helper()
	dir := t.TempDir()
	files["tool.toml"] = config
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	ws, err := workspace.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return analysis.New(&graph.Graph{Loader: loader.New(ws, rules.FS, event.Discard)}, event.Discard)
}

// TestDefaultEnvironment shows that the workspace's environment is an edge of
// the target graph, though no BUILD file names it and it is not visible, and
// that an attribute of the user's own can have it, too.
func TestDefaultEnvironment(t *testing.T) {
	files := map[string]string{
		"env/BUILD.star": "load(\"@rules//environment:defs.star\", \"environment\")\n" +
			"environment(name = \"default\", packages = [])\nenvironment(name = \"other\", packages = [], visibility = [\"//visibility:public\"])\n",
		"defs.star": `
def _impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.run_shell(outputs = [out], command = "x", root = ctx.attr._root)
    return [DefaultInfo(files = depset([out]))]

own = rule(implementation = _impl, attrs = {"_root": attr.label(default = configuration_field(fragment = "build", name = "environment"))})
`,
		"BUILD.star": "load(\":defs.star\", \"own\")\nown(name = \"own\")\ngenrule(name = \"g\", outs = [\"o\"], cmd = \"x\")\n" +
			"genrule(name = \"chosen\", outs = [\"p\"], cmd = \"x\", environment = \"//env:other\")\n",
	}
	a := openWith(t, "[build]\nenvironment = \"//env:default\"\n", files)
	for name, want := range map[string]struct {
		env      string
		implicit bool
	}{"//:own": {"default", true}, "//:g": {"default", true}, "//:chosen": {"other", false}} {
		lt, err := analyze(t, a, name)
		if err != nil {
			t.Fatal(err)
		}
		root := a.Actions.Artifacts[a.Actions.Actions[lt.Actions[0]].Root].Path
		edge := slices.ContainsFunc(graph.Edges(lt.Loaded), func(e graph.Edge) bool {
			return e.Label == label.Label{Pkg: "env", Name: want.env} && e.Implicit == want.implicit
		})
		if root != "out/env/"+want.env || !edge {
			t.Errorf("%s: runs in %s; edges %v", name, root, graph.Edges(lt.Loaded))
		}
	}

	// No setting, no edge: the rule's own error says what to do.
	a = openWith(t, "", files)
	if _, err := analyze(t, a, "//:g"); err == nil || !strings.Contains(err.Error(), "set build.environment in tool.toml") {
		t.Errorf("got %v", err)
	}
	lt, err := a.Graph.Target(context.Background(), label.Label{Name: "g"})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range graph.Edges(lt) {
		if e.Attr == "environment" {
			t.Errorf("edge %v", e)
		}
	}
}

func TestConfigurationFieldErrors(t *testing.T) {
	for text, want := range map[string]string{
		`attr.label(default = configuration_field("build", "shell"))`:        `configuration_field: tool.toml holds no label build.shell; there are build.environment, deploy.disk_tools, deploy.emulator`,
		`attr.string(default = configuration_field("build", "environment"))`: `attr.string: default: <configuration_field build.environment> is a label`,
	} {
		a := openWith(t, "", map[string]string{
			"defs.star":  "r = rule(implementation = lambda ctx: [], attrs = {\"a\": " + text + "})\n",
			"BUILD.star": "load(\":defs.star\", \"r\")\nr(name = \"r\")\n",
		})
		if _, err := analyze(t, a, "//:r"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", text, err, want)
		}
	}
}
