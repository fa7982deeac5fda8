package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"tool/core/machines/pack"
	"tool/core/machines/system"
	"tool/core/model/digest"
	"tool/core/model/event"
	"tool/core/model/merkle"
	"tool/core/storage/cas"
	"tool/core/storage/store"
)

// fleet is what a test deploys with: a store, a state, a backend.
type fleet struct {
	t       *testing.T
	dir     string
	store   *store.Store
	book    *Book
	d       *Deployment
	backend *fakeBackend
	session *Session
	images  int // how often they were built
	pkgs    []store.Ref
}

// inFleet runs a test with a fleet of its own, in time that passes at once.
func inFleet(t *testing.T, f func(*fleet)) {
	t.Helper()
	dir := memoryDir(t)
	synctest.Test(t, func(t *testing.T) {
		fl := newFleet(t, dir)
		defer fl.close()
		f(fl)
	})
}

// memoryDir returns a folder in memory where there is one: stores sync a lot.
func memoryDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "tool-deploy-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := removeTree(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func newFleet(t *testing.T, dir string) *fleet {
	t.Helper()
	f := &fleet{t: t, dir: dir}
	var err error
	f.store, err = store.Open(filepath.Join(dir, "store"))
	f.must(err)
	f.book, err = OpenBook(filepath.Join(dir, "state"))
	f.must(err)
	f.d, err = f.book.Create("c", "//c:c", "/w")
	f.must(err)
	f.d.Network, f.d.Backend = Network{"c", "192.168.56.0/24"}, "fake"
	f.must(f.d.Save())
	f.backend = newFakeBackend(filepath.Join(dir, "machines"))
	f.must(os.WriteFile(filepath.Join(dir, "program"), []byte("a program"), 0o755))
	f.open()
	return f
}

func (f *fleet) must(err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatal(err)
	}
}

// open makes another process of the controller: it reads the state anew.
func (f *fleet) open() {
	f.t.Helper()
	d, err := f.book.Find("c")
	f.must(err)
	f.d = d
	f.session = &Session{
		D: d, Store: f.store, Backends: map[string]Backend{"fake": f.backend}, Events: event.Discard,
		Binary:    &Binary{Find: func() (string, error) { return filepath.Join(f.dir, "program"), nil }},
		Deadlines: Deadlines{Boot: 20 * time.Second, Connect: 5 * time.Second, Confirm: 2 * time.Second, Stable: time.Second},
	}
}

func (f *fleet) close() {
	f.backend.setHook(nil)
	f.backend.stopAll()
	f.must(f.store.Close())
}

// sys is a machine's system, in short: units by name with what is in their
// files, packages by name with their version.
type sys struct {
	units, packages, etc map[string]string
	epoch                int
	kernel               string
	hardware             Hardware
}

func (s sys) hw() Hardware {
	h := s.hardware
	if h == (Hardware{}) {
		h = Hardware{Memory: 512, CPUs: 1, Disk: 4096}
	}
	return h
}

func (f *fleet) put(content string) merkle.Node {
	f.t.Helper()
	d, err := f.store.CAS().PutBytes([]byte(content))
	f.must(err)
	return merkle.Node{Kind: merkle.File, Digest: d}
}

func (f *fleet) add(name string, n merkle.Node, refs ...store.Ref) store.Ref {
	f.t.Helper()
	r, err := f.store.Add(f.t.Context(), store.Object{Name: name, Node: n, Refs: refs})
	f.must(err)
	_, err = f.store.Realise(f.t.Context(), r)
	f.must(err)
	return r
}

