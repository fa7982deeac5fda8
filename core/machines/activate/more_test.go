package activate

import (
	"bytes"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
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

func withBoot(release string) func(*system.Manifest) {
	return func(m *system.Manifest) {
		m.Boot = &system.Boot{Kernel: "etc/kernel", Initrd: "etc/initrd", Cmdline: "quiet", Release: release}
	}
}

// TestESP: entries and files by content, the default moves on confirmation only.
func TestESP(t *testing.T) {
	r := newRig(t)
	esp := t.TempDir()
	open := func() (string, func() error, error) { return esp, func() error { return nil }, nil }
	r.m.openESP = open
	f := someFacts()
	f.Firmware = "uefi"
	stage := func(n int, kernel string) {
		ref := r.system(map[string]string{"a.service": "a" + kernel}, map[string]string{"kernel": kernel, "initrd": "i"}, withBoot(kernel))
		if err := r.m.Stage(t.Context(), n, ref, "//c:m", f); err != nil {
			t.Fatal(err)
		}
	}
	stage(1, "k1")
	if err := r.m.Boot(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	r.startAll()
	if s := r.do(SwitchRequest{Generation: 1, Auto: true}); s.Result != ResultConfirmed {
		t.Fatal(s)
	}
	list := func() string {
		var out []string
		filepath.WalkDir(esp, func(p string, d fs.DirEntry, err error) error {
			if !d.IsDir() {
				out = append(out, strings.TrimPrefix(p, esp+"/"))
			}
			return nil
		})
		return strings.Join(out, " ")
	}
	if got := list(); strings.Count(got, "vmlinuz-") != 1 || !strings.Contains(got, "loader/entries/gen-1.conf") {
		t.Errorf("%s", got)
	}
	efi := r.m.path("sys/firmware/efi/efivars")
	os.Chmod(r.m.path("sys"), 0o755)
	os.MkdirAll(efi, 0o755)
	stage(2, "k2")
	if s := r.do(SwitchRequest{Generation: 2, Mode: ModeBoot, Auto: true}); s.Phase != PhaseTrial {
		t.Fatal(s)
	}
	loader := func() string {
		b, _ := os.ReadFile(filepath.Join(esp, "loader/loader.conf"))
		return string(b)
	}
	if !strings.Contains(loader(), "default gen-1.conf") || strings.Count(list(), "vmlinuz-") != 2 {
		t.Errorf("%s\n%s", loader(), list())
	}
	b, err := os.ReadFile(filepath.Join(efi, "LoaderEntryOneShot-"+loaderVendor))
	if err != nil || !bytes.HasPrefix(b, []byte{7, 0, 0, 0, 'g', 0, 'e', 0}) || len(b) != 4+2*11 {
		t.Errorf("%q, %v", b, err)
	}
	os.WriteFile(r.m.path("proc/cmdline"), []byte("quiet tool.generation=2"), 0o644)
	r.open()
	r.m.openESP = open
	r.m.bootID += "+"
	if err := r.m.Boot(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	r.startAll()
	if err := r.m.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.check(2, 2)
	got := list()
	if !strings.Contains(loader(), "default gen-2.conf") || strings.Count(got, "vmlinuz-") != 1 || strings.Contains(got, "gen-1") {
		t.Errorf("%s\n%s", loader(), got)
	}
	b, _ = os.ReadFile(filepath.Join(esp, "loader/entries/gen-2.conf"))
	if !strings.Contains(string(b), "options quiet tool.generation=2") {
		t.Errorf("%s", b)
	}
}

// TestFATLabel reads what mkfs.vfat writes.
func TestFATLabel(t *testing.T) {
	dir := t.TempDir()
	sector := make([]byte, 512)
	copy(sector[71:], "TOOL-ESP   FAT32   ")
	sector[510], sector[511] = 0x55, 0xaa
	os.WriteFile(filepath.Join(dir, "vda1"), sector, 0o644)
	os.WriteFile(filepath.Join(dir, "vda2"), make([]byte, 600), 0o644)
	sys := t.TempDir()
	for _, n := range []string{"loop0", "vda1", "vda2", "gone"} {
		os.Mkdir(filepath.Join(sys, n), 0o755)
	}
	if got, err := findESP(sys, dir); err != nil || got != filepath.Join(dir, "vda1") {
		t.Errorf("%s, %v", got, err)
	}
	os.Remove(filepath.Join(dir, "vda1"))
	if _, err := findESP(sys, dir); err == nil {
		t.Error("found none")
	}
}

// host makes a machine that somebody set up otherwise.
func host(t *testing.T) *rig {
	r := newRig(t)
	root := r.m.Root
	for _, d := range []string{"usr/bin", "usr/sbin", "usr/lib", "etc/ssh", "etc/systemd/system", "run/systemd/system", "root/.ssh", "var/lib"} {
		os.MkdirAll(filepath.Join(root, d), 0o755)
	}
	for _, l := range []string{"bin", "sbin", "lib"} {
		os.Symlink("usr/"+l, filepath.Join(root, l))
	}
	for p, c := range map[string]string{"usr/bin/theirs": "x", "etc/machine-id": strings.Repeat("b", 32) + "\n", "etc/hostname": "host.example\n",
		"etc/ssh/ssh_host_ed25519_key": "theirs", "etc/motd": "theirs", "etc/systemd/system/app.service": "app", "root/.ssh/authorized_keys": "ssh-ed25519 THEIRS",
		"etc/passwd": "root:x:0:0:root:/root:/bin/zsh\nalice:x:1000:1000::/home/alice:/bin/sh\n", "etc/shadow": "root:$6$secret:::::::\nalice:!:::::::\n", "etc/group": "root:x:0:\nadm:x:4:alice\n"} {
		os.WriteFile(filepath.Join(root, p), []byte(c), 0o644)
	}
	return r
}

func TestAdopt(t *testing.T) {
	r := host(t)
	agent := filepath.Join(t.TempDir(), "agent")
	os.WriteFile(agent, []byte("agent"), 0o755)
	for range 2 {
		if err := r.m.Adopt(t.Context(), agent); err != nil {
			t.Fatal(err)
		}
	}
	read := func(p string) string {
		b, err := os.ReadFile(r.m.path(p))
		if err != nil {
			return err.Error()
		}
		return string(b)
	}
	original := func(when string) {
		t.Helper()
		for p, want := range map[string]string{"usr/bin/theirs": "x", "bin/theirs": "x", "etc/motd": "theirs", "etc/systemd/system/app.service": "app", "etc/hostname": "host.example\n"} {
			if got := read(p); got != want {
				t.Errorf("%s: %s holds %q", when, p, got)
			}
		}
		if got := read("etc/passwd"); strings.Contains(got, "zk") || !strings.Contains(got, "zsh") {
			t.Errorf("%s: passwd %q", when, got)
		}
		if target, _ := os.Readlink(r.m.path("tool/current")); target != "generation-0" {
			t.Errorf("%s: current is %s", when, target)
		}
	}
	original("adopted")
	ref := r.system(map[string]string{"a.service": "a", "ssh.service": "ours"}, map[string]string{"motd": "ours", "systemd/system/b.service": "b", "new": "n"}, nil)
	os.MkdirAll(r.m.path("tool/generation-0/usr/lib/systemd/system"), 0o755)
	os.WriteFile(r.m.path("tool/generation-0/usr/lib/systemd/system/ssh.service"), []byte("theirs"), 0o644)
	r.sd.Do(t.Context(), "start", "ssh.service")
	f := someFacts()
	f.Adopted, f.HostKey = true, "-----BEGIN OURS"
	if err := r.m.Stage(t.Context(), 1, ref, "//c:m", f); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if s := r.do(SwitchRequest{Generation: 1, Auto: true}); s.Result != ResultConfirmed {
			t.Fatalf("%s %+v", s, s.Failures)
		}
		if u := r.sd.unit("ssh.service"); u.active != "active" || u.content != "ours" {
			t.Errorf("our ssh.service is %s with %q", u.active, u.content)
		}
		for p, want := range map[string]string{"etc/motd": "ours", "etc/systemd/system/app.service": "app", "etc/systemd/system/b.service": "b", "etc/hostname": "host.example\n",
			"var/lib/ssh/ssh_host_ed25519_key": "theirs", "var/lib/ssh/authorized_keys/root": "ssh-ed25519 THEIRS\nssh-ed25519 AAAA me\n"} {
			if got := read(p); got != want {
				t.Errorf("%s holds %q", p, got)
			}
		}
		if got := read("etc/passwd"); !strings.Contains(got, "alice") || !strings.Contains(got, "zk") || !strings.Contains(got, "/bin/zsh") || strings.Count(got, "root:x:") != 1 {
			t.Errorf("passwd %q", got)
		}
		if got := read("etc/shadow"); !strings.Contains(got, "$6$secret") || !strings.Contains(got, "zk:*") {
			t.Errorf("shadow %q", got)
		}
		if s := r.do(SwitchRequest{Generation: 0, Auto: true}); s.Result != ResultConfirmed {
			t.Fatalf("%s %+v", s, s.Failures)
		}
		original("given back")
		if r.sd.unit("a.service").active != "inactive" {
			t.Error("a.service still runs")
		}
		if left, err := os.ReadDir(r.m.path("tool/generation-0/etc")); err != nil || len(left) > 0 {
			t.Errorf("not given back: %v, %v", left, err)
		}
		if u := r.sd.unit("ssh.service"); u.active != "active" || u.content != "theirs" {
			t.Errorf("their own ssh.service is %s with %q", u.active, u.content)
		}
	}
	// What fails goes back to what was there.
	bad := r.system(map[string]string{"a.service": "fail"}, map[string]string{"motd": "ours"}, nil)
	if err := r.m.Stage(t.Context(), 2, bad, "//c:m", f); err != nil {
		t.Fatal(err)
	}
	if s := r.do(SwitchRequest{Generation: 2, Auto: true}); s.Result != ResultReverted {
		t.Errorf("%s", s)
	}
	original("reverted")
}

func TestNotAdoptable(t *testing.T) {
	for name, c := range map[string]struct {
		change func(root string)
		want   string
	}{
		"no systemd":  {func(root string) { os.RemoveAll(root + "/run") }, "not systemd"},
		"not merged":  {func(root string) { os.Remove(root + "/bin"); os.Mkdir(root+"/bin", 0o755) }, "merged /usr"},
		"linked /usr": {func(root string) { os.Rename(root+"/usr", root+"/u"); os.Symlink("u", root+"/usr") }, "a link to u"},
		"ours": {func(root string) {
			os.Rename(root+"/usr", root+"/u")
			os.Symlink("tool/current/usr", root+"/usr")
		}, "managed by tool already"},
	} {
		r := host(t)
		c.change(r.m.Root)
		agent := filepath.Join(t.TempDir(), "agent")
		os.WriteFile(agent, []byte("agent"), 0o755)
		if err := r.m.Adopt(t.Context(), agent); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
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
