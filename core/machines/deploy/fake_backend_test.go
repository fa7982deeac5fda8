package deploy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
)

// fakeBackend has machines in memory. Like a hypervisor it outlives the
// controller: another session finds what one has left.
type fakeBackend struct {
	dir string // where disks are
	// hook is called before and after each step and at each message to an agent.
	// It may cut connections or the controller.
	hook func(point string)
	fail map[string]error // by "MACHINE KIND": a step that fails
	// made is called when a machine is made.
	made func(*fakeMachine)

	mu       sync.Mutex
	machines map[string]*fakeMachine
	steps    []string // done so far
}

func newFakeBackend(dir string) *fakeBackend {
	return &fakeBackend{dir: dir, machines: map[string]*fakeMachine{}, fail: map[string]error{}}
}

func (b *fakeBackend) Name() string                 { return "fake" }
func (b *fakeBackend) Usable(context.Context) error { return nil }
func (b *fakeBackend) Console(*Machine) string      { return "" }

func (b *fakeBackend) at(point string) {
	b.mu.Lock()
	hook := b.hook
	b.mu.Unlock()
	if hook != nil {
		hook(point)
	}
}

func (b *fakeBackend) setHook(f func(string)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hook = f
}

func (b *fakeBackend) machine(name string) *fakeMachine {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.machines[name]
}

func (b *fakeBackend) names() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.machines))
}

// done returns the steps since it was called last, sorted: machines take turns.
func (b *fakeBackend) done() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.steps
	b.steps = nil
	slices.Sort(s)
	return s
}

func exists(path string) bool { _, err := os.Stat(path); return err == nil }

func (b *fakeBackend) Observe(ctx context.Context, m *Machine) (*Observed, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f := b.machine(m.Name)
	if f == nil {
		return &Observed{State: StateMissing}, nil
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	o := &Observed{Exists: true, State: f.state, ID: "fake-" + m.Name, Hardware: f.hardware}
	for _, part := range []string{f.root(), f.seed()} {
		if !exists(part) {
			o.Missing = append(o.Missing, filepath.Base(part))
		}
	}
	o.Complete = len(o.Missing) == 0
	return o, nil
}

func (b *fakeBackend) Plan(m *Machine, o *Observed, g Goal) ([]Step, error) {
	var steps []Step
	add := func(kind, text string) { steps = append(steps, Step{Kind: kind, Text: text}) }
	running := o.State == StateRunning
	switch g {
	case Absent:
		if o.Exists {
			steps = append(steps, Step{Kind: "remove", Text: "remove it", Destructive: true})
		}
	case Stopped:
		if running {
			add("stop", "stop it")
		}
	case Running:
		if o.Exists && o.Hardware.Disk > m.Hardware.Disk {
			steps = append(steps, Step{Kind: "remove", Text: "remove it: its disk shrinks", Destructive: true})
			o = &Observed{Missing: []string{"disk", "seed"}}
			running = false
		}
		if !o.Exists {
			o = &Observed{Missing: []string{"disk", "seed"}, Hardware: m.Hardware}
		}
		if o.Hardware != m.Hardware && o.Exists {
			if running {
				add("stop", "stop it for its new hardware")
				running = false
			}
			add("shape", "give it its new hardware")
		}
		for _, part := range o.Missing {
			if part == "seed" && m.Seed == "" && o.Exists {
				continue // it has taken it in
			}
			if running {
				add("stop", "stop it")
				running = false
			}
			add(part, "make its "+part)
		}
		if !running {
			add("start", "start it")
		}
	}
	return steps, nil
}

func (b *fakeBackend) Do(ctx context.Context, m *Machine, s Step) error {
	b.at("before " + m.Name + " " + s.Kind)
	if err := ctx.Err(); err != nil {
		return err
	}
	b.mu.Lock()
	err := b.fail[m.Name+" "+s.Kind]
	f := b.machines[m.Name]
	if f == nil && err == nil && s.Kind != "remove" {
		f = &fakeMachine{name: m.Name, dir: filepath.Join(b.dir, m.Name), hook: func(p string) { b.at(m.Name + " " + p) }, state: StateStopped, hardware: m.Hardware}
		b.machines[m.Name] = f
		if b.made != nil {
			b.made(f)
		}
	}
	b.mu.Unlock()
	if err != nil {
		return err
	}
	switch s.Kind {
	case "disk":
		err = makeDisk(f, m.Root)
	case "seed":
		err = copyFile(m.Seed, f.seed())
	case "shape":
		f.mu.Lock()
		f.hardware = m.Hardware
		f.mu.Unlock()
	case "start":
		err = f.start()
	case "stop":
		f.stop(StateStopped)
	case "remove":
		if f != nil {
			f.stop(StateStopped)
			err = removeTree(f.dir)
			b.mu.Lock()
			delete(b.machines, m.Name)
			b.mu.Unlock()
		}
	default:
		err = fmt.Errorf("what is the step %q", s.Kind)
	}
	if err != nil {
		return err
	}
	b.mu.Lock()
	b.steps = append(b.steps, m.Name+" "+s.Kind)
	b.mu.Unlock()
	b.at("after " + m.Name + " " + s.Kind)
	return ctx.Err()
}

// makeDisk copies a base image: a folder with the blobs of the packages.
func makeDisk(f *fakeMachine, image string) error {
	if err := os.MkdirAll(f.dir, 0o755); err != nil {
		return err
	}
	tmp := f.root() + ".new"
	if err := removeTree(tmp); err != nil {
		return err
	}
	for _, dir := range []string{"proc", "tool"} {
		if err := os.MkdirAll(filepath.Join(tmp, dir), 0o755); err != nil {
			return err
		}
	}
	if err := os.CopyFS(filepath.Join(tmp, "tool"), os.DirFS(image)); err != nil {
		return err
	}
	return os.Rename(tmp, f.root())
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to+".new", b, 0o600)
	}
	if err != nil {
		return err
	}
	return os.Rename(to+".new", to)
}

// removeTree removes a folder that has read-only ones in it.
func removeTree(dir string) error {
	_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			_ = os.Chmod(p, 0o755)
		}
		return nil
	})
	return os.RemoveAll(dir)
}

func (b *fakeBackend) Dial(ctx context.Context, m *Machine) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f := b.machine(m.Name)
	if f == nil {
		return nil, errors.New("there is no such machine")
	}
	return f.dial()
}

func (b *fakeBackend) Cut(_ context.Context, m *Machine) error {
	if f := b.machine(m.Name); f != nil {
		f.stop(StateCrashed)
	}
	return nil
}

// stopAll ends all machines.
func (b *fakeBackend) stopAll() {
	for _, n := range b.names() {
		b.machine(n).stop(StateStopped)
	}
}
