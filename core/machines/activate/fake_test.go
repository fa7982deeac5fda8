package activate

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tool/core/machines/facts"
	"tool/core/machines/system"
	"tool/core/model/digest"
	"tool/core/model/merkle"
	"tool/core/storage/store"
)

// fakeSystemd is a service manager in memory. A unit runs with the content that
// its file had when it was started: "fail" in it makes it fail, "flap" makes it
// restart for ever, "slow" makes it active only when it is looked at again, each
// "shy" makes one start fail.
type fakeSystemd struct {
	mu      sync.Mutex
	root    string
	units   map[string]*fakeUnit
	calls   []string
	before  func(call string)     // may panic: a killed runner
	run     func(Transient) error // what Run does; nil: nothing
	reboots int
}

type fakeUnit struct {
	active, content         string
	restarts, looks, starts int
}

func (f *fakeSystemd) call(format string, args ...any) {
	c := fmt.Sprintf(format, args...)
	if f.before != nil {
		f.before(c)
	}
	f.mu.Lock()
	f.calls = append(f.calls, c)
	f.mu.Unlock()
}

func (f *fakeSystemd) unit(name string) *fakeUnit {
	if f.units[name] == nil {
		f.units[name] = &fakeUnit{active: "inactive"}
	}
	return f.units[name]
}

func (f *fakeSystemd) Show(_ context.Context, units ...string) ([]UnitState, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []UnitState
	for _, name := range units {
		u := f.unit(name)
		s := UnitState{Unit: name, Load: "loaded", Active: u.active, Result: "success", Restarts: u.restarts}
		if u.active == "activating" {
			if u.looks++; u.looks > 2 {
				u.active = "active"
			}
		}
		if strings.Contains(u.content, "flap") && u.active == "active" {
			u.restarts++
		}
		if u.active == "failed" {
			s.Result, s.Exit = "exit-code", "exited, status 1"
		}
		out = append(out, s)
	}
	return out, nil
}

