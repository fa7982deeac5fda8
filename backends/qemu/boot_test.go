package qemu_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tool/core/machines/deploy"
)

// agentSource is a program in the agent's place: it tells what it was called
// with and what it finds, and leaves a system whose init tells that it runs.
const agentSource = `package main

import (
	"fmt"
	"os"
	"strings"
	"syscall"
)

func main() {
	if os.Args[0] == "/sbin/init" {
		b, err := os.ReadFile("/tool/state/note")
		fmt.Printf("init runs as %d: %s, %v\n", os.Getpid(), b, err)
		syscall.Sync()
		for {
			syscall.Pause()
		}
	}
	var fs syscall.Statfs_t
	_ = syscall.Statfs("/", &fs)
	fmt.Printf("agent %s; %d MiB\n", strings.Join(os.Args[1:], " "), int64(fs.Blocks)*fs.Bsize>>20)
	for _, p := range []string{"/dev/null", "/proc/self", "/sys/class", "/run", "/tool/blobs"} {
		if _, err := os.Stat(p); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	if b, _ := os.ReadFile("/proc/cmdline"); strings.Contains(string(b), "agent=fails") {
		fmt.Println("agent fails")
		os.Exit(3)
	}
	for _, d := range []string{"/sbin", "/tool/state"} {
		_ = os.MkdirAll(d, 0o755)
	}
	self, _ := os.ReadFile("/tool/agent/current/tool")
	_ = os.WriteFile("/sbin/init", self, 0o755)
	f, err := os.OpenFile("/tool/state/note", os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err == nil {
		_, err = f.WriteString("start;")
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(2)
	}
}
`

// program compiles a static program.
func program(t *testing.T, source string) []byte {
	t.Helper()
	dir := t.TempDir()
	for name, content := range map[string]string{"main.go": source, "go.mod": "module agent\n\ngo 1.26\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", "agent", ".")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(filepath.Join(dir, "agent"))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// seedOf is a seed disk with an agent: docs/machine.md has the format.
func seedOf(t *testing.T, id string, agent []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(agent)
	header, err := json.Marshal(map[string]any{"id": id, "agent": map[string]any{"size": len(agent), "sha256": hex.EncodeToString(sum[:])}})
	if err != nil {
		t.Fatal(err)
	}
	align := func(b []byte) []byte { return append(b, make([]byte, -len(b)&4095)...) }
	return align(append(align(fmt.Appendf(nil, "TOOLSEED1\n%016x\n%s", len(header), header)), agent...))
}

// baseImage makes an empty root file system.
func baseImage(t *testing.T, b *built, path string) {
	t.Helper()
	folder := t.TempDir()
	if err := os.MkdirAll(filepath.Join(folder, "tool", "blobs"), 0o755); err != nil {
		t.Fatal(err)
	}
	lib := filepath.Join(b.diskTools, "usr/lib/x86_64-linux-gnu")
	cmd := exec.Command(filepath.Join(lib, "ld-linux-x86-64.so.2"), "--library-path", lib, filepath.Join(b.diskTools, "usr/sbin/mke2fs"),
		"-q", "-F", "-t", "ext4", "-L", "tool-root", "-d", folder, path, "64M")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("mke2fs: %v\n%s", err, out)
	}
}

// await waits until the console tells text after the first from bytes, and
// returns how much it has told then.
func await(t *testing.T, console, text string, from int) int {
	t.Helper()
	end := time.Now().Add(3 * time.Minute)
	for {
		b, err := os.ReadFile(console)
		if err == nil && len(b) > from && strings.Contains(string(b[from:]), text) {
			return len(b)
		}
		if time.Now().After(end) {
			t.Fatalf("%q is not told; the console:\n%s", text, b)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestBoot starts a machine with the library's own initrd, twice: the disk is
// grown, the agent is taken from the seed once, and its system started. Then
// with an agent that fails: the machine says so and starts again.
func TestBoot(t *testing.T) {
	f, b := newFleet(t), newBackend()
	m := f.Machine(t, "m0")
	baseImage(t, f.b, f.Like.Root)
	agent := program(t, agentSource)
	if err := os.WriteFile(m.Seed, seedOf(t, "seed 1", agent), 0o600); err != nil {
		t.Fatal(err)
	}
	m.Hardware.Memory, m.Hardware.Disk = 256, 1024
	m.Cmdline = "console=ttyS0 panic=1 loglevel=4"
	up(t, b, m)
	console := b.Console(m)
	at := await(t, console, "init runs as 1: start;, <nil>", 0)
	text, err := os.ReadFile(console)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"tool: root is /dev/vda", "tool: grew /dev/vda to 1024 MiB", "tool: taking the agent from the seed", "agent agent boot --seed=/dev/vdb; 9", "tool: starting /sbin/init"} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	m.Cmdline += " quiet"
	if err := reach(t, b, m, deploy.Running); err != nil {
		t.Fatal(err)
	}
	again := await(t, console, "init runs as 1: start;start;, <nil>", at)
	if text, err := os.ReadFile(console); err != nil || strings.Contains(string(text[at:]), "taking the agent") || strings.Contains(string(text[at:]), "grew") {
		t.Errorf("the second start, %v:\n%s", err, text[at:])
	}
	m.Cmdline += " agent=fails"
	if err := reach(t, b, m, deploy.Running); err != nil {
		t.Fatal(err)
	}
	again = await(t, console, "cannot start this machine: tool agent boot --seed=/dev/vdb: exit status 3", again)
	await(t, console, "agent fails", again)
}
