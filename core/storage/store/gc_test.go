package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tool/core/model/digest"
	"tool/core/model/merkle"
)

// results is an action cache in memory.
type results struct {
	m        map[digest.Digest][]merkle.Node
	modified time.Time
}

func (r results) Outputs(key digest.Digest) ([]merkle.Node, bool) { n, ok := r.m[key]; return n, ok }
func (r results) Remove(key digest.Digest) error                  { delete(r.m, key); return nil }
func (r results) Each(f func(digest.Digest, time.Time) error) error {
	for k := range r.m {
		if err := f(k, r.modified); err != nil {
			return err
		}
	}
	return nil
}

func collect(t testing.TB, s *Store, opt GCOptions) (*Plan, Freed) {
	t.Helper()
	p, err := s.PlanGC(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	f, err := p.Execute(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return p, f
}

func clean(t testing.TB, s *Store) {
	t.Helper()
	r, err := s.Verify(t.Context(), false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.Problems {
		t.Errorf("verify: %+v", p)
	}
}

func refsOf(t testing.TB, s *Store) []Ref {
	t.Helper()
	names, err := s.objectNames()
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestGC(t *testing.T) {
	s := open(t)
	libc, ssl, server, tool := chain(t, s)
	for _, r := range []Ref{libc, server, tool} {
		if _, err := s.Realise(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	kept := putTree(t, s, map[string]string{"d/kept": "kept by digest"})
	blob := putFile(t, s, "kept blob")
	output := putTree(t, s, map[string]string{"o": "output of an action"})
	dead := putFile(t, s, "dead")
	live, lost := digest.Of([]byte("live action")), digest.Of([]byte("lost action"))
	index := results{m: map[digest.Digest][]merkle.Node{live: {output}, lost: {dead}}}
	if err := s.AddRoot(Root{Name: "r", Refs: []Ref{ssl}, Keep: []digest.Digest{kept.Digest, blob.Digest}, Actions: []digest.Digest{live}}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.PlanGC(t.Context(), GCOptions{}); err == nil || !strings.Contains(err.Error(), "no action cache") {
		t.Errorf("a plan that does not know what actions keep: %v", err)
	}
	if p, _ := collect(t, s, GCOptions{OlderThan: time.Hour, Results: index}); len(p.Objects)+len(p.Blobs)+len(p.Trees) != 0 || len(p.Results) != 2-1 {
		t.Errorf("with OlderThan an hour: %+v", p)
	}
	index.m[lost] = []merkle.Node{dead}

	plan, err := s.PlanGC(t.Context(), GCOptions{Results: index})
	if err != nil {
		t.Fatal(err)
	}
	b, err := json.Marshal(plan)
	if err != nil {
		t.Fatal(err)
	}
	plan = new(Plan)
	if err := json.Unmarshal(b, plan); err != nil {
		t.Fatal(err)
	}
	if _, err := plan.Execute(t.Context(), nil); err == nil {
		t.Error("a plan from a file was executed on no store")
	}
	plan.Attach(s, index)
	last := 0
	freed, err := plan.Execute(t.Context(), func(done, total int) { last = done })
	if err != nil || freed.Objects != 2 || freed.Results != 1 || freed.Trees != 1 || freed.Blobs != len(plan.Blobs) || freed.Bytes != plan.Bytes || freed.Bytes == 0 {
		t.Errorf("freed %+v of %+v, %v", freed, plan, err)
	}
	if want := len(plan.Objects) + len(plan.Blobs) + len(plan.Trees) + len(plan.Results); last != want {
		t.Errorf("progress ended at %d of %d", last, want)
	}
	want := []Ref{libc, ssl}
	slices.Sort(want)
	if got := refsOf(t, s); !slices.Equal(got, want) {
		t.Errorf("objects %v, want %v", got, want)
	}
	for content, want := range map[string]bool{"kept by digest": true, "kept blob": true, "output of an action": true, "libc": true, "dead": false, "tool " + string(libc): false} {
		if got := s.CAS().Has(digest.Of([]byte(content))); got != want {
			t.Errorf("%s: there %v, want %v", content, got, want)
		}
	}
	if _, err := os.Lstat(s.Path(tool)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a dead object's link: %v", err)
	}
	if p, f := collect(t, s, GCOptions{Results: index}); f != (Freed{}) || len(p.Blobs)+len(p.Objects)+len(p.Trees)+len(p.Results) != 0 {
		t.Errorf("a second collection: %+v, %+v", p, f)
	}
	clean(t, s)

	s.Results = index
	for x, want := range map[string]string{
		string(libc):                                   "[root r " + string(ssl) + " " + string(libc) + "]",
		digest.Of([]byte("libc")).Hex():                "[root r " + string(ssl) + " " + string(libc) + " lib/libc.so (file " + digest.Of([]byte("libc")).String() + ")]",
		digest.Of([]byte("kept blob")).String():        "[root r file " + blob.Digest.String() + "]",
		digest.Of([]byte("output of an action")).Hex(): "[root r result of action " + live.String() + " o (file " + digest.Of([]byte("output of an action")).String() + ")]",
		string(tool):                                   "[]",
		digest.Empty.Hex():                             "[]",
	} {
		if got, err := s.WhyAlive(x); err != nil || fmt.Sprint(got) != want {
			t.Errorf("WhyAlive(%s) = %v, %v; want %s", x, got, err, want)
		}
	}
	if _, err := s.WhyAlive("nonsense"); err == nil {
		t.Error("WhyAlive(nonsense)")
	}

	s.RemoveRoot("r")
	collect(t, s, GCOptions{})
	if info, _ := s.Info(); info != (Info{}) {
		t.Errorf("without roots there stay %+v", info)
	}
}

// TestGCRespectsWhatCameAfterThePlan: Execute decides again.
func TestGCAfterPlan(t *testing.T) {
	s := open(t)
	libc, ssl, server, tool := chain(t, s)
	plan, err := s.PlanGC(t.Context(), GCOptions{})
	if err != nil || len(plan.Objects) != 4 {
		t.Fatalf("%+v, %v", plan, err)
	}
	// A root for one, and a new object that needs another.
	if err := s.AddRoot(Root{Name: "r", Refs: []Ref{tool}}); err != nil {
		t.Fatal(err)
	}
	fresh := add(t, s, "fresh", putFile(t, s, "fresh"), ssl)
	if _, err := plan.Execute(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	want := []Ref{libc, ssl, tool, fresh}
	slices.Sort(want)
	if got := refsOf(t, s); !slices.Equal(got, want) || slices.Contains(got, server) {
		t.Errorf("objects %v, want %v", got, want)
	}
	clean(t, s)
}

func TestLease(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	s, other := openAt(t, dir), openAt(t, dir)
	old, adopted := putFile(t, s, "old"), putTree(t, s, map[string]string{"d/f": "in a tree"})
	libc, ssl, server, tool := chain(t, s)
	// Let the clock of ctimes tick, so that these are older than the lease.
	var l *Lease
	for {
		var err error
		if l, err = s.Lease(t.Context()); err != nil {
			t.Fatal(err)
		}
		h, err := readLease(l.file.Name())
		if err != nil || h == nil {
			t.Fatal(h, err)
		}
		fi, err := os.Lstat(s.objectPath(tool))
		if err != nil {
			t.Fatal(err)
		}
		if changed(fi).Before(h.start) {
			break
		}
		l.Release()
	}
	if err := l.Adopt(adopted.Digest); err != nil {
		t.Fatal(err)
	}
	if err := l.AdoptRefs(ssl); err != nil {
		t.Fatal(err)
	}
	if err := l.AdoptRefs(MakeRef("nope", old, nil)); !errors.As(err, new(*NotRegisteredError)) {
		t.Errorf("adopted what is not there: %v", err)
	}
	young := putFile(t, s, "young")
	renewed := putFile(t, s, "renewed")
	collect(t, other, GCOptions{})
	putFile(t, s, "renewed")
	for n, want := range map[merkle.Node]bool{old: false, adopted: true, young: true, renewed: true} {
		if s.CAS().Has(n.Digest) != want {
			t.Errorf("%v: there %v, want %v", n, !want, want)
		}
	}
	if !s.CAS().Has(digest.Of([]byte("in a tree"))) {
		t.Error("what an adopted tree reaches is gone")
	}
	want := []Ref{libc, ssl}
	slices.Sort(want)
	if got := refsOf(t, s); !slices.Equal(got, want) {
		t.Errorf("objects %v, want %v without %v", got, want, server)
	}
	clean(t, s)
	if err := l.Release(); err != nil {
		t.Error(err)
	}
	if err := l.Release(); err != nil {
		t.Error(err)
	}
	if err := l.Adopt(old.Digest); err == nil {
		t.Error("adopted after the release")
	}
	// A lease whose holder died is a file that nobody has locked.
	dead := filepath.Join(dir, "leases", "DEAD")
	os.WriteFile(dead, fmt.Appendf(nil, "start 0\n%s\n", adopted.Digest), 0o644)
	collect(t, other, GCOptions{})
	if info, _ := s.Info(); info != (Info{}) {
		t.Errorf("after the release there stay %+v", info)
	}
	if _, err := os.Lstat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the dead lease's file: %v", err)
	}
}

func TestOneGC(t *testing.T) {
	s := open(t)
	plan, err := s.PlanGC(t.Context(), GCOptions{})
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.lockGC()
	if err != nil {
		t.Fatal(err)
	}
	var busy *BusyError
	if _, err := plan.Execute(t.Context(), nil); !errors.As(err, &busy) || busy.PID != fmt.Sprint(os.Getpid()) {
		t.Errorf("a second collection: %v", err)
	}
	f.Close()
	if _, err := plan.Execute(t.Context(), nil); err != nil {
		t.Error(err)
	}
}

// TestGCBesideLeaseholders: whoever holds a lease never loses what was put.
func TestGCBesideLeaseholders(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	s, gc := openAt(t, dir), openAt(t, dir)
	t.Cleanup(func() { s.CAS().RemoveAll(dir) })
	stop := make(chan struct{})
	var workers, collector sync.WaitGroup
	for w := range 3 {
		workers.Go(func() {
			for i := range 25 {
				if err := buildOnce(t, s, fmt.Sprint(i%5), w); err != nil {
					t.Error(err)
				}
			}
		})
	}
	collector.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			p, err := gc.PlanGC(t.Context(), GCOptions{})
			if err == nil {
				_, err = p.Execute(t.Context(), nil)
			}
			if err != nil {
				t.Error(err)
				return
			}
		}
	})
	workers.Wait()
	close(stop)
	collector.Wait()
	clean(t, s)
}

// buildOnce does what a build does: lease, put, add, realise, use.
func buildOnce(t testing.TB, s *Store, seed string, worker int) error {
	l, err := s.Lease(t.Context())
	if err != nil {
		return err
	}
	defer l.Release()
	var b merkle.Builder
	for _, name := range []string{"a/x", "a/y", "z"} {
		d, err := s.CAS().PutBytes([]byte(name + seed))
		if err != nil {
			return err
		}
		if err := b.Add(name, merkle.Node{Kind: merkle.File, Digest: d}); err != nil {
			return err
		}
	}
	tree, err := b.Write(s.CAS())
	if err != nil {
		return err
	}
	first, err := s.Add(t.Context(), Object{Name: "first", Node: merkle.Node{Kind: merkle.Dir, Digest: tree}})
	if err != nil {
		return err
	}
	d, err := s.CAS().PutBytes([]byte("second" + seed))
	if err != nil {
		return err
	}
	second, err := s.Add(t.Context(), Object{Name: "second", Node: merkle.Node{Kind: merkle.File, Digest: d}, Refs: []Ref{first}})
	if err != nil {
		return err
	}
	for _, r := range []Ref{first, second} {
		p, err := s.Realise(t.Context(), r)
		if err != nil {
			return err
		}
		if _, err := os.Stat(p); err != nil {
			return err
		}
	}
	return s.AddRoot(Root{Name: fmt.Sprintf("w%d", worker), Refs: []Ref{second}})
}
