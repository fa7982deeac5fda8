package sandbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"tool/core/execution/exec"
	"tool/core/execution/sandbox"
	"tool/core/model/digest"
	"tool/core/model/merkle"
	"tool/core/storage/cas"
)

func TestMain(m *testing.M) {
	sandbox.Main()
	if len(os.Args) > 2 && os.Args[1] == "helper" {
		runHelper(os.Args[2], os.Args[3:])
	}
	if len(os.Args) > 2 && os.Args[1] == "enter" {
		if err := sandbox.Enter(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) > 2 && os.Args[1] == "doomed-parent" {
		doomedParent(os.Args[2])
	}
	os.Exit(m.Run())
}

// bench is a CAS, a runner and a root tree with this binary as /bin/helper.
type bench struct {
	t    testing.TB
	cas  *cas.Store
	run  *sandbox.Runner
	root digest.Digest
	put  func(file string) merkle.Node // copies a file of this machine
}

func newBench(t testing.TB, dir string) *bench {
	var no *sandbox.UnsupportedError
	if err := sandbox.Probe(); errors.As(err, &no) {
		t.Skip("SANDBOX NOT TESTED: ", err)
	} else if err != nil {
		t.Fatal(err)
	}
	c, err := cas.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, cas: c, run: sandbox.New(c, 4)}
	t.Cleanup(func() { b.run.Close(); c.Close(); c.RemoveAll(dir) })
	b.put = func(file string) merkle.Node {
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		d, err := c.Put(context.Background(), digest.Digest{}, f)
		if err != nil {
			t.Fatal(err)
		}
		return merkle.Node{Kind: merkle.File, Digest: d, Executable: true}
	}
	var tree merkle.Builder
	for p, n := range map[string]merkle.Node{
		"usr/bin/helper": b.put("/proc/self/exe"),
		"usr/bin/nop":    b.file(string(nopELF), true),
		"bin":            {Kind: merkle.Symlink, Target: "usr/bin"},
		"etc/hosts":      b.file("127.0.0.1 localhost\n", false),
	} {
		if err := tree.Add(p, n); err != nil {
			t.Fatal(err)
		}
	}
	for p, file := range libraries(t, "/proc/self/exe") {
		if err := tree.Add(p, b.put(file)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := tree.Mkdir("tmp"); err != nil {
		t.Fatal(err)
	}
	if b.root, err = tree.Write(c); err != nil {
		t.Fatal(err)
	}
	return b
}

// nopELF is a whole x86-64 program: exit(0).
var nopELF = []byte("\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x3e\x00\x01\x00\x00\x00" +
	"\x78\x00\x40\x00\x00\x00\x00\x00\x40\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x40\x00\x38\x00\x01\x00\x00\x00\x00\x00\x00\x00" +
	"\x01\x00\x00\x00\x05\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x40\x00\x00\x00\x00\x00\x00\x00\x40\x00\x00\x00\x00\x00" +
	"\x81\x00\x00\x00\x00\x00\x00\x00\x81\x00\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00" +
	"\xb8\x3c\x00\x00\x00\x31\xff\x0f\x05")

func (b *bench) file(content string, exe bool) merkle.Node {
	d, err := b.cas.PutBytes([]byte(content))
	if err != nil {
		b.t.Fatal(err)
	}
	return merkle.Node{Kind: merkle.File, Digest: d, Executable: exe}
}

func (b *bench) tree(files map[string]string) merkle.Node {
	var t merkle.Builder
	for p, content := range files {
		if err := t.Add(p, b.file(content, false)); err != nil {
			b.t.Fatal(err)
		}
	}
	d, err := t.Write(b.cas)
	if err != nil {
		b.t.Fatal(err)
	}
	return merkle.Node{Kind: merkle.Dir, Digest: d}
}

func (b *bench) spawn(args ...string) *exec.Spawn {
	return &exec.Spawn{Name: "test", Argv: append([]string{"/bin/helper", "helper"}, args...), Root: b.root}
}

func (b *bench) do(s *exec.Spawn) *exec.Result {
	b.t.Helper()
	res, err := b.run.Run(context.Background(), s)
	if err != nil {
		b.t.Fatal(err)
	}
	return res
}

func (b *bench) content(n *merkle.Node) string {
	b.t.Helper()
	if n == nil {
		b.t.Fatal("no output")
	}
	c, err := b.cas.ReadAll(n.Digest, 1<<20)
	if err != nil {
		b.t.Fatal(err)
	}
	return string(c)
}

func TestFacts(t *testing.T) {
	t.Setenv("SECRET", "x")
	b := newBench(t, t.TempDir())
	s := b.spawn("facts", "a b", "")
	s.Env = []string{"A=1"}
	s.Objects = []exec.Object{{Ref: "abc-tree", Node: b.tree(map[string]string{"x": "y"})}, {Ref: "abc-file", Node: b.file("z", true)}}
	want := `{"args":["facts","a b",""],"core":{"Cur":0,"Max":0},"cwd":"/build",` +
		`"dev":["fd","full","null","random","shm","stderr","stdin","stdout","urandom","zero"],"dial":true,"env":["A=1"],"gid":1000,"host":"sandbox",` +
		`"leader":true,"net":["lo/up|loopback|running"],"pid":1000,"root":["bin","build","dev","etc","proc","tmp","tool","usr"],` +
		`"status":["CapPrm=0000000000000000","CapEff=0000000000000000","CapAmb=0000000000000000","NoNewPrivs=1"],"stdin":"/dev/null",` +
		`"store":["abc-file","abc-tree"],"tmp":[],"uid":1000,"umask":18,"worker hidden":true}` + "\n"
	// The Go runtime may start a thread of the worker's just before a command,
	// which takes the pid that was meant for it: rarely, and to no harm.
	pid, odd := regexp.MustCompile(`"pid":10\d\d,`), 0
	for range 30 {
		res := b.do(s)
		got := string(res.Stdout)
		if got != want {
			odd++
			got = pid.ReplaceAllString(got, `"pid":1000,`)
		}
		if got != want || res.ExitCode != 0 {
			t.Fatalf("got  %swant %s%s", res.Stdout, want, res.Stderr)
		}
	}
	if odd > 3 {
		t.Errorf("%d of 30 commands had another pid than 1000", odd)
	}
	var m map[string]any
	if err := json.Unmarshal([]byte(want), &m); err != nil {
		t.Fatal(err)
	}
}

func TestInputsAndOutputs(t *testing.T) {
	b := newBench(t, t.TempDir())
	s := b.spawn("write", "out/pkg/b", "made", "out/pkg/sub/c", "nested", "out/tree/d/e", "in tree", "/tmp/x", "temporary", "/dev/shm/y", "z")
	s.Inputs = []exec.Input{
		{Path: "out/pkg/a", Node: b.file("beside", false)},
		{Path: "out/pkg/lib", Node: b.tree(map[string]string{"q": "tree beside"})},
		{Path: "src/main", Node: b.file("source", true)},
		{Path: "src/tree", Node: b.tree(map[string]string{"x/y": "deep"})},
	}
	s.Outputs = []exec.Output{{Path: "out/pkg/b"}, {Path: "out/tree", Tree: true}, {Path: "out/pkg/missing"}, {Path: "out/pkg/sub/c"}}
	res := b.do(s)
	if res.ExitCode != 0 || len(res.Problems) != 0 {
		t.Fatalf("exit %d %q %s", res.ExitCode, res.Problems, res.Stderr)
	}
	if got := b.content(res.Outputs[0]); got != "made" {
		t.Errorf("b is %q", got)
	}
	if n, ok, err := merkle.Find(b.cas, res.Outputs[1].Digest, "d/e"); err != nil || !ok || b.content(&n) != "in tree" {
		t.Errorf("tree output: %v %v %v", n, ok, err)
	}
	if res.Outputs[2] != nil {
		t.Errorf("missing output is %v", res.Outputs[2])
	}
	if got := b.content(res.Outputs[3]); got != "nested" {
		t.Errorf("c is %q", got)
	}
	s.Argv = append([]string{"helper", "helper", "cat"}, "out/pkg/a", "src/main", "src/tree/x/y", "out/pkg/lib/q", "/etc/hosts")
	s.Env = []string{"PATH=/nowhere:/bin"}
	if res := b.do(s); string(res.Stdout) != "besidesourcedeeptree beside127.0.0.1 localhost\n" {
		t.Errorf("read %q, stderr %s", res.Stdout, res.Stderr)
	}
}

func TestExecutableBit(t *testing.T) {
	b := newBench(t, t.TempDir())
	s := b.spawn("exe", "out/x")
	s.Outputs = []exec.Output{{Path: "out/x"}}
	if n := b.do(s).Outputs[0]; n == nil || !n.Executable {
		t.Errorf("output %+v is not executable", n)
	}
	s = b.spawn("write", "out/x", "y")
	s.Outputs = []exec.Output{{Path: "out/x"}}
	if n := b.do(s).Outputs[0]; n == nil || n.Executable {
		t.Errorf("output %+v is executable", n)
	}
}

func TestInputsCannotBeChanged(t *testing.T) {
	b := newBench(t, t.TempDir())
	for _, p := range []string{"in/file", "tree/x/y", "out/beside", "/tool/store/abc-tree/x", "/tool/store/abc-file", "/bin/nop", "/etc/hosts"} {
		s := b.spawn("attack", p)
		s.Inputs = []exec.Input{
			{Path: "in/file", Node: b.file("input", false)},
			{Path: "tree", Node: b.tree(map[string]string{"x/y": "in tree"})},
		}
		if p == "out/beside" { // the symlink may go, its target not
			s.Inputs = append(s.Inputs, exec.Input{Path: p, Node: b.file("beside", false)})
			s.Argv[len(s.Argv)-1] = ".inputs/out/beside"
			s.Outputs = []exec.Output{{Path: "out/o"}}
		}
		s.Objects = []exec.Object{{Ref: "abc-file", Node: b.file("object", true)}, {Ref: "abc-tree", Node: b.tree(map[string]string{"x": "object's"})}}
		res := b.do(s)
		if got := string(res.Stdout); got != "attacked\n" {
			t.Errorf("%s: %s%s", p, got, res.Stderr)
		}
	}
	d, err := b.cas.ReadAll(digest.Of([]byte("input")), 100)
	if err != nil || string(d) != "input" {
		t.Errorf("the store holds %q, %v", d, err)
	}
}

func TestBadOutputs(t *testing.T) {
	b := newBench(t, t.TempDir())
	for _, c := range []struct {
		args    []string
		output  exec.Output
		problem string
	}{
		{[]string{"symlink", "/etc/passwd", "out/x"}, exec.Output{Path: "out/x"}, "output out/x is a symbolic link; declare a directory or copy the file"},
		{[]string{"symlink", "/etc", "out/s/../s"}, exec.Output{Path: "out/s/passwd"}, ""},
		{[]string{"fifo", "out/x"}, exec.Output{Path: "out/x"}, "output out/x is not a regular file"},
		{[]string{"write", "out/x/y", ""}, exec.Output{Path: "out/x"}, "output out/x is a directory; declare it as one"},
		{[]string{"fifo", "out/x/pipe"}, exec.Output{Path: "out/x", Tree: true}, "pipe"},
	} {
		s := b.spawn(c.args...)
		s.Outputs = []exec.Output{c.output}
		res := b.do(s)
		if res.Outputs[0] != nil {
			t.Errorf("%q: output %+v", c.args, res.Outputs[0])
		}
		if got := strings.Join(res.Problems, ";"); c.problem != "" && !strings.Contains(got, c.problem) {
			t.Errorf("%q: problems %q, want %q; %s", c.args, got, c.problem, res.Stderr)
		}
	}
	// A directory between that became a link is not followed either.
	s := b.spawn("symlink", "/etc", "out/s")
	s.Outputs = []exec.Output{{Path: "out/s/hosts"}, {Path: "out/z"}}
	res := b.do(s)
	if res.Outputs[0] != nil || len(res.Problems) != 1 || !strings.Contains(res.Problems[0], "replaced") {
		t.Errorf("%+v %s", res, res.Stderr)
	}
}

func TestExitCodes(t *testing.T) {
	b := newBench(t, t.TempDir())
	if res := b.do(b.spawn("exit", "7")); res.ExitCode != 7 {
		t.Errorf("exit 7 gave %d", res.ExitCode)
	}
	if res := b.do(b.spawn("signal")); res.ExitCode != 128+9 {
		t.Errorf("SIGKILL gave %d", res.ExitCode)
	}
	for name, code := range map[string]int{"/bin/none": 127, "none": 127, "/etc/hosts": 126} {
		s := b.spawn()
		s.Argv = []string{name}
		if res := b.do(s); res.ExitCode != code || !strings.Contains(string(res.Stderr), "cannot start "+name) {
			t.Errorf("%s gave %d, %s", name, res.ExitCode, res.Stderr)
		}
	}
}

func TestKeep(t *testing.T) {
	b := newBench(t, t.TempDir())
	s := b.spawn("exit", "1")
	s.Keep = true
	s.Outputs = []exec.Output{{Path: "out/x"}}
	res := b.do(s)
	dir, ok := strings.CutPrefix(res.Kept, "tool sandbox-enter ")
	if !ok {
		t.Fatalf("kept %q", res.Kept)
	}
	for _, p := range []string{"spec.json", "0", "tmp"} {
		if _, err := os.Stat(filepath.Join(dir, p)); err != nil {
			t.Error(err)
		}
	}
	s.Argv[3] = "0"
	s.Outputs = nil
	if res := b.do(s); res.Kept != "" {
		t.Errorf("kept %q of a command that succeeded", res.Kept)
	}
}

func TestNothingIsLeft(t *testing.T) {
	dir := t.TempDir()
	b := newBench(t, dir)
	s := b.spawn()
	s.Argv = []string{"/bin/nop"}
	s.Inputs = []exec.Input{{Path: "t", Node: b.tree(map[string]string{"x": "y"})}}
	b.do(s)
	mounts := count(t, "/proc/self/mountinfo")
	for range 300 {
		b.do(s)
	}
	if n := count(t, "/proc/self/mountinfo"); n != mounts {
		t.Errorf("%d mounts became %d", mounts, n)
	}
	if n := helpers(t); n != 0 {
		t.Errorf("%d processes are left", n)
	}
	left, err := filepath.Glob(filepath.Join(dir, "tmp", "*", "*"))
	if err != nil || len(left) != 0 {
		t.Errorf("left in tmp: %q %v", left, err)
	}
}

func TestParallel(t *testing.T) {
	b := newBench(t, t.TempDir())
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			text := fmt.Sprint("text ", i)
			s := b.spawn("write", "out/x", text)
			s.Outputs = []exec.Output{{Path: "out/x"}}
			res, err := b.run.Run(context.Background(), s)
			if err != nil || res.Outputs[0] == nil || res.Outputs[0].Digest != digest.Of([]byte(text)) {
				t.Errorf("%d: %+v %v", i, res, err)
			}
		})
	}
	wg.Wait()
}
