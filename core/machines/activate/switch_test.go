package activate

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"tool/core/machines/system"
)

func TestBoot(t *testing.T) {
	r := newRig(t)
	ref := r.system(map[string]string{"zk.service": "zk"}, map[string]string{"motd": "hi"}, nil)
	if err := r.m.Boot(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "seed") {
		t.Errorf("without facts: %v", err)
	}
	r.first(ref)
	r.check(1, 1)
	for path, want := range map[string]string{"usr": "tool/current/usr", "bin": "usr/bin", "var/run": "../run", "etc/motd": "../tool/current/etc/motd", "etc/mtab": "../proc/self/mounts"} {
		if got, err := os.Readlink(r.m.path(path)); err != nil || got != want {
			t.Errorf("%s leads to %q, %v; want %q", path, got, err, want)
		}
	}
	for path, want := range map[string]string{"etc/hostname": "m\n", "etc/motd": "hi", "etc/passwd": "zk:x:800:800::/var/lib/zk:", "etc/shadow": "root:*:", "var/lib/ssh/authorized_keys/root": "AAAA me"} {
		if b, err := os.ReadFile(r.m.path(path)); err != nil || !strings.Contains(string(b), want) {
			t.Errorf("%s holds %q, %v; want %q", path, b, err, want)
		}
	}
	r.restart()
	r.check(1, 1)
	if r.m.Booted() != 1 {
		t.Errorf("booted %d", r.m.Booted())
	}
}

func TestSwitch(t *testing.T) {
	r := newRig(t)
	r.first(r.system(map[string]string{"a.service": "a", "b.service": "b", "gone.service": "g"}, map[string]string{"old": "1", "d/e/f": "f", "d/x": "x", "gone.d/f": "f"}, nil))
	os.WriteFile(r.m.path("etc/d/mine"), []byte("mine"), 0o644)
	r.stage(2, r.system(map[string]string{"a.service": "a2 slow", "b.service": "b", "new.service": "n"}, map[string]string{"new": "2", "d/f": "f"}, nil))
	s := r.do(SwitchRequest{Generation: 2, Auto: true})
	if s.Result != ResultConfirmed {
		t.Fatalf("%s %+v", s, s.Failures)
	}
	r.check(2, 2)
	for _, p := range []string{"etc/d/mine", "etc/d/f"} {
		if _, err := os.ReadFile(r.m.path(p)); err != nil {
			t.Errorf("what a program keeps in /etc: %v", err)
		}
	}
	if _, err := os.Lstat(r.m.path("etc/gone.d")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("etc/gone.d is still there: %v", err)
	}
	if _, err := os.Lstat(r.m.path("etc/old")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("etc/old is still there: %v", err)
	}
	want := "run tool-switch-2, stop gone.service, reset-failed, daemon-reload, tmpfiles, restart a.service, start new.service"
	if got := strings.Join(r.sd.calls, ", "); !strings.HasSuffix(got, want) {
		t.Errorf("calls %s\nwant %s", got, want)
	}
	// Again changes nothing.
	if s := r.do(SwitchRequest{Generation: 2, Auto: true}); s.Result != ResultConfirmed || len(s.Forward.Units) != 0 {
		t.Errorf("again: %s %+v", s, s.Forward)
	}
	back, err := r.m.Rollback(t.Context(), -1)
	if err != nil || back.Generation != 1 {
		t.Fatalf("%+v, %v", back, err)
	}
	if err := r.m.RunSwitch(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	r.check(1, 1)
	if _, err := r.m.Rollback(t.Context(), 7); err == nil || !strings.Contains(err.Error(), "no generation 7") {
		t.Errorf("%v", err)
	}
}

func TestRevert(t *testing.T) {
	for name, c := range map[string]struct {
		units map[string]string
		auto  bool
		why   string
	}{
		"a unit fails":      {map[string]string{"a.service": "a fail", "b.service": "b"}, true, "a.service has failed"},
		"a unit flaps":      {map[string]string{"a.service": "a flap", "b.service": "b"}, true, "went down again"},
		"nobody confirms":   {map[string]string{"a.service": "a2", "b.service": "b2", "c.service": "c"}, false, "nobody confirmed it"},
		"another one fails": {map[string]string{"b.service": "b", "c.service": "fail"}, true, "c.service has failed"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.first(r.system(map[string]string{"a.service": "a", "b.service": "b"}, nil, nil))
			r.stage(2, r.system(c.units, map[string]string{"x": "x"}, nil))
			s := r.do(SwitchRequest{Generation: 2, Auto: c.auto})
			if s.Result != ResultReverted || !strings.Contains(s.Why, c.why) {
				t.Fatalf("%s", s)
			}
			r.check(1, 1)
			if staged, _ := r.m.Pointer(Staged); staged != 2 {
				t.Errorf("staged %d", staged)
			}
			if !c.auto {
				return
			}
			f := s.Failures[0]
			if len(f.Journal) == 0 || len(f.Reasons) == 0 || f.Label == "" {
				t.Errorf("the report says too little: %+v", f)
			}
		})
	}
}

