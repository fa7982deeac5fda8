package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"tool/core/model/digest"
	"tool/core/model/merkle"
)

func open(t testing.TB) *Store {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "s")
	s := openAt(t, dir)
	// t.TempDir cannot remove directories of mode 0555 as an ordinary user.
	t.Cleanup(func() { s.CAS().RemoveAll(dir) })
	return s
}

func openAt(t testing.TB, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func putFile(t testing.TB, s *Store, content string) merkle.Node {
	t.Helper()
	d, err := s.CAS().PutBytes([]byte(content))
	if err != nil {
		t.Fatal(err)
	}
	return merkle.Node{Kind: merkle.File, Digest: d}
}

// putTree stores files by path; a content that starts with "→" is a link.
func putTree(t testing.TB, s *Store, files map[string]string) merkle.Node {
	t.Helper()
	var b merkle.Builder
	for p, content := range files {
		n := merkle.Node{Kind: merkle.Symlink}
		var ok bool
		if n.Target, ok = strings.CutPrefix(content, "→"); !ok {
			n = putFile(t, s, content)
		}
		if err := b.Add(p, n); err != nil {
			t.Fatal(err)
		}
	}
	d, err := b.Write(s.CAS())
	if err != nil {
		t.Fatal(err)
	}
	return merkle.Node{Kind: merkle.Dir, Digest: d}
}

func add(t testing.TB, s *Store, name string, n merkle.Node, refs ...Ref) Ref {
	t.Helper()
	r, err := s.Add(t.Context(), Object{Name: name, Node: n, Refs: refs, Deriver: "//:" + name})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// chain makes libc ← libssl ← server, and a tool that needs libc.
func chain(t testing.TB, s *Store) (libc, ssl, server, tool Ref) {
	t.Helper()
	libc = add(t, s, "libc", putTree(t, s, map[string]string{"lib/libc.so": "libc", "share/doc": "common"}))
	ssl = add(t, s, "libssl", putTree(t, s, map[string]string{"lib/libssl.so": "ssl " + string(libc), "share/doc": "common"}), libc)
	server = add(t, s, "server", putTree(t, s, map[string]string{"bin/server": "server " + string(ssl)}), ssl, libc)
	tool = add(t, s, "tool", putFile(t, s, "tool "+string(libc)), libc)
	return libc, ssl, server, tool
}

func TestRef(t *testing.T) {
	file := merkle.Node{Kind: merkle.File, Digest: digest.Of([]byte("x"))}
	exe := file
	exe.Executable = true
	dir := merkle.Node{Kind: merkle.Dir, Digest: file.Digest}
	a, b := MakeRef("a", file, nil), MakeRef("b", file, nil)
	// The encoding is for ever: a path on a machine must not change.
	if want := Ref("9csw83s2rclzb0p133y9vgqiayjjx6px-a"); a != want {
		t.Errorf("MakeRef = %s, want %s", a, want)
	}
	all := []Ref{a, b, MakeRef("a", exe, nil), MakeRef("a", dir, nil), MakeRef("a", file, []Ref{a}), MakeRef("a", file, []Ref{b}), MakeRef("a", file, []Ref{a, b})}
	hashes := map[string]bool{}
	for _, r := range all {
		hashes[r.Hash()] = true
		if p, err := ParseRef(string(r)); err != nil || p != r || p.Name() != r.Name() {
			t.Errorf("ParseRef(%s) = %s, %v", r, p, err)
		}
	}
	if len(hashes) != len(all) {
		t.Errorf("%d hashes of %d objects", len(hashes), len(all))
	}
	if MakeRef("a", file, []Ref{a, b}) != MakeRef("a", file, []Ref{b, a, b}) {
		t.Error("the order or number of references matters")
	}
	h := a.Hash()
	for s, ok := range map[string]bool{
		h + "-x": true, h + "-a+b._-?=Z9": true, h + "-" + strings.Repeat("n", 200): true,
		"": false, h: false, h + "-": false, h + "x": false, h + "-.x": false, h + "-..": false, h + "-a/b": false, h + "-a b": false, h + "-ü": false, h + "-a\x00": false,
		h + "-" + strings.Repeat("n", 201): false, "e" + h[1:] + "-x": false, strings.ToUpper(h) + "-x": false, h[1:] + "-x": false, "../../../../../../../../../../../-x": false,
	} {
		if _, err := ParseRef(s); (err == nil) != ok {
			t.Errorf("ParseRef(%q): %v", s, err)
		}
	}
}

func TestObjects(t *testing.T) {
	s := open(t)
	libc, ssl, server, tool := chain(t, s)
	o, err := s.Get(ssl)
	if err != nil || o.Name != "libssl" || o.Deriver != "//:libssl" || !reflect.DeepEqual(o.Refs, []Ref{libc}) || o.Ref != ssl || o.Size == 0 {
		t.Errorf("Get = %+v, %v", o, err)
	}
	if again := add(t, s, "libssl", o.Node, libc, libc); again != ssl {
		t.Errorf("added again as %s", again)
	}
	for name, o := range map[string]Object{
		"unknown reference": {Name: "x", Node: o.Node, Refs: []Ref{MakeRef("nope", o.Node, nil)}},
		"no reference":      {Name: "x", Node: o.Node, Refs: []Ref{"../../etc/passwd"}},
		"bad name":          {Name: "../x", Node: o.Node},
		"missing blob":      {Name: "x", Node: merkle.Node{Kind: merkle.File, Digest: digest.Of([]byte("nope"))}},
		"link":              {Name: "x", Node: merkle.Node{Kind: merkle.Symlink, Target: "/"}},
		"nothing":           {Name: "x"},
	} {
		if r, err := s.Add(t.Context(), o); err == nil {
			t.Errorf("%s: added as %s", name, r)
		}
	}
	incomplete := putTree(t, s, map[string]string{"d/f": "gone soon"})
	s.CAS().Remove(digest.Of([]byte("gone soon")))
	if r, err := s.Add(t.Context(), Object{Name: "x", Node: incomplete}); err == nil {
		t.Errorf("an incomplete tree was added as %s", r)
	}

	check := func(what string, got []Ref, err error, want ...Ref) {
		t.Helper()
		if !strings.HasPrefix(what, "why") {
			slices.Sort(want)
		}
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%s = %v, %v; want %v", what, got, err, want)
		}
	}
	got, err := s.Closure(server)
	check("closure", got, err, libc, ssl, server)
	got, err = s.Closure(tool, ssl)
	check("closure of two", got, err, libc, ssl, tool)
	got, err = s.Referrers(libc)
	check("referrers", got, err, ssl, server, tool)
	got, err = s.WhyDepends(server, libc)
	check("why", got, err, server, libc)
	got, err = s.WhyDepends(libc, server)
	check("why not", got, err)
	got, err = s.WhyDepends(tool, tool)
	check("why itself", got, err, tool)
	if _, err := s.Closure(MakeRef("nope", o.Node, nil)); !errors.As(err, new(*NotRegisteredError)) {
		t.Errorf("closure of nothing: %v", err)
	}
	a, _ := s.Size(libc)
	b, _ := s.Size(ssl)
	both, err := s.ClosureSize(ssl)
	shared := int64(len("common")) // and the identical directory share/
	if err != nil || both >= a+b-shared || both <= max(a, b) {
		t.Errorf("sizes %d and %d, together %d, %v", a, b, both, err)
	}
	all, err := s.Objects()
	if err != nil || len(all) != 4 {
		t.Errorf("Objects: %d, %v", len(all), err)
	}
	info, err := s.Info()
	if err != nil || info.Objects != 4 || info.Blobs == 0 || info.Bytes == 0 {
		t.Errorf("Info = %+v, %v", info, err)
	}
}

func TestDamagedMetadata(t *testing.T) {
	s := open(t)
	libc, ssl, _, _ := chain(t, s)
	good, err := os.ReadFile(s.objectPath(libc))
	if err != nil {
		t.Fatal(err)
	}
	other, _ := os.ReadFile(s.objectPath(ssl))
	for name, b := range map[string][]byte{"empty": nil, "half": good[:len(good)/2], "another's": other, "zeros": make([]byte, len(good)), "version": []byte(strings.Replace(string(good), `"version":1`, `"version":2`, 1))} {
		os.WriteFile(s.objectPath(libc), b, 0o644)
		if _, err := s.Get(libc); !errors.As(err, new(*NotRegisteredError)) {
			t.Errorf("%s: %v", name, err)
		}
	}
	add(t, s, "libc", putTree(t, s, map[string]string{"lib/libc.so": "libc", "share/doc": "common"}))
	if _, err := s.Get(libc); err != nil {
		t.Errorf("added again: %v", err)
	}
}

func TestRealise(t *testing.T) {
	s := open(t)
	libc, _, server, tool := chain(t, s)
	for r, f := range map[Ref]string{libc: "lib/libc.so", server: "bin/server", tool: ""} {
		for range 2 {
			p, err := s.Realise(t.Context(), r)
			if err != nil || p != s.Path(r) {
				t.Fatalf("Realise = %s, %v", p, err)
			}
			if _, err := os.ReadFile(filepath.Join(p, f)); err != nil {
				t.Error(err)
			}
		}
	}
	if target, _ := os.Readlink(s.Path(libc)); !strings.HasPrefix(target, "../trees/") {
		t.Errorf("links to %s", target)
	}
	// The trees are a cache.
	s.CAS().EachTree(func(d digest.Digest, _ time.Time) error { return s.CAS().RemoveTree(d) })
	os.Remove(s.Path(tool))
	os.Symlink("/etc/passwd", s.Path(tool))
	for _, r := range []Ref{libc, tool} {
		p, err := s.Realise(t.Context(), r)
		if err != nil {
			t.Error(err)
		}
		if fi, err := os.Stat(p); err != nil || fi.IsDir() != (r == libc) || fi.Size() == 0 {
			t.Errorf("%s: %v", p, err)
		}
	}
	exe := putFile(t, s, "#!/bin/sh")
	exe.Executable = true
	p, err := s.Realise(t.Context(), add(t, s, "script", exe))
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(p); err != nil || fi.Mode() != 0o555 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
}

func TestScan(t *testing.T) {
	s := open(t)
	var refs []Ref
	for i := range 6 {
		refs = append(refs, MakeRef(fmt.Sprint("r", i), putFile(t, s, fmt.Sprint(i)), nil))
	}
	alphabetical := strings.Repeat("abcdf0123", 9)
	tree := putTree(t, s, map[string]string{
		"a":       "x" + refs[0].Hash(),
		"b/c":     alphabetical + refs[1].Hash() + alphabetical, // inside a longer run
		"l":       "→/tool/store/" + string(refs[2]) + "/lib",
		"big":     strings.Repeat("\x00", scanBuffer-10) + refs[3].Hash(), // over the boundary
		"partial": refs[4].Hash()[:31] + "!" + refs[4].Hash()[1:],
	})
	got, err := s.Scan(t.Context(), tree, refs)
	want := slices.Clone(refs[:4])
	slices.Sort(want)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("Scan = %v, %v; want %v", got, err, want)
	}
	for name, c := range []struct {
		n    merkle.Node
		want int
	}{{merkle.Node{Kind: merkle.Symlink, Target: string(refs[5])}, 1}, {putFile(t, s, string(refs[5])), 1}, {putFile(t, s, ""), 0}} {
		if got, err := s.Scan(t.Context(), c.n, refs); err != nil || len(got) != c.want {
			t.Errorf("%d: %v, %v", name, got, err)
		}
	}
	missing := merkle.Node{Kind: merkle.Dir, Digest: digest.Of([]byte("missing"))}
	if got, err := s.Scan(t.Context(), missing, nil); err != nil || got != nil {
		t.Errorf("no candidates: %v, %v", got, err)
	}
	if _, err := s.Scan(t.Context(), missing, refs); err == nil {
		t.Error("a missing tree was scanned")
	}
}