// system puts a system into the controller's store.
func (f *fleet) system(name string, s sys) store.Ref {
	f.t.Helper()
	var b merkle.Builder
	m := &system.Manifest{Version: 1, Name: name}
	var refs []store.Ref
	place := func(path string, n merkle.Node) { f.must(b.Add(path, n)) }
	for _, p := range slices.Sorted(maps.Keys(s.packages)) {
		var tree merkle.Builder
		n := f.put(p + " " + s.packages[p])
		f.must(tree.Add("usr/bin/"+p, n))
		d, err := tree.Write(f.store.CAS())
		f.must(err)
		r := f.add(p, merkle.Node{Kind: merkle.Dir, Digest: d})
		refs, f.pkgs = append(refs, r), append(f.pkgs, r)
		place("usr/bin/"+p, n)
		m.Packages = append(m.Packages, system.Package{Name: p, Version: s.packages[p], Label: "//p:" + p, Ref: system.StorePrefix + string(r)})
	}
	for _, u := range slices.Sorted(maps.Keys(s.units)) {
		n := f.put(s.units[u])
		r := f.add(u, n)
		refs = append(refs, r)
		path := "usr/lib/systemd/system/" + u
		place(path, n)
		m.Services = append(m.Services, system.Service{
			Name: u, Label: "//c:" + u, Unit: u, OnChange: "restart", StateEpoch: s.epoch,
			UnitFile: system.PlacedFile{Path: path, Ref: system.StorePrefix + string(r)},
			Health:   []system.Check{{Kind: "unit", Target: u, Expect: "active", Seconds: 30}},
		})
	}
	for p, content := range s.etc {
		place("etc/"+p, f.put(content))
	}
	if s.kernel != "" {
		place("boot/vmlinuz", f.put("kernel "+s.kernel))
		place("boot/initrd", f.put("initrd"))
		m.Boot = &system.Boot{Kernel: "boot/vmlinuz", Initrd: "boot/initrd", Cmdline: "quiet", Release: s.kernel}
	}
	j, err := json.Marshal(m)
	f.must(err)
	place(system.File, f.put(string(j)))
	tree, err := b.Write(f.store.CAS())
	f.must(err)
	return f.add(name, merkle.Node{Kind: merkle.Dir, Digest: tree}, refs...)
}

// object puts a deployment of machines into the store.
func (f *fleet) object(machines map[string]sys, change func(*Object)) *Object {
	f.t.Helper()
	o := &Object{Version: 1, Name: "c", Label: "//c:c", Description: "a test", Network: f.d.Network}
	var refs []store.Ref
	for _, n := range slices.Sorted(maps.Keys(machines)) {
		r := f.system(n, machines[n])
		refs = append(refs, r)
		o.Machines = append(o.Machines, ObjectMachine{Name: n, Label: "//c:" + n, System: system.StorePrefix + string(r), Hardware: machines[n].hw()})
	}
	if change != nil {
		change(o)
	}
	j, err := json.Marshal(o)
	f.must(err)
	ref := f.add("deployment.json", f.put(string(j)), refs...)
	o, err = LoadObject(f.store, ref)
	f.must(err)
	return o
}

// plain returns n machines with one unit each, in one rollout group.
func (f *fleet) plain(n int, content string) *Object {
	f.t.Helper()
	all := map[string]sys{}
	var names []string
	for i := range n {
		name := fmt.Sprintf("m%d", i)
		names = append(names, name)
		all[name] = sys{units: map[string]string{"a.service": content, "b.service": "b"}, packages: map[string]string{"base": "1"}}
	}
	return f.object(all, func(o *Object) { o.RolloutGroups = []Group{{Name: "g", Machines: names}} })
}

func (f *fleet) allocator() *Allocator { return &Allocator{} }

func (f *fleet) options() *Options {
	return &Options{Mode: "switch", Allocator: f.allocator(), Images: f.build}
}

var imageMu sync.Mutex

// build makes the base image of the machines that are to be made.
func (f *fleet) build(ctx context.Context) (*Images, error) {
	imageMu.Lock()
	defer imageMu.Unlock()
	f.images++
	dir := filepath.Join(f.dir, fmt.Sprint("image", f.images))
	s, err := store.Open(dir)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	return &Images{Root: dir}, pack.Files(ctx, f.store, f.pkgs, func(b pack.Blob, c *cas.Store) error {
		return copyBlob(c, s.CAS(), b.Digest)
	})
}

func copyBlob(from, to *cas.Store, d digest.Digest) error {
	b, err := from.ReadAll(d, 1<<20)
	if err == nil {
		_, err = to.PutBytes(b)
	}
	return err
}

// deploy deploys and wants it to go well.
func (f *fleet) deploy(o *Object, change ...func(*Options)) *Result {
	f.t.Helper()
	r, err := f.try(f.t.Context(), o, change...)
	f.must(err)
	if r.Bad() > 0 {
		f.t.Fatalf("deploy: %s", outcomes(r))
	}
	return r
}

func (f *fleet) try(ctx context.Context, o *Object, change ...func(*Options)) (*Result, error) {
	f.t.Helper()
	opt := f.options()
	for _, c := range change {
		c(opt)
	}
	return f.session.Deploy(ctx, o, opt)
}

