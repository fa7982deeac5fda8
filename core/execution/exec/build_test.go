package exec_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"tool/core/execution/exec"
	"tool/core/model/digest"
	"tool/core/model/merkle"
	"tool/core/storage/store"
)

func TestEarlyCutoff(t *testing.T) {
	l := newLab(t, t.TempDir())
	l.src.files["a"], l.src.files["z/b"] = "A", "B"
	g := newGraph()
	a, b := g.source("a"), g.source("z/b")
	first := g.builtin("template@1", `{"substitutions":{"x":""}}`, "out/first", a)
	mid := g.builtin("concat@1", "!", "out/mid", first, b)
	last := g.builtin("concat@1", "?", "out/last", mid)
	r := l.build(g, last)
	if got := l.text(r.Wanted[0]); got != "AB!?" || r.Total != 3 || r.Executed != 3 || len(r.Keys) != 3 {
		t.Errorf("%q %+v", got, r)
	}
	if r := l.build(g, last); r.Executed != 0 || r.Cached != 3 {
		t.Errorf("again: %+v", r)
	}
	l.src.files["a"] = "Ax" // the template takes it out
	l.build(g, last)
	l.ran("//first")
	l.src.files["z/b"] = "C"
	if r := l.build(g, last); l.text(r.Wanted[0]) != "AC!?" {
		t.Errorf("%q", l.text(r.Wanted[0]))
	}
	l.ran("//last", "//mid")
	if l.ev.last.Total != 3 || l.ev.last.Done != 2 || l.ev.last.Cached != 1 || l.ev.last.Waiting+l.ev.last.Ready+l.ev.last.Running != 0 {
		t.Errorf("counts %+v", l.ev.last)
	}
}

func TestPinIsFetchedOnlyIfNeeded(t *testing.T) {
	l := newLab(t, t.TempDir())
	g := newGraph()
	pin := g.builtin("concat@1", "pinned", "out/pin")
	g.Artifacts[pin].Fixed = digest.Of([]byte("pinned"))
	user := g.builtin("concat@1", "-user", "out/user", pin)
	l.build(g, user)
	l.ran("//pin", "//user")
	if err := l.st.CAS().Remove(digest.Of([]byte("pinned"))); err != nil {
		t.Fatal(err)
	}
	if r := l.build(g, user); r.Total != 1 || r.Cached != 1 {
		t.Errorf("%+v", r)
	}
	g2 := newGraph()
	pin = g2.builtin("concat@1", "pinned", "out/pin")
	g2.Artifacts[pin].Fixed = digest.Of([]byte("pinned"))
	l.build(g2, g2.builtin("concat@1", "-other", "out/other", pin))
	l.ran("//other", "//pin")
	// A pin that does not hold is an error.
	g3 := newGraph()
	pin = g3.builtin("concat@1", "something else", "out/pin")
	g3.Artifacts[pin].Fixed = digest.Of([]byte("other pin"))
	if _, err := l.try(g3, pin); err == nil || !strings.Contains(err.Error(), "pinned to") {
		t.Errorf("got %v", err)
	}
}

// TestPinMoves: what an address had under another pin is no result for this one.
func TestPinMoves(t *testing.T) {
	l := newLab(t, t.TempDir())
	content := ""
	l.ex.Builtins["served@1"] = func(_ context.Context, c *exec.BuiltinCall) ([]merkle.Node, error) {
		d, err := c.CAS.PutBytes([]byte(content))
		return []merkle.Node{{Kind: merkle.File, Digest: d}}, err
	}
	for i, served := range []string{"one", "two", "one"} {
		content = served
		g := newGraph()
		pin := g.builtin("served@1", "the address", "out/pin")
		g.Artifacts[pin].Fixed = digest.Of([]byte(content))
		if r := l.build(g, pin); r.Executed != 1 && i < 2 || r.Executed != 0 && i == 2 {
			t.Errorf("with the pin of %q %d actions were executed", content, r.Executed)
		}
	}
}

func TestSourcesAreImportedOnlyIfNeeded(t *testing.T) {
	l := newLab(t, t.TempDir())
	l.src.files["a"] = "A"
	g := newGraph()
	out := g.builtin("concat@1", "", "out/x", g.source("a"))
	l.build(g, out)
	l.src.imported = 0
	if err := l.st.CAS().Remove(digest.Of([]byte("A"))); err != nil {
		t.Fatal(err)
	}
	// x is A too, so it is made again once its bytes are gone.
	l.build(g, out)
	if l.src.imported != 1 {
		t.Errorf("%d imports", l.src.imported)
	}
	l.build(g, out)
	if l.src.imported != 1 {
		t.Errorf("%d imports after a null build", l.src.imported)
	}
}

