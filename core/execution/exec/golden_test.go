package exec_test

import (
	"context"
	"slices"
	"strings"
	"testing"

	"tool/core/model/merkle"
	"tool/core/storage/store"
)

// TestGolden pins what each builtin makes of a fixed input: a builtin's name is
// part of action keys, so other output needs another version in the name.
func TestGolden(t *testing.T) {
	l := newLab(t, t.TempDir())
	g := newGraph()
	a := g.write("out/a", "alpha beta alphabet\n")
	b := g.write("out/b", "b\n")
	tree := g.builtin("merge@1", `{
		"files": [{"path": "usr/bin/x", "content": "x", "executable": true, "mode": "4755", "owner": "0:5"}, {"path": "etc/y", "content": "y"}],
		"symlinks": [{"path": "bin", "target": "usr/bin"}],
		"dirs": [{"path": "var/empty", "mode": "700", "owner": "7:8"}],
		"modes": [{"path": "etc/y", "mode": "600", "owner": "0:0"}]}`, "out/tree/")
	for _, c := range []struct {
		name, params, out string
		in                []int
		want              string
	}{
		{"write@1", `{"content":"hello\n"}`, "out/w", nil, "file 5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03/6"},
		{"write@1", `{"content":"hello\n","executable":true}`, "out/wx", nil, "executable file 5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03/6"},
		{"symlink@1", `{"target":"../x y"}`, "out/l", nil, "symlink ../x y"},
		{"template@1", `{"substitutions":{"alpha":"A","alphabet":"Z","beta":"alpha"}}`, "out/t", []int{a}, "file cadb12474fce12c7d6f31496501e8916276ccdf22bc04560762a3425a107cdf2/10"},
		{"template@1", `{"template":"out/a","substitutions":{"alpha":"A","alphabet":"Z","beta":"alpha"},"executable":true}`, "out/tx", []int{a, b}, "executable file cadb12474fce12c7d6f31496501e8916276ccdf22bc04560762a3425a107cdf2/10"},
		{"merge@1", `{}`, "out/m/", []int{tree}, "directory cbddd147b32eed555b2c0b89a991278eb61705aaa7ac7c976f812fb17316ede5/247"},
		{"merge@1", `{"mounts":[{"input":"out/tree","at":""},{"input":"out/a","at":"usr/share/a"},{"input":"out/tree","at":"opt/t"}],"files":[{"path":"etc/z","content":"z"}]}`, "out/mm/", []int{tree, a}, "directory edbe3d5df16d6dbef14c62310f4a3f71d0866da2a9932ecbc49358f1a0621533/326"},
		{"copy@1", `{}`, "out/c", []int{b}, "file 0263829989b6fd954f72baaf2fc64bc2e2f01d692d4de72986ea808f6e99813f/2"},
		{"copy@1", `{"from":"usr/bin/x"}`, "out/cx", []int{tree}, "executable file 2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881/1"},
		{"copy@1", `{"from":"usr"}`, "out/cd/", []int{tree}, "directory 6ec9b85b9c894c1364cf6ab842cee5d9e2059ecda96b7bf45692f1c3548cefdc/77"},
		{"cpio@1", `{}`, "out/cpio", []int{tree}, "file a1e779fb9051ffd8a6b50d5852308b4cd4d5df66bbf5b911f62064b29c536da9/1080"},
		{"blobs@2", `{}`, "out/blobs/", []int{a, b, tree}, "directory dfabef12ae57dec230281e6b9ce2d3eedd5c38ba69f0b8bbc1376a8b2695c58e/770"},
		{"blobs@2", `{"inputs":["out/a"]}`, "out/blobs1/", []int{a, b}, "directory 16a611667fe77d0f8ba778385a02593f2016402a49d21ab07acd3b0983cc688e/77"},
	} {
		r := l.build(g, g.builtin(c.name, c.params, c.out, c.in...))
		if got := describe(r.Wanted[0].Node); got != c.want {
			t.Errorf("%s %s\n got %s\nwant %s", c.name, c.params, got, c.want)
		}
	}
}

// TestMergeRefs shows that a union refers to what its parts and its own files
// refer to, though nothing scans it, and to nothing else that is visible.
func TestMergeRefs(t *testing.T) {
	l := newLab(t, t.TempDir())
	g := newGraph()
	at := func(id int) string { return g.Artifacts[id].Placeholder() }
	a, b, c, d, e := g.write("out/a", "a"), g.write("out/b", "b"), g.write("out/c", "c"), g.write("out/d", "d"), g.write("out/e", "e")
	usesA := g.builtin("concat@1", "uses "+at(a), "out/usesA", a)
	usesE := g.builtin("concat@1", "uses "+at(e), "out/usesE", e) // an input that is not mounted
	plain := g.write("out/plain", "nothing")
	union := g.builtin("merge@1", `{"mounts":[{"input":"out/usesA","at":"x"},{"input":"out/plain","at":"y"}],
		"files":[{"path":"f","content":"`+at(b)+`"}],"symlinks":[{"path":"l","target":"`+at(c)+`/x"}],
		"dirs":[{"path":"z"}],"modes":[{"path":"z","mode":"700"}]}`, "out/union/", a, b, c, d, plain, usesA, usesE)
	copied := g.builtin("copy@1", `{}`, "out/copied/", union)
	r := l.build(g, union, copied)
	var all []store.Ref
	for _, id := range []int{a, b, c, d, e, usesA, usesE} {
		w := l.build(g, id).Wanted[0]
		all = append(all, store.MakeRef(strings.TrimPrefix(g.Artifacts[id].Path, "out/"), w.Node, w.Refs))
	}
	want, err := l.st.Scan(context.Background(), r.Wanted[0].Node, all)
	if err != nil || len(want) != 3 {
		t.Fatalf("a scan found %q, %v", want, err)
	}
	for _, w := range r.Wanted {
		if !slices.Equal(w.Refs, want) {
			t.Errorf("got %q, want %q as a scan found", w.Refs, want)
		}
	}
}

func describe(n merkle.Node) string {
	s := n.Kind.String() + " "
	if n.Executable {
		s = "executable " + s
	}
	if n.Kind == merkle.Symlink {
		return s + n.Target
	}
	return s + n.Digest.String()
}

// TestTemplateWithReferences shows that a template may have store paths put in.
func TestTemplateWithReferences(t *testing.T) {
	l := newLab(t, t.TempDir())
	g := newGraph()
	lib := g.write("out/lib", "library")
	in := g.write("out/in", "use LIB\n")
	at := g.Artifacts[lib].Placeholder()
	r := l.build(g, g.builtin("template@1", `{"template":"out/in","substitutions":{"LIB":"`+at+`"}}`, "out/t", in, lib))
	if got := l.text(r.Wanted[0]); len(r.Wanted[0].Refs) != 1 || got != "use /tool/store/"+string(r.Wanted[0].Refs[0])+"\n" {
		t.Errorf("got %q, which refers to %q", got, r.Wanted[0].Refs)
	}
	for params, want := range map[string]string{
		`{"template":"out/no"}`: "template@1: out/no is not among the inputs",
		`{}`:                    "template@1 takes one input and one output, not 2 and 1",
	} {
		if _, err := l.try(g, g.builtin("template@1", params, "out/bad"+string(rune('0'+len(params))), in, lib)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %s", params, err, want)
		}
	}
}
