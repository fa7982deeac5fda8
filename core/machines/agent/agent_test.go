package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tool/core/machines/activate"
	"tool/core/machines/facts"
	"tool/core/machines/system"
	"tool/core/model/digest"
	"tool/core/model/merkle"
	"tool/core/storage/store"
)

// fakeSystemd is a service manager all of whose units are well. Run runs the
// switch in a goroutine of this process.
type fakeSystemd struct {
	mu      sync.Mutex
	m       *activate.Machine
	active  map[string]bool
	ended   chan error
	reboots int
}

func (f *fakeSystemd) Show(_ context.Context, units ...string) ([]activate.UnitState, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []activate.UnitState
	for _, u := range units {
		s := activate.UnitState{Unit: u, Active: "inactive", Result: "success"}
		if f.active[u] {
			s.Active = "active"
		}
		out = append(out, s)
	}
	return out, nil
}
func (f *fakeSystemd) Do(_ context.Context, verb string, units ...string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, u := range units {
		f.active[u] = verb != "stop"
	}
	return nil
}
func (f *fakeSystemd) List(context.Context, ...string) ([]string, error) { return nil, nil }
func (f *fakeSystemd) ResetFailed(context.Context) error                 { return nil }
func (f *fakeSystemd) DaemonReload(context.Context) error                { return nil }
func (f *fakeSystemd) DaemonReexec(context.Context) error                { return nil }
func (f *fakeSystemd) Tmpfiles(context.Context) error                    { return nil }
func (f *fakeSystemd) ReloadNetwork(context.Context) error               { return nil }
func (f *fakeSystemd) Journal(context.Context, string, time.Time, int) ([]string, error) {
	return nil, nil
}
func (f *fakeSystemd) Run(context.Context, activate.Transient) error {
	go func() { f.ended <- f.m.RunSwitch(context.Background(), -1) }()
	return nil
}
func (f *fakeSystemd) Reboot(context.Context) error { f.reboots++; return nil }

// machine returns a machine that has no generation yet.
func machine(t *testing.T) (*activate.Machine, *fakeSystemd) {
	t.Helper()
	root, err := os.MkdirTemp("/dev/shm", "tool-")
	if err != nil {
		root = t.TempDir()
	}
	t.Cleanup(func() { exec.Command("chmod", "-R", "u+w", root).Run(); os.RemoveAll(root) })
	for _, d := range []string{"etc", "var/lib", "run"} {
		os.MkdirAll(filepath.Join(root, d), 0o755)
	}
	sd := &fakeSystemd{active: map[string]bool{}, ended: make(chan error, 10)}
	m, err := activate.Open(root, sd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	sd.m = m
	return m, sd
}

// dial connects a client to a server on m. The machine sees it as a new session.
func dial(t *testing.T, m *activate.Machine) (*Client, *Hello) {
	t.Helper()
	a, b := net.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- Serve(context.Background(), m, b)
		b.Close()
	}()
	c, h, err := NewClient(t.Context(), a)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.Close()
		if err := <-ended; err != nil && !errors.Is(err, io.ErrClosedPipe) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("serve: %v", err)
		}
	})
	return c, h
}

