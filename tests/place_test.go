package tests

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// place is a workspace and a store of a Go test.
type place struct {
	t     testing.TB
	dir   string
	store string
}

// result is what a run of the program came to.
type result struct {
	code           int
	stdout, stderr string
}

// newPlace makes a workspace of files (name → content) with a shell.
func newPlace(t testing.TB, store string, files map[string]string) *place {
	t.Helper()
	p := &place{t: t, dir: tempDir(t), store: store}
	for name, content := range files {
		p.write(name, content)
	}
	if err := needMirror(t).workspace(p.dir, shellSet); err != nil {
		t.Fatal(err)
	}
	return p
}

// tempDir is t.TempDir, but can remove what a store leaves.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp(shared.dir, "t-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := removeAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func (p *place) path(name string) string { return filepath.Join(p.dir, filepath.FromSlash(name)) }

func (p *place) write(name, content string) {
	p.t.Helper()
	if err := os.MkdirAll(filepath.Dir(p.path(name)), 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(p.path(name), []byte(content), 0o644); err != nil {
		p.t.Fatal(err)
	}
}

func (p *place) read(name string) string {
	p.t.Helper()
	b, err := os.ReadFile(p.path(name))
	if err != nil {
		p.t.Fatal(err)
	}
	return string(b)
}

// command is the program, ready to be started; an argument list may begin with
// another program to run it with.
func (p *place) command(args ...string) *exec.Cmd {
	cmd := exec.Command(shared.tool, args...)
	cmd.Dir = p.dir
	cmd.Env = append(os.Environ(), "TOOL_STORE="+p.store, "NO_COLOR=1")
	return cmd
}

// tool runs the program.
func (p *place) tool(args ...string) result {
	p.t.Helper()
	return finish(p.t, p.command(args...))
}

// finish runs a command to its end.
func finish(t testing.TB, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// must runs the program, which must succeed.
func (p *place) must(args ...string) result {
	p.t.Helper()
	r := p.tool(args...)
	if r.code != 0 {
		p.t.Fatalf("tool %s: exit code %d\n%s%s", strings.Join(args, " "), r.code, r.stdout, r.stderr)
	}
	return r
}

// fails runs the program, which must fail with a code and a message. In the
// message $STORE and so on stand for what differs from run to run.
func (p *place) fails(code int, want string, args ...string) {
	p.t.Helper()
	r := p.tool(args...)
	got := p.stable(r.stderr)
	if r.code != code || got != want {
		p.t.Errorf("tool %s: exit code %d, want %d\n--- got\n%s--- want\n%s", strings.Join(args, " "), r.code, code, got, want)
	}
}

// stable is stable for the output in a place.
func (p *place) stable(s string) string {
	s = strings.NewReplacer(p.store, "$STORE", p.dir, "$WORK").Replace(s)
	s = library.ReplaceAllString(sha256Part.ReplaceAllString(s, "SHA256"), "$1:LINE")
	return progress.ReplaceAllString(s, "")
}

// built is what build --json prints.
type built struct {
	Targets []struct {
		Label   string
		Outputs []struct {
			Path, Ref, Digest string
			Size              int64
		}
	}
	Actions struct{ Total, Executed, Cached int }
	Seconds float64
}

// build builds and returns what --json printed.
func (p *place) build(args ...string) built {
	p.t.Helper()
	r := p.must(append([]string{"build", "--json"}, args...)...)
	return readBuilt(p.t, r.stdout)
}

func readBuilt(t testing.TB, s string) built {
	t.Helper()
	var b built
	d := json.NewDecoder(strings.NewReader(s))
	d.DisallowUnknownFields()
	if err := d.Decode(&b); err != nil {
		t.Fatalf("%v in %s", err, s)
	}
	return b
}

// sound fails the test if the store is damaged.
func (p *place) sound() {
	p.t.Helper()
	if r := p.tool("store", "verify"); r.code != 0 {
		p.t.Errorf("the store is damaged\n%s%s", r.stdout, r.stderr)
	}
}
