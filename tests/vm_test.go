package tests

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestMachines deploys two machines, changes them, breaks them and what works
// on them in every way that there is a hand for, and destroys them. They run in
// QEMU without KVM, so one pair serves all scenarios, in this order. It takes a
// quarter of an hour on two idle cores.
func TestMachines(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: -short runs no virtual machines")
	}
	f := newFleet(t)
	f.need(t, "--output_groups=+images,emulator", "//vm:pair")
	// Those that depend on hitting a moment are run where somebody asks for
	// them: TOOL_TEST_MACHINES=all.
	all := os.Getenv("TOOL_TEST_MACHINES") == "all"
	for _, s := range []struct {
		name   string
		always bool
		do     func(*fleet, *testing.T)
	}{
		{"create", true, (*fleet).testCreate},
		{"change", true, (*fleet).testChange},
		{"broken unit", true, (*fleet).testBrokenUnit},
		{"broken sshd", false, (*fleet).testBrokenSSHD},
		{"wrong address", false, (*fleet).testWrongAddress},
		{"rollback", false, (*fleet).testRollback},
		{"kill controller", false, (*fleet).testKillController},
		{"kill agent", false, (*fleet).testKillAgent},
		{"power cut", false, (*fleet).testPowerCut},
		{"full disk", false, (*fleet).testFullDisk},
		{"broken copy", false, (*fleet).testBrokenCopy},
		{"collect", false, (*fleet).testCollect},
		{"power", false, (*fleet).testPower},
		{"destroy", false, (*fleet).testDestroy},
	} {
		if !s.always && !all {
			t.Logf("SKIPPED: %s: set TOOL_TEST_MACHINES=all to run it", s.name)
			continue
		}
		start := time.Now()
		// What a scenario that failed left would only fail the next ones.
		if !t.Run(s.name, func(t *testing.T) { s.do(f, t) }) {
			return
		}
		t.Logf("%s: %s", s.name, time.Since(start).Round(time.Second))
	}
}

// need builds what the machines are made of, or skips the test where that is
// impossible.
func (f *fleet) need(t *testing.T, args ...string) *ran {
	t.Helper()
	r := f.run(t, append([]string{"build", "--progress=none"}, args...)...)
	switch {
	case r.code == 0:
	case strings.Contains(r.err, " failed: fetch "):
		t.Log(r)
		t.Skip("SKIPPED: the packages cannot be fetched, and the store does not have them")
	case r.code == 36 && strings.Contains(r.err, "namespaces"):
		t.Log(r)
		t.Skip("SKIPPED: there are no user namespaces here")
	default:
		t.Fatal(r)
	}
	return r
}

func (f *fleet) testCreate(t *testing.T) {
	r := f.deploy(t, "created deployment pair", "create with qemu, 512 MiB", "generation 1, 2 of 2 machines confirmed")
	t.Logf("from nothing in %s", r.took.Round(time.Second))
	info := f.must(t, 0, []string{"info", "-d", "pair"}).out
	if n := len(regexp.MustCompile(`Up / Up-to-date .*qemu`).FindAllString(info, -1)); n != 2 {
		t.Errorf("%d machines are up to date:\n%s", n, info)
	}
	if out := f.must(t, 0, []string{"export"}, `"resourceId": "`).out; strings.Contains(out, `"resourceId": ""`) {
		t.Errorf("machines without an id:\n%s", out)
	}
	f.sound(t)
	f.greets(t, "hello")
	for _, m := range f.machines {
		if got := f.ssh(t, m, "cat /var/lib/steady"); got != "2" {
			t.Errorf("steady.service of %s was started %s times, and fails the first time", m, got)
		}
	}
	if got := f.must(t, 0, []string{"exec", "hostname"}).out; !strings.Contains(got, "one> one\n") || !strings.Contains(got, "two> two\n") {
		t.Errorf("hostname: %q", got)
	}
	// They find each other by name, over a network of their own.
	f.ssh(t, "one", "exec 3<>/dev/tcp/two/22 && read -r banner <&3 && [[ $banner == SSH-* ]]")

	before := f.current(t, "one")
	r = f.deploy(t, "nothing to do, 2 machines are up to date with generation 1")
	if strings.Contains(r.out+r.err, "sent") || f.current(t, "one") != before {
		t.Errorf("a machine was touched: %v", r)
	}
	f.must(t, 0, []string{"plan", "--detailed-exitcode", "//vm:pair"})
}

func (f *fleet) testChange(t *testing.T) {
	one, two := f.unitIDs(t, "one", "greet", "steady", "ssh"), f.unitIDs(t, "two", "steady", "ssh")
	f.greet(t, "good day")
	plan := f.must(t, 50, []string{"plan", "--detailed-exitcode", "//vm:pair"}, "restart greet.service: /etc/greet.conf changed (//vm:greet)", "two: up to date").out
	if n := len(regexp.MustCompile(`(?m)^ +(re)?(start|load|stop)\S* \S+\.\w+:`).FindAllString(plan, -1)); n != 1 {
		t.Errorf("the plan is for %d units:\n%s", n, plan)
	}
	r := f.deploy(t, "restart greet.service", "generation 2, 2 of 2 machines confirmed")
	t.Logf("one unit in %s", r.took.Round(time.Second))
	sent := regexp.MustCompile(`confirmed, ([0-9.]+) (B|KB|kB|KiB) sent`).FindString(r.out)
	if sent == "" {
		t.Errorf("it is not little that was sent: %v", r)
	}
	f.greets(t, "good day")
	now := f.unitIDs(t, "one", "greet", "steady", "ssh")
	if now["greet"] == one["greet"] || now["steady"] != one["steady"] || now["ssh"] != one["ssh"] {
		t.Errorf("units of one: %v, now %v", one, now)
	}
	if now := f.unitIDs(t, "two", "steady", "ssh"); now["steady"] != two["steady"] || now["ssh"] != two["ssh"] {
		t.Errorf("units of two: %v, now %v", two, now)
	}

	f.turn(t, func(k *knobs) { k.comment = "a remark" })
	f.deploy(t, "nothing to do, 2 machines are up to date with generation 2")
	f.sound(t)
}

