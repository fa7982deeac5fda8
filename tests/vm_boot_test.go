package tests

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// A machine that starts with a kernel of its own, for each way that there is.
const bootBuild = `
load("@rules//deployment:defs.star", "deployment")
load("@rules//machine:defs.star", "machine")
load("@rules//service:defs.star", "service")
load("@rules//services:sshd.star", "sshd")
load(":knobs.star", "ARGS", "FIRMWARE", "GREETING")
` + greetBuild + `
sshd(name = "sshd", packages = ["//packages:sshd"])
machine(
    name = "one",
    memory = 512,
    disk = 2048,
    firmware = FIRMWARE,
    kernel = "//packages:kernel",
    kernel_args = ARGS,
    packages = ["//packages:base"],
    services = [":greet", ":sshd"],
)
deployment(name = "single", machines = ["one"])
`

var deploySingle = []string{"deploy", "//boot:single"}

// panics is what a kernel cannot start with: there is no such program in the
// initrd, and no root file system without it.
const panics = "rdinit=/nonexistent"

// TestBoot starts machines into generations on trial: with one that works, with
// units that do not, and with a kernel that panics.
func TestBoot(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: -short runs no virtual machines")
	}
	if os.Getenv("TOOL_TEST_MACHINES") != "all" {
		t.Skip("SKIPPED: set TOOL_TEST_MACHINES=all to run it")
	}
	for _, firmware := range []string{"uefi", "direct"} {
		if !t.Run(firmware, func(t *testing.T) { testBoot(t, firmware) }) {
			return
		}
	}
}

func testBoot(t *testing.T, firmware string) {
	f := newSite(t)
	f.machines = []string{"one"}
	f.write(t, "boot/BUILD.star", []byte(bootBuild))
	knobs := func(greeting string, args ...string) {
		t.Helper()
		list := ""
		for _, a := range args {
			list += fmt.Sprintf("%q, ", a)
		}
		f.write(t, "boot/knobs.star", fmt.Appendf(nil, "FIRMWARE = %q\nGREETING = %q\nARGS = [%s]\n", firmware, greeting, list))
	}
	step := func(name string, start time.Time) { t.Logf("%s: %s", name, time.Since(start).Round(time.Second)) }
	bootID := func() string { t.Helper(); return f.ssh(t, "one", "cat /proc/sys/kernel/random/boot_id") }

	knobs("hello")
	f.need(t, "--output_groups=+images,emulator", "//boot:single")
	start := time.Now()
	f.must(t, 0, deploySingle, "generation 1, 1 of 1 machines confirmed")
	f.greets(t, "hello")
	f.sound(t)
	step("made", start)

	knobs("good day")
	f.must(t, 0, deploySingle, "restart greet.service", "generation 2, 1 of 1 machines confirmed")
	f.greets(t, "good day")

	// A generation that waits for the next start changes nothing until then.
	boot := bootID()
	knobs("good evening", "tool.test=1")
	start = time.Now()
	f.must(t, 0, append(deploySingle, "--mode=boot"), "one  staged")
	f.greets(t, "good day")
	f.must(t, 0, []string{"reboot", "one"})
	step("started into what waited", start)
	f.greets(t, "good evening")
	if f.ssh(t, "one", "grep -o tool.test=1 /proc/cmdline") == "" || bootID() == boot {
		t.Error("it was not started with its own command line")
	}
	f.sound(t)
	f.must(t, 0, deploySingle, "nothing to do")
	boot = bootID()
	f.must(t, 0, []string{"reboot", "one"})
	if bootID() == boot {
		t.Error("it did not start again")
	}
	f.greets(t, "good evening") // for good
	f.sound(t)

	// A kernel that panics.
	knobs("good night", panics)
	f.must(t, 0, append(deploySingle, "--mode=boot"), "one  staged")
	start = time.Now()
	r := f.must(t, 52, []string{"reboot", "one"}, "the machine started, and not into it")
	step("back from a kernel that panics", start)
	if n := strings.Count(r.err, "error:"); n != 1 {
		t.Errorf("%d errors: %v", n, r)
	}
	f.must(t, 0, []string{"console", "one"}, "Kernel panic - not syncing")
	f.greets(t, "good evening")
	f.must(t, 32, []string{"check"}, "the last deploy did not reach it")
	f.must(t, 0, []string{"plan", "//boot:single"}, "the last attempt failed")

	// Units that are not well with it.
	knobs("broken grammar")
	f.must(t, 0, append(deploySingle, "--mode=boot"), "one  staged")
	start = time.Now()
	f.must(t, 52, []string{"reboot", "one"}, "greet.service", "there is no greeting with broken grammar")
	step("back from a unit that fails", start)
	f.greets(t, "good evening")

	start = time.Now()
	f.must(t, 0, []string{"rollback", "1"}, "1 of 1 machines confirmed")
	f.greets(t, "hello")
	f.must(t, 0, []string{"reboot", "one"})
	step("rolled back and started again", start)
	f.greets(t, "hello")
	f.sound(t)
}
