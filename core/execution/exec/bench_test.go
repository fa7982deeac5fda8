package exec_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"tool/core/execution/exec"
	"tool/core/execution/sandbox"
	"tool/core/language/action"
	"tool/core/model/digest"
	"tool/core/model/event"
	"tool/core/model/merkle"
	"tool/core/storage/store"
)

func TestMain(m *testing.M) {
	sandbox.Main()
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "helper":
			runHelper(os.Args[2:])
		case "build-web":
			buildWeb(os.Args[2])
		}
	}
	os.Exit(m.Run())
}

// runHelper is /bin/helper in the sandboxes: helper OUT TEXT… writes the texts
// to OUT; @P stands for the content of the file P, and ! fails.
func runHelper(args []string) {
	var out strings.Builder
	for _, a := range args[1:] {
		switch {
		case a == "!":
			fmt.Println("on stdout")
			fmt.Fprintln(os.Stderr, "first complaint\nlast complaint")
			os.Exit(9)
		case strings.HasPrefix(a, "@"):
			b, err := os.ReadFile(a[1:])
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			out.Write(b)
		default:
			out.WriteString(a)
		}
	}
	if args[0] != "-" {
		if err := os.WriteFile(args[0], []byte(out.String()), 0o644); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(0)
}

// graph builds action graphs.
type graph struct {
	action.Graph
	byPath map[string]int
}

func newGraph() *graph { return &graph{byPath: map[string]int{}} }

func (g *graph) artifact(p string, kind action.Kind, producer int) int {
	id := len(g.Artifacts)
	owner := "//" + strings.TrimPrefix(p, "out/")
	a := &action.Artifact{ID: id, Path: p, Kind: kind, Owner: owner, Producer: producer}
	if producer < 0 {
		a.Source = p
	}
	g.Artifacts = append(g.Artifacts, a)
	g.byPath[p] = id
	return id
}

func (g *graph) source(p string) int { return g.artifact(p, action.File, -1) }

// add completes an action that makes the file or (with a final slash) tree out.
func (g *graph) add(a action.Action, out string, inputs ...int) int {
	a.ID = len(g.Actions)
	kind := action.File
	if strings.HasSuffix(out, "/") {
		out, kind = strings.TrimSuffix(out, "/"), action.Tree
	}
	a.Owner, a.Position, a.Inputs = "//"+strings.TrimPrefix(out, "out/"), "BUILD.star:1:2", inputs
	if a.Mnemonic == "" {
		a.Mnemonic = "Test"
	}
	if a.Builtin != "" {
		a.Root = -1
	}
	o := g.artifact(out, kind, a.ID)
	a.Outputs = []int{o}
	g.Actions = append(g.Actions, &a)
	return o
}

func (g *graph) builtin(name, params, out string, inputs ...int) int {
	return g.add(action.Action{Builtin: name, Params: params}, out, inputs...)
}

func (g *graph) write(out, content string) int {
	p, _ := json.Marshal(map[string]string{"content": content})
	return g.builtin("write@1", string(p), out)
}

// cat is a command that writes the contents of its inputs to out.
func (g *graph) cat(root int, out string, inputs ...int) int {
	args := []action.Arg{{Text: "/bin/helper"}, {Text: "helper"}, {Text: out}}
	for _, in := range inputs {
		args = append(args, action.Arg{Text: "@" + g.Artifacts[in].Path})
	}
	return g.add(action.Action{Root: root, Args: args, Mnemonic: "Cat"}, out, inputs...)
}

// concat is a builtin of these tests: the contents of all inputs, and the
// parameters.
func concat(_ context.Context, c *exec.BuiltinCall) ([]merkle.Node, error) {
	var all []byte
	for _, in := range c.Inputs {
		b, err := c.CAS.ReadAll(in.Node.Digest, 1<<20)
		if err != nil {
			return nil, err
		}
		all = append(all, b...)
	}
	if string(c.Params) == "fail" {
		return nil, fmt.Errorf("told to fail")
	}
	d, err := c.CAS.PutBytes(append(all, c.Params...))
	return []merkle.Node{{Kind: merkle.File, Digest: d}}, err
}

// sources are workspace files in memory; imported counts those whose bytes
// somebody wanted.
type sources struct {
	mu       sync.Mutex
	files    map[string]string
	st       *store.Store
	imported int
	changed  map[string]bool
}

func (s *sources) Digest(a *action.Artifact) (merkle.Node, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text, ok := s.files[a.Source]
	if !ok {
		return merkle.Node{}, fmt.Errorf("no such file")
	}
	return merkle.Node{Kind: merkle.File, Digest: digest.Of([]byte(text))}, nil
}

func (s *sources) Import(a *action.Artifact) (merkle.Node, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.imported++
	d, err := s.st.CAS().PutBytes([]byte(s.files[a.Source]))
	return merkle.Node{Kind: merkle.File, Digest: d}, err
}

func (s *sources) Changed(a *action.Artifact) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.changed[a.Source]
}