func TestEditDuringBuild(t *testing.T) {
	l := newLab(t, t.TempDir())
	l.src.files["a"] = "A"
	g := newGraph()
	out := g.builtin("concat@1", "", "out/x", g.source("a"))
	l.src.changed["a"] = true
	_, err := l.try(g, out)
	var e *exec.SourceChangedError
	if !errors.As(err, &e) || e.Path != "a" {
		t.Errorf("got %v", err)
	}
	l.src.changed["a"] = false
	if r := l.build(g, out); r.Executed != 1 {
		t.Error("the result was cached")
	}
}

// web is a layered graph in which every action depends on some of the layer
// before.
func web(layers, width int) (*graph, []int) {
	g := newGraph()
	rnd := rand.New(rand.NewPCG(1, 2))
	var last []int
	for l := range layers {
		var now []int
		for i := range width {
			var in []int
			for range min(len(last), 3) {
				in = append(in, last[rnd.IntN(len(last))])
			}
			slices.Sort(in)
			in = slices.Compact(in)
			now = append(now, g.builtin("concat@1", fmt.Sprintf("%d.%d;", l, i), fmt.Sprintf("out/l%d/n%d", l, i), in...))
		}
		last = now
	}
	return g, last
}

func contents(l *lab, g *graph, want []int) string {
	r := l.build(g, want...)
	var s strings.Builder
	for _, v := range r.Wanted {
		s.WriteString(l.text(v) + "\n")
	}
	return s.String()
}

