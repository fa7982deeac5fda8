package workspace

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"tool/core/model/digest"
)

// workspaceOf makes a workspace of files; their times lie in the past, so that
// fingerprints can be trusted.
func workspaceOf(t *testing.T, files map[string]string) *Workspace {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		write(t, filepath.Join(dir, name), content)
	}
	if _, ok := files[ConfigFile]; !ok {
		write(t, filepath.Join(dir, ConfigFile), "")
	}
	ws, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return ws
}

func write(t *testing.T, file, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestConfigErrors(t *testing.T) {
	for _, c := range []struct{ toml, want string }{
		{"[build]\njosb = 3", `tool.toml:2: unknown key "build.josb"`},
		{"x = 1", `tool.toml:1: unknown key "x"`},
		{"[build]\njobs = \"a\"", `tool.toml`},
		{"[workspace]\npackage_path = [\"../x\"]", `package_path entry "../x" must be a clean path inside the workspace`},
		{"[store]\npath = \"rel\"", `store.path "rel" must be absolute or start with ~/`},
		{"[config.a]\ncompilation_mode = \"fast\"", `[config.a]: compilation_mode "fast" is none of fastbuild, dbg, opt`},
		{"a b", `tool.toml:1`},
	} {
		dir := t.TempDir()
		write(t, filepath.Join(dir, ConfigFile), c.toml)
		if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: got %v, want …%s…", c.toml, err, c.want)
		}
	}
}

func TestPackages(t *testing.T) {
	ws := workspaceOf(t, map[string]string{
		ConfigFile:              "[workspace]\npackage_path = [\".\", \"work\"]",
		"BUILD.star":            "",
		"a/BUILD.star":          "",
		"a/b/c/BUILD.star":      "",
		"work/a/BUILD.star":     "", // hidden by a/
		"work/d/BUILD.star":     "",
		".git/BUILD.star":       "",
		".tool/BUILD.star":      "",
		"a/sub/notapackage.txt": "",
	})
	got, err := ws.Packages("")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"", "a", "a/b/c", "d"}, got); diff != "" {
		t.Error(diff)
	}
	for pkg, want := range map[string]string{"": ".", "a": "a", "d": "work/d"} {
		if dir, ok := ws.PackageDir(pkg); !ok || dir != want {
			t.Errorf("PackageDir(%q) = %q, %v; want %q", pkg, dir, ok, want)
		}
	}
	for _, pkg := range []string{"none", ".tool", "a/sub"} {
		if dir, ok := ws.PackageDir(pkg); ok {
			t.Errorf("PackageDir(%q) = %q, want none", pkg, dir)
		}
	}
	for dir, want := range map[string]string{".": "", "work": "", "work/d": "d", "a/b": "a/b"} {
		if got := ws.PackageOf(dir); got != want {
			t.Errorf("PackageOf(%q) = %q, want %q", dir, got, want)
		}
	}
}

// settle waits until the paths are beyond the
// window in which a fingerprint is not trusted.
func settle(t *testing.T, paths ...string) {
	t.Helper()
	for _, p := range paths {
		for Stat(p).Racy(time.Now()) {
			time.Sleep(5 * time.Millisecond)
		}
	}
}

func TestAnswer(t *testing.T) {
	ws := workspaceOf(t, map[string]string{"a": "1", "b": "2"})
	outside := t.TempDir()
	write(t, filepath.Join(outside, "o"), "x")
	for i := range 3 * blockPaths {
		ws.Record.Note(fmt.Sprintf("absent/%d", i)) // more than one block
	}
	ws.Record.Note("a")
	ws.Record.Note("b")
	settle(t, ws.Abs("a"), ws.Abs("b"), filepath.Join(outside, "o"))
	q := []byte("question")
	a := &Answer{Question: q, Payload: []byte("payload"), Paths: ws.Record.All(), Base: outside,
		Outside: map[string]Fingerprint{"o": Stat(filepath.Join(outside, "o"))}}
	save := func() {
		t.Helper()
		if err := SaveAnswer(ws.Root, a); err != nil {
			t.Fatal(err)
		}
		if got, ok := LoadAnswer(ws.Root, q); !ok || string(got) != "payload" {
			t.Fatalf("LoadAnswer = %q, %v", got, ok)
		}
	}
	save()
	if _, ok := LoadAnswer(ws.Root, []byte("another")); ok {
		t.Error("another question has an answer")
	}
	for what, change := range map[string]func(){
		"a changed file":       func() { write(t, ws.Abs("a"), "3") },
		"a file that came":     func() { write(t, ws.Abs("absent/7"), "") },
		"an output that is no": func() { _ = os.Remove(filepath.Join(outside, "o")) },
	} {
		change()
		if _, ok := LoadAnswer(ws.Root, q); ok {
			t.Errorf("%s: still answered", what)
		}
		_ = os.RemoveAll(ws.Abs("absent"))
		write(t, filepath.Join(outside, "o"), "x")
		settle(t, ws.Abs("a"), filepath.Join(outside, "o"))
		a.Paths["a"], a.Outside["o"] = Stat(ws.Abs("a")), Stat(filepath.Join(outside, "o"))
		save()
	}
	// Damage anywhere is no answer, and no panic.
	file := answerFile(ws.Root, q)
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(good); i += 97 {
		bad := bytes.Clone(good)
		bad[i] ^= 0x40
		write(t, file, string(bad))
		if _, ok := LoadAnswer(ws.Root, q); ok {
			t.Errorf("byte %d flipped: still answered", i)
		}
	}
}

func TestAnswerNotSavedWhileRacy(t *testing.T) {
	ws := workspaceOf(t, map[string]string{"a": "1"})
	fp := ws.Record.Note("a")
	fp.Mtime = time.Now().Add(time.Hour).UnixNano() // as if written this instant
	a := &Answer{Question: []byte("q"), Paths: map[string]Fingerprint{"a": fp}}
	if err := SaveAnswer(ws.Root, a); err != nil {
		t.Fatal(err)
	}
	if _, ok := LoadAnswer(ws.Root, []byte("q")); ok {
		t.Error("an answer was kept on the word of a file that may still change")
	}
}

func TestSourceIndex(t *testing.T) {
	ws := workspaceOf(t, map[string]string{"a": "1"})
	settle(t, ws.Abs("a"))
	fp, d := Stat(ws.Abs("a")), digest.Of([]byte("1"))
	x := OpenSourceIndex(ws.Root)
	x.Learn("a", fp, d)
	if err := x.Save(); err != nil {
		t.Fatal(err)
	}
	y := OpenSourceIndex(ws.Root)
	if got, ok := y.Lookup("a", fp); !ok || got != d {
		t.Errorf("Lookup = %v, %v", got, ok)
	}
	fp.Ino++
	if _, ok := y.Lookup("a", fp); ok {
		t.Error("another fingerprint was taken for the same file")
	}
}

func FuzzDecodeAnswer(f *testing.F) {
	f.Add([]byte{0})
	f.Add([]byte{0, 1, 'a', 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, block []byte) {
		unchanged(block, []string{t.TempDir(), t.TempDir()})
	})
}
