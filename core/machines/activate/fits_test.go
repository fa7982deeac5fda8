package activate

import (
	"os"
	"testing"

	"tool/core/machines/system"
)

// TestAnotherKernel starts a machine with a kernel that is not the one of its
// newest generation, as a reset does where the controller has not yet loaded it.
func TestAnotherKernel(t *testing.T) {
	r := newRig(t)
	runs := func(release, cmdline string) {
		t.Helper()
		os.MkdirAll(r.m.path("proc/sys/kernel"), 0o755)
		os.WriteFile(r.m.path("proc/sys/kernel/osrelease"), []byte(release+"\n"), 0o644)
		os.WriteFile(r.m.path("proc/cmdline"), []byte(cmdline+"\n"), 0o644)
	}
	kernel := func(release, cmdline string) func(*system.Manifest) {
		return func(m *system.Manifest) {
			m.Boot = &system.Boot{Kernel: "boot/k", Initrd: "boot/i", Release: release, Cmdline: cmdline}
		}
	}
	runs("6.1", "quiet mitigations=off")
	r.first(r.system(map[string]string{"a.service": "1"}, nil, kernel("6.1", "quiet")))
	r.stage(2, r.system(map[string]string{"a.service": "2"}, nil, kernel("6.2", "quiet")))
	if s := r.do(SwitchRequest{Generation: 2, Auto: true}); s.Result != ResultConfirmed {
		t.Fatal(s)
	}
	r.restart()
	r.check(1, 2) // without 6.2's modules, 1 is what works
	runs("6.2", "quiet")
	r.restart()
	r.check(2, 2)

	// A trial is of its kernel and command line.
	r.stage(3, r.system(map[string]string{"a.service": "3"}, nil, kernel("6.2", "quiet extra=1")))
	r.do(SwitchRequest{Generation: 3, Mode: ModeBoot})
	r.restart()
	r.check(2, 2)
	if s, err := r.m.Status(); err != nil || s.Result != ResultReverted {
		t.Errorf("%v %v", s, err)
	}
	runs("6.2", "extra=1 quiet")
	r.do(SwitchRequest{Generation: 3, Mode: ModeBoot})
	r.restart()
	r.check(3, 2)
}