func (f *fleet) testBrokenUnit(t *testing.T) {
	before := f.current(t, "one")
	f.greet(t, "broken grammar")
	r := f.must(t, 52, deployPair, "one  rolled back", "greet.service", "there is no greeting with broken grammar", "/etc/greet.conf changed (//vm:greet)", "1 of 2 machines confirmed")
	t.Logf("back in %s", r.took.Round(time.Second))
	if now := f.current(t, "one"); now != before {
		t.Errorf("one has %s, before %s", now, before)
	}
	f.greets(t, "good day")
	f.must(t, 32, []string{"check", "one"}, "the last deploy did not reach it")
	f.must(t, 0, []string{"info"}, "Outdated", "greet.service has failed")
	f.greet(t, "good evening")
	f.deploy(t)
	f.greets(t, "good evening")
	f.sound(t)
}

func (f *fleet) testBrokenSSHD(t *testing.T) {
	before := f.current(t, "one")
	f.turn(t, func(k *knobs) { k.sshd = "Nonsense yes\n" })
	r := f.run(t, deployPair...)
	if r.code != 51 && r.code != 52 {
		t.Fatal(r)
	}
	r.must(t, r.code, "ssh.service")
	t.Logf("back in %s", r.took.Round(time.Second))
	if now := f.current(t, "one"); now != before {
		t.Errorf("one has %s, before %s", now, before)
	}
	// Not only what is open already: the server starts with what is there.
	f.ssh(t, "one", "sshd -t")
	f.turn(t, func(k *knobs) { k.sshd = "" })
	f.deploy(t, "nothing to do") // it has that
	f.sound(t)
}

// testWrongAddress gives machine one an address at which nobody reaches it: in
// the cluster, where a health check finds out, and at the controller's side,
// where nobody can confirm it then.
func (f *fleet) testWrongAddress(t *testing.T) {
	before := f.current(t, "one")
	for _, wrong := range []struct{ name, says string }{{"eth1", "neighbour"}, {"eth0", "nobody confirmed it"}} {
		f.turn(t, func(k *knobs) {
			k.network = "[Match]\nName=" + wrong.name + "\n\n[Network]\nAddress=10.99.99.99/24\nLinkLocalAddressing=no\nConfigureWithoutCarrier=yes\n"
		})
		r := f.must(t, 52, deployPair, "one  rolled back", wrong.says)
		t.Logf("back from a wrong address of %s in %s", wrong.name, r.took.Round(time.Second))
		if now := f.current(t, "one"); now != before {
			t.Errorf("one has %s, before %s", now, before)
		}
		f.ssh(t, "one", "exec 3<>/dev/tcp/two/22 && read -rt 60 banner <&3 && [[ $banner == SSH-* ]]")
	}
	f.turn(t, func(k *knobs) { k.network = "" })
	f.deploy(t, "nothing to do")
	f.sound(t)
}

func (f *fleet) testRollback(t *testing.T) {
	out := f.must(t, 0, []string{"generations"}).out
	if !regexp.MustCompile(`(?m)^\W*1\W.*confirmed`).MatchString(out) || strings.Count(out, "current") != 1 {
		t.Errorf("generations:\n%s", out)
	}
	f.must(t, 0, []string{"diff", "1", "2"}, "two: the same", "restart greet.service: /etc/greet.conf changed (//vm:greet)")
	newest := regexp.MustCompile(`(?m)^\W*(\d+)\W.*current`).FindStringSubmatch(out)
	if newest == nil {
		t.Fatalf("none is current:\n%s", out)
	}

	r := f.must(t, 0, []string{"rollback", "1"}, "restart greet.service")
	if strings.Contains(r.out, " sent") {
		t.Errorf("it sent something: %v", r)
	}
	f.greets(t, "hello")
	f.sound(t)
	f.must(t, 0, []string{"rollback", newest[1]})
	f.greets(t, "good evening")
	f.sound(t)

	// On the machine itself, with nobody connected to it.
	f.ssh(t, "one", "systemd-run --quiet --unit=back /tool/agent/current/tool agent rollback 1")
	f.await(t, "the machine has gone back by itself", 5*time.Minute, func() bool {
		r := f.run(t, "ssh", "one", "systemctl is-active back >&2 || { cat /tool/state/confirmed; cat /run/greeted; }")
		return r.out == "1\nhello\n" || r.out == "1hello\n"
	})
	f.must(t, 32, []string{"check"}, "and should have")
	f.deploy(t)
	f.greets(t, "good evening")
	f.sound(t)
}
