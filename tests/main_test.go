// Package tests drives the program itself, as its users do: the scripts in
// testdata/script say what one types and what comes back, word for word, and
// the Go tests do what a script cannot: kill it, run it twice at once, fill its
// disk, serve it garbage.
//
// Environment variables change a run:
//
//	TOOL_BINARY=/path   test that program instead of a fresh build of cmd/tool
//	TOOL_KILLS=50       how often TestKill kills a build (10)
//	TOOL_TEST_MACHINES=all  all scenarios of TestMachines and TestDebian (the first ones), and TestBoot
//	TOOL_VM_KILLS=20    how often TestMachines kills a deploy (5)
//	TOOL_TEST_VBOX_BOOT=1   start a machine under VirtualBox's interpreter (hours)
//	TOOL_UPDATE=1       rewrite what the scripts expect; read the diff
package tests

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"tool/backends/virtualbox/vboxtest"
)

// fixture is what the tests of one run share.
type fixture struct {
	dir  string // temporary, removed at the end
	tool string // the program

	mirror func() (*mirror, error)
	store  func() (string, error) // with the shell environment unpacked
}

// noVirtualBox keeps the backend "auto" the same on every host.
const noVirtualBox = "/nonexistent/VBoxManage"

// shared is set once, by TestMain.
var shared *fixture

func TestMain(m *testing.M) {
	code, err := run(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, "tests:", err)
		code = 1
	}
	os.Exit(code)
}

func run(m *testing.M) (code int, err error) {
	dir, err := os.MkdirTemp("", "tool-tests-")
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, removeAll(dir)) }()
	defer vboxtest.Remove()
	shared = &fixture{dir: dir, tool: os.Getenv("TOOL_BINARY")}
	if shared.tool == "" {
		shared.tool = filepath.Join(dir, "bin", "tool")
		cmd := exec.Command("go", "build", "-buildvcs=false", "-o", shared.tool, "tool/cmd/tool")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("building the program: %w\n%s", err, out)
		}
	} else if shared.tool, err = filepath.Abs(shared.tool); err != nil {
		return 0, err
	}
	if err := os.Setenv("GOTMPDIR", dir); err != nil { // where testscript makes its folders
		return 0, err
	}
	if err := os.Setenv("TOOL_VBOXMANAGE", noVirtualBox); err != nil {
		return 0, err
	}
	shared.mirror = sync.OnceValues(openMirror)
	shared.store = sync.OnceValues(func() (string, error) { return warmStore(filepath.Join(dir, "store"), filepath.Join(dir, "warm")) })
	return m.Run(), nil
}

// warmStore makes a store that holds the shell environment, by building it in
// a workspace of its own.
func warmStore(store, dir string) (string, error) {
	m, err := shared.mirror()
	if err != nil {
		return "", err
	}
	if err := m.workspace(dir, shellSet); err != nil {
		return "", err
	}
	cmd := exec.Command(shared.tool, "build", "//packages:shell")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TOOL_STORE="+store)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("unpacking the shell: %w\n%s", err, out)
	}
	return store, nil
}

// needMirror returns the mirror, or skips the test if there is neither a warm
// one nor a network to fill it from.
func needMirror(t testing.TB) *mirror {
	t.Helper()
	m, err := shared.mirror()
	skipOrFail(t, err)
	return m
}

// needStore returns the store that tests share.
func needStore(t testing.TB) string {
	t.Helper()
	s, err := shared.store()
	skipOrFail(t, err)
	return s
}

func skipOrFail(t testing.TB, err error) {
	t.Helper()
	var off *offlineError
	if errors.As(err, &off) {
		t.Log(err)
		t.Skip("SKIPPED: there is no local mirror of the packages, and no network to make one")
	}
	if err != nil {
		t.Fatal(err)
	}
}

// cloneStore makes a store of its own for a test out of the shared one: the
// contents are linked, since nobody writes to them; locks and records are copies.
func cloneStore(from, to string) error {
	var dirs []string
	modes := map[string]fs.FileMode{}
	err := filepath.WalkDir(from, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, p)
		if err != nil {
			return err
		}
		dst := filepath.Join(to, rel)
		info, err := d.Info()
		if err != nil {
			return err
		}
		top, _, _ := strings.Cut(rel, string(filepath.Separator))
		switch {
		case d.IsDir():
			dirs = append(dirs, dst)
			modes[dst] = info.Mode().Perm()
			return os.MkdirAll(dst, 0o755)
		case d.Type() == fs.ModeSymlink:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			return os.Symlink(target, dst)
		case top == "blobs" || top == "trees" || top == "store":
			return os.Link(p, dst)
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		return os.WriteFile(dst, b, info.Mode().Perm())
	})
	for _, d := range slices.Backward(dirs) {
		err = errors.Join(err, os.Chmod(d, modes[d]))
	}
	return err
}

// removeAll removes a folder that may hold read-only ones, as a store does.
func removeAll(dir string) error {
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			err = os.Chmod(p, 0o777)
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	return errors.Join(err, os.RemoveAll(dir))
}
