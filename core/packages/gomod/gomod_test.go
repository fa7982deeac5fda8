package gomod

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"tool/core/model/digest"
	"tool/core/model/merkle"
	"tool/core/packages/lock"
	"tool/core/packages/unpack"
)

func makeZip(t testing.TB, files ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i := 0; i < len(files); i += 2 {
		f, err := w.Create(files[i])
		if err == nil {
			_, err = f.Write([]byte(files[i+1]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestPlan(t *testing.T) {
	const (
		mod = "module x\ngo 1.21.3\nrequire (\n\ta.b/c v1.0.0\n\ta.b/d v1.1.0 // indirect\n\ta.b/e v1.2.0\n\ta.b/f v1.3.0\n)\n" +
			"replace a.b/e => ../e\nreplace a.b/f v1.3.0 => a.b/g v1.4.0\n"
		sum = "a.b/c v1.0.0 h1:c=\na.b/c v1.0.0/go.mod h1:cm=\na.b/d v1.1.0/go.mod h1:dm=\na.b/g v1.4.0 h1:g=\n"
	)
	got, err := Plan([]byte(mod), []byte(sum))
	want := []Module{{"a.b/c", "v1.0.0", "h1:c=", "h1:cm="}, {"a.b/d", "v1.1.0", "", "h1:dm="}, {"a.b/g", "v1.4.0", "h1:g=", ""}}
	if err != nil || len(got) != len(want) {
		t.Fatalf("got %v, %v", got, err)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %v, want %v", got[i], want[i])
		}
	}
	for _, c := range []struct{ mod, sum, want string }{
		{"", "", "no module line"},
		{"module x\n", "", "needs a line `go 1.17`"},
		{"module x\ngo 1.16\n", "", "needs a line `go 1.17`"},
		{mod, "", "go.sum has no sum for a.b/c@v1.0.0, a.b/d@v1.1.0, a.b/g@v1.4.0: run `go mod tidy`"},
		{mod, "a b", "go.sum:1: want three fields"},
		{mod, "a v1 h1:x\na v1 h1:y", "go.sum:2: a@v1 has two different sums"},
	} {
		if _, err := Plan([]byte(c.mod), []byte(c.sum)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
}

func TestCacheTreeErrors(t *testing.T) {
	good := makeZip(t, "a.b/c@v1.0.0/x.go", "package c\n")
	sum, err := Sum(bytes.NewReader(good), int64(len(good)))
	if err != nil {
		t.Fatal(err)
	}
	mod := Module{Path: "a.b/c", Version: "v1.0.0", Sum: sum}
	for _, c := range []struct {
		zip  []byte
		m    Module
		want string
	}{
		{good, Module{Path: "a.b/c", Version: "v1.0.0"}, "no sum is known"},
		{makeZip(t, "a.b/c@v1.0.0/x.go", "package d\n"), mod, "its zip has the sum"},
		{makeZip(t, "a.b/c@v1.0.0/x.go", "package c\n", "z", ""), mod, `"z" is not below a.b/c@v1.0.0/`},
		{makeZip(t, "a.b/c@v1.0.0/../x", ""), mod, `".." in path`},
		{makeZip(t, "a.b/c@v1.0.0/x", "", "a.b/c@v1.0.0/X", ""), mod, "in case only"},
		{makeZip(t, "a.b/c@v1.0.0/con", ""), mod, "con"},
		{good[:40], mod, "zip"},
		{good, Module{Path: "a.b/c", Version: "v1.0.0", Sum: sum, GoModSum: "h1:x"}, "its go.mod has the sum"},
	} {
		m := newMem()
		_, err := CacheTree(context.Background(), bytes.NewReader(c.zip), int64(len(c.zip)), c.m, unpack.To(m))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %s", err, c.want)
		}
	}
	m := newMem()
	if _, err := CacheTree(context.Background(), bytes.NewReader(good), int64(len(good)), mod, unpack.To(m)); err != nil {
		t.Error(err)
	}
}

func TestToolchain(t *testing.T) {
	m := ToolchainModule("1.26.8", "linux", "amd64")
	if m.String() != "golang.org/toolchain@v0.0.1-go1.26.8.linux-amd64" {
		t.Errorf("got %s", m)
	}
	p := m.String() + "/"
	z := makeZip(t, p+"bin/go", "x", p+"bin/gofmt", "y", p+"pkg/tool/linux_amd64/asm", "z", p+"src/_go.mod", "module std\n",
		p+"src/run.bash", "s", p+"lib/wasm/go_js_wasm_exec", "w", p+"lib/wasm/wasm_exec.js", "j")
	var err error
	if m.Sum, err = Sum(bytes.NewReader(z), int64(len(z))); err != nil {
		t.Fatal(err)
	}
	store := newMem()
	tree, err := Toolchain(context.Background(), bytes.NewReader(z), int64(len(z)), m, unpack.To(store))
	if err != nil {
		t.Fatal(err)
	}
	for p, exec := range map[string]bool{"bin/go": true, "bin/gofmt": true, "pkg/tool/linux_amd64/asm": true, "src/go.mod": false,
		"src/_go.mod": false, "src/run.bash": false, "lib/wasm/go_js_wasm_exec": true, "lib/wasm/wasm_exec.js": false} {
		n, ok := find(store, tree, p)
		if !ok || n.Executable != exec {
			t.Errorf("%s: %v %v", p, n, ok)
		}
	}
	m.Sum = "h1:x"
	_, err = Toolchain(context.Background(), bytes.NewReader(z), int64(len(z)), m, unpack.To(store))
	var se *SumError
	if !errors.As(err, &se) {
		t.Errorf("got %v, want a *SumError", err)
	}
}

func find(m *mem, tree digest.Digest, p string) (merkle.Node, bool) {
	n := merkle.Node{Kind: merkle.Dir, Digest: tree}
	for e := range strings.SplitSeq(p, "/") {
		d, err := m.GetDirectory(n.Digest)
		if err != nil {
			return n, false
		}
		var ok bool
		if n, ok = d.Lookup(e); !ok {
			return n, false
		}
	}
	return n, true
}

// files is a Getter of zips on disk, by module.
type files map[string]string

func (fs files) Module(_ context.Context, path, version string) (*os.File, digest.Digest, error) {
	f, err := os.Open(fs[path+"@"+version])
	if err != nil {
		return nil, digest.Digest{}, err
	}
	d, err := digest.FromReader(f)
	return f, d, err
}

// TestGoBuildsOffline proves that the union of cache trees is a module cache:
// the real go command builds with it, read-only, with GOPROXY=off.
func TestGoBuildsOffline(t *testing.T) {
	gocmd, err := exec.LookPath("go")
	if err != nil {
		t.Skip("SKIPPED: there is no go command to prove it with")
	}
	dir, err := os.MkdirTemp("", "gomod") // not t.TempDir: "nobody" must get there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	src := filepath.Join(dir, "src")
	gomod, gosum := mainModule(t, "golang.org/x/mod", "github.com/klauspost/compress")
	for name, text := range map[string]string{
		"go.mod": gomod, "go.sum": gosum,
		"main.go": "package main\n\nimport (\n\t\"fmt\"\n\n\t\"github.com/klauspost/compress/zstd\"\n\t\"golang.org/x/mod/semver\"\n)\n\n" +
			"func main() { fmt.Println(semver.Major(\"v4.2.0\"), zstd.ZipMethodWinZip) }\n",
	} {
		if err := os.MkdirAll(src, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(src, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(gocmd, "mod", "download", "-json")
	cmd.Dir, cmd.Env = src, append(os.Environ(), "GOFLAGS=", "GOTOOLCHAIN=local")
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("SKIPPED: cannot download modules: %v\n%s", err, out)
	}
	zips := files{}
	for dec := json.NewDecoder(bytes.NewReader(out)); dec.More(); {
		var m struct{ Path, Version, Zip string }
		if err := dec.Decode(&m); err != nil {
			t.Fatal(err)
		}
		zips[m.Path+"@"+m.Version] = m.Zip
	}
	plan, err := Plan([]byte(gomod), []byte(gosum))
	if err != nil {
		t.Fatal(err)
	}
	entries, err := LockModules(context.Background(), zips, plan, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Pinned ones need no download: a Getter without files would fail.
	if _, err := LockModules(context.Background(), files{}, plan, &lock.Lock{Modules: entries}); err != nil {
		t.Error(err)
	}
	store := newMem()
	var mounts []merkle.Mount
	for i, m := range plan {
		if m.Sum != "" && entries[i].Sum != m.Sum {
			t.Errorf("%s: %s and %s", m, entries[i].Sum, m.Sum)
		}
		m.Sum = entries[i].Sum
		f, d, err := zips.Module(t.Context(), m.Path, m.Version)
		if err != nil {
			t.Fatal(err)
		}
		tree, err := CacheTree(context.Background(), f, d.Size, m, unpack.To(store))
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		mounts = append(mounts, merkle.Mount{Name: m.String(), Tree: tree})
	}
	tree, err := merkle.Merge(store, mounts)
	if err != nil {
		t.Fatal(err)
	}
	cache := filepath.Join(dir, "modcache")
	store.export(t, tree, cache)
	scratch := filepath.Join(dir, "scratch")
	if err := os.Mkdir(scratch, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, d := range []string{dir, scratch} {
		if err := os.Chmod(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	build := exec.Command(gocmd, "build", "-o", filepath.Join(scratch, "main"), ".")
	build.Dir = src
	build.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + scratch, "GOCACHE=" + filepath.Join(scratch, "cache"), "GOMODCACHE=" + cache,
		"GOPROXY=off", "GOFLAGS=-mod=readonly", "GOTOOLCHAIN=local", "CGO_ENABLED=0", "TMPDIR=" + scratch, "GOENV=off"}
	if os.Getuid() == 0 { // root could write into a read-only cache
		build.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	if out, err := exec.Command(filepath.Join(scratch, "main")).Output(); err != nil || string(out) != "v4 93\n" {
		t.Errorf("got %q, %v", out, err)
	}
}

// mainModule makes a go.mod and go.sum that require modules at this
// repository's own versions.
func mainModule(t *testing.T, paths ...string) (gomod, gosum string) {
	t.Helper()
	mod, err := os.ReadFile("../../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	sum, err := os.ReadFile("../../../go.sum")
	if err != nil {
		t.Fatal(err)
	}
	gomod = "module example.org/main\n\ngo 1.24\n\n"
	for _, p := range paths {
		for line := range strings.Lines(string(mod)) {
			if f := strings.Fields(strings.TrimPrefix(strings.TrimSpace(line), "require ")); len(f) >= 2 && f[0] == p {
				gomod += "require " + f[0] + " " + f[1] + "\n"
			}
		}
		for line := range strings.Lines(string(sum)) {
			if strings.HasPrefix(line, p+" ") {
				gosum += line
			}
		}
	}
	return gomod, gosum
}

func FuzzPlan(f *testing.F) {
	f.Add([]byte("module x\ngo 1.21\nrequire a.b/c v1.0.0\n"), []byte("a.b/c v1.0.0 h1:x\n"))
	f.Fuzz(func(t *testing.T, mod, sum []byte) { Plan(mod, sum) })
}
