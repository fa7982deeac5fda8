package store

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"tool/core/model/merkle"
)

// inode identifies a file and when it was last changed in any way.
func inode(t testing.TB, path string) [3]int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return [3]int64{int64(st.Ino), st.Ctim.Sec, st.Ctim.Nsec}
}

func publishing(t testing.TB, s *Store) (*Lease, []Object) {
	t.Helper()
	l, err := s.Lease(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Release() })
	libc := add(t, s, "libc", putTree(t, s, map[string]string{"lib/libc.so": "c library"}))
	objects := []Object{
		{Name: "tree", Node: putTree(t, s, map[string]string{"a": "1", "d/b": "22"}), Refs: []Ref{libc}, Deriver: "//:tree"},
		{Name: "empty", Node: putFile(t, s, "")},
	}
	for i := range 20 {
		objects = append(objects, Object{Name: "file", Node: putFile(t, s, fmt.Sprint("file ", i)), Deriver: "//:file"})
	}
	return l, objects
}

func TestPublish(t *testing.T) {
	s := open(t)
	l, objects := publishing(t, s)
	out, err := s.Publish(t.Context(), l, objects)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range out {
		// Add and Realise find nothing to do: it is what they would have made.
		ref, err := s.Add(t.Context(), objects[i])
		if err != nil || ref != o.Ref {
			t.Errorf("Add returns %s, %v after Publish made %s", ref, err, o.Ref)
		}
		before := inode(t, s.Path(ref))
		if _, err := s.Realise(t.Context(), ref); err != nil || inode(t, s.Path(ref)) != before {
			t.Errorf("Realise of %s changed it: %v", ref, err)
		}
		got, err := s.Get(ref)
		if err != nil || got.Size != o.Size || got.Deriver != objects[i].Deriver {
			t.Errorf("%s is registered as %+v, %v; Publish returned %+v", ref, got, err, o)
		}
	}

	// What is there is not written again, and what is not whole is made whole.
	before := map[string][3]int64{}
	for _, o := range out {
		before[s.objectPath(o.Ref)] = inode(t, s.objectPath(o.Ref))
		before[s.Path(o.Ref)] = inode(t, s.Path(o.Ref))
	}
	damaged := []string{s.Path(out[0].Ref), s.Path(out[2].Ref), s.objectPath(out[3].Ref)}
	for _, p := range damaged {
		if err := os.Remove(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(s.objectPath(out[4].Ref), nil, 0o644); err != nil { // as after a loss of power
		t.Fatal(err)
	}
	again, err := s.Publish(t.Context(), l, objects)
	if err != nil {
		t.Fatal(err)
	}
	for i, o := range again {
		if o.Ref != out[i].Ref || o.Size != out[i].Size {
			t.Errorf("published again: %+v, first %+v", o, out[i])
		}
		if err := s.checkLink(&o); err != nil {
			t.Errorf("%s: %v", o.Ref, err)
		}
		if i > 4 && (inode(t, s.objectPath(o.Ref)) != before[s.objectPath(o.Ref)] || inode(t, s.Path(o.Ref)) != before[s.Path(o.Ref)]) {
			t.Errorf("%s was written again", o.Ref)
		}
	}
	clean(t, s)
}

func TestPublishErrors(t *testing.T) {
	s := open(t)
	l, objects := publishing(t, s)
	gone := merkle.Node{Kind: merkle.File, Digest: putFile(t, s, "gone").Digest}
	if err := s.CAS().Remove(gone.Digest); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what string
		o    Object
	}{
		{"a bad name", Object{Name: "a/b", Node: objects[0].Node}},
		{"a symbolic link", Object{Name: "x", Node: merkle.Node{Kind: merkle.Symlink, Target: "y"}}},
		{"an unknown reference", Object{Name: "x", Node: objects[1].Node, Refs: []Ref{MakeRef("nope", objects[0].Node, nil)}}},
		{"bytes that are gone", Object{Name: "x", Node: gone}},
	} {
		if _, err := s.Publish(t.Context(), l, append([]Object{c.o}, objects...)); err == nil {
			t.Errorf("%s: no error", c.what)
		}
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Publish(t.Context(), l, objects); !errors.Is(err, errReleased) {
		t.Errorf("with a lease that has ended: %v", err)
	}
}

// A collection spares what is published under a lease, also what was there
// before the lease began and is written no more.
func TestPublishKeeps(t *testing.T) {
	s := open(t)
	l, objects := publishing(t, s)
	if _, err := s.Publish(t.Context(), l, objects); err != nil {
		t.Fatal(err)
	}
	if err := l.Release(); err != nil {
		t.Fatal(err)
	}
	l = youngerLease(t, s)
	defer l.Release()
	if _, err := s.Publish(t.Context(), l, objects[:1]); err != nil {
		t.Fatal(err)
	}
	collect(t, s, GCOptions{})
	if left := refsOf(t, s); len(left) != 2 { // and what it refers to
		t.Errorf("left after the collection: %v", left)
	}
	clean(t, s)
}

// youngerLease takes a lease that began when the clock of ctimes had ticked, so
// that it spares nothing of before by its age.
func youngerLease(t testing.TB, s *Store) *Lease {
	t.Helper()
	tick := inode(t, s.objectPath(add(t, s, "tick", putFile(t, s, "tick"))))
	for {
		l, err := s.Lease(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		h, err := readLease(l.file.Name())
		if err != nil || h == nil {
			t.Fatal(h, err)
		}
		if h.start.UnixNano() > tick[1]*1e9+tick[2] {
			return l
		}
		l.Release()
	}
}

// Two processes publish the same at once.
func TestPublishTogether(t *testing.T) {
	s := open(t)
	_, objects := publishing(t, s)
	var wg sync.WaitGroup
	for range 2 {
		other := openAt(t, s.Dir())
		l, err := other.Lease(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			defer l.Release()
			if _, err := other.Publish(t.Context(), l, objects); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	clean(t, s)
}

// Roots of other prefixes are not even read, also where a long name is hashed.
func TestNumberedRootsAlone(t *testing.T) {
	s := open(t)
	ref := add(t, s, "x", putFile(t, s, "x"))
	long := "build/0123/"
	for range 40 {
		long += "//some/package "
	}
	for _, prefix := range []string{"p", "p#1", "a/b c", long, long + "x"} {
		for n := range 3 {
			name, err := s.AddNumberedRoot(prefix, Root{Refs: []Ref{ref}, Label: fmt.Sprint(n)}, 2)
			if want := fmt.Sprint(prefix, "#", n+1); err != nil || name != want {
				t.Errorf("root %q, %v; want %q", name, err, want)
			}
		}
	}
	roots, err := s.Roots()
	if err != nil || len(roots) != 10 {
		t.Errorf("%d roots, %v; want 10", len(roots), err)
	}
}
