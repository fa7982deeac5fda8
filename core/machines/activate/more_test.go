package activate

import (
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tool/core/machines/facts"
	"tool/core/machines/seed"
	"tool/core/machines/system"
	"tool/core/storage/store"
)

// TestSeed takes a seed in, once, and again when what it brought is lost.
func TestSeed(t *testing.T) {
	from := newRig(t)
	ref := from.system(map[string]string{"a.service": "a"}, map[string]string{"motd": "hi"}, nil)
	agent := filepath.Join(t.TempDir(), "agent")
	os.WriteFile(agent, []byte("agent"), 0o755)
	disk := filepath.Join(t.TempDir(), "seed")
	if _, err := seed.Write(t.Context(), disk, from.m.Store, seed.Content{Facts: someFacts(), Generation: 3, Label: "//c:m", Ref: ref, Agent: agent}); err != nil {
		t.Fatal(err)
	}
	r := newRig(t)
	for range 2 {
		if err := r.m.Boot(t.Context(), disk); err != nil {
			t.Fatal(err)
		}
	}
	r.startAll()
	r.check(3, 0)
	if g, err := r.m.Generation(3); err != nil || g.Ref != ref || g.Label != "//c:m" {
		t.Errorf("%+v, %v", g, err)
	}
	os.RemoveAll(r.m.path("tool/objects"))
	os.Mkdir(r.m.path("tool/objects"), 0o755)
	r.open()
	if err := r.m.Boot(t.Context(), disk); err != nil {
		t.Errorf("what was lost is not taken in again: %v", err)
	}
	os.WriteFile(disk, []byte("TOOLSEED1\n00000000000000ffcut"), 0o644)
	if err := r.m.Boot(t.Context(), disk); err == nil || !strings.Contains(err.Error(), "seed") {
		t.Errorf("a damaged seed: %v", err)
	}
}

// TestBootFallsBack: a generation that is not whole does not keep the machine
// from starting.
func TestBootFallsBack(t *testing.T) {
	r := newRig(t)
	r.first(r.system(map[string]string{"a.service": "a"}, nil, nil))
	two := r.system(map[string]string{"a.service": "a2"}, nil, nil)
	r.stage(2, two)
	r.do(SwitchRequest{Generation: 2, Auto: true})
	r.check(2, 2)
	os.Remove(r.m.path("tool/objects", string(two)))
	os.WriteFile(r.m.state("active"), []byte("what\n"), 0o600)
	os.WriteFile(r.m.state("switch.json"), []byte("{"), 0o600)
	r.restart()
	if n, err := r.m.Pointer(Active); err != nil || n != 1 {
		t.Errorf("active %d, %v", n, err)
	}
}