// outcomes words a result, sorted.
func outcomes(r *Result) string {
	var out []string
	for _, o := range r.Outcomes {
		s := o.Machine + " " + string(o.State)
		if o.Err != nil {
			s += ": " + firstLine(o.Err.Error())
		}
		out = append(out, s)
	}
	slices.Sort(out)
	return strings.Join(out, "; ")
}

// plan makes the plan and touches nothing.
func (f *fleet) plan(o *Object, change ...func(*Options)) *Plan {
	f.t.Helper()
	opt := f.options()
	for _, c := range change {
		c(opt)
	}
	p, err := f.session.Preview(f.t.Context(), o, opt)
	f.must(err)
	return p
}

// settled checks that everything is as it should be with o: here, on the
// machines, and that there is nothing to do.
func (f *fleet) settled(o *Object, generation int) {
	f.t.Helper()
	f.open()
	if p := f.plan(o); !p.Empty() {
		b, _ := p.Encode()
		f.t.Fatalf("there is something to do:\n%s", b)
	}
	if f.d.Active != generation || f.d.Target != generation {
		f.t.Errorf("the current generation is %d, the wanted one %d; want %d", f.d.Active, f.d.Target, generation)
	}
	g := f.d.Current()
	if g == nil || g.State != GenerationConfirmed || g.Object != o.Ref || g.Note != "" {
		f.t.Fatalf("current generation: %+v", g)
	}
	for i := range o.Machines {
		m := &o.Machines[i]
		f.onMachine(m, generation)
	}
	if got := f.backend.names(); !slices.Equal(got, f.d.MachineNames()) {
		f.t.Errorf("machines that are there: %v; in the state: %v", got, f.d.MachineNames())
	}
	f.roots()
}

func (f *fleet) onMachine(m *ObjectMachine, generation int) {
	f.t.Helper()
	ms := f.d.Machines[m.Name]
	if ms == nil || !ms.Made || ms.Confirmed != m.ref || ms.Failure != "" || ms.HostKey == "" {
		f.t.Fatalf("the state of %s: %+v", m.Name, ms)
	}
	if g := f.d.generation(generation); g.Machines[m.Name] != m.ref {
		f.t.Errorf("generation %d has %s for %s", generation, g.Machines[m.Name], m.Name)
	}
	fm := f.backend.machine(m.Name)
	a, err := fm.open()
	f.must(err)
	defer a.Close()
	st, err := a.Status()
	f.must(err)
	if !st.Over() {
		f.t.Errorf("%s: a switch is under way: %s", m.Name, st)
	}
	drift, err := a.FindDrift(f.t.Context())
	f.must(err)
	for _, d := range drift {
		if d.Kind != "unit" {
			f.t.Errorf("%s differs: %+v", m.Name, d)
		}
	}
	for _, s := range m.manifest.Services {
		if got := fm.sd.state[s.Unit]; got != "active" {
			f.t.Errorf("%s: %s is %q", m.Name, s.Unit, got)
		}
	}
	have, err := a.Facts()
	f.must(err)
	want, err := factsOf(f.d, ms, f.d.Machines).Digest()
	f.must(err)
	if got, err := have.Digest(); err != nil || got != want {
		f.t.Errorf("%s has other facts: %+v, %v", m.Name, have, err)
	}
}

// roots checks that each generation is kept, and nothing else of the deployment.
func (f *fleet) roots() {
	f.t.Helper()
	all, err := f.store.Roots()
	f.must(err)
	have := map[string][]store.Ref{}
	for _, r := range all {
		if strings.HasPrefix(r.Name, f.d.RootPrefix()) {
			have[r.Name] = r.Refs
		}
	}
	for i := range f.d.Generations {
		g := &f.d.Generations[i]
		refs := have[f.d.rootOf(g.Number)]
		for _, r := range g.refs() {
			if !slices.Contains(refs, r) {
				f.t.Errorf("generation %d: %s is not kept; its root has %v", g.Number, r, refs)
			}
		}
		delete(have, f.d.rootOf(g.Number))
	}
	// A root is made before its generation is written down: that of one that
	// came to nothing is the next one's.
	delete(have, f.d.rootOf(f.d.Next))
	if len(have) > 0 {
		f.t.Errorf("roots of no generation: %v", slices.Sorted(maps.Keys(have)))
	}
}
