package pack

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"tool/core/model/digest"
	"tool/core/model/merkle"
	"tool/core/storage/cas"
	"tool/core/storage/store"
)

func open(t testing.TB) *store.Store {
	t.Helper()
	s, err := store.Open(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.Close()
		filepath.WalkDir(s.Dir(), func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() { // trees forbid writing, even to who removes them
				os.Chmod(p, 0o755)
			}
			return nil
		})
	})
	return s
}

// object adds a tree with files given as path to content; a content that
// begins with "x " is executable.
func object(t testing.TB, s *store.Store, name string, files map[string]string, refs ...store.Ref) store.Ref {
	t.Helper()
	var b merkle.Builder
	for p, c := range files {
		d, err := s.CAS().PutBytes([]byte(c))
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Add(p, merkle.Node{Kind: merkle.File, Digest: d, Executable: strings.HasPrefix(c, "x ")}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Add("link", merkle.Node{Kind: merkle.Symlink, Target: "usr"}); err != nil {
		t.Fatal(err)
	}
	tree, err := b.Write(s.CAS())
	if err != nil {
		t.Fatal(err)
	}
	ref, err := s.Add(t.Context(), store.Object{Name: name, Node: merkle.Node{Kind: merkle.Dir, Digest: tree}, Refs: refs, Deriver: "//:" + name})
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func fleet(t testing.TB, s *store.Store) (old, new store.Ref) {
	libc := object(t, s, "libc", map[string]string{"usr/lib/libc.so": "x libc", "usr/share/empty": ""})
	big := object(t, s, "big", map[string]string{"usr/bin/big": "x " + strings.Repeat("big ", 600<<10)}, libc)
	zk1 := object(t, s, "zk", map[string]string{"usr/bin/zk": "x one"}, libc)
	zk2 := object(t, s, "zk", map[string]string{"usr/bin/zk": "x two"}, libc)
	old = object(t, s, "system", map[string]string{"usr/lib/libc.so": "x libc", "usr/bin/zk": "x one", "etc/a": "a", "system.json": "1"}, libc, zk1, big)
	new = object(t, s, "system", map[string]string{"usr/lib/libc.so": "x libc", "usr/bin/zk": "x two", "etc/a": "a", "system.json": "2"}, libc, zk2, big)
	return old, new
}

func TestRoundTrip(t *testing.T) {
	from, to := open(t), open(t)
	old, new := fleet(t, from)
	var b bytes.Buffer
	if err := Write(t.Context(), &b, from, []store.Ref{old}, nil); err != nil {
		t.Fatal(err)
	}
	got, err := Read(t.Context(), &b, to)
	if err != nil || got.Objects[len(got.Objects)-1] != old || len(got.Objects) != 4 {
		t.Fatalf("%+v, %v", got, err)
	}
	path, err := to.Realise(t.Context(), old)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := os.ReadFile(filepath.Join(path, "usr/bin/zk")); err != nil || string(c) != "x one" {
		t.Errorf("%q, %v", c, err)
	}
	if o, err := to.Get(old); err != nil || o.Deriver != "//:system" {
		t.Errorf("%+v, %v", o, err)
	}

	l, err := Need(t.Context(), from, []store.Ref{new}, []store.Ref{old})
	if err != nil {
		t.Fatal(err)
	}
	for _, blob := range l.Blobs {
		if to.CAS().Has(blob.Digest) {
			t.Errorf("%s is there already", blob.Digest)
		}
	}
	if len(l.Objects) != 2 || l.Objects[1] != new {
		t.Errorf("objects %v", l.Objects)
	}
	b.Reset()
	var done, total int64
	if err := WriteList(t.Context(), &b, from, l, func(d, t int64) { done, total = d, t }); err != nil {
		t.Fatal(err)
	}
	if done != total || total != l.Bytes() || b.Len() > 2000 {
		t.Errorf("%d of %d bytes, %d packed", done, total, b.Len())
	}
	if _, err := Read(t.Context(), &b, to); err != nil {
		t.Fatal(err)
	}
	if report, err := to.Verify(t.Context(), false, nil); err != nil || len(report.Problems) > 0 {
		t.Errorf("%+v, %v", report, err)
	}
	if l, err := Need(t.Context(), from, []store.Ref{new}, []store.Ref{new}); err != nil || len(l.Blobs)+len(l.Objects) > 0 {
		t.Errorf("%+v, %v", l, err)
	}
}

// TestOrder: children come before parents and referents before referrers.
func TestOrder(t *testing.T) {
	s := open(t)
	old, new := fleet(t, s)
	l, err := Need(t.Context(), s, []store.Ref{old, new}, nil)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[digest.Digest]bool{}
	for _, b := range l.Blobs {
		if seen[b.Digest] {
			t.Errorf("%s twice", b.Digest)
		}
		seen[b.Digest] = true
		if dir, err := s.CAS().GetDirectory(b.Digest); err == nil {
			dir.Entries(func(name string, n merkle.Node) error {
				if n.Kind != merkle.Symlink && !seen[n.Digest] {
					t.Errorf("%s comes after its directory", name)
				}
				return nil
			})
		}
	}
	for i, r := range l.Objects {
		o, err := s.Get(r)
		if err != nil {
			t.Fatal(err)
		}
		for _, to := range o.Refs {
			if !slices.Contains(l.Objects[:i], to) {
				t.Errorf("%s comes before %s", r, to)
			}
		}
	}
}

// TestBrokenOff: every truncation is an error, what came stays, and the rest
// makes it whole.
func TestBrokenOff(t *testing.T) {
	from := open(t)
	ref := object(t, from, "a", map[string]string{"f": "one", "d/g": "x two"}, object(t, from, "b", map[string]string{"h": "three"}))
	var b bytes.Buffer
	if err := Write(t.Context(), &b, from, []store.Ref{ref}, nil); err != nil {
		t.Fatal(err)
	}
	l, _ := Need(t.Context(), from, []store.Ref{ref}, nil)
	shared := open(t)
	for n := range b.Len() {
		to := shared
		if n%32 == 0 {
			to = open(t)
		}
		if _, err := Read(t.Context(), bytes.NewReader(b.Bytes()[:n]), to); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("%d of %d bytes: %v", n, b.Len(), err)
		}
		if n%32 != 0 {
			continue
		}
		rest := l.Filter(func(d digest.Digest) bool { return !to.CAS().Has(d) }, nil)
		var second bytes.Buffer
		if err := WriteList(t.Context(), &second, from, rest, nil); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(t.Context(), &second, to); err != nil {
			t.Fatalf("the rest after %d bytes: %v", n, err)
		}
		if _, err := to.Realise(t.Context(), ref); err != nil {
			t.Fatal(err)
		}
	}
}

// raw compresses frames that a writer would not write.
func raw(frames string) []byte {
	var b bytes.Buffer
	z, _ := zstd.NewWriter(&b)
	z.Write([]byte(frames))
	z.Close()
	return b.Bytes()
}

func TestHostile(t *testing.T) {
	d := digest.Of([]byte("abc"))
	hash := string(d.Hash[:])
	s := open(t)
	for frames, want := range map[string]string{
		"":                              "broke off",
		"TOOLPACK2\n":                   "begins with",
		magic + "q":                     "unknown kind",
		magic + "b" + hash + "\x03abd":  "want content with digest",
		magic + "b" + hash + "\x04abcd": "want content with digest",
		magic + "b" + hash + "\x03ab":   "broke off",
		magic + "b" + hash + "\xff\xff\xff\xff\xff\xff\x7f": "larger than",
		magic + "o\xff\xff\xff\xff\x7f":                     "larger than",
		magic + "o\x02{}":                                   "unknown kind",
		magic + "e\x02":                                     "says that it has 2",
		magic + "e\x00b":                                    "follows its end",
		magic + "o\x05nope!":                                "record",
		magic + fmt.Sprintf("o\x78%-120s", `{"name":"../x","kind":"file","digest":"`+d.Hex()+`/3"}`) + "e\x01": "starts with a dot",
		magic + fmt.Sprintf("o\x78%-120s", `{"name":"x","kind":"file","digest":"`+d.Hex()+`/3"}`) + "e\x01":    "not in the store",
	} {
		_, err := Read(t.Context(), bytes.NewReader(raw(frames)), s)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", frames, err, want)
		}
		if s.CAS().Has(digest.Of([]byte("abd"))) {
			t.Errorf("%q: a blob under a wrong name stayed", frames)
		}
	}
	// A file cannot claim to be a tree.
	frames := magic + "b" + hash + "\x03abc" + fmt.Sprintf("o\x78%-120s", `{"name":"x","kind":"directory","digest":"`+d.Hex()+`/3"}`) + "e\x02"
	if _, err := Read(t.Context(), bytes.NewReader(raw(frames)), s); err == nil {
		t.Error("a file passed for a tree")
	}
}

func FuzzRead(f *testing.F) {
	s := open(f)
	ref := object(f, s, "a", map[string]string{"f": "one", "d/g": "x two"})
	var b bytes.Buffer
	if err := Write(f.Context(), &b, s, []store.Ref{ref}, nil); err != nil {
		f.Fatal(err)
	}
	z, err := zstd.NewReader(&b)
	if err != nil {
		f.Fatal(err)
	}
	plain, err := io.ReadAll(z)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(plain)
	f.Add([]byte(magic))
	to := open(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Read(t.Context(), bytes.NewReader(raw(string(b))), to)
		if err == nil && got.Blobs == 0 && len(got.Objects) == 0 && len(b) > len(magic)+2 {
			t.Errorf("%q passed as empty", b)
		}
		for _, r := range got.Objects {
			if _, err := to.Realise(t.Context(), r); err != nil && !errors.Is(err, os.ErrExist) && !cas.IsFull(err) {
				t.Errorf("an object came that is not whole: %v", err)
			}
		}
	})
}