func TestGC(t *testing.T) {
	r := newRig(t)
	var refs []store.Ref
	r.first(r.system(map[string]string{"a.service": "a1"}, nil, nil))
	for n := 2; n <= 6; n++ {
		ref := r.system(map[string]string{"a.service": "a" + strconv.Itoa(n)}, map[string]string{"n": strconv.Itoa(n)}, nil)
		refs = append(refs, ref)
		r.stage(n, ref)
	}
	if s := r.do(SwitchRequest{Generation: 3, Auto: true}); s.Result != ResultConfirmed {
		t.Fatal(s)
	}
	// A process runs a program of generation 2, which no pointer names.
	o, err := r.m.Store.Get(refs[0])
	if err != nil {
		t.Fatal(err)
	}
	p := r.m.path("proc/42")
	os.MkdirAll(p, 0o755)
	os.WriteFile(filepath.Join(p, "maps"), []byte("7f0 r-xp 0 08:01 1 /tool/trees/"+o.Node.Digest.Hex()+"/usr/lib/x.so (deleted)\n"), 0o644)
	for _, a := range []string{"old", "new", "running"} {
		os.MkdirAll(r.m.path("tool/agent", a), 0o755)
	}
	os.Symlink("/tool/agent/running/tool", filepath.Join(p, "exe"))
	linkTo("new", r.m.path("tool/agent/current"))
	got, err := r.m.GC(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(got.Generations, []int{2, 4, 5}) || got.Agents != 1 {
		t.Errorf("%+v", got)
	}
	all, _ := r.m.Generations()
	var left []int
	for _, g := range all {
		left = append(left, g.Number)
	}
	if !slices.Equal(left, []int{1, 3, 6}) { // booted, confirmed, newest and staged
		t.Errorf("left %v", left)
	}
	if _, err := os.Stat(r.m.path("tool/trees", o.Node.Digest.Hex())); err != nil {
		t.Errorf("a tree in use is gone: %v", err)
	}
	if _, err := r.m.Store.Get(refs[2]); err == nil {
		t.Error("generation 4 is still there")
	}
	r.check(3, 3)
	os.RemoveAll(p)
	if _, err := r.m.GC(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(r.m.path("tool/trees", o.Node.Digest.Hex())); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a tree that nobody uses stays: %v", err)
	}
	if _, err := r.m.GC(t.Context(), 0); err == nil {
		t.Error("keep 0")
	}
}

func TestDrift(t *testing.T) {
	r := newRig(t)
	r.first(r.system(map[string]string{"a.service": "a"}, map[string]string{"d/f": "f"}, nil))
	os.Remove(r.m.path("etc/d/f"))
	os.WriteFile(r.m.path("etc/d/f"), []byte("mine"), 0o644)
	os.WriteFile(r.m.path("etc/hosts"), []byte("1.2.3.4 x\n"), 0o644)
	os.Chmod(r.m.path("tool/current/usr/lib/systemd/system"), 0o755)
	os.WriteFile(r.m.path("usr/lib/systemd/system/more.service"), nil, 0o644)
	r.sd.unit("a.service").active = "failed"
	drift, err := r.m.FindDrift(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, d := range drift {
		kinds = append(kinds, d.Kind+" "+d.Path)
	}
	want := []string{"tree /tool/current", "etc /etc/d/f", "etc /etc/hosts", "unit a.service"}
	if !slices.Equal(kinds, want) {
		t.Errorf("%q\nwant %q", kinds, want)
	}
	// The next start mends /etc and keeps what stood in the way.
	os.Remove(r.m.path("usr/lib/systemd/system/more.service"))
	r.restart()
	r.check(1, 1)
	if b, err := os.ReadFile(r.m.state("aside/d/f")); err != nil || string(b) != "mine" {
		t.Errorf("aside: %q, %v", b, err)
	}
}

func TestFacts(t *testing.T) {
	r := newRig(t)
	r.first(r.system(map[string]string{"a.service": "a"}, nil, nil))
	f := someFacts()
	f.Interfaces = []facts.Interface{{Name: "cluster", MAC: "52:54:00:00:00:02"}}
	f.Machine = "other"
	before := r.m.FactsDigest()
	r.sd.calls = nil
	for range 2 {
		if err := r.m.SetFacts(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	if strings.Join(r.sd.calls, " ") != "network" {
		t.Errorf("calls %q", r.sd.calls)
	}
	if b, _ := os.ReadFile(r.m.path("etc/hostname")); string(b) != "other\n" || r.m.FactsDigest() == before {
		t.Errorf("hostname %q", b)
	}
	r.check(1, 1)
}

func TestChecks(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(204) }))
	defer web.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, c := range []struct {
		check system.Check
		want  string
	}{
		{system.Check{Kind: "tcp", Target: port}, ""},
		{system.Check{Kind: "tcp", Target: "1"}, "refused"},
		{system.Check{Kind: "http", Target: web.URL, Expect: "204"}, ""},
		{system.Check{Kind: "http", Target: web.URL}, "answers 204"},
		{system.Check{Kind: "command", Target: "true && exit 0"}, ""},
		{system.Check{Kind: "command", Target: "echo no >&2; exit 3"}, "no"},
		{system.Check{Kind: "prayer"}, "not known"},
	} {
		err := tryCheck(t.Context(), &gate{check: c.check})
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v; want %q", c.check, err, c.want)
		}
	}
	// A check that does not come true is told with its last error.
	r := newRig(t)
	r.first(r.system(map[string]string{"a.service": "a"}, nil, nil))
	r.stage(2, r.system(map[string]string{"a.service": "a2"}, nil, func(m *system.Manifest) {
		m.Services[0].Health = append(m.Services[0].Health, system.Check{Kind: "tcp", Target: "1", Seconds: 1})
	}))
	if s := r.do(SwitchRequest{Generation: 2, Auto: true}); s.Result != ResultReverted || !strings.Contains(s.Why, "not true within 1 s: port 1 accepts connections") {
		t.Errorf("%s", s)
	}
	r.check(1, 1)
}

func TestParseShow(t *testing.T) {
	out := "Id=dbus.service\nLoadState=loaded\nActiveState=active\nSubState=running\nResult=success\nNRestarts=2\nExecMainCode=0\nExecMainStatus=0\n\nId=x.service\nLoadState=loaded\nActiveState=failed\nSubState=failed\nResult=exit-code\nNRestarts=0\nExecMainCode=1\nExecMainStatus=203\n"
	got, err := parseShow(out, []string{"alias.service", "x.service"})
	if err != nil || got[0].Unit != "alias.service" || !got[0].Well() || got[0].Restarts != 2 || !got[1].Failed() || got[1].Exit != "exited, status 203" {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := parseShow(out, []string{"x.service"}); err == nil {
		t.Error("another number of units passed")
	}
}

// TestNoSpace: a full disk is said before anything changes.
func TestNoSpace(t *testing.T) {
	r := newRig(t)
	var space *NoSpaceError
	if err := r.m.CheckSpace(1 << 60); !errors.As(err, &space) || !strings.Contains(err.Error(), "gc") {
		t.Errorf("%v", err)
	}
	if err := r.m.explainFull(unix.ENOSPC); !errors.As(err, &space) || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%v", err)
	}
	if err := r.m.CheckSpace(0); err != nil {
		t.Error(err)
	}
}

// TestRunsOn: a machine that nobody prepared for its start, for its own system
// did that, runs from the active generation while the store is checked.
func TestRunsOn(t *testing.T) {
	r := newRig(t)
	r.first(r.system(map[string]string{"a.service": "a"}, nil, nil))
	const unit = "usr/lib/systemd/system/a.service"
	tree, err := filepath.EvalSymlinks(r.m.path("tool/current"))
	if err != nil {
		t.Fatal(err)
	}
	powerLoss := func() {
		t.Helper()
		if err := os.WriteFile(r.m.path("tool/dirty/another-boot.X"), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		r.open()
		if !r.m.Store.CAS().Recovered() {
			t.Fatal("the store was not checked")
		}
	}
	powerLoss()
	if _, err := os.Stat(r.m.path(unit)); err != nil {
		t.Errorf("what the machine runs from went away: %v", err)
	}
	if out, err := exec.Command("chmod", "-R", "u+w", tree).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.RemoveAll(filepath.Join(tree, unit)); err != nil {
		t.Fatal(err)
	}
	powerLoss()
	if err := r.m.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(r.m.path(unit)); err != nil {
		t.Errorf("what was lost did not come back: %v", err)
	}
}
