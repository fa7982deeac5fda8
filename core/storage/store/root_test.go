package store

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"tool/core/model/digest"
)

func TestRoots(t *testing.T) {
	s := open(t)
	libc, _, _, _ := chain(t, s)
	names := []string{"build///cluster:marathon#3", "../../escape", ".", "..", "a/b", "a%2Fb", "a b\x00\n", "ü", strings.Repeat("long/", 100) + "a", strings.Repeat("long/", 100) + "b"}
	for _, n := range names {
		if err := s.AddRoot(Root{Name: n, Kind: "build", Refs: []Ref{libc}, Keep: []digest.Digest{digest.Empty}, Label: "//:x", Created: time.Unix(1, 0).UTC(), Workspace: "/w"}); err != nil {
			t.Error(err)
		}
	}
	roots, err := s.Roots()
	var got []string
	for _, r := range roots {
		got = append(got, r.Name)
	}
	slices.Sort(names)
	if err != nil || !slices.Equal(got, names) {
		t.Errorf("Roots = %q, %v", got, err)
	}
	want := Root{Name: roots[0].Name, Kind: "build", Refs: []Ref{libc}, Keep: []digest.Digest{digest.Empty}, Label: "//:x", Created: time.Unix(1, 0).UTC(), Workspace: "/w"}
	if !reflect.DeepEqual(roots[0], want) {
		t.Errorf("got  %+v\nwant %+v", roots[0], want)
	}
	if entries, _ := os.ReadDir(filepath.Join(s.Dir(), "roots")); len(entries) != len(names) {
		t.Errorf("%d files of %d roots", len(entries), len(names))
	}
	before, _ := os.Stat(s.RootFile(names[0]))
	want.Created = time.Unix(2, 0)
	if err := s.AddRoot(want); err != nil {
		t.Error(err)
	}
	if after, _ := os.Stat(s.RootFile(names[0])); !os.SameFile(before, after) {
		t.Error("a root that differs in its time only was written again")
	}
	if err := s.AddRoot(Root{Name: "x", Refs: []Ref{MakeRef("nope", putFile(t, s, "x"), nil)}}); err == nil {
		t.Error("a root of an object that is not there")
	}
	if err := s.AddRoot(Root{}); err == nil {
		t.Error("a root without a name")
	}
	for _, n := range names {
		if err := s.RemoveRoot(n); err != nil {
			t.Error(err)
		}
	}
	if err := s.RemoveRoot(names[0]); err == nil {
		t.Error("removed twice")
	}
	os.WriteFile(s.RootFile("broken"), []byte("{"), 0o644)
	if _, err := s.Roots(); err == nil {
		t.Error("a root that cannot be read was passed over")
	}
	if _, err := s.PlanGC(t.Context(), GCOptions{}); err == nil {
		t.Error("a collection was planned without knowing all roots")
	}
}

func TestGenerations(t *testing.T) {
	s := open(t)
	libc, ssl, server, tool := chain(t, s)
	for i, c := range []struct {
		r    Ref
		want string
	}{{libc, "p#1"}, {libc, "p#1"}, {ssl, "p#2"}, {server, "p#3"}, {libc, "p#4"}} {
		name, err := s.AddNumberedRoot("p", Root{Refs: []Ref{c.r}, Created: time.Unix(int64(i), 0)}, 3)
		if err != nil || name != c.want {
			t.Errorf("%d: %s, %v; want %s", i, name, err, c.want)
		}
	}
	for _, n := range []string{"p#x", "p#", "pp#1", "p", "p#10"} {
		if err := s.AddRoot(Root{Name: n, Refs: []Ref{tool}}); err != nil {
			t.Fatal(err)
		}
	}
	removed, err := s.Rotate("p#", 1)
	if want := []string{"p#2", "p#3", "p#4"}; err != nil || !slices.Equal(removed, want) {
		t.Errorf("Rotate removed %q, %v; want %q", removed, err, want)
	}
	if roots, _ := s.Roots(); len(roots) != 5 {
		t.Errorf("%d roots stay", len(roots))
	}
	if _, err := s.Rotate("p", -1); err == nil {
		t.Error("kept -1")
	}
}