func openStore(t *testing.T) *store.Store {
	t.Helper()
	s, err := store.Open(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// makeSystem puts a system with one unit, a package and some large content
// into a controller's store.
func makeSystem(t *testing.T, s *store.Store, content string) store.Ref {
	t.Helper()
	put := func(b string) digest.Digest {
		d, err := s.CAS().PutBytes([]byte(b))
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	add := func(name string, files map[string]string, refs ...store.Ref) store.Ref {
		var b merkle.Builder
		for p, c := range files {
			if err := b.Add(p, merkle.Node{Kind: merkle.File, Digest: put(c)}); err != nil {
				t.Fatal(err)
			}
		}
		tree, err := b.Write(s.CAS())
		if err != nil {
			t.Fatal(err)
		}
		ref, err := s.Add(t.Context(), store.Object{Name: name, Node: merkle.Node{Kind: merkle.Dir, Digest: tree}, Refs: refs})
		if err != nil {
			t.Fatal(err)
		}
		return ref
	}
	unit, err := s.Add(t.Context(), store.Object{Name: "a.service", Node: merkle.Node{Kind: merkle.File, Digest: put(content)}})
	if err != nil {
		t.Fatal(err)
	}
	big := strings.Repeat("big ", 100000)
	pkg := add("pkg", map[string]string{"usr/lib/big": big})
	m := system.Manifest{Version: 1, Name: "m", Packages: []system.Package{{Name: "pkg", Ref: system.StorePrefix + string(pkg)}},
		Services: []system.Service{{Label: "//:a", Unit: "a.service", OnChange: "restart", UnitFile: system.PlacedFile{Path: "usr/lib/systemd/system/a.service", Ref: system.StorePrefix + string(unit)},
			Health: []system.Check{{Kind: "unit", Target: "a.service", Seconds: 5}}}}}
	b, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return add("system-m", map[string]string{"usr/lib/systemd/system/a.service": content, "usr/lib/big": big, "etc/a": content, "system.json": string(b)}, unit, pkg)
}

func someFacts() *facts.Facts {
	return &facts.Facts{Machine: "m", MachineID: strings.Repeat("a", 32)}
}

// deploy does what a controller does.
func deploy(t *testing.T, m *activate.Machine, s *store.Store, n int, ref store.Ref) {
	t.Helper()
	c, h := dial(t, m)
	var assume []store.Ref
	if r := h.Generation(h.Active); r != "" {
		assume = []store.Ref{r}
	}
	if _, err := c.Send(t.Context(), s, []store.Ref{ref}, assume, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Stage(t.Context(), Stage{Generation: n, Ref: ref, Label: "//:m", Facts: someFacts()}); err != nil {
		t.Fatal(err)
	}
	status, err := c.Switch(t.Context(), Switch{Generation: n, StabilitySeconds: 1, ConfirmSeconds: 30})
	if err != nil {
		t.Fatal(err)
	}
	for status.Phase != activate.PhaseWaiting {
		if status.Over() {
			t.Fatalf("%s", status)
		}
		if status, err = c.Wait(t.Context(), status.Seq, 10); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.Confirm(t.Context(), n); !HasCode(err, CodeStale) {
		t.Errorf("an old connection confirmed: %v", err)
	}
	fresh, _ := dial(t, m)
	for range 2 {
		if err := fresh.Confirm(t.Context(), n); err != nil {
			t.Fatal(err)
		}
	}
	if status, err = c.Status(t.Context()); err != nil || status.Result != activate.ResultConfirmed {
		t.Errorf("%s, %v", status, err)
	}
}

func TestDeploy(t *testing.T) {
	m, sd := machine(t)
	s := openStore(t)
	one, two := makeSystem(t, s, "one"), makeSystem(t, s, "two")
	c, h := dial(t, m)
	if h.Active != 0 || len(h.Generations) != 0 || h.Switch != nil || h.FreeBytes == 0 || h.Kernel == "" || h.BootID == "" {
		t.Errorf("hello %+v", h)
	}
	lack, err := c.Missing(t.Context(), s, []store.Ref{one}, nil)
	if err != nil || lack.Bytes < 400000 || lack.Objects != 3 {
		t.Errorf("missing %+v, %v", lack, err)
	}
	deploy(t, m, s, 1, one)
	if err := <-sd.ended; err != nil {
		t.Error(err)
	}
	lack, err = c.Missing(t.Context(), s, []store.Ref{two}, []store.Ref{one})
	if err != nil || lack.Blobs == 0 || lack.Bytes > 4000 {
		t.Errorf("missing %+v, %v", lack, err)
	}
	// What the machine is wrongly believed to have.
	lack, err = c.Missing(t.Context(), s, []store.Ref{two}, []store.Ref{two})
	if err != nil || lack.Blobs == 0 || lack.Bytes > 4000 {
		t.Errorf("missing after a wrong guess %+v, %v", lack, err)
	}
	deploy(t, m, s, 2, two)
	<-sd.ended
	_, h = dial(t, m)
	if h.Active != 2 || h.Confirmed != 2 || h.Staged != 2 || h.Generation(2) != two || h.FactsDigest == "" || h.Switch == nil || h.Problem != "" {
		t.Errorf("hello %+v", h)
	}
	if drift, err := c.Drift(t.Context()); err != nil || !slices.ContainsFunc(drift, func(d Drift) bool { return d.Kind == "etc" }) {
		t.Errorf("drift %+v, %v", drift, err) // the machine was never booted: it has no /usr link
	}
	if status, err := c.Rollback(t.Context(), -1); err != nil || status.Generation != 1 {
		t.Fatalf("%+v, %v", status, err)
	}
	if err := <-sd.ended; err != nil {
		t.Error(err)
	}
	if status, _ := c.Status(t.Context()); status.Result != activate.ResultConfirmed {
		t.Errorf("%s", status)
	}
	if got, err := c.GC(t.Context(), 1); err != nil || len(got.Generations) != 0 { // 2 is staged
		t.Errorf("%+v, %v", got, err)
	}
	f := someFacts()
	f.Machine = "renamed"
	if err := c.Facts(t.Context(), f); err != nil {
		t.Error(err)
	}
	if h, err := c.Hello(t.Context()); err != nil || h.Active != 1 {
		t.Errorf("%+v, %v", h, err)
	}
	if err := c.Reboot(t.Context()); err != nil || sd.reboots != 1 {
		t.Error(err, sd.reboots)
	}
}

func TestErrors(t *testing.T) {
	m, _ := machine(t)
	c, _ := dial(t, m)
	_, err := c.Switch(t.Context(), Switch{Generation: 7})
	if !HasCode(err, CodeNoGeneration) || !strings.Contains(err.Error(), "no generation 7") {
		t.Errorf("%v", err)
	}
	if err := c.Confirm(t.Context(), 7); !HasCode(err, CodeNotWaiting) {
		t.Errorf("%v", err)
	}
	s := openStore(t)
	if err := c.Stage(t.Context(), Stage{Generation: 1, Ref: makeSystem(t, s, "x")}); !HasCode(err, CodeFailed) {
		t.Errorf("staged what is not there: %v", err)
	}
	if err := c.call(t.Context(), "dance", nil, nil, nil); !HasCode(err, CodeFailed) || !strings.Contains(err.Error(), "older than the controller") {
		t.Errorf("%v", err)
	}
	if err := c.call(t.Context(), "receive", receiveRequest{1 << 60}, nil, func() error { return c.c.write(kindData, []byte("x")) }); !HasCode(err, CodeNoSpace) {
		t.Errorf("%v", err)
	}
	if err := c.call(t.Context(), "receive", receiveRequest{1}, nil, func() error { return c.c.write(kindData, []byte("no pack")) }); !HasCode(err, CodeFailed) {
		t.Errorf("%v", err)
	}
	// The connection is still of use.
	if _, err := c.Hello(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestSendInterrupted cuts the connection in the middle: the next one brings
// the rest only.
func TestSendInterrupted(t *testing.T) {
	m, _ := machine(t)
	s := openStore(t)
	ref := makeSystem(t, s, "one")
	c, _ := dial(t, m)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := c.Send(ctx, s, []store.Ref{ref}, nil, func(sent, total int64) {
		if sent > total*3/4 {
			cancel()
		}
	})
	if err == nil {
		t.Skip("it was sent faster than it could be cut")
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := c.Hello(t.Context()); err == nil || !strings.Contains(err.Error(), "no more use") {
		t.Errorf("after the cut: %v", err)
	}
	c, _ = dial(t, m)
	if _, err := c.Send(t.Context(), s, []store.Ref{ref}, nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.Stage(t.Context(), Stage{Generation: 1, Ref: ref, Facts: someFacts()}); err != nil {
		t.Error(err)
	}
	if sent, err := c.Send(t.Context(), s, []store.Ref{ref}, nil, nil); err != nil || sent.Blobs != 0 || sent.Bytes != 0 {
		t.Errorf("again: %+v, %v", sent, err)
	}
}

func TestPutAgent(t *testing.T) {
	m, _ := machine(t)
	c, _ := dial(t, m)
	path := filepath.Join(t.TempDir(), "agent")
	os.WriteFile(path, bytes.Repeat([]byte("agent"), 100000), 0o755)
	sum, err := c.PutAgent(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if _, h := dial(t, m); h.AgentSHA256 != sum {
		t.Errorf("the agent is %s, want %s", h.AgentSHA256, sum)
	}
	if fi, err := os.Stat(filepath.Join(m.Root, "tool/agent/current/tool")); err != nil || fi.Mode() != 0o755 || fi.Size() != 500000 {
		t.Errorf("%v, %v", fi, err)
	}
}
