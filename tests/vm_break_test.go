package tests

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// testKillController kills deploys at random moments. The next one must come to
// the end that it would have come to.
func (f *fleet) testKillController(t *testing.T) {
	kills := 5
	if s := os.Getenv("TOOL_VM_KILLS"); s != "" {
		var err error
		if kills, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	f.greet(t, "undisturbed")
	span := f.deploy(t).took
	killed := 0
	for i := range kills {
		greeting := fmt.Sprintf("kill %d", i)
		f.greet(t, greeting)
		after := time.Duration(rand.Int64N(int64(span)))
		r := f.start(t, f.ctx, deployPair...)
		select {
		case <-r.done:
		case <-time.After(after):
		}
		if done := r.kill(); done.code < 0 {
			killed++
		}
		r2 := f.deploy(t)
		t.Logf("killed after %s; the next one took %s", after.Round(time.Millisecond), r2.took.Round(time.Second))
		f.greets(t, greeting)
		f.sound(t)
	}
	if killed == 0 {
		t.Errorf("none of %d deploys was killed", kills)
	}
	f.deploy(t, "nothing to do")
}

// testKillAgent kills all processes of the agent during a switch, while a
// second deploy is turned away.
func (f *fleet) testKillAgent(t *testing.T) {
	f.hold(t)
	f.greet(t, "agent")
	first := f.start(t, f.ctx, deployPair...)
	f.awaitPhase(t, "one", "checking")
	f.must(t, 54, deployPair, "deployment pair is locked by", fmt.Sprintf("process %d", first.cmd.Process.Pid), "tool deploy //vm:pair")
	f.ssh(t, "one", "pkill -9 -x tool")
	f.await(t, "the switch goes on", time.Minute, func() bool {
		return strings.HasSuffix(f.ssh(t, "one", "systemctl show -P NRestarts 'tool-switch-*'; systemctl is-active 'tool-switch-*'"), "\nactive")
	})
	f.release(t)
	first.end().must(t, 0)
	f.greets(t, "agent")
	f.sound(t)
}

// testPowerCut ends a machine's process during a switch: it starts into what was
// confirmed, and the next deploy brings it on.
func (f *fleet) testPowerCut(t *testing.T) {
	f.hold(t)
	f.greet(t, "power")
	first := f.start(t, f.ctx, deployPair...)
	f.awaitPhase(t, "one", "checking")
	f.cutPower(t, "one")
	r := first.end()
	if r.code != 51 {
		t.Fatal(r)
	}
	f.must(t, 2, []string{"check", "one"})
	again := f.deploy(t)
	t.Logf("the deploy ended after %s; the next one started the machine in %s", r.took.Round(time.Second), again.took.Round(time.Second))
	f.greets(t, "power")
	f.sound(t)
}

func (f *fleet) testFullDisk(t *testing.T) {
	before := f.current(t, "one")
	// All but 16 MiB.
	f.ssh(t, "one", "set -- $(stat -f -c '%a %S' /); fallocate -l $(($1 * $2 - (16 << 20))) /var/full")
	f.turn(t, func(k *knobs) { k.ballast = true })
	f.must(t, 51, deployPair, "MiB free and", "are needed")
	f.must(t, 8|32, []string{"check", "one"})
	if now := f.current(t, "one"); now != before {
		t.Errorf("one has %s, before %s", now, before)
	}
	f.greets(t, "power")
	f.ssh(t, "one", "rm /var/full")
	f.turn(t, func(k *knobs) { k.ballast = false; k.greeting = "room" })
	f.deploy(t)
	f.greets(t, "room")
	f.sound(t)
}

// testBrokenCopy takes the connection away while a large file is sent, and stops
// the machine for a while.
func (f *fleet) testBrokenCopy(t *testing.T) {
	f.turn(t, func(k *knobs) { k.ballast = true })
	r := f.start(t, f.ctx, "deploy", "--progress=plain", "//vm:pair")
	copying := func(after string) func() bool {
		return func() bool {
			select {
			case <-r.done:
				t.Fatalf("it was too quick: %v", r.end())
			default:
			}
			said := r.err.String()
			if i := strings.LastIndex(said, after); after != "" && i >= 0 {
				said = said[i:]
			}
			return strings.Contains(said, "copying")
		}
	}
	f.await(t, "it copies", 5*time.Minute, copying(""))
	f.run(t, "ssh", "one", "pkill -9 -f '^sshd: root'") // which ends this one too
	const lost = "the connection was lost"
	f.await(t, "it copies again", 5*time.Minute, func() bool { return strings.Contains(r.err.String(), lost) && copying(lost)() })
	pid := f.pid(t, "one")
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	resume := func() { _ = syscall.Kill(pid, syscall.SIGCONT) } // it may have ended
	defer resume()
	select {
	case <-time.After(30 * time.Second): // this is what is tested: a machine that says nothing for so long
	case <-r.done:
	}
	resume()
	done := r.end()
	done.must(t, 0, lost)
	t.Logf("copied in %s", done.took.Round(time.Second))
	if size := f.ssh(t, "one", "stat -L -c %s /usr/share/ballast.bin"); size != strconv.Itoa(ballastSize) {
		t.Errorf("the file has %s bytes", size)
	}
	f.sound(t)
}

// testCollect drops all generations but the newest two: what these need stays.
func (f *fleet) testCollect(t *testing.T) {
	f.turn(t, func(k *knobs) { k.ballast = false; k.greeting = "slim" })
	f.deploy(t)
	f.greets(t, "slim")
	// The store is the user's: nothing of it goes.
	r := f.must(t, 0, []string{"gc", "-d", "pair", "--keep=2", "--older-than=10000d"}, "dropped generation 1 of pair", "one: removed")
	t.Logf("collected in %s", r.took.Round(time.Second))
	f.sound(t)
	back := f.must(t, 0, []string{"rollback"})
	if strings.Contains(back.out, " sent") {
		t.Errorf("it sent something: %v", back)
	}
	f.greets(t, "room")
	f.ssh(t, "one", "test -e /usr/share/ballast.bin")
	f.must(t, 2, []string{"rollback", "1"}, "no generation 1")
	f.deploy(t)
	f.sound(t)
}

func (f *fleet) testPower(t *testing.T) {
	f.must(t, 0, []string{"stop", "two"})
	f.must(t, 2, []string{"check"})
	f.must(t, 0, []string{"start"})
	f.sound(t)
	boot := f.ssh(t, "one", "cat /proc/sys/kernel/random/boot_id")
	r := f.must(t, 0, []string{"reboot", "one"})
	t.Logf("started again in %s", r.took.Round(time.Second))
	if f.ssh(t, "one", "cat /proc/sys/kernel/random/boot_id") == boot {
		t.Error("it did not start again")
	}
	f.greets(t, f.knobs.greeting)
	f.sound(t)
	f.must(t, 0, []string{"console", "one"}, "tool: starting generation", "Welcome to Debian")
	f.must(t, 0, []string{"logs", "one", "-u", "greet"}, "greet")
}

func (f *fleet) testDestroy(t *testing.T) {
	refs := f.current(t, "one") + f.current(t, "two")
	f.must(t, 0, []string{"destroy", "--yes"})
	f.gone(t)
	r := f.deploy(t)
	t.Logf("made again in %s", r.took.Round(time.Second))
	if now := f.current(t, "one") + f.current(t, "two"); now != refs {
		t.Errorf("systems: %s, before %s", now, refs)
	}
	f.greets(t, f.knobs.greeting)
	f.sound(t)
	f.must(t, 0, []string{"build", "//vm:pair"}, " 0 executed")
	f.must(t, 0, []string{"destroy", "--yes"})
	f.gone(t)
	f.must(t, 0, []string{"delete"})
	if out := f.must(t, 0, []string{"list", "--json"}).out; strings.TrimSpace(out) != "[]" {
		t.Errorf("deployments: %s", out)
	}
}

// gone wants nothing to be left of the machines.
func (f *fleet) gone(t *testing.T) {
	t.Helper()
	if p := f.processes(); len(p) > 0 {
		t.Errorf("processes are left: %v", p)
	}
	left, err := filepath.Glob(filepath.Join(f.state, "deployments/*/machines/*"))
	if err != nil || len(left) > 0 {
		t.Errorf("files are left: %v %v", left, err)
	}
	nets, err := filepath.Glob(filepath.Join(f.state, "deployments/*/net/*"))
	if err != nil || len(nets) > 0 {
		t.Errorf("files of the network are left: %v %v", nets, err)
	}
}

// awaitPhase waits until a machine's switch is in the phase.
func (f *fleet) awaitPhase(t *testing.T, machine, phase string) {
	t.Helper()
	f.await(t, "machine "+machine+"'s switch is "+phase, 5*time.Minute, func() bool {
		r := f.run(t, "ssh", machine, "cat /tool/state/switch.json")
		return r.code == 0 && strings.Contains(strings.ReplaceAll(r.out, " ", ""), `"phase":"`+phase+`"`)
	})
}

// hold holds the next switch of machine one while its checks are made, until
// release.
func (f *fleet) hold(t *testing.T)    { t.Helper(); f.ssh(t, "one", "touch /run/hold") }
func (f *fleet) release(t *testing.T) { t.Helper(); f.ssh(t, "one", "rm -f /run/hold") }

// cutPower kills a machine's QEMU.
func (f *fleet) cutPower(t *testing.T, machine string) {
	t.Helper()
	pid := f.pid(t, machine)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	f.await(t, "QEMU has ended", time.Minute, func() bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) })
}
