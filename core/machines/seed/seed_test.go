package seed

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tool/core/machines/facts"
	"tool/core/machines/pack"
	"tool/core/model/digest"
	"tool/core/model/merkle"
	"tool/core/storage/store"
)

func open(t testing.TB) *store.Store {
	t.Helper()
	s, err := store.Open(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func content(t testing.TB, s *store.Store) Content {
	t.Helper()
	d, err := s.CAS().PutBytes([]byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	ref, err := s.Add(t.Context(), store.Object{Name: "system", Node: merkle.Node{Kind: merkle.File, Digest: d}})
	if err != nil {
		t.Fatal(err)
	}
	agent := filepath.Join(t.TempDir(), "agent")
	if err := os.WriteFile(agent, []byte(strings.Repeat("agent ", 3000)), 0o755); err != nil {
		t.Fatal(err)
	}
	return Content{
		Facts:      &facts.Facts{Machine: "m", MachineID: strings.Repeat("0", 32)},
		Generation: 1, Label: "//c:m", Ref: ref, Agent: agent,
	}
}

func TestRoundTrip(t *testing.T) {
	s := open(t)
	c := content(t, s)
	path := filepath.Join(t.TempDir(), "seed")
	h, err := Write(t.Context(), path, s, c)
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Size()%Align != 0 || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi, err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seed, err := Open(f)
	if err != nil || seed.Header.ID != h.ID || seed.Header.Ref != c.Ref || seed.Facts().Machine != "m" {
		t.Fatalf("%+v, %v", seed, err)
	}
	want, _ := os.ReadFile(c.Agent)
	if got, err := io.ReadAll(seed.Agent()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("agent of %d bytes, %v", len(got), err)
	}
	to := open(t)
	if _, err := pack.Read(t.Context(), seed.Pack(), to); err != nil {
		t.Fatal(err)
	}
	if _, err := to.Get(c.Ref); err != nil {
		t.Error(err)
	}
	c.Skip = func(digest.Digest) bool { return true }
	again, err := Write(t.Context(), path, s, c)
	if err != nil || again.ID != h.ID || again.Pack.Size >= h.Pack.Size {
		t.Errorf("%+v, %v", again, err)
	}
	c.Generation = 2
	if other, err := Write(t.Context(), path, s, c); err != nil || other.ID == h.ID {
		t.Errorf("%+v, %v", other, err)
	}
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".*")); len(left) > 0 {
		t.Errorf("left %q", left)
	}
}

func TestNoSeed(t *testing.T) {
	for text, want := range map[string]string{
		"":                              ErrNoSeed.Error(),
		strings.Repeat("x", 99):         ErrNoSeed.Error(),
		Magic + "ffffffffffffffff\n":    "a header of",
		Magic + "zzzzzzzzzzzzzzzz\n":    "a header of",
		Magic + "0000000000000010\n":    "unexpected EOF",
		Magic + "0000000000000002\n{}":  "id",
		Magic + "0000000000000002\n{]":  "its header",
		Magic + "0000000000000001 \n{}": ErrNoSeed.Error(),
	} {
		if _, err := Open(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", text, err, want)
		}
	}
}

func FuzzOpen(f *testing.F) {
	s := open(f)
	path := filepath.Join(f.TempDir(), "seed")
	if _, err := Write(f.Context(), path, s, content(f, s)); err != nil {
		f.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:600])
	f.Fuzz(func(t *testing.T, b []byte) {
		seed, err := Open(bytes.NewReader(b))
		if err != nil {
			return
		}
		if seed.Header.Facts == nil || seed.Header.Generation < 1 {
			t.Errorf("%+v passed", seed.Header)
		}
		if n, err := io.Copy(io.Discard, seed.Agent()); err != nil && !errors.Is(err, io.EOF) || n > seed.Header.Agent.Size {
			t.Errorf("%d bytes, %v", n, err)
		}
	})
}
