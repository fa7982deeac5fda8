package deploy

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"tool/core/machines/activate"
)

// fakeSystemd is a machine's service manager in memory. A unit whose file has
// "fail" in it fails when it is started.
type fakeSystemd struct {
	root string
	// run begins a transient unit, which no lost connection ends.
	run func(activate.Transient)

	mu    sync.Mutex
	state map[string]string
	calls []string
}

func (f *fakeSystemd) Show(_ context.Context, units ...string) ([]activate.UnitState, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []activate.UnitState
	for _, name := range units {
		u := activate.UnitState{Unit: name, Load: "loaded", Active: f.state[name], Result: "success"}
		switch u.Active {
		case "":
			u.Active = "inactive"
		case "failed":
			u.Result, u.Exit = "exit-code", "exited, status 1"
		}
		out = append(out, u)
	}
	return out, nil
}

func (f *fakeSystemd) List(_ context.Context, states ...string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for name, s := range f.state {
		if slices.Contains(states, s) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out, nil
}

func (f *fakeSystemd) Do(_ context.Context, verb string, units ...string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.calls = append(f.calls, verb+" "+strings.Join(units, " "))
	var failed []string
	for _, name := range units {
		b, err := os.ReadFile(filepath.Join(f.root, "usr/lib/systemd/system", name))
		switch {
		case verb == "stop":
			f.state[name] = "inactive"
		case verb == "start" && f.state[name] == "active":
		case err != nil || strings.Contains(string(b), "fail"):
			f.state[name] = "failed"
			failed = append(failed, name)
		default:
			f.state[name] = "active"
		}
	}
	if failed != nil {
		return fmt.Errorf("job for %v failed", failed)
	}
	return nil
}

func (f *fakeSystemd) ResetFailed(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for name, s := range f.state {
		if s == "failed" {
			f.state[name] = "inactive"
		}
	}
	return nil
}

func (f *fakeSystemd) Journal(_ context.Context, unit string, _ time.Time, _ int) ([]string, error) {
	return []string{unit + " said so\x1b[31m"}, nil
}

func (f *fakeSystemd) Run(_ context.Context, t activate.Transient) error {
	f.run(t)
	return nil
}

func (f *fakeSystemd) DaemonReload(context.Context) error  { return nil }
func (f *fakeSystemd) DaemonReexec(context.Context) error  { return nil }
func (f *fakeSystemd) Tmpfiles(context.Context) error      { return nil }
func (f *fakeSystemd) ReloadNetwork(context.Context) error { return nil }
func (f *fakeSystemd) Reboot(context.Context) error        { return nil }

// off forgets everything, as a start does.
func (f *fakeSystemd) off() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = map[string]string{}
}

// restarted returns what Do was called for since the last time.
func (f *fakeSystemd) restarted() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	c := f.calls
	f.calls = nil
	return c
}

// set makes a unit's state what it is not by anybody's order.
func (f *fakeSystemd) set(unit, state string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state[unit] = state
}
