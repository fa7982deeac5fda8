package main

import (
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// staticProgram returns the path of this program as a static one, for machines
// run it before they have libraries. `go build` and `go run` make a dynamic one
// where they find a C compiler; then the same source is compiled once more,
// without, and kept for the next time. The flags are those of `go run`, so most
// of it comes from the go command's cache.
func staticProgram(cache string) (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("finding this program, which machines get as their agent: %w", err)
	}
	dynamic, err := isDynamic(exe)
	if err != nil || !dynamic {
		return exe, err
	}
	id, err := programID()
	if err != nil {
		return "", err
	}
	out := filepath.Join(cache, "agent", shortHash(id), "tool")
	if _, err := os.Stat(out); err == nil {
		return out, nil
	}
	if err := compileStatic(out); err != nil {
		return "", fmt.Errorf("this program needs shared libraries, and machines run it before they have any: build it with CGO_ENABLED=0 (compiling it so from its source failed: %w)", err)
	}
	return out, nil
}

func isDynamic(path string) (bool, error) {
	f, err := elf.Open(path)
	if err != nil {
		return false, fmt.Errorf("looking at this program: %w", err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return true, nil
		}
	}
	return false, nil
}

func compileStatic(out string) error {
	_, file, _, ok := runtime.Caller(0)
	dir := filepath.Dir(file)
	if _, err := os.Stat(file); !ok || err != nil {
		return errors.New("it is not where it was when this program was compiled")
	}
	if err := os.MkdirAll(filepath.Dir(out), 0o755); err != nil {
		return err
	}
	tmp := fmt.Sprintf("%s.tmp%d", out, os.Getpid())
	defer os.Remove(tmp)
	cmd := exec.Command("go", "build", "-o", tmp, ".")
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w: %s", err, strings.TrimSpace(string(b)))
	}
	return os.Rename(tmp, out)
}