// FuzzScan compares the fast search, fed in small pieces, with a plain one.
func FuzzScan(f *testing.F) {
	a, b := MakeRef("a", merkle.Node{}, nil), MakeRef("b", merkle.Node{}, nil)
	f.Add([]byte("x"+string(a)+b.Hash()), uint8(3))
	f.Add([]byte(a.Hash()[:31]+a.Hash()), uint8(40))
	f.Add([]byte(a.Hash()[16:]+a.Hash()+a.Hash()[:16]+"-"+b.Hash()[1:]), uint8(0))
	f.Fuzz(func(t *testing.T, data []byte, piece uint8) {
		// Letters stand for whole hashes, so that the fuzzer can place them.
		text := strings.NewReplacer("A", a.Hash(), "B", b.Hash()).Replace(string(data))
		var want []Ref
		for _, r := range []Ref{a, b} {
			if strings.Contains(text, r.Hash()) {
				want = append(want, r)
			}
		}
		slices.Sort(want)
		find := newFinder([]Ref{a, b})
		if err := find.stream(t.Context(), strings.NewReader(text), make([]byte, HashLen+int(piece))); err != nil {
			t.Fatal(err)
		}
		if got := find.found(); !slices.Equal(got, want) {
			t.Errorf("in %q: found %v, want %v", text, got, want)
		}
	})
}

func FuzzDecodeObject(f *testing.F) {
	o := &Object{Name: "x", Node: merkle.Node{Kind: merkle.File, Digest: digest.Empty, Executable: true}}
	o.Ref = MakeRef(o.Name, o.Node, nil)
	b, err := encodeObject(o)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(o.Ref), b)
	f.Add("", []byte(`{"version":1,"kind":"file"}`))
	f.Fuzz(func(t *testing.T, ref string, b []byte) {
		r, err := ParseRef(ref)
		if err != nil {
			return
		}
		if o, err := decodeObject(r, b); err == nil && MakeRef(o.Name, o.Node, o.Refs) != r {
			t.Errorf("%q is believed to be %s", b, r)
		}
	})
}
