package sandbox

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// kept is what spec.json in a kept sandbox holds.
type kept struct {
	Store   string // the CAS's directory
	Request request
}

// keepDir is where kept sandboxes are, in the CAS's directory: the temporary
// space dies with the process. maxKept bounds their number; older ones go.
const (
	keepDir = "kept"
	maxKept = 8
)

// keep moves the staging to where it survives, and returns that directory.
func (r *Runner) keep(st *staging) (string, error) {
	for i := range st.areas { // one that was collected is needed as a mount's source
		if err := os.MkdirAll(filepath.Join(st.dir, strconv.Itoa(i)), 0o755); err != nil {
			return "", err
		}
	}
	top := filepath.Join(r.cas.Dir(), keepDir)
	if err := os.MkdirAll(top, 0o755); err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp(top, "sandbox-")
	if err != nil {
		return "", err
	}
	for i, m := range st.req.Writable {
		st.req.Writable[i].Source = keepDir + "/" + filepath.Base(dir) + strings.TrimPrefix(m.Source, st.rel)
	}
	spec, err := json.MarshalIndent(kept{r.cas.Dir(), st.req}, "", "  ")
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(st.dir, "spec.json"), append(spec, '\n'), 0o644); err != nil {
		return "", err
	}
	// os.Rename refuses a directory as the target; an empty one gives way.
	if err := unix.Rename(st.dir, dir); err != nil {
		return "", fmt.Errorf("rename %s to %s: %w", st.dir, dir, err)
	}
	return dir, r.forget(top)
}

// forget removes all but the newest kept sandboxes.
func (r *Runner) forget(top string) error {
	entries, err := os.ReadDir(top)
	if err != nil {
		return err
	}
	type aged struct {
		path string
		at   int64
	}
	var all []aged
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			all = append(all, aged{filepath.Join(top, e.Name()), info.ModTime().UnixNano()})
		}
	}
	slices.SortFunc(all, func(a, b aged) int { return int(min(max(b.at-a.at, -1), 1)) })
	for _, a := range all[min(maxKept, len(all)):] {
		if err := r.cas.RemoveAll(a.path); err != nil {
			return err
		}
	}
	return nil
}

// Enter opens an interactive shell in the sandbox that a Spawn with Keep left
// in dir, with the same mounts and environment, and tells on stderr what the
// command was. It returns when the shell ends.
func Enter(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "spec.json"))
	if err != nil {
		return fmt.Errorf("%s is not a kept sandbox: %w", dir, err)
	}
	var k kept
	if err := json.Unmarshal(b, &k); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(dir, "spec.json"), err)
	}
	q := k.Request
	fmt.Fprintf(os.Stderr, "The command was: %q\n", q.Argv)
	q.Argv, q.Shell, q.Timeout = []string{"/bin/sh", "-i"}, true, 0
	// The terminal's signals are for the shell.
	signal.Ignore(syscall.SIGINT, syscall.SIGQUIT)
	defer signal.Reset(syscall.SIGINT, syscall.SIGQUIT)
	w, err := start(k.Store, true)
	if err != nil {
		return explain(err)
	}
	defer w.kill()
	_, err = w.ask(context.Background(), &q)
	return err
}
