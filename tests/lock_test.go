package tests

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

// TestLock resolves packages of an archive that this machine's apt
// configuration names: one that the test puts over the machine's own, in a mount
// namespace.
func TestLock(t *testing.T) {
	t.Parallel()
	if out, err := exec.Command("unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/etc/apt").CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: no apt configuration can be put over /etc/apt here: %v: %s", err, out)
	}
	a := newArchive(t)
	a.add("hello", "1.0", "Depends: libhello (>= 1.0), libc")
	a.add("libhello", "1.0")
	a.add("libc", "2")
	a.add("editor", "3", "Depends: libc | libhello")
	p := bare(t, map[string]string{
		"BUILD.star":                      "load(\"@rules//debian:defs.star\", \"debian_set\")\n\ndebian_set(name = \"set\", packages = [\"hello\"], suites = [\"fake\"])\n",
		"apt/keyrings/fake.asc":           a.publicKey(),
		"apt/sources.list.d/fake.sources": "Types: deb\nURIs: " + a.url + "\nSuites: fake\nComponents: main\nSigned-By: /etc/apt/keyrings/fake.asc\n",
	})
	// lock runs `tool lock` where /etc/apt is the test's.
	lock := func(args ...string) result {
		t.Helper()
		cmd := exec.Command("unshare", append([]string{"-Urm", "sh", "-c", `mount --bind apt /etc/apt && exec "$0" "$@"`, shared.tool, "lock"}, args...)...)
		cmd.Dir, cmd.Env = p.dir, p.command().Env
		return finish(t, cmd)
	}
	expect := func(code int, stdout, stderr string, args ...string) {
		t.Helper()
		r := lock(args...)
		r.stdout, r.stderr = p.stable(r.stdout), strings.ReplaceAll(p.stable(r.stderr), a.url, "$URL")
		if r.code != code || r.stdout != stdout || r.stderr != stderr {
			t.Errorf("tool lock %s: exit code %d, want %d\n--- stdout\n%s--- want\n%s--- stderr\n%s--- want\n%s", strings.Join(args, " "), r.code, code, r.stdout, stdout, r.stderr, stderr)
		}
	}

	const (
		added = "+ hello 1.0\n+ libc 2\n+ libhello 1.0\n"
		moved = "~ hello 1.0 → 1.1\n- libc 2\n~ libhello 1.0 → 1.1\n"
		stale = "error: a lock is not up to date: run `tool lock`\n"
	)
	expect(1, added+"debian.lock: 3 Debian packages, 0 Go modules, not up to date\n", stale, "--check")
	expect(0, added+"debian.lock: 3 Debian packages, 0 Go modules, written\n", "")
	first := p.read("debian.lock")
	expect(0, "debian.lock: 3 Debian packages, 0 Go modules, unchanged\n", "", "--check")

	// What is pinned stays until it is refreshed.
	a.add("hello", "1.1", "Depends: libhello (>= 1.1)")
	a.add("libhello", "1.1")
	expect(0, "debian.lock: 3 Debian packages, 0 Go modules, unchanged\n", "")
	if p.read("debian.lock") != first {
		t.Error("the lock changed without --refresh")
	}
	expect(1, moved+"debian.lock: 2 Debian packages, 0 Go modules, not up to date\n", stale, "--check", "--refresh")
	if p.read("debian.lock") != first {
		t.Error("the lock changed in spite of --check")
	}
	expect(0, moved+"debian.lock: 2 Debian packages, 0 Go modules, written\n", "", "--refresh")
	second := p.read("debian.lock")

	// A set that grows keeps what it has; one that shrinks drops what nothing needs.
	p.write("BUILD.star", strings.Replace(p.read("BUILD.star"), `"hello"`, `"hello", "editor"`, 1))
	expect(0, "+ editor 3\ndebian.lock: 3 Debian packages, 0 Go modules, written\n", "")
	p.write("BUILD.star", strings.Replace(p.read("BUILD.star"), `"hello", "editor"`, `"hello"`, 1))
	expect(0, "- editor 3\ndebian.lock: 2 Debian packages, 0 Go modules, written\n", "")
	if p.read("debian.lock") != second {
		t.Error("the lock is not what it was before the set grew")
	}
	expect(0, `{"locks":[{"file":"debian.lock","changed":false,"written":false,"debs":2,"modules":0,"changes":[]}]}`+"\n", "", "--json")

	// A name that does not exist, or a need that nothing meets, is an error.
	p.write("BUILD.star", strings.Replace(p.read("BUILD.star"), `"hello"`, `"helo"`, 1))
	expect(1, "", "error: debian.lock: package set set: helo: no such package; did you mean hello?\n")
	p.write("BUILD.star", strings.Replace(p.read("BUILD.star"), `"helo"`, `"broken"`, 1))
	a.add("broken", "1", "Depends: nothing (>= 7)")
	expect(1, "", "error: debian.lock: package set set: broken → nothing (>= 7): no package satisfies it\n")
	p.write("BUILD.star", strings.Replace(p.read("BUILD.star"), `"broken"`, `"hello"`, 1))

	// Nothing is believed that is not signed by the key that the source names.
	a.add("hello", "1.2")
	a.set(func() { a.signer = newKey(t) })
	expect(1, "", "error: debian.lock: package set set: indexes of fake/main: $URL/dists/fake/InRelease: no good signature (tried /etc/apt/keyrings/fake.asc: signature made by unknown entity)\n", "--refresh")
	a.set(func() { a.signer = a.key })
	a.set(func() {
		a.break_ = func(path string, b []byte) []byte { return bytes.Replace(b, []byte("1.2"), []byte("6.6"), 1) }
	})
	expect(1, "", "error: debian.lock: package set set: indexes of fake/main: $URL/dists/fake/main/binary-amd64/Packages: got SHA256/1384, InRelease promises SHA256/1384\n", "--refresh")
	a.set(func() { a.break_ = nil; a.headers = "Valid-Until: Thu, 01 Jan 2026 00:00:00 UTC\n" })
	expect(1, "", "error: debian.lock: package set set: indexes of fake/main: $URL/dists/fake/InRelease: it was valid until 2026-01-01T00:00:00Z: the mirror is out of date, or this machine's clock is wrong; where a mirror stands still on purpose, give its source Check-Valid-Until: no\n", "--refresh")
	// Whose apt takes it takes it here too.
	p.write("apt/apt.conf.d/stale", "Acquire::Check-Valid-Until \"false\";\n")
	expect(1, "~ hello 1.1 → 1.2\n- libhello 1.1\ndebian.lock: 1 Debian packages, 0 Go modules, not up to date\n", stale, "--check", "--refresh")
	p.write("apt/apt.conf.d/stale", "")
	a.set(func() { a.headers = "" })
	if p.read("debian.lock") != second {
		t.Error("the lock changed although the archive could not be trusted")
	}

	// A suite that nobody offers.
	p.write("BUILD.star", strings.Replace(p.read("BUILD.star"), `"fake"`, `"woody"`, 1))
	expect(1, "", "error: debian.lock: package set set: no source for the Debian suite woody/main: neither tool.toml nor this machine's /etc/apt names one; add to tool.toml:\n\n\t[mirrors.debian]\n\t\"woody\" = [\"http://MIRROR/debian\"]\n")
	p.write("BUILD.star", "")
	expect(2, "", "error: nothing to lock: no debian_set, go_toolchain or go_modules is declared here\n")
}

func (a *aptArchive) set(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}