func TestLostBlobsAreMadeAgain(t *testing.T) {
	l := newLab(t, t.TempDir())
	g, want := web(6, 8)
	truth := contents(l, g, want)
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range 30 {
		var all []digest.Digest
		if err := l.st.CAS().Each(func(d digest.Digest, _ bool, _ int64, _ time.Time) error {
			all = append(all, d)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(all, func(a, b digest.Digest) int { return strings.Compare(a.Hex(), b.Hex()) })
		for range 1 + rnd.IntN(len(all)) {
			if err := l.st.CAS().Remove(all[rnd.IntN(len(all))]); err != nil {
				t.Fatal(err)
			}
		}
		if i%3 == 0 { // and a result is lost, whose inputs may be gone too
			r := l.build(g, want[0])
			if err := l.dc.Remove(r.Keys[len(r.Keys)-1]); err != nil {
				t.Fatal(err)
			}
		}
		if got := contents(l, g, want); got != truth {
			t.Fatal("the result is another one")
		}
	}
}

func TestKeepGoing(t *testing.T) {
	l := newLab(t, t.TempDir())
	g := newGraph()
	ok := g.write("out/ok", "fine")
	bad1 := g.builtin("concat@1", "fail", "out/bad1")
	after := g.builtin("concat@1", "", "out/after", bad1, ok)
	bad2 := g.builtin("concat@1", "fail", "out/bad2", ok)
	both := g.builtin("concat@1", "", "out/both", after, bad2)
	other := g.builtin("concat@1", "+", "out/other", ok)
	l.ex.KeepGoing = true
	for range 3 {
		r, err := l.try(g, both, other)
		if len(r.Failures) != 2 || err == nil {
			t.Fatalf("failures %v, error %v", r.Failures, err)
		}
		for i, owner := range []string{"//bad1", "//bad2"} {
			var e *exec.ActionError
			if !errors.As(r.Failures[i], &e) || e.Action.Owner != owner {
				t.Errorf("failure %d is %v", i, r.Failures[i])
			}
		}
		if r.Wanted[0].Node.Kind != 0 || l.text(r.Wanted[1]) != "fine+" {
			t.Errorf("%+v", r.Wanted)
		}
		if want := "BUILD.star:1:2: //bad1: Test failed: told to fail\nBUILD.star:1:2: //bad2: Test failed: told to fail"; err.Error() != want {
			t.Errorf("error %q", err)
		}
	}
	l.ex.KeepGoing = false
	if r, err := l.try(g, both); err == nil || len(r.Failures) == 0 {
		t.Errorf("%+v %v", r, err)
	}
}

func TestEqualActionsRunOnce(t *testing.T) {
	l := newLab(t, t.TempDir())
	g := newGraph()
	runs := 0
	l.ex.Jobs = 1
	l.ex.Builtins["slow@1"] = func(ctx context.Context, c *exec.BuiltinCall) ([]merkle.Node, error) {
		runs++
		return concat(ctx, c)
	}
	var all []int
	for range 5 {
		all = append(all, g.builtin("slow@1", "x", "out/x"))
	}
	r := l.build(g, all...)
	if runs != 1 || r.Executed != 1 || r.Cached != 4 {
		t.Errorf("%d runs, %+v", runs, r)
	}
}

func TestInterrupt(t *testing.T) {
	l := newLab(t, t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	l.ex.Builtins["wait@1"] = func(ctx context.Context, c *exec.BuiltinCall) ([]merkle.Node, error) {
		cancel()
		<-ctx.Done()
		return nil, ctx.Err()
	}
	g := newGraph()
	out := g.builtin("wait@1", "", "out/x")
	r, err := l.ex.Build(ctx, &g.Graph, []int{g.builtin("concat@1", "", "out/y", out)})
	if !errors.Is(err, exec.ErrInterrupted) || len(r.Failures) != 0 {
		t.Errorf("%v %+v", err, r)
	}
}

func TestCheck(t *testing.T) {
	l := newLab(t, t.TempDir())
	n := 0
	l.ex.Builtins["clock@1"] = func(_ context.Context, c *exec.BuiltinCall) ([]merkle.Node, error) {
		n++
		var b merkle.Builder
		for name, text := range map[string]string{"a/same": "same", "b/clock": fmt.Sprint(n)} {
			d, err := c.CAS.PutBytes([]byte(text))
			if err != nil {
				return nil, err
			}
			if err := b.Add(name, merkle.Node{Kind: merkle.File, Digest: d}); err != nil {
				return nil, err
			}
		}
		d, err := b.Write(c.CAS)
		return []merkle.Node{{Kind: merkle.Dir, Digest: d}}, err
	}
	g := newGraph()
	good := g.write("out/good", "x")
	bad := g.builtin("clock@1", "", "out/bad/", good)
	l.build(g, bad)
	l.ex.Check = true
	_, err := l.try(g, bad)
	var e *exec.NotReproducibleError
	if !errors.As(err, &e) || e.Path != "b/clock" || e.Action.Owner != "//bad" {
		t.Errorf("got %v", err)
	}
	if r := l.build(g, good); r.Executed != 1 {
		t.Errorf("%+v", r)
	}
}

func TestPlaceholders(t *testing.T) {
	l := newLab(t, t.TempDir())
	g := newGraph()
	lib := g.write("out/lib", "library")
	at := func(id int) string { return g.Artifacts[id].Placeholder() }
	app := g.builtin("concat@1", "uses "+at(lib), "out/app", lib)
	conf := g.builtin("concat@1", "runs "+at(app)+" and "+at(app), "out/conf", app)
	none := g.builtin("template@1", `{"substitutions":{"library":"`+at(app)+`"}}`, "out/none", lib)
	r := l.build(g, conf)
	libRef := store.MakeRef("lib", merkle.Node{Kind: merkle.File, Digest: digest.Of([]byte("library"))}, nil)
	appText := "libraryuses /tool/store/" + string(libRef)
	appRef := store.MakeRef("app", merkle.Node{Kind: merkle.File, Digest: digest.Of([]byte(appText))}, []store.Ref{libRef})
	want := appText + "runs /tool/store/" + string(appRef) + " and /tool/store/" + string(appRef)
	if got := l.text(r.Wanted[0]); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	both := []store.Ref{appRef, libRef} // concat repeats the input, so both occur
	slices.Sort(both)
	if !slices.Equal(r.Wanted[0].Refs, both) {
		t.Errorf("refs %q, want %q", r.Wanted[0].Refs, both)
	}
	if all, err := l.st.Closure(r.Wanted[0].Refs...); err != nil || len(all) != 2 {
		t.Errorf("closure %q, %v", all, err)
	}
	if _, err := l.try(g, none); err == nil || !strings.Contains(err.Error(), "out/app, which is not among the action's inputs") {
		t.Errorf("got %v", err)
	}
	// What only a reference needs is made again, too.
	if err := l.st.CAS().Remove(digest.Of([]byte("library"))); err != nil {
		t.Fatal(err)
	}
	l.build(g, conf)
	l.ran("//lib")
}

func TestRefusesBadGraphs(t *testing.T) {
	l := newLab(t, t.TempDir())
	g := newGraph()
	a := g.builtin("concat@1", "", "out/a")
	b := g.builtin("concat@1", "", "out/b", a)
	g.Actions[0].Inputs = []int{b}
	if _, err := l.try(g, b); err == nil || !strings.Contains(err.Error(), "depends on its own output") {
		t.Errorf("cycle: %v", err)
	}
	g = newGraph()
	a = g.builtin("concat@1", "", "out/a", g.source("missing"))
	if _, err := l.try(g, a); err == nil || !strings.Contains(err.Error(), "source missing: no such file") {
		t.Errorf("missing source: %v", err)
	}
	g = newGraph()
	a = g.builtin("unknown@1", "", "out/a")
	if _, err := l.try(g, a); err == nil || !strings.Contains(err.Error(), `no builtin "unknown@1"`) {
		t.Errorf("unknown builtin: %v", err)
	}
	g = newGraph()
	a = g.builtin("write@1", `{"content":"x"}`, "out/a/")
	if _, err := l.try(g, a); err == nil || !strings.Contains(err.Error(), "output out/a is a file, not a directory") {
		t.Errorf("wrong kind: %v", err)
	}
	if _, err := l.try(g, 99); err == nil {
		t.Error("an artifact that does not exist")
	}
}
