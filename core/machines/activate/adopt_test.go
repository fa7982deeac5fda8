package activate

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

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
	os.Symlink("/usr/share/zoneinfo/Europe/Berlin", filepath.Join(root, "etc/localtime"))
	os.Symlink("/dev/null", filepath.Join(root, "etc/systemd/system/mine.service"))
	os.MkdirAll(filepath.Join(root, "etc/kept"), 0o750)
	for p, c := range map[string]string{"usr/bin/theirs": "x", "etc/machine-id": strings.Repeat("b", 32) + "\n", "etc/hostname": "host.example\n",
		"etc/ssh/ssh_host_ed25519_key": "theirs", "etc/motd": "theirs", "etc/fstab": "theirs", "etc/systemd/system/app.service": "app", "root/.ssh/authorized_keys": "ssh-ed25519 THEIRS",
		"etc/passwd": "root:x:0:0:root:/root:/bin/zsh\nalice:x:1000:1000::/home/alice:/bin/sh\n", "etc/shadow": "root:$6$secret:::::::\nalice:!:::::::\n", "etc/group": "root:x:0:\nadm:x:4:alice\n"} {
		os.WriteFile(filepath.Join(root, p), []byte(c), 0o644)
	}
	return r
}

// agent is a program to be installed.
func (r *rig) agent(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "agent")
	if err := os.WriteFile(path, []byte("agent"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestAdopt(t *testing.T) {
	r := host(t)
	agent := r.agent(t)
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
		if _, err := os.Lstat(r.m.path("etc/gshadow")); !os.IsNotExist(err) {
			t.Errorf("%s: it has a gshadow, %v", when, err)
		}
		for p, want := range map[string]string{"tool/current": "generation-0", "etc/localtime": "/usr/share/zoneinfo/Europe/Berlin", "etc/systemd/system/mine.service": "/dev/null"} {
			if target, _ := os.Readlink(r.m.path(p)); target != want {
				t.Errorf("%s: %s leads to %q, want %s", when, p, target, want)
			}
		}
		if fi, err := os.Lstat(r.m.path("etc/kept")); err != nil || fi.Mode().Perm() != 0o750 {
			t.Errorf("%s: the empty folder: %v %v", when, fi, err)
		}
	}
	original("adopted")
	ref := r.system(map[string]string{"a.service": "a", "ssh.service": "ours"}, map[string]string{"motd": "ours", "systemd/system/b.service": "b", "new": "n", "fstab": "ours", "localtime": "ours", "kept/x": "ours"}, nil)
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
		if target, _ := os.Readlink(r.m.path("etc/localtime")); !strings.HasSuffix(target, "Berlin") {
			t.Errorf("its time zone is %s", target)
		}
		for p, want := range map[string]string{"etc/motd": "ours", "etc/fstab": "theirs", "etc/kept/x": "ours", "etc/systemd/system/app.service": "app", "etc/systemd/system/b.service": "b", "etc/hostname": "host.example\n",
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
		for _, n := range []int{1, 0} { // what is ours stays ours when it is written again
			if s := r.do(SwitchRequest{Generation: n, Auto: true}); s.Result != ResultConfirmed {
				t.Fatalf("%s %+v", s, s.Failures)
			}
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

	// Nothing of ours is left where it would be started.
	for range 2 {
		if err := r.m.Release(t.Context()); err != nil {
			t.Fatal(err)
		}
		for _, p := range []string{adoptService, adoptWants, sshDir} {
			if _, err := os.Lstat(r.m.path(p)); err == nil {
				t.Errorf("%s is left", p)
			}
		}
		if fi, err := os.Lstat(r.m.path("usr")); err != nil || !fi.IsDir() || read("usr/bin/theirs") != "x" {
			t.Errorf("/usr: %v %v", fi, err)
		}
	}
}

func TestNotReleased(t *testing.T) {
	r := host(t)
	if err := r.m.Release(t.Context()); err == nil || !strings.Contains(err.Error(), "made by tool") {
		t.Errorf("error %v", err)
	}
	if err := r.m.Adopt(t.Context(), r.agent(t)); err != nil {
		t.Fatal(err)
	}
	f := someFacts()
	f.Adopted = true
	if err := r.m.Stage(t.Context(), 1, r.system(map[string]string{"a.service": "a"}, nil, nil), "//c:m", f); err != nil {
		t.Fatal(err)
	}
	r.do(SwitchRequest{Generation: 1, Auto: true})
	if err := r.m.Release(t.Context()); err == nil || !strings.Contains(err.Error(), "go back with `tool agent rollback 0` first") {
		t.Errorf("error %v", err)
	}
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
