// Package vboxtest gives tests a real VirtualBox, without installing one and
// without its kernel driver: Debian's packages, pinned in testdata/debian.lock,
// unpacked by this very tool, and a program in the place of VBoxHeadless that has
// VirtualBox interpret the machines' instructions. It is for tests only: what it
// runs is a hundred times slower than VirtualBox is.
//
// Debian's suite sid moves on and does not keep what was there. Then the tests
// skip, and say so. To move the pins, make a workspace of testdata/virtualbox.star
// (as BUILD.star) and debian.lock, name a mirror of sid in its tool.toml, and run
// `tool lock --refresh` there.
package vboxtest

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"tool/backends/backendtest"
	"tool/core/packages/debian"
)

//go:embed testdata
var files embed.FS

// Host is a host with VirtualBox: settings of its own, and a server of its own.
type Host struct {
	Program string // VBoxManage
	Driver  string // stands for the driver's device
	Home    string // VirtualBox's settings
}

// installed is VirtualBox as all hosts of a process use it.
type installed struct {
	tree     string // of the packages
	headless string // the program in VBoxHeadless's place
	dir      string
}

// shared is what all tests of a process use. It is made by the first that needs it.
var shared struct {
	once sync.Once
	i    installed
	err  error
}

func install() (*installed, error) {
	shared.once.Do(func() { shared.err = shared.i.make() })
	return &shared.i, shared.err
}

func (i *installed) make() error {
	dir, err := os.MkdirTemp("", "tool-vbox-")
	if err != nil {
		return err
	}
	i.dir = dir
	// An ordinary user's PATH has no chroot. What is run inherits this.
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/sbin:/sbin"); err != nil {
		return err
	}
	for _, p := range []string{"gcc", "unshare", "nsenter", "mount", "chroot"} {
		if _, err := exec.LookPath(p); err != nil {
			return err
		}
	}
	if i.tree, err = build(dir); err != nil {
		return err
	}
	i.headless, err = compile(dir, i.tree)
	return err
}

// New returns a host, or skips the test where there can be none. What runs on it
// when the test ends is ended.
func New(t *testing.T) *Host {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED: -short runs no VirtualBox")
	}
	i, err := install()
	var b *backendtest.BuildError
	if errors.As(err, &b) && !b.Lacks {
		t.Fatal(err)
	}
	if err != nil {
		t.Log(err)
		t.Skip("SKIPPED: there is no VirtualBox to test with: Debian's sid may have moved on from what vboxtest/testdata/debian.lock pins, or the host lacks a program")
	}
	dir, err := os.MkdirTemp("", "tool-vboxhost-") // short: sockets are below it
	if err != nil {
		t.Fatal(err)
	}
	h := &Host{Program: filepath.Join(dir, "VBoxManage"), Driver: filepath.Join(dir, "vboxdrv"), Home: filepath.Join(dir, "home")}
	t.Cleanup(func() {
		h.end(t)
		_ = os.RemoveAll(dir)
	})
	root := filepath.Join(dir, "root")
	for _, d := range []string{h.Home, filepath.Join(root, "usr")} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(h.Driver, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pid, err := h.hold(i, root)
	if err != nil {
		t.Log(err)
		t.Skip("SKIPPED: a root file system of VirtualBox's packages cannot be made on this host")
	}
	if err := os.WriteFile(h.Program, []byte(h.script(root, pid)), 0o755); err != nil {
		t.Fatal(err)
	}
	return h
}

// holder makes a root file system of the packages with everything else of this
// machine's, its locales too, which the packages lack. It is in mounts of its own,
// and keeps them while it lives: as long as its standard input is open, which ends
// with the test's process at the latest.
const holder = `set -e
root=$1 tree=$2 headless=$3
for d in bin sbin lib lib64; do ln -s usr/$d "$root/$d"; done
for d in /*; do
	case $d in
	/usr | /bin | /sbin | /lib*) ;;
	*) [ ! -d "$d" ] || [ -L "$d" ] || { mkdir -p "$root$d"; mount --rbind "$d" "$root$d"; } ;;
	esac
done
mount --bind "$tree/usr" "$root/usr"
mount --bind "$headless" "$root/usr/lib/virtualbox/VBoxHeadless"
mkdir "$root/locale"
mount --bind /usr/lib/locale "$root/locale"
echo ready
exec cat >/dev/null
`

// environment is what tells the host's processes from others.
func (h *Host) environment() []string {
	return []string{"VBOX_USER_HOME=" + h.Home, "VBOX_IPC_SOCKETID=" + filepath.Base(filepath.Dir(h.Program))}
}

