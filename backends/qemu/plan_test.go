package qemu

import (
	"net/netip"
	"strings"
	"testing"

	"tool/backends/local"
	"tool/core/machines/deploy"
)

func testMachine() *deploy.Machine {
	return &deploy.Machine{
		Deployment: "d", Name: "m0", Dir: "/machines/m0", NetDir: "/net", Hardware: deploy.Hardware{Memory: 512, CPUs: 1, Disk: 8192},
		ControlMAC: "52:54:00:00:00:01", ClusterMAC: "52:54:00:00:00:02", HostAddr: netip.MustParseAddr("127.77.0.1"), SSHPort: 2222,
		Forwards: []deploy.Forward{{Port: 8081, Guest: 81}, {Port: 8080, Guest: 80}},
		Root:     "/root.img", Seed: "/seed", Kernel: "/kernel", Initrd: "/initrd", Cmdline: "console=ttyS0", Emulator: "/emulator",
	}
}

func TestPlan(t *testing.T) {
	hw := configOf(testMachine()).Hardware
	whole := func(s deploy.State) deploy.Observed {
		return deploy.Observed{Exists: true, Complete: true, State: s, Hardware: hw}
	}
	with := func(o deploy.Observed, f func(*deploy.Observed)) deploy.Observed { f(&o); return o }
	for name, c := range map[string]struct {
		o    deploy.Observed
		m    func(*deploy.Machine)
		g    deploy.Goal
		want string // kinds, or after ! a part of the error
	}{
		"create":          {deploy.Observed{State: deploy.StateMissing}, nil, deploy.Running, "disk seed boot configure network start"},
		"without a seed":  {deploy.Observed{State: deploy.StateMissing}, func(m *deploy.Machine) { m.Seed = "" }, deploy.Running, "disk boot configure network start"},
		"running":         {whole(deploy.StateRunning), nil, deploy.Running, ""},
		"stopped":         {whole(deploy.StateStopped), nil, deploy.Running, "start"},
		"paused":          {whole(deploy.StatePaused), nil, deploy.Running, "resume"},
		"crashed":         {whole(deploy.StateCrashed), nil, deploy.Running, "stop start"},
		"no network":      {with(whole(deploy.StateRunning), func(o *deploy.Observed) { o.Missing = []string{local.PartNetwork} }), nil, deploy.Running, "network"},
		"lost disk":       {with(whole(deploy.StateRunning), func(o *deploy.Observed) { o.Missing = []string{local.PartDisk} }), nil, deploy.Running, "stop disk seed configure start"},
		"lost kernel":     {with(whole(deploy.StateStopped), func(o *deploy.Observed) { o.Missing = []string{local.PartBoot} }), nil, deploy.Running, "boot configure start"},
		"another kernel":  {with(whole(deploy.StateRunning), func(o *deploy.Observed) { o.Drift = []string{"kernel: another one"} }), nil, deploy.Running, "stop boot configure start"},
		"another port":    {with(whole(deploy.StateRunning), func(o *deploy.Observed) { o.Drift = []string{"port for SSH: 1 → 2"} }), nil, deploy.Running, "stop configure start"},
		"more memory":     {whole(deploy.StateRunning), func(m *deploy.Machine) { m.Hardware.Memory = 1024 }, deploy.Running, "stop configure start"},
		"larger disk":     {whole(deploy.StateStopped), func(m *deploy.Machine) { m.Hardware.Disk *= 2 }, deploy.Running, "resize configure start"},
		"smaller disk":    {whole(deploy.StateStopped), func(m *deploy.Machine) { m.Hardware.Disk /= 2 }, deploy.Running, "!cannot be made smaller"},
		"uefi":            {whole(deploy.StateRunning), func(m *deploy.Machine) { m.Hardware.Firmware, m.ESP = uefi, "/esp" }, deploy.Running, "stop boot configure start"},
		"uefi, no image":  {whole(deploy.StateRunning), func(m *deploy.Machine) { m.Hardware.Firmware = uefi }, deploy.Running, "!an image of the EFI system partition"},
		"no base image":   {deploy.Observed{}, func(m *deploy.Machine) { m.Root = "" }, deploy.Running, "!a base image"},
		"other ports":     {with(whole(deploy.StateRunning), func(o *deploy.Observed) { o.Missing = []string{local.PartForwards} }), nil, deploy.Running, "forward"},
		"ports, stopped":  {with(whole(deploy.StateStopped), func(o *deploy.Observed) { o.Missing = []string{local.PartForwards} }), nil, deploy.Running, "forward start"},
		"ports, memory":   {with(whole(deploy.StateRunning), func(o *deploy.Observed) { o.Missing = []string{local.PartForwards} }), func(m *deploy.Machine) { m.Hardware.Memory = 1024 }, deploy.Running, "stop configure start"},
		"unknown":         {with(whole(deploy.StateUnknown), func(o *deploy.Observed) { o.Problems = []string{"it hangs"} }), nil, deploy.Running, "!it hangs"},
		"stop":            {whole(deploy.StateRunning), nil, deploy.Stopped, "stop"},
		"stop unknown":    {whole(deploy.StateUnknown), nil, deploy.Stopped, "stop"},
		"stop crashed":    {whole(deploy.StateCrashed), nil, deploy.Stopped, "stop"},
		"stop stopped":    {whole(deploy.StateStopped), nil, deploy.Stopped, ""},
		"stop missing":    {deploy.Observed{State: deploy.StateMissing}, nil, deploy.Stopped, ""},
		"destroy":         {whole(deploy.StateRunning), nil, deploy.Absent, "destroy"},
		"destroy missing": {deploy.Observed{State: deploy.StateMissing}, nil, deploy.Absent, ""},
		"bad port":        {deploy.Observed{}, func(m *deploy.Machine) { m.SSHPort = 0 }, deploy.Running, "!0 is not a port"},
		"bad forward":     {deploy.Observed{}, func(m *deploy.Machine) { m.HostAddr = netip.Addr{} }, deploy.Running, "!no address of the host"},
	} {
		m := testMachine()
		if c.m != nil {
			c.m(m)
		}
		steps, err := New(Options{}).Plan(m, &c.o, c.g)
		var kinds []string
		for _, s := range steps {
			kinds = append(kinds, s.Kind)
			if s.Destructive != (s.Kind == local.StepDestroy) {
				t.Errorf("%s: %+v", name, s)
			}
		}
		if part, bad := strings.CutPrefix(c.want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("%s: got %v, want an error with %q", name, err, part)
			}
		} else if got := strings.Join(kinds, " "); err != nil || got != c.want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, c.want)
		}
	}
}

