package merkle

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"tool/core/model/digest"
)

// memory is a GetPutter in a map. It counts reads.
type memory struct {
	m     map[digest.Digest][]byte
	reads map[digest.Digest]int
}

func newMemory() *memory {
	return &memory{map[digest.Digest][]byte{}, map[digest.Digest]int{}}
}

func (m *memory) GetDirectory(d digest.Digest) (*Directory, error) {
	m.reads[d]++
	b, ok := m.m[d]
	if !ok {
		return nil, fmt.Errorf("no directory %s", d)
	}
	return Decode(b)
}

func (m *memory) PutDirectory(d *Directory) (digest.Digest, error) {
	if err := d.Validate(); err != nil {
		return digest.Digest{}, err
	}
	b := d.Encode()
	m.m[digest.Of(b)] = b
	return digest.Of(b), nil
}

func file(content string) Node { return Node{Kind: File, Digest: digest.Of([]byte(content))} }
func exe(content string) Node {
	n := file(content)
	n.Executable = true
	return n
}
func link(target string) Node { return Node{Kind: Symlink, Target: target} }

// tree writes a tree of path → node; a path ending in "/" is an empty directory.
func tree(t *testing.T, m *memory, nodes map[string]Node) digest.Digest {
	t.Helper()
	var b Builder
	for p, n := range nodes {
		var err error
		if dir, ok := strings.CutSuffix(p, "/"); ok {
			_, err = b.Mkdir(dir)
		} else {
			err = b.Add(p, n)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	d, err := b.Write(m)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func list(t *testing.T, m *memory, root digest.Digest) map[string]Node {
	t.Helper()
	out := map[string]Node{}
	err := Walk(m, root, func(p string, n Node) error {
		if n.Kind == Dir {
			p, n = p+"/", Node{}
		}
		out[p] = n
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestBuilderRefuses(t *testing.T) {
	var b Builder
	for _, p := range []string{"f", "d/f"} {
		if err := b.Add(p, file("x")); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Add("tree", Node{Kind: Dir, Digest: dA}); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{
		"", ".", "..", "/", "/etc/passwd", "../x", "a/../b", "a/./b", "a//b", "a/", "a/..", "d/../../x",
		"a\x00b", strings.Repeat("n", 256), "f", "f/x", "d", "d/f", "d/f/g", "tree", "tree/x",
	} {
		if err := b.Add(p, file("y")); err == nil {
			t.Errorf("Add(%q) was accepted", p)
		}
	}
	for _, p := range []string{"..", "../x", "/", "/x", "a/../..", "f", "f/x", "tree/x"} {
		if _, err := b.Mkdir(p); err == nil {
			t.Errorf("Mkdir(%q) was accepted", p)
		}
	}
	if err := b.Add("nothing", Node{}); err == nil {
		t.Error("a node without a kind was accepted")
	}
}

func TestBuilderWritesAndFinds(t *testing.T) {
	m := newMemory()
	want := map[string]Node{"a/": {}, "a/b/": {}, "a/b/f": file("1"), "a/x": exe("2"), "l": link("/a"), "empty/": {}}
	in := map[string]Node{"a/b/f": file("1"), "a/x": exe("2"), "l": link("/a"), "empty/": {}}
	root := tree(t, m, in)
	if got := list(t, m, root); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	for p, ok := range map[string]bool{"": true, ".": true, "a": true, "a/b/f": true, "l": true, "l/b": false, "a/../a": false, "nope": false, "a/x/y": false} {
		if _, found, err := Find(m, root, p); err != nil || found != ok {
			t.Errorf("Find(%q) = %v, %v", p, found, err)
		}
	}
	at, err := At(m, "usr/bin", Node{Kind: Dir, Digest: root})
	if err != nil {
		t.Fatal(err)
	}
	if n, ok, _ := Find(m, at, "usr/bin/a/x"); !ok || n != exe("2") {
		t.Errorf("At: found %v, %v", n, ok)
	}
	if _, err := At(m, "", file("x")); err == nil {
		t.Error("a file became a root")
	}
}

func TestMerge(t *testing.T) {
	suid := file("1")
	suid.Props.Mode = 0o4755
	for name, c := range map[string]struct {
		trees []map[string]Node
		want  map[string]Node
		paths []string // of collisions
		why   string
	}{
		"none":            {nil, map[string]Node{}, nil, ""},
		"one":             {[]map[string]Node{{"a": file("1")}}, map[string]Node{"a": file("1")}, nil, ""},
		"disjoint":        {[]map[string]Node{{"a": file("1")}, {"b": link("a")}}, map[string]Node{"a": file("1"), "b": link("a")}, nil, ""},
		"directories":     {[]map[string]Node{{"d/a": file("1")}, {"d/b": file("2")}, {"d/": {}}}, map[string]Node{"d/": {}, "d/a": file("1"), "d/b": file("2")}, nil, ""},
		"same file":       {[]map[string]Node{{"a": file("1"), "x": file("x")}, {"a": file("1"), "y": file("y")}}, map[string]Node{"a": file("1"), "x": file("x"), "y": file("y")}, nil, ""},
		"contents":        {[]map[string]Node{{"d/a": file("1")}, {"d/a": file("2")}}, nil, []string{"d/a"}, "different contents"},
		"modes":           {[]map[string]Node{{"a": file("1")}, {"a": exe("1")}}, nil, []string{"a"}, "different modes"},
		"properties":      {[]map[string]Node{{"a": file("1")}, {"a": suid}}, nil, []string{"a"}, "different modes"},
		"links":           {[]map[string]Node{{"a": link("x")}, {"a": link("y")}}, nil, []string{"a"}, "links to x and to y"},
		"file and link":   {[]map[string]Node{{"a": file("1")}, {"a": link("y")}}, nil, []string{"a"}, "a file and a symlink"},
		"file, directory": {[]map[string]Node{{"a": file("1")}, {"a/b": file("1")}}, nil, []string{"a"}, "a file and a directory"},
		"directory, file": {[]map[string]Node{{"a/b": file("1")}, {"a": file("1")}}, nil, []string{"a"}, "a directory and a file"},
		"several":         {[]map[string]Node{{"b/x": file("1"), "a/x": file("1"), "c": file("1")}, {"b/x": file("2"), "a/x": file("2"), "c": file("2")}}, nil, []string{"c", "a/x", "b/x"}, "different contents"},
	} {
		m := newMemory()
		var mounts []Mount
		for i, nodes := range c.trees {
			mounts = append(mounts, Mount{fmt.Sprintf("//:t%d", i), tree(t, m, nodes)})
		}
		root, err := Merge(m, mounts)
		if c.paths == nil {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			} else if got := list(t, m, root); !reflect.DeepEqual(got, c.want) {
				t.Errorf("%s: got %v, want %v", name, got, c.want)
			}
			continue
		}
		joined, ok := err.(interface{ Unwrap() []error })
		if !ok {
			t.Errorf("%s: error %v", name, err)
			continue
		}
		var paths []string
		for _, e := range joined.Unwrap() {
			var col *Collision
			if !errors.As(e, &col) || !strings.Contains(col.Error(), c.why) || col.A != "//:t0" || col.B != "//:t1" {
				t.Errorf("%s: %v", name, e)
				continue
			}
			paths = append(paths, col.Path)
		}
		if !reflect.DeepEqual(paths, c.paths) {
			t.Errorf("%s: collisions at %q, want %q", name, paths, c.paths)
		}
	}
}

func TestMergeReadsOnlyWhatDiffers(t *testing.T) {
	m := newMemory()
	same := map[string]Node{"same/f": file("1")}
	a := tree(t, m, map[string]Node{"same/f": file("1"), "a": file("a")})
	b := tree(t, m, map[string]Node{"same/f": file("1"), "b": file("b")})
	sub, _, _ := Find(m, tree(t, m, same), "same")
	clear(m.reads)
	if _, err := Merge(m, []Mount{{"a", a}, {"b", b}, {"a again", a}}); err != nil {
		t.Fatal(err)
	}
	if m.reads[sub.Digest] != 0 || m.reads[a] != 1 {
		t.Errorf("read the common subtree %d times, the repeated tree %d times", m.reads[sub.Digest], m.reads[a])
	}
}

func TestDiff(t *testing.T) {
	m := newMemory()
	a := tree(t, m, map[string]Node{"same/f": file("1"), "gone/f": file("1"), "mode": file("1"), "kind": file("1"), "d/f": file("1"), "d/g": file("1"), "l": link("a")})
	b := tree(t, m, map[string]Node{"same/f": file("1"), "new": file("1"), "mode": exe("1"), "kind/f": file("1"), "d/f": file("2"), "d/g": file("1"), "l": link("b")})
	sub, _, _ := Find(m, a, "same")
	clear(m.reads)
	var got []string
	for c, err := range Diff(m, a, b) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprintf("%s: %s → %s", c.Path, c.Old.Kind, c.New.Kind))
	}
	want := []string{"d/f: file → file", "gone: directory → nothing", "kind: file → directory", "l: symlink → symlink", "mode: file → file", "new: nothing → file"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if m.reads[sub.Digest] != 0 {
		t.Error("an equal subtree was read")
	}
	for range Diff(m, a, a) {
		t.Error("a tree differs from itself")
	}
	for range Diff(m, a, b) { // stopping early must not go on
		break
	}
	n := 0
	for _, err := range Diff(m, a, digest.Of([]byte("missing"))) {
		n++
		if err == nil {
			t.Error("a missing tree is no error")
		}
	}
	if n != 1 {
		t.Errorf("%d changes for a missing tree", n)
	}
}