// hold starts the holder and returns its process.
func (h *Host) hold(i *installed, root string) (int, error) {
	args := []string{"-m", "sh", "-c", holder, "sh", root, i.tree, i.headless}
	if os.Geteuid() != 0 {
		args = append([]string{"-r"}, args...)
	}
	cmd := exec.Command("unshare", args...)
	cmd.Env = append(os.Environ(), h.environment()...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if _, err := cmd.StdinPipe(); err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go func() { _ = cmd.Wait() }() // it is ended by h.end
	b := make([]byte, 6)
	if _, err := io.ReadFull(out, b); err != nil || string(b) != "ready\n" {
		return 0, fmt.Errorf("the holder of the mounts says %q: %w", b, err)
	}
	return cmd.Process.Pid, nil
}

// script is VBoxManage of the host: the real one, in the root file system.
func (h *Host) script(root string, pid int) string {
	user := ""
	if os.Geteuid() != 0 {
		user = " --user --preserve-credentials"
	}
	return fmt.Sprintf(`#!/bin/sh
export %s PATH="$PATH:/usr/sbin:/sbin" LOCPATH=/locale
vbox="nsenter --mount%s -t %d chroot %s /usr/lib/virtualbox/VBoxManage"
if [ "$1" = startvm ]; then $vbox modifyvm "$2" --vm-execution-engine recompiler 2>/dev/null || :; fi
exec $vbox "$@"
`, strings.Join(h.environment(), " "), user, pid, root)
}

// Manage calls VBoxManage and returns what it says, of both kinds. It is called
// again where its server was just ending or starting.
func (h *Host) Manage(args ...string) (string, error) {
	for n := 0; ; n++ {
		cmd := exec.Command(h.Program, args...)
		cmd.Dir = "/"
		cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "LANGUAGE=C")
		out, err := cmd.CombinedOutput()
		if err == nil || n == 10 || !strings.Contains(string(out), "COM server is not running") {
			return string(out), err
		}
		time.Sleep(time.Second)
	}
}

// Processes returns the host's processes whose command line holds text.
func (h *Host) Processes(text string) []int {
	entries, _ := os.ReadDir("/proc")
	var pids []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		env, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err != nil || !bytes.Contains(env, []byte("VBOX_USER_HOME="+h.Home+"\x00")) {
			continue
		}
		line, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err == nil && strings.Contains(string(line), text) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Kill kills the process of a machine, and waits until it is gone.
func (h *Host) Kill(t *testing.T, id string) {
	t.Helper()
	pids := slices.DeleteFunc(h.Processes("--startvm\x00"+id), func(pid int) bool { return pid == os.Getpid() })
	if len(pids) == 0 {
		t.Fatalf("no process runs the machine %s", id)
	}
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	end := time.Now().Add(20 * time.Second)
	for len(h.Processes("--startvm\x00"+id)) > 0 {
		if time.Now().After(end) {
			t.Fatalf("processes %v do not end", pids)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// end ends what is left of the host's processes.
func (h *Host) end(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		for range 50 {
			pids := h.Processes("")
			if len(pids) == 0 {
				return
			}
			for _, pid := range pids {
				_ = syscall.Kill(pid, signal)
			}
			time.Sleep(100 * time.Millisecond)
		}
	}
	t.Errorf("processes of VirtualBox's do not end: %v", h.Processes(""))
}

// build lets the program unpack the packages and returns their tree.
func build(dir string) (string, error) {
	program, err := backendtest.Program(dir)
	if err != nil {
		return "", err
	}
	ws := filepath.Join(dir, "workspace")
	if err := os.Mkdir(ws, 0o755); err != nil {
		return "", err
	}
	for from, to := range map[string]string{"virtualbox.star": filepath.Join(ws, "BUILD.star"), "debian.lock": filepath.Join(ws, "debian.lock"), "headless.c": filepath.Join(dir, "headless.c")} {
		b, err := files.ReadFile("testdata/" + from)
		if err == nil {
			err = os.WriteFile(to, b, 0o644)
		}
		if err != nil {
			return "", err
		}
	}
	mirrors, err := mirrors()
	if err != nil {
		return "", err
	}
	var uris []string
	for _, m := range mirrors {
		uris = append(uris, strconv.Quote(m))
	}
	config := "[workspace]\nname = \"vboxtest\"\n[mirrors.debian]\nsid = [" + strings.Join(uris, ", ") + "]\n"
	if err := os.WriteFile(filepath.Join(ws, "tool.toml"), []byte(config), 0o644); err != nil {
		return "", err
	}
	paths, err := backendtest.Build(program, ws, "//:virtualbox")
	if err != nil {
		return "", fmt.Errorf("unpacking VirtualBox: %w", err)
	}
	if len(paths) != 1 {
		return "", fmt.Errorf("unpacking VirtualBox gives %q", paths)
	}
	return paths[0], nil
}

// mirrors are those that this host's apt has for Debian itself: each of them
// carries the suite sid as well.
func mirrors() ([]string, error) {
	sources, err := debian.HostSources("/")
	if err != nil {
		return nil, err
	}
	var out []string
	for _, s := range sources {
		for _, suite := range s.Suites {
			plain := !strings.ContainsAny(suite, "-/")
			if !plain || !slices.Contains(s.Components, "main") {
				continue
			}
			for _, u := range s.URIs {
				if strings.HasSuffix(u, "/debian") && !slices.Contains(out, u) {
					out = append(out, u)
				}
			}
		}
	}
	if len(out) == 0 {
		return nil, errors.New("this host's apt names no mirror of Debian")
	}
	return out, nil
}

// compile makes the program that takes VBoxHeadless's place.
func compile(dir, tree string) (string, error) {
	out := filepath.Join(dir, "VBoxHeadless")
	cmd := exec.Command("gcc", "-O1", "-rdynamic", "-o", out, filepath.Join(dir, "headless.c"), filepath.Join(tree, "usr/lib/virtualbox/VBoxRT.so"),
		"-Wl,-rpath,/usr/lib/virtualbox", "-Wl,--unresolved-symbols=ignore-in-shared-libs", "-ldl")
	if text, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("compiling headless.c: %w\n%s", err, text)
	}
	return out, nil
}

// Remove removes what all hosts of this process shared, if there is anything;
// TestMain calls it after the tests.
func Remove() {
	if shared.i.dir != "" {
		_ = os.RemoveAll(shared.i.dir)
	}
}