// events remembers which actions ran.
type events struct {
	mu     sync.Mutex
	ran    []string
	cached []string
	last   event.Counts
}

func (e *events) Send(v event.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if f, ok := v.(event.ActionFinished); ok {
		e.last = f.Counts
		switch {
		case f.Cached:
			e.cached = append(e.cached, f.Owner)
		case f.Err == nil:
			e.ran = append(e.ran, f.Owner)
		}
	}
}

// lab is an executor on a real store.
type lab struct {
	t   testing.TB
	st  *store.Store
	dc  *exec.DiskCache
	ex  *exec.Executor
	src *sources
	ev  *events
}

func newLab(t testing.TB, dir string) *lab {
	st, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	dc, err := exec.OpenCache(filepath.Join(dir, "actions"))
	if err != nil {
		t.Fatal(err)
	}
	logs, err := exec.OpenLogs(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{t: t, st: st, dc: dc, src: &sources{files: map[string]string{}, st: st, changed: map[string]bool{}}}
	l.ex = &exec.Executor{Store: st, Cache: dc, Logs: logs, Sources: l.src, Jobs: 2, Builtins: map[string]exec.Builtin{"concat@1": concat}}
	t.Cleanup(func() { dc.Close(); st.Close(); st.CAS().RemoveAll(dir) })
	return l
}

// sandboxed gives the lab a runner, and the graph a root with /bin/helper.
func (l *lab) sandboxed(g *graph) int {
	if err := sandbox.Probe(); err != nil {
		l.t.Skip("NOT TESTED WITH COMMANDS: ", err)
	}
	if l.ex.Runner == nil {
		r := sandbox.New(l.st.CAS(), 2)
		l.t.Cleanup(func() { r.Close() })
		l.ex.Runner = r
	}
	files := libraries(l.t, "/proc/self/exe")
	files["bin/helper"] = "/proc/self/exe"
	var tree merkle.Builder
	for p, from := range files {
		f, err := os.Open(from)
		if err != nil {
			l.t.Fatal(err)
		}
		d, err := l.st.CAS().Put(context.Background(), digest.Digest{}, f)
		f.Close()
		if err != nil {
			l.t.Fatal(err)
		}
		if err := tree.Add(p, merkle.Node{Kind: merkle.File, Digest: d, Executable: true}); err != nil {
			l.t.Fatal(err)
		}
	}
	t, err := tree.Write(l.st.CAS())
	if err != nil {
		l.t.Fatal(err)
	}
	root := g.artifact("root", action.Tree, -1)
	g.Artifacts[root].Fixed = t
	return root
}

func (l *lab) try(g *graph, want ...int) (*exec.Report, error) {
	l.ev = &events{}
	l.ex.Events = l.ev
	return l.ex.Build(context.Background(), &g.Graph, want)
}

func (l *lab) build(g *graph, want ...int) *exec.Report {
	l.t.Helper()
	r, err := l.try(g, want...)
	if err != nil {
		l.t.Fatal(err)
	}
	return r
}

func (l *lab) text(v exec.Realised) string {
	l.t.Helper()
	b, err := l.st.CAS().ReadAll(v.Node.Digest, 1<<20)
	if err != nil {
		l.t.Fatal(err)
	}
	return string(b)
}

// ran checks which actions ran, in any order.
func (l *lab) ran(owners ...string) {
	l.t.Helper()
	slices.Sort(l.ev.ran)
	if !slices.Equal(l.ev.ran, owners) {
		l.t.Errorf("ran %q, want %q", l.ev.ran, owners)
	}
}