func TestCommand(t *testing.T) {
	m := testMachine()
	m.Name = "m-0"
	c := configOf(m)
	args := strings.Join(c.command(&emulator{"/emu,lator"}, m.Name, accelTCG, true), " ")
	for _, want := range []string{
		"/emu,lator/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2 --library-path /emu,lator/usr/lib/x86_64-linux-gnu /emu,lator/usr/bin/qemu-system-x86_64 ",
		"-name guest=m-0 -uuid " + uuidOf(m), "-accel tcg,thread=multi,tb-size=160 -cpu Nehalem",
		"hostfwd=tcp:127.0.0.1:2222-:22,hostfwd=tcp:127.77.0.1:8080-:80,hostfwd=tcp:127.77.0.1:8081-:81",
		"dgram,id=cluster,local.type=unix,local.path=net/m-0.vm,remote.type=unix,remote.path=net/switch",
		"-append console=ttyS0 mitigations=off systemd.default_timeout_start_sec=600", "file=seed.img,format=raw,readonly=on",
	} {
		if !strings.Contains(args, want) {
			t.Errorf("%s\nis not in\n%s", want, args)
		}
	}
	args = strings.Join(c.command(&emulator{"/e"}, m.Name, accelKVM, false), " ")
	if strings.Contains(args, "mitigations") || strings.Contains(args, "seed") || !strings.Contains(args, "-accel kvm -cpu host") {
		t.Errorf("with KVM and without a seed: %s", args)
	}
	m.Hardware.Firmware = uefi
	c = configOf(m)
	args = strings.Join(c.command(&emulator{"/emu,lator"}, m.Name, accelTCG, false), " ")
	if !strings.Contains(args, "readonly=on,file=/emu,,lator/usr/share/OVMF/OVMF_CODE_4M.fd") || !strings.Contains(args, "file=esp.qcow2") || !strings.Contains(args, "-cpu Nehalem,vendor=AuthenticAMD") || strings.Contains(args, "-kernel") {
		t.Errorf("with UEFI: %s", args)
	}
}

func TestConfig(t *testing.T) {
	dir := t.TempDir()
	if c, err := readConfig(dir); c != nil || err != nil {
		t.Fatalf("no configuration is %v, %v", c, err)
	}
	c := configOf(testMachine())
	if err := c.write(dir); err != nil {
		t.Fatal(err)
	}
	got, err := readConfig(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d := got.differences(&c); len(d) > 0 {
		t.Errorf("what was written is read as other: %v", d)
	}
	other := testMachine()
	other.SSHPort, other.Cmdline, other.Forwards = 3333, "quiet", nil
	want := configOf(other)
	if d := strings.Join(got.differences(&want), "; "); d != "port for SSH: 2222 → 3333; kernel's command line: console=ttyS0 → quiet" {
		t.Error(d)
	}
	if got.sameForwards(&want) || !got.sameForwards(&c) {
		t.Error("forwarded ports are compared wrongly")
	}
	if a, b := uuidOf(testMachine()), uuidOf(&deploy.Machine{Deployment: "d", Name: "m1"}); a == b || len(a) != 36 {
		t.Errorf("UUIDs %s and %s", a, b)
	}
}
