package debian

import (
	"context"
	"testing"
	"time"

	"tool/core/packages/lock"
)

// scripts are what only maintainer scripts need.
var scripts = []string{
	"adduser", "ca-certificates-java", "debconf", "default-jre-headless", "dpkg", "init-system-helpers", "initramfs-tools",
	"java-common", "linux-base", "lsb-base", "perl", "perl-base", "sysvinit-utils", "ucf", "usrmerge",
}

func realSets() []SetRequest {
	main := []string{"bookworm/main"}
	return []SetRequest{
		{Name: "base", Suites: main, Exclude: scripts, Install: []string{
			"systemd", "systemd-sysv", "udev", "dbus", "libpam-systemd", "libpam-runtime", "iproute2", "bash", "dash", "coreutils",
			"bsdutils", "diffutils", "debianutils", "findutils", "grep", "sed", "gzip", "tar", "util-linux", "mount", "login", "passwd", "base-files", "base-passwd",
			"ncurses-base", "hostname", "kmod", "procps", "ca-certificates"}},
		{Name: "sshd", Suites: main, Exclude: scripts, Have: []string{"base"}, Install: []string{"openssh-server"}},
		{Name: "jre", Suites: main, Exclude: scripts, Have: []string{"base"}, Install: []string{"openjdk-17-jre-headless"}},
		{Name: "zookeeper", Suites: main, Exclude: scripts, Have: []string{"jre"}, Install: []string{"zookeeper", "libslf4j-java"}},
		{Name: "docker", Suites: main, Exclude: scripts, Have: []string{"base"}, Install: []string{"docker.io", "apparmor"}},
		{Name: "build", Suites: main, Exclude: scripts, Install: []string{"gcc", "make", "binutils", "libc6-dev", "bash", "coreutils"}},
	}
}

// TestUpdateForReal locks real sets from the host's own apt sources.
func TestUpdateForReal(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: reads real indexes from the network")
	}
	sources, err := HostSources("/")
	if err != nil {
		t.Fatal(err)
	}
	if len(SourcesFor(sources, "bookworm/main", "amd64")) == 0 {
		t.Skip("SKIPPED: this machine has no apt source for bookworm/main")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	o := Options{Sets: realSets(), Arch: "amd64", Sources: sources, Cache: t.TempDir()}
	start := time.Now()
	l, changes, err := Update(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("first: %v, %d debs, %d changes", time.Since(start), len(l.Debs), len(changes))
	for _, s := range l.Sets() {
		var size int64
		for _, d := range l.Set(s) {
			size += d.Digest.Size
		}
		t.Logf("  %-10s %3d debs %4d MB", s, len(l.Set(s)), size>>20)
	}
	if len(changes) != len(l.Debs) {
		t.Errorf("%d changes for %d new packages", len(changes), len(l.Debs))
	}
	o.Lock = l
	start = time.Now()
	again, changes, err := Update(ctx, o)
	if err != nil || len(changes) != 0 || string(again.Bytes()) != string(l.Bytes()) {
		t.Errorf("a second update changed the lock: %v\n%s", err, changes)
	}
	t.Logf("again: %v", time.Since(start))
	base := map[string]bool{}
	for _, d := range l.Set("base") {
		base[d.Name] = true
	}
	for _, s := range []string{"sshd", "jre", "zookeeper", "docker"} {
		for _, d := range l.Set(s) {
			if base[d.Name] {
				t.Errorf("%s repeats %s of base", s, d.Name)
			}
		}
	}
	if _, err := lock.Parse("tool.lock", l.Bytes()); err != nil {
		t.Error(err)
	}
	if testing.Verbose() {
		t.Logf("\n%s", l.Bytes())
	}
}
