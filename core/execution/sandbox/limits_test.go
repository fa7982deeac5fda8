package sandbox_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"tool/core/execution/exec"
	"tool/core/model/digest"
	"tool/core/model/merkle"
)

func TestStrayProcessesDie(t *testing.T) {
	b := newBench(t, t.TempDir())
	for mode, want := range map[string]string{"daemon": "daemon ", "bomb": "lit\n", "killall": ""} {
		res := b.do(b.spawn(mode))
		if res.ExitCode != 0 || !strings.Contains(string(res.Stdout), want) {
			t.Errorf("%s: exit %d, %s%s", mode, res.ExitCode, res.Stdout, res.Stderr)
		}
		if n := helpers(t); n != 0 {
			t.Errorf("%d processes are left after %s", n, mode)
		}
	}
}

func TestTimeout(t *testing.T) {
	b := newBench(t, t.TempDir())
	s := b.spawn("sleep")
	s.Timeout = 500 * time.Millisecond
	res := b.do(s)
	if !res.TimedOut || res.ExitCode != 137 {
		t.Errorf("got %+v", res)
	}
	s.Argv[2] = "exit"
	s.Argv = append(s.Argv, "0")
	s.Timeout = time.Hour
	if res := b.do(s); res.TimedOut || res.ExitCode != 0 {
		t.Errorf("got %+v", res)
	}
}

func TestCancel(t *testing.T) {
	b := newBench(t, t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(100*time.Millisecond, cancel)
	if _, err := b.run.Run(ctx, b.spawn("sleep")); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if n := helpers(t); n != 0 {
		t.Errorf("%d processes are left", n)
	}
	b.do(b.spawn("exit", "0"))
}

func TestLogIsBounded(t *testing.T) {
	b := newBench(t, t.TempDir())
	res := b.do(b.spawn("spew"))
	if len(res.Stdout) > exec.MaxLog || len(res.Stdout) < exec.MaxLog/2 || !bytes.HasSuffix(res.Stdout, []byte("the end\n")) ||
		!bytes.Contains(res.Stdout, []byte("bytes left out ...")) {
		t.Errorf("kept %d bytes", len(res.Stdout))
	}
}

func TestRefusesBadSpawns(t *testing.T) {
	b := newBench(t, t.TempDir())
	f := b.file("x", false)
	for name, change := range map[string]func(*exec.Spawn){
		"no command":        func(s *exec.Spawn) { s.Argv = nil },
		"input escapes":     func(s *exec.Spawn) { s.Inputs = []exec.Input{{Path: "../x", Node: f}} },
		"absolute input":    func(s *exec.Spawn) { s.Inputs = []exec.Input{{Path: "/x", Node: f}} },
		"output escapes":    func(s *exec.Spawn) { s.Outputs = []exec.Output{{Path: "out/../../x"}} },
		"output at the top": func(s *exec.Spawn) { s.Outputs = []exec.Output{{Path: "x"}} },
		"input twice":       func(s *exec.Spawn) { s.Inputs = []exec.Input{{Path: "x", Node: f}, {Path: "x", Node: f}} },
		"object escapes":    func(s *exec.Spawn) { s.Objects = []exec.Object{{Ref: "..", Node: f}} },
		"unknown input": func(s *exec.Spawn) {
			s.Inputs = []exec.Input{{Path: "x", Node: merkle.Node{Kind: merkle.File, Digest: digest.Of([]byte("?"))}}}
		},
		"input is an out tree": func(s *exec.Spawn) {
			s.Inputs = []exec.Input{{Path: "out/x", Node: f}}
			s.Outputs = []exec.Output{{Path: "out/x", Tree: true}}
		},
	} {
		s := b.spawn("exit", "0")
		change(s)
		if res, err := b.run.Run(context.Background(), s); err == nil {
			t.Errorf("%s: %+v", name, res)
		}
	}
}

func BenchmarkSpawn(b *testing.B) {
	dir := b.TempDir()
	be := newBench(b, dir)
	s := be.spawn()
	s.Argv = []string{"/bin/nop"}
	s.Inputs = []exec.Input{{Path: "a/b.c", Node: be.file("x", false)}, {Path: "t", Node: be.tree(map[string]string{"x": "y"})}}
	s.Outputs = []exec.Output{{Path: "out/x"}}
	be.do(s)
	for b.Loop() {
		be.do(s)
	}
}
