package virtualbox

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"tool/backends/local"
	"tool/core/machines/deploy"
)

func planned(t *testing.T, m *deploy.Machine, o *deploy.Observed) string {
	t.Helper()
	steps, err := New(Options{}).Plan(m, o, deploy.Running)
	if err != nil {
		return err.Error()
	}
	var kinds []string
	for _, s := range steps {
		kinds = append(kinds, s.Kind)
	}
	return strings.Join(kinds, " ")
}

func wantedMachine() *deploy.Machine {
	return &deploy.Machine{
		Deployment: "0f5eb759-x", Name: "m0", Dir: "/m/m0", NetDir: "/m/net", Hardware: deploy.Hardware{Memory: 512, CPUs: 1, Disk: 4096},
		ControlMAC: "52:54:00:00:01:0a", ClusterMAC: "52:54:00:00:02:0a", Address: netip.MustParsePrefix("192.168.56.10/24"),
		HostAddr: netip.MustParseAddr("127.1.2.10"), SSHPort: 22001, Forwards: []deploy.Forward{{Port: 8080, Guest: 80}}, Root: "root", ESP: "esp", Seed: "seed",
	}
}

func TestPlan(t *testing.T) {
	hw := deploy.Hardware{Memory: 512, CPUs: 1, Disk: 4096, Firmware: uefi}
	with := func(change func(*deploy.Observed)) *deploy.Observed {
		o := &deploy.Observed{Exists: true, Complete: true, State: deploy.StateRunning, Hardware: hw}
		change(o)
		return o
	}
	for _, x := range []struct {
		name   string
		change func(*deploy.Machine)
		o      *deploy.Observed
		want   string
	}{
		{"new", nil, &deploy.Observed{State: deploy.StateMissing}, "disk seed boot configure start"},
		{"new, with the host", func(m *deploy.Machine) { m.Settings = map[string]string{"network": "hostonly"} }, &deploy.Observed{State: deploy.StateMissing}, "disk seed boot network configure start"},
		{"as it should be", nil, with(func(*deploy.Observed) {}), ""},
		{"stopped", nil, with(func(o *deploy.Observed) { o.State = deploy.StateStopped }), "start"},
		{"paused", nil, with(func(o *deploy.Observed) { o.State = deploy.StatePaused }), "resume"},
		{"crashed", nil, with(func(o *deploy.Observed) { o.State = deploy.StateCrashed }), "stop start"},
		{"more memory", func(m *deploy.Machine) { m.Hardware.Memory = 1024 }, with(func(*deploy.Observed) {}), "stop configure start"},
		{"a larger disk", func(m *deploy.Machine) { m.Hardware.Disk = 8192 }, with(func(*deploy.Observed) {}), "stop resize configure start"},
		{"other ports", nil, with(func(o *deploy.Observed) { o.Missing = []string{local.PartForwards} }), "forward"},
		{"other ports of one that is paused", nil, with(func(o *deploy.Observed) { o.State, o.Missing = deploy.StatePaused, []string{local.PartForwards} }), "forward resume"},
		{"changed by hand", nil, with(func(o *deploy.Observed) { o.Drift = []string{"console: elsewhere"} }), "stop configure start"},
		{"forgotten by VirtualBox", func(m *deploy.Machine) { m.Seed = "" }, with(func(o *deploy.Observed) {
			o.State, o.Missing, o.Hardware = deploy.StateStopped, []string{local.PartConfig}, deploy.Hardware{}
		}), "configure start"},
		{"without its disk", nil, with(func(o *deploy.Observed) { o.Missing, o.Hardware.Disk = []string{local.PartDisk}, 0 }), "stop disk seed configure start"},
		{"a smaller disk", func(m *deploy.Machine) { m.Hardware.Disk = 1024 }, with(func(*deploy.Observed) {}), "its disk has 4096 MiB and cannot be made smaller (1024 MiB): destroy it to have it made anew"},
		{"in the way", nil, with(func(o *deploy.Observed) { o.Problems = []string{"well", blocker + "a stone"} }), "a stone"},
		{"no image", func(m *deploy.Machine) { m.Root = "" }, &deploy.Observed{State: deploy.StateMissing}, "it cannot be made without a base image: that takes deploy.disk_tools in tool.toml, and a kernel with an init in the machine"},
		{"too many processors", func(m *deploy.Machine) { m.Hardware.CPUs = 65 }, with(func(*deploy.Observed) {}), "65 processors are not possible: VirtualBox gives 1 to 64"},
		{"no MAC", func(m *deploy.Machine) { m.ClusterMAC = "52:54" }, with(func(*deploy.Observed) {}), `"5254" is not a MAC address`},
	} {
		m := wantedMachine()
		if x.change != nil {
			x.change(m)
		}
		if got := planned(t, m, x.o); got != x.want {
			t.Errorf("%s: %s, want %s", x.name, got, x.want)
		}
	}
}

// TestDrift compares what is wanted with what a real showvminfo says.
func TestDrift(t *testing.T) {
	m := wantedMachine()
	c := configOf(m)
	out, _ := captured(t, "16-showvminfo-full")
	have := parseInfo(out)
	if d := strings.Join(c.drift(have), "\n"); !strings.Contains(d, "private network: fleet-int → tool-0f5eb759-x") || strings.Contains(d, "memory") {
		t.Error(d)
	}
	// Properties that are told as they are wanted are no drift, in any case.
	same := info{}
	for _, s := range c.settings() {
		same[s.key] = strings.ToLower(s.value)
	}
	if d := c.drift(same); len(d) > 0 {
		t.Error(d)
	}
	if d := c.drift(info{}); len(d) > 0 {
		t.Errorf("what a version does not tell is drift: %v", d)
	}
	remove, add := ruleChanges(have.rules(), c.rules)
	if len(remove) != 2 || len(add) != 2 || add[1].String() != "tcp-8080,tcp,127.1.2.10,8080,,80" {
		t.Errorf("%v, %v", remove, add)
	}
	if remove, add := ruleChanges(c.rules, slices.Clone(c.rules)); len(remove)+len(add) > 0 {
		t.Errorf("%v, %v", remove, add)
	}
}