// TestFailedBefore: who was ill before the switch does not fail it.
func TestFailedBefore(t *testing.T) {
	r := newRig(t)
	r.first(r.system(map[string]string{"a.service": "a", "ill.service": "i"}, nil, nil))
	r.sd.unit("ill.service").active = "failed"
	r.sd.unit("other.service").active = "failed"
	r.stage(2, r.system(map[string]string{"a.service": "a2", "ill.service": "i"}, nil, nil))
	if s := r.do(SwitchRequest{Generation: 2, Auto: true}); s.Result != ResultConfirmed {
		t.Errorf("%s", s)
	}
}

// TestFirst: there is nothing to go back to, so units that fail get another
// chance, and what fails for good is never confirmed.
func TestFirst(t *testing.T) {
	for _, test := range []struct {
		name, unit string
		result     Result
		starts     int
	}{
		{"well", "a", ResultConfirmed, 1},
		{"fails at first", "a shy", ResultConfirmed, 2},
		{"fails twice", "a shy shy", ResultConfirmed, 3},
		{"flaps for good", "a flap", ResultFailed, 1},
		{"fails for good", "a fail", ResultFailed, 3},
	} {
		t.Run(test.name, func(t *testing.T) {
			r := newRig(t)
			r.stage(1, r.system(map[string]string{"a.service": test.unit, "b.service": "b"}, nil, nil))
			if err := r.m.Boot(t.Context(), ""); err != nil {
				t.Fatal(err)
			}
			r.startAll()
			r.sd.unit("wait-online.service").active = "failed" // of the distribution's: it does not count
			s := r.do(SwitchRequest{Generation: 1, Auto: true})
			if s.Result != test.result || r.sd.unit("a.service").starts != test.starts || s.Result == ResultFailed && (len(s.Failures) != 1 || len(s.Failures[0].Journal) == 0) {
				t.Errorf("%s: %d starts: %+v", s, r.sd.unit("a.service").starts, s.Failures)
			}
			if n, err := r.m.Pointer(Confirmed); err != nil || (n == 1) != (test.result == ResultConfirmed) {
				t.Errorf("generation %d is confirmed, %v", n, err)
			}
		})
	}
}

func TestRevertFails(t *testing.T) {
	r := newRig(t)
	r.first(r.system(map[string]string{"a.service": "a"}, nil, nil))
	r.stage(2, r.system(map[string]string{"a.service": "a fail"}, nil, nil))
	r.sd.before = func(call string) {
		if n, _ := r.m.Pointer(Active); n == 1 && strings.HasPrefix(call, "restart") { // the old one does not come back
			os.Chmod(r.m.path("usr/lib/systemd/system"), 0o755)
			os.Remove(r.m.path("usr/lib/systemd/system/a.service"))
		}
	}
	s := r.do(SwitchRequest{Generation: 2, Auto: true})
	if s.Result != ResultRevertFailed || !strings.Contains(s.Why, "a.service is failed") {
		t.Errorf("%s", s)
	}
}

