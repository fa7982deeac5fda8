package debian

import (
	"bytes"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// hostIndex is what the host's apt knows, in its own words: the newest version
// of every package of all its sources.
func hostIndex(t *testing.T) *Index {
	t.Helper()
	for _, p := range []string{"apt-get", "apt-cache", "dpkg"} {
		if _, err := exec.LookPath(p); err != nil {
			t.Skipf("SKIPPED: no oracle: %v", err)
		}
	}
	out, err := exec.Command("apt-cache", "-o", "Dir::State::status=/dev/null", "dumpavail").Output()
	if err != nil {
		t.Skipf("SKIPPED: no oracle: apt-cache dumpavail: %v", err)
	}
	pkgs, err := ReadPackages("dumpavail", "host/all", bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	arch, err := exec.Command("dpkg", "--print-architecture").Output()
	if err != nil {
		t.Fatal(err)
	}
	ix := NewIndex(strings.TrimSpace(string(arch)))
	if err := ix.Add(pkgs...); err != nil {
		t.Fatal(err)
	}
	if ix.Len() < 10000 {
		t.Skipf("SKIPPED: no oracle: apt knows only %d packages; run apt-get update", ix.Len())
	}
	return ix
}

var aptURI = regexp.MustCompile(`(?m)^'\S+' (\S+?)_\S+ \d+ SHA256:([0-9a-f]{64})`)

// TestResolveAsApt compares closures with those of the host's apt, package by
// package and digest by digest. No difference is allowed.
func TestResolveAsApt(t *testing.T) {
	ix := hostIndex(t)
	for _, install := range []string{
		"systemd", "openssh-server", "zookeeper openjdk-17-jre-headless", "gcc", "docker.io", "make binutils", "udev dbus libpam-systemd iproute2",
		"postgresql", "qemu-system-x86", "build-essential", "linux-image-cloud-amd64", "systemd-boot", "libreoffice-core",
	} {
		t.Run(install, func(t *testing.T) {
			names := strings.Fields(install)
			out, err := exec.Command("apt-get", append([]string{"-o", "Dir::State::status=/dev/null", "-o", "Dir::Cache=" + t.TempDir(),
				"-o", "APT::Install-Recommends=false", "-o", "Acquire::ForceHash=SHA256", "install", "--print-uris", "-qq"}, names...)...).CombinedOutput()
			if err != nil {
				t.Skipf("SKIPPED: apt cannot install it: %v\n%s", err, out)
			}
			want := map[string]string{}
			for _, m := range aptURI.FindAllSubmatch(out, -1) {
				want[string(m[1])] = string(m[2])
			}
			if len(want) == 0 {
				t.Fatalf("apt said nothing to compare with:\n%s", out)
			}
			pkgs, err := Resolve(ix, Request{Install: names})
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range pkgs {
				switch hash, ok := want[p.Name]; {
				case !ok:
					t.Errorf("apt does not take %s %s", p.Name, p.Version)
				case ok && hash != p.Digest.Hex():
					t.Errorf("apt takes another %s than %s", p.Name, p.Version)
				}
				delete(want, p.Name)
			}
			for name := range want {
				t.Errorf("apt also takes %s", name)
			}
			t.Logf("%d packages", len(pkgs))
		})
	}
}
