package tests

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tool/backends/virtualbox/vboxtest"
)

// slow is what a machine is told that VirtualBox interprets: it is alone, since
// without the kernel driver there is no network but NAT, and its processor is slow.
const slow = `
ALONE = {"virtualbox": ["network=none"]}
SLOW = ["mitigations=off", "nokaslr", "nowatchdog", "random.trust_cpu=on", "systemd.default_timeout_start_sec=7200", "systemd.default_device_timeout_sec=7200"]
`

// soloBuild is the smallest machine that there is.
const soloBuild = slow + `
machine(
    name = "solo",
    memory = 512,
    disk = 2048,
    kernel = "//packages:kernel",
    packages = ["//packages:base"],
    services = [":greet", ":sshd"],
    backends = ALONE,
    kernel_args = SLOW,
)
deployment(name = "lone", description = "One machine under VirtualBox", backend = "virtualbox", machines = ["solo"])
`

// slaveBuild is a slave of the example, with a service more to change.
const slaveBuild = slow + `
docker_images(name = "images", images = ["//demo:nginx"])
node("mesos-slave-0", memory = 2048, services = [":images", ":greet"], backends = ALONE, kernel_args = SLOW)
deployment(name = "lone", description = "A slave under VirtualBox", backend = "virtualbox", machines = ["mesos-slave-0"])
`

const slaveLoads = `
load("@rules//services:docker.star", "docker_images")
load("//cluster:cluster.star", "node")
`

// TestVirtualBoxBoot deploys a machine with a real VirtualBox, which interprets
// its instructions: from the image that deploy makes it starts, is reached, goes
// to a second generation and back. It takes an idle core for an hour or more.
func TestVirtualBoxBoot(t *testing.T) { testVirtualBox(t, "solo", vmBuild+soloBuild) }

// TestVirtualBoxExample does the same with a slave of the example, and takes longer.
func TestVirtualBoxExample(t *testing.T) {
	testVirtualBox(t, "mesos-slave-0", slaveLoads+vmBuild+slaveBuild)
}

func testVirtualBox(t *testing.T, machine, build string) {
	h, f, step := underVirtualBox(t, machine, build)
	before := known(t, h)
	deploy := []string{"deploy", "//vm:lone"}
	step("from nothing", deploy, "create with virtualbox", "generation 1, 1 of 1 machines confirmed")
	greets := func(want string) {
		t.Helper()
		if got := f.ssh(t, machine, "cat /run/greeted"); got != want {
			t.Errorf("it greets with %q, want %q", got, want)
		}
	}
	greets("hello")
	if got := f.ssh(t, machine, "test -d /sys/firmware/efi && cat /sys/class/dmi/id/product_name && ls /sys/class/block"); !strings.Contains(got, "VirtualBox") || !strings.Contains(got, "nvme0n2") {
		t.Errorf("it says of itself: %s", got)
	}
	step("nothing to do", deploy, "nothing to do, 1 machine is up to date with generation 1")

	f.greet(t, "good day")
	step("the second generation", deploy, "restart greet.service", "generation 2, 1 of 1 machines confirmed")
	greets("good day")
	step("back", []string{"rollback", "1"}, "1 of 1 machines confirmed")
	greets("hello")

	step("check", []string{"check"})
	info := step("info", []string{"info", "--json"})
	var d struct {
		Machines []struct {
			Status string `json:"status"`
			Type   string `json:"type"`
			ID     string `json:"resource_id"`
		} `json:"machines"`
	}
	if err := json.Unmarshal([]byte(info.out), &d); err != nil || len(d.Machines) != 1 || d.Machines[0].Type != "virtualbox" || !strings.HasPrefix(d.Machines[0].Status, "Up / ") {
		t.Fatalf("%v: %s", err, info.out)
	}
	if out, err := h.Manage("showvminfo", d.Machines[0].ID, "--machinereadable"); err != nil || !strings.Contains(out, `VMState="running"`) {
		t.Errorf("%v: %s", err, out)
	}
	step("console", []string{"console", machine}, "tool: starting /sbin/init")
	step("export", []string{"export"}, `"resourceId": "`+d.Machines[0].ID+`"`)
	step("snapshot", []string{"snapshot", "take", "first"})
	step("snapshots", []string{"snapshot", "list"}, "first")
	step("destroy", []string{"destroy", "--yes"})
	if after := known(t, h); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// TestVirtualBoxPower stops, starts and restarts such a machine, and destroys it
// while it runs. It takes as long again.
func TestVirtualBoxPower(t *testing.T) {
	h, f, step := underVirtualBox(t, "solo", vmBuild+soloBuild)
	before := known(t, h)
	boot := func() string {
		t.Helper()
		return f.ssh(t, "solo", "cat /proc/sys/kernel/random/boot_id")
	}
	step("from nothing", []string{"deploy", "//vm:lone"}, "generation 1, 1 of 1 machines confirmed")
	first := boot()
	step("stop", []string{"stop"})
	if out, err := h.Manage("list", "runningvms"); err != nil || out != "" {
		t.Errorf("after stop there runs: %s, %v", out, err)
	}
	step("info", []string{"info"}, "Stopped / Up-to-date")
	step("start", []string{"start"})
	second := boot()
	step("reboot", []string{"reboot"})
	if third := boot(); second == first || third == second || third == first {
		t.Errorf("boots: %s, %s, %s", first, second, third)
	}
	step("check", []string{"check"})
	step("nothing to do", []string{"deploy", "//vm:lone"}, "nothing to do, 1 machine is up to date with generation 1")
	step("destroy", []string{"destroy", "--yes"})
	if after := known(t, h); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// underVirtualBox is a real VirtualBox, a workspace whose package vm is build, and
// what runs the program and logs what it printed.
func underVirtualBox(t *testing.T, machine, build string) (*vboxtest.Host, *fleet, func(what string, args []string, texts ...string) *ran) {
	t.Helper()
	if os.Getenv("TOOL_TEST_VBOX_BOOT") == "" {
		t.Skip("SKIPPED: set TOOL_TEST_VBOX_BOOT=1 to start a machine under VirtualBox; give it -timeout=6h")
	}
	h := vboxtest.New(t)
	t.Setenv("TOOL_VBOXMANAGE", h.Program)
	t.Setenv("TOOL_VBOXDRV", h.Driver)
	f := newFleet(t)
	f.machines = []string{machine}
	f.write(t, "vm/BUILD.star", []byte(build))
	for _, name := range []string{"cluster/cluster.star", "demo/BUILD.star", "demo/index.html", "demo/nginx.conf"} {
		copyFile(t, filepath.Join("../workspace", name), filepath.Join(f.work, "workspace", name))
	}
	f.write(t, "workspace/cluster/BUILD.star", nil)
	f.need(t, "--output_groups=+images_uefi", "//vm:lone")
	return h, f, func(what string, args []string, texts ...string) *ran {
		t.Helper()
		r := f.must(t, 0, args, texts...)
		t.Logf("%s: %s\n%s%s", what, r.took.Round(time.Second), r.out, r.err)
		return r
	}
}

// known is all that VirtualBox knows.
func known(t *testing.T, h *vboxtest.Host) string {
	t.Helper()
	var all strings.Builder
	for _, what := range []string{"vms", "hdds", "hostonlyifs", "intnets", "natnets"} {
		out, err := h.Manage("list", what)
		if err != nil {
			t.Fatalf("list %s: %v\n%s", what, err, out)
		}
		all.WriteString(what + ":\n" + out)
	}
	return all.String()
}