func (f *fakeSystemd) List(_ context.Context, states ...string) ([]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for name, u := range f.units {
		if slices.Contains(states, u.active) {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out, nil
}

func (f *fakeSystemd) Do(_ context.Context, verb string, units ...string) error {
	f.call("%s %s", verb, strings.Join(units, " "))
	f.mu.Lock()
	defer f.mu.Unlock()
	var failed []string
	for _, name := range units {
		u := f.unit(name)
		if verb == "stop" {
			u.active = "inactive"
			continue
		}
		if verb == "start" && u.active == "active" {
			continue
		}
		b, err := os.ReadFile(filepath.Join(f.root, "etc/systemd/system", name))
		if err != nil {
			b, err = os.ReadFile(filepath.Join(f.root, "usr/lib/systemd/system", name))
		}
		if verb == reloadVerb && strings.Contains(string(b), "unread") {
			failed = append(failed, name)
			continue
		}
		u.content, u.active, u.looks = string(b), "active", 0
		u.starts++
		switch {
		case err != nil || strings.Contains(u.content, "fail"), u.starts <= strings.Count(u.content, "shy"):
			u.active = "failed"
			failed = append(failed, name)
		case strings.Contains(u.content, "slow"):
			u.active = "activating"
		}
	}
	if failed != nil {
		return fmt.Errorf("job for %v failed", failed)
	}
	return nil
}

func (f *fakeSystemd) ResetFailed(context.Context) error {
	f.call("reset-failed")
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, u := range f.units {
		if u.active == "failed" {
			u.active = "inactive"
		}
	}
	return nil
}
func (f *fakeSystemd) DaemonReload(context.Context) error  { f.call("daemon-reload"); return nil }
func (f *fakeSystemd) DaemonReexec(context.Context) error  { f.call("daemon-reexec"); return nil }
func (f *fakeSystemd) Tmpfiles(context.Context) error      { f.call("tmpfiles"); return nil }
func (f *fakeSystemd) ReloadNetwork(context.Context) error { f.call("network"); return nil }
func (f *fakeSystemd) Journal(_ context.Context, unit string, _ time.Time, lines int) ([]string, error) {
	return []string{unit + " said so"}, nil
}
func (f *fakeSystemd) Run(_ context.Context, t Transient) error {
	f.call("run %s", t.Unit)
	if f.run != nil {
		return f.run(t)
	}
	return nil
}
func (f *fakeSystemd) Reboot(context.Context) error {
	f.call("reboot")
	f.mu.Lock()
	defer f.mu.Unlock()
	f.reboots++
	return nil
}

// rig is a machine in a temporary folder.
type rig struct {
	t  *testing.T
	m  *Machine
	sd *fakeSystemd
}

func newRig(t *testing.T) *rig {
	t.Helper()
	root := memoryDir(t)
	r := &rig{t: t, sd: &fakeSystemd{root: root, units: map[string]*fakeUnit{}}}
	os.MkdirAll(filepath.Join(root, "proc"), 0o755)
	r.open()
	t.Cleanup(func() { r.m.Close() })
	return r
}

// memoryDir returns a folder in memory where there is one: the tests sync a lot.
func memoryDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "tool-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { exec.Command("chmod", "-R", "u+w", dir).Run(); os.RemoveAll(dir) })
	return dir
}

// open makes another process of the agent, as after a kill: nothing is flushed.
func (r *rig) open() {
	r.t.Helper()
	boot := ""
	if r.m != nil {
		boot = r.m.bootID
		r.m.Store.Close()
	}
	m, err := Open(r.sd.root, r.sd)
	if err != nil {
		r.t.Fatal(err)
	}
	m.times = timing{poll: time.Millisecond, stability: 4 * time.Millisecond, confirm: 20 * time.Millisecond, recover: 50 * time.Millisecond, retries: []time.Duration{time.Millisecond}}
	if boot != "" {
		m.bootID = boot
	}
	r.m = m
}

// restart is a start of the machine: /run is empty, units are as the system says.
func (r *rig) restart() {
	r.t.Helper()
	os.RemoveAll(r.m.path("run"))
	r.open()
	r.m.bootID += "+"
	if err := r.m.Boot(r.t.Context(), ""); err != nil {
		r.t.Fatal(err)
	}
	r.startAll()
}

// startAll starts what the active generation wants.
func (r *rig) startAll() {
	r.t.Helper()
	r.sd.units = map[string]*fakeUnit{}
	n, _ := r.m.Pointer(Active)
	m, err := r.m.manifestOf(n)
	if err != nil {
		r.t.Fatal(err)
	}
	for _, s := range m.Services {
		r.sd.Do(r.t.Context(), "start", s.Unit)
	}
	r.sd.calls = nil
}

func someFacts() *facts.Facts {
	return &facts.Facts{Machine: "m", MachineID: strings.Repeat("a", 32), AuthorizedKeys: []string{"ssh-ed25519 AAAA me"}}
}

// system puts a system into the machine's store. units maps a unit to its
// file's content; etc likewise.
func (r *rig) system(units, etc map[string]string, change func(*system.Manifest)) store.Ref {
	r.t.Helper()
	s := r.m.Store
	put := func(content string) digest.Digest {
		d, err := s.CAS().PutBytes([]byte(content))
		if err != nil {
			r.t.Fatal(err)
		}
		return d
	}
	var b merkle.Builder
	m := &system.Manifest{Version: 1, Name: "m", Users: []system.User{{Name: "zk", UID: 800, GID: 800, Home: "/var/lib/zk"}}}
	var refs []store.Ref
	for _, unit := range slices.Sorted(mapKeys(units)) {
		content := units[unit]
		ref, err := s.Add(r.t.Context(), store.Object{Name: unit, Node: merkle.Node{Kind: merkle.File, Digest: put(content)}})
		if err != nil {
			r.t.Fatal(err)
		}
		refs = append(refs, ref)
		path := "usr/lib/systemd/system/" + unit
		b.Add(path, merkle.Node{Kind: merkle.File, Digest: put(content)})
		m.Services = append(m.Services, system.Service{Name: unit, Label: "//c:" + unit, Unit: unit, OnChange: "restart",
			UnitFile: system.PlacedFile{Path: path, Ref: system.StorePrefix + string(ref)},
			Health:   []system.Check{{Kind: "unit", Target: unit, Expect: "active", Seconds: 5}}})
	}
	for name, content := range etc {
		b.Add("etc/"+name, merkle.Node{Kind: merkle.File, Digest: put(content)})
	}
	b.Add("etc/mtab", merkle.Node{Kind: merkle.Symlink, Target: "../proc/self/mounts"})
	b.Add("var/lib/zk/data", merkle.Node{Kind: merkle.Symlink, Target: "x"})
	if change != nil {
		change(m)
	}
	manifest, err := json.Marshal(m)
	if err != nil {
		r.t.Fatal(err)
	}
	b.Add("system.json", merkle.Node{Kind: merkle.File, Digest: put(string(manifest))})
	tree, err := b.Write(s.CAS())
	if err != nil {
		r.t.Fatal(err)
	}
	ref, err := s.Add(r.t.Context(), store.Object{Name: "system-m", Node: merkle.Node{Kind: merkle.Dir, Digest: tree}, Refs: refs})
	if err != nil {
		r.t.Fatal(err)
	}
	return ref
}

func mapKeys[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

func (r *rig) stage(n int, ref store.Ref) {
	r.t.Helper()
	if err := r.m.Stage(r.t.Context(), n, ref, "//c:m", someFacts()); err != nil {
		r.t.Fatal(err)
	}
}

// first makes generation 1 run, confirmed.
func (r *rig) first(ref store.Ref) {
	r.t.Helper()
	r.stage(1, ref)
	if err := r.m.Boot(r.t.Context(), ""); err != nil {
		r.t.Fatal(err)
	}
	r.startAll()
	if s := r.do(SwitchRequest{Generation: 1, Auto: true}); s.Result != ResultConfirmed {
		r.t.Fatalf("first: %s", s)
	}
}

// do runs a switch to its end.
func (r *rig) do(q SwitchRequest) *SwitchStatus {
	r.t.Helper()
	if _, err := r.m.StartSwitch(r.t.Context(), q); err != nil {
		r.t.Fatal(err)
	}
	if err := r.m.RunSwitch(r.t.Context(), q.Generation); err != nil {
		r.t.Fatal(err)
	}
	s, err := r.m.Status()
	if err != nil {
		r.t.Fatal(err)
	}
	return s
}

// check compares the machine with its active generation: link, /etc, and units
// that run with what their files say.
func (r *rig) check(active, confirmed int) {
	r.t.Helper()
	for p, want := range map[Pointer]int{Active: active, Confirmed: confirmed} {
		if n, err := r.m.Pointer(p); err != nil || n != want {
			r.t.Errorf("%s is %d, %v; want %d", p, n, err, want)
		}
	}
	drift, err := r.m.FindDrift(r.t.Context())
	if err != nil {
		r.t.Error(err)
	}
	for _, d := range drift {
		if d.Kind != "unit" && !(d.Kind == "pointer" && active != confirmed && d.Path == "") {
			r.t.Errorf("drift: %+v", d)
		}
	}
	m, err := r.m.manifestOf(active)
	if err != nil {
		r.t.Fatal(err)
	}
	wanted := map[string]bool{}
	for _, s := range m.Services {
		wanted[s.Unit] = true
		b, _ := os.ReadFile(r.m.path(s.UnitFile.Path))
		if u := r.sd.unit(s.Unit); u.active != "active" || u.content != string(b) {
			r.t.Errorf("%s is %s with %q, its file has %q", s.Unit, u.active, u.content, b)
		}
	}
	for name, u := range r.sd.units {
		if !wanted[name] && u.active == "active" {
			r.t.Errorf("%s is active, and nobody wants it", name)
		}
	}
}