func TestBusyAndConfirm(t *testing.T) {
	r := newRig(t)
	r.first(r.system(map[string]string{"a.service": "a"}, nil, nil))
	r.stage(2, r.system(map[string]string{"a.service": "a2"}, nil, nil))
	var none *NotWaitingError
	if err := r.m.Confirm(2); !errors.As(err, &none) {
		t.Errorf("confirmed what nobody switched to: %v", err)
	}
	r.m.times.confirm = 1 << 40
	if _, err := r.m.StartSwitch(t.Context(), SwitchRequest{Generation: 2}); err != nil {
		t.Fatal(err)
	}
	var busy *BusyError
	if _, err := r.m.StartSwitch(t.Context(), SwitchRequest{Generation: 1}); !errors.As(err, &busy) {
		t.Errorf("two switches at once: %v", err)
	}
	if s, err := r.m.StartSwitch(t.Context(), SwitchRequest{Generation: 2}); err != nil || s.Seq == 0 {
		t.Errorf("the same again: %+v, %v", s, err)
	}
	done := make(chan error)
	go func() { done <- r.m.RunSwitch(t.Context(), 2) }()
	for {
		s, err := r.m.Status()
		if err != nil {
			t.Fatal(err)
		}
		if s.Phase == PhaseWaiting {
			break
		}
	}
	for range 2 {
		if err := r.m.Confirm(2); err != nil {
			t.Error(err)
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	r.check(2, 2)
}

func TestTest(t *testing.T) {
	r := newRig(t)
	r.first(r.system(map[string]string{"a.service": "a"}, nil, nil))
	r.stage(2, r.system(map[string]string{"a.service": "a2"}, nil, nil))
	if s := r.do(SwitchRequest{Generation: 2, Mode: ModeTest, Auto: true}); s.Result != ResultConfirmed {
		t.Fatalf("%s", s)
	}
	r.check(2, 1)
	r.restart()
	r.check(1, 1)
}

func TestTrial(t *testing.T) {
	for _, good := range []bool{true, false} {
		r := newRig(t)
		r.first(r.system(map[string]string{"a.service": "a"}, nil, nil))
		content := "a2"
		if !good {
			content = "fail"
		}
		r.stage(2, r.system(map[string]string{"a.service": content}, nil, nil))
		if s := r.do(SwitchRequest{Generation: 2, Mode: ModeBoot, Auto: true}); s.Phase != PhaseTrial {
			t.Fatalf("%s", s)
		}
		if n, _ := r.m.Pointer(Active); n != 1 {
			t.Errorf("active %d before the restart", n)
		}
		r.restart()
		if n, _ := r.m.Pointer(Active); n != 2 {
			t.Errorf("active %d after the restart", n)
		}
		if _, err := os.Lstat(r.m.path("run/systemd/system/multi-user.target.wants/tool-agent-boot.service")); err != nil {
			t.Error(err)
		}
		if err := r.m.Settle(t.Context()); err != nil {
			t.Fatal(err)
		}
		if good {
			r.check(2, 2)
			continue
		}
		if r.sd.reboots != 1 {
			t.Errorf("%d reboots", r.sd.reboots)
		}
		r.restart()
		r.check(1, 1)
		if s, _ := r.m.Status(); s.Result != ResultReverted || !strings.Contains(s.Why, "a.service has failed") || len(s.Failures) == 0 {
			t.Errorf("%s", s)
		}
	}
}

// TestTrialDies: a generation on trial that never comes to its health checks is
// left behind by the next start.
func TestTrialDies(t *testing.T) {
	r := newRig(t)
	r.first(r.system(map[string]string{"a.service": "a"}, nil, nil))
	r.stage(2, r.system(map[string]string{"a.service": "a2"}, nil, nil))
	r.do(SwitchRequest{Generation: 2, Mode: ModeBoot})
	r.restart()
	r.restart()
	r.check(1, 1)
	if s, _ := r.m.Status(); s.Result != ResultReverted || !strings.Contains(s.Why, "went down") {
		t.Errorf("%s", s)
	}
	r.do(SwitchRequest{Generation: 2, Mode: ModeBoot})
	os.WriteFile(r.m.path("proc/cmdline"), []byte("quiet tool.generation=1\n"), 0o644)
	r.restart()
	r.check(1, 1)
	if s, _ := r.m.Status(); s.Result != ResultReverted || !strings.Contains(s.Why, "not into it") {
		t.Errorf("%s", s)
	}
}

// killed is what a fake kill panics with.
type killed struct{}

// TestKilledAnywhere ends the runner at every call and every write of its
// journal, and lets another go on: the machine ends as one generation or the
// other, whole.
func TestKilledAnywhere(t *testing.T) {
	for _, c := range []struct {
		content string
		auto    bool
		want    Result
		active  int
	}{{"a2", true, ResultConfirmed, 2}, {"a2", false, ResultReverted, 1}, {"fail", true, ResultReverted, 1}} {
		for point := 0; ; point++ {
			if !killedAt(t, point, c.content, c.auto, c.want, c.active) {
				if point < 15 {
					t.Errorf("only %d points", point)
				}
				break
			}
		}
	}
}

// killedAt reports whether there was such a point.
func killedAt(t *testing.T, point int, content string, auto bool, want Result, active int) (reached bool) {
	r := newRig(t)
	r.first(r.system(map[string]string{"a.service": "a", "b.service": "b", "gone.service": "g", "ss.service": "s"}, map[string]string{"old": "1"}, stopStart))
	r.stage(2, r.system(map[string]string{"a.service": content, "b.service": "b", "new.service": "n", "ss.service": "s2"}, map[string]string{"new": "2"}, stopStart))
	if _, err := r.m.StartSwitch(t.Context(), SwitchRequest{Generation: 2, Auto: auto}); err != nil {
		t.Fatal(err)
	}
	n := 0
	die := func() {
		if n++; n == point+1 {
			panic(killed{})
		}
	}
	r.sd.before = func(string) { die() }
	r.m.journalled = func(*SwitchStatus) { die() }
	func() {
		defer func() {
			if p := recover(); p != nil {
				if _, ok := p.(killed); !ok {
					panic(p)
				}
				reached = true
			}
		}()
		if err := r.m.RunSwitch(t.Context(), 2); err != nil {
			t.Errorf("point %d: %v", point, err)
		}
	}()
	r.sd.before = nil
	r.open()
	if err := r.m.RunSwitch(t.Context(), 2); err != nil {
		t.Errorf("point %d, the second: %v", point, err)
	}
	s, err := r.m.Status()
	if err != nil || s.Result != want {
		t.Errorf("point %d: %s, %v; want %s", point, s, err, want)
	}
	r.check(active, active)
	if t.Failed() {
		t.Fatalf("killed at point %d", point)
	}
	return reached
}

func stopStart(m *system.Manifest) {
	for i := range m.Services {
		if m.Services[i].Unit == "ss.service" {
			m.Services[i].OnChange = "stop-start"
		}
	}
}

// TestPowerLost: the machine goes down at every write of the journal, and
// starts into the confirmed generation.
func TestPowerLost(t *testing.T) {
	for point := 1; ; point++ {
		r := newRig(t)
		r.first(r.system(map[string]string{"a.service": "a"}, nil, nil))
		r.stage(2, r.system(map[string]string{"a.service": "a2"}, map[string]string{"x": "y"}, nil))
		if _, err := r.m.StartSwitch(t.Context(), SwitchRequest{Generation: 2}); err != nil {
			t.Fatal(err)
		}
		n := 0
		r.m.journalled = func(*SwitchStatus) {
			if n++; n == point {
				panic(killed{})
			}
		}
		over := true
		func() {
			defer func() {
				if recover() != nil {
					over = false
				}
			}()
			r.m.RunSwitch(t.Context(), 2)
		}()
		r.restart()
		r.check(1, 1)
		if s, err := r.m.Status(); err != nil || s.Result != ResultReverted || s.Why == "" {
			t.Errorf("point %d: %s, %v", point, s, err)
		}
		if over {
			if point < 8 {
				t.Errorf("only %d points", point)
			}
			return
		}
	}
}

// TestRunnersAreCounted: a runner that dies again and again is not run for ever.
func TestRunnersAreCounted(t *testing.T) {
	r := newRig(t)
	r.first(r.system(map[string]string{"a.service": "a"}, nil, nil))
	r.stage(2, r.system(map[string]string{"a.service": "a2"}, nil, nil))
	if _, err := r.m.StartSwitch(t.Context(), SwitchRequest{Generation: 2}); err != nil {
		t.Fatal(err)
	}
	r.sd.before = func(c string) {
		if n, _ := r.m.Pointer(Active); n == 2 && c == "daemon-reload" {
			panic(killed{})
		}
	}
	for range maxRunners + 1 {
		func() {
			defer func() { recover() }()
			r.m.RunSwitch(t.Context(), 2)
		}()
	}
	if s, _ := r.m.Status(); s.Result != ResultReverted || !strings.Contains(s.Why, fmt.Sprintf("ended %d times", maxRunners)) {
		t.Errorf("%s", s)
	}
	r.check(1, 1)
}
