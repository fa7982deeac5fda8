package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/urfave/cli/v2"

	"tool/core/machines/deploy"
	"tool/core/machines/system"
)

// TestPrintPlan: what a plan looks like, all four levels of it.
func TestPrintPlan(t *testing.T) {
	t.Setenv("NO_COLOR", "1")
	hw := deploy.Hardware{Memory: 512, CPUs: 1, Disk: 8192}
	p := &deploy.Plan{
		Name: "c", Label: "//c:c", Generation: 3, Mode: "switch", Backend: "qemu", Note: "backend auto: qemu",
		Machines: []deploy.MachinePlan{
			{Name: "new", Resource: deploy.ResourceCreate, System: deploy.SystemBoot, Hardware: hw, Address: "10.0.0.10/24", HostAddr: "127.1.2.10", To: "x-new", ClosureBytes: 2 << 20,
				Packages: []system.PackageChange{{Name: "base", New: "1"}}, Units: []system.UnitChange{{Unit: "a.service", Action: system.Start}}},
			{Name: "same", Resource: deploy.ResourceKeep, System: deploy.SystemKeep},
			{Name: "facts", Resource: deploy.ResourceKeep, System: deploy.SystemKeep, Facts: true},
			{Name: "other", Resource: deploy.ResourceKeep, System: deploy.SystemSwitch, To: "x-other", ClosureBytes: 5 << 20, SendBytes: 1024, SendBlobs: 2, Reboot: "kernel 6.1 → 6.2",
				Packages: []system.PackageChange{{Name: "a", Old: "1", New: "2"}, {Name: "b", New: "1"}, {Name: "c", Old: "1"}, {Name: "d", Old: "1", New: "1"}},
				Units:    []system.UnitChange{{Unit: "a.service", Action: system.Restart, Reasons: []system.Reason{{Package: "a", Old: "1", New: "2"}}}}},
			{Name: "old", Resource: deploy.ResourceDestroy, System: deploy.SystemNone, Why: "the deployment has no such machine any more", Steps: []deploy.Step{{Text: "remove it"}}},
		},
		Waves:    [][]string{{"other"}, {"more"}},
		Refusals: []deploy.Refusal{{Machine: "old", Text: "is destroyed, and the data on its disk is lost", Flag: "--allow-destroy"}},
	}
	var b bytes.Buffer
	printPlan(&b, p)
	want := `c, generation 3, of //c:c
backend auto: qemu
Resources
  + new: create with qemu, 512 MiB, 1 processor, disk 8192 MiB; 10.0.0.10/24; from here 127.1.2.10
  - old: destroy; the deployment has no such machine any more; remove it
    3 machines stay as they are
Machines
  new: boots x-new (closure 2.1 MB)
    1 package, 1 unit
  same: up to date
  facts: stays; names and addresses are written anew
  other: switches to x-other (closure 5.2 MB, 1.0 KB in 2 blobs to send)
    ~ a 1 → 2
    + b 1
    - c 1
    ~ d 1, rebuilt
    restart a.service: a 1 → 2
    after the next reboot: kernel 6.1 → 6.2
Order
  1. other
  2. more
refused: old: is destroyed, and the data on its disk is lost; --allow-destroy allows it
`
	if b.String() != want {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
	p.Machines = p.Machines[1:2]
	b.Reset()
	printPlan(&b, p)
	if got := b.String(); got != "c: nothing to do, 1 machine is up to date with generation 3\n" {
		t.Errorf("%q", got)
	}
}

// TestResultCodes: the exit code tells how a deploy went.
func TestResultCodes(t *testing.T) {
	t.Setenv("NO_COLOR", "1")
	busy := &deploy.Plan{Generation: 2, Machines: []deploy.MachinePlan{{Name: "m", System: deploy.SystemSwitch}}}
	long := errors.New("first\nsecond")
	for _, c := range []struct {
		outcomes []deploy.Outcome
		code     int
		out      string
	}{
		{[]deploy.Outcome{{Machine: "m", State: deploy.Confirmed}}, 0, "1 of 1 machines confirmed"},
		{[]deploy.Outcome{{Machine: "m", State: deploy.Staged}}, 0, "staged"},
		{[]deploy.Outcome{{Machine: "m", State: deploy.Destroyed}}, 0, "0 of 0"},
		{[]deploy.Outcome{{Machine: "m", State: deploy.RolledBack, Err: long}}, exitRolledBack, "rolled back: first"},
		{[]deploy.Outcome{{Machine: "m", State: deploy.RolledBack}, {Machine: "n", State: deploy.Waiting}}, exitRolledBack, "untouched"},
		{[]deploy.Outcome{{Machine: "m", State: deploy.RolledBack}, {Machine: "n", State: deploy.Failed}}, exitSomeFailed, "failed"},
		{[]deploy.Outcome{{Machine: "m", State: deploy.Failed}, {Machine: "n", State: deploy.Confirmed}}, exitSomeFailed, "1 of 2"},
		{[]deploy.Outcome{{Machine: "m", State: deploy.RevertFailed}, {Machine: "n", State: deploy.RolledBack}}, exitRevertFailed, "roll-back failed"},
	} {
		var out, errs bytes.Buffer
		app := cli.NewApp()
		app.Writer, app.ErrWriter = &out, &errs
		err := printResult(cli.NewContext(app, nil, nil), &deploy.Deployment{Name: "c"}, &deploy.Result{Plan: busy, Outcomes: c.outcomes}, time.Second)
		if code := exitCode(err, &errs, newPalette(&errs)); code != c.code {
			t.Errorf("%+v: code %d, want %d", c.outcomes, code, c.code)
		}
		if !strings.Contains(out.String(), c.out) {
			t.Errorf("%q has no %q", out.String(), c.out)
		}
		if c.outcomes[0].Err != nil && !strings.Contains(errs.String(), "second") {
			t.Errorf("the reason is missing: %q", errs.String())
		}
	}
}

func TestDeployErrorCodes(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
	}{
		{&deploy.LockedError{}, exitHeld},
		{&deploy.NotFoundError{}, exitUsage},
		{&deploy.RefusedError{}, exitUsage},
		{&deploy.StaleError{}, exitUsage},
		{&deploy.UnreachableError{Last: errors.New("x")}, exitSomeFailed},
		{context.Canceled, exitInterrupted},
		{errors.New("x"), exitBuild},
		{nil, 0},
	} {
		err := c.err
		if err != nil {
			err = fmt.Errorf("around: %w", err)
		}
		var b bytes.Buffer
		if got := exitCode(deployError(err), &b, newPalette(&b)); got != c.code {
			t.Errorf("%T: code %d, want %d", c.err, got, c.code)
		}
	}
}

func TestShellWords(t *testing.T) {
	for want, args := range map[string][]string{
		"":                          nil,
		"echo $HOME; ls":            {"echo $HOME; ls"},
		"ls -l /tmp":                {"ls", "-l", "/tmp"},
		`echo '$HOME' 'a b' ''`:     {"echo", "$HOME", "a b", ""},
		`echo 'it'\''s' '*' 'ü'`:    {"echo", "it's", "*", "ü"},
		"env A=b,c user@host:1 50%": {"env", "A=b,c", "user@host:1", "50%"},
	} {
		if got := shellWords(args); got != want {
			t.Errorf("%q: %s, want %s", args, got, want)
		}
	}
}

// TestPrefixed: lines of several machines do not mix, and none is without an end.
func TestPrefixed(t *testing.T) {
	var b bytes.Buffer
	var mu sync.Mutex
	p := &prefixed{name: "m", w: &b, mu: &mu}
	for _, s := range []string{"a", "b\nc\r\n", "\n", "rest"} {
		if n, err := p.Write([]byte(s)); n != len(s) || err != nil {
			t.Fatal(n, err)
		}
	}
	p.flush()
	if got := b.String(); got != "m> ab\nm> c\nm> \nm> rest\n" {
		t.Errorf("%q", got)
	}
	b.Reset()
	if _, err := p.Write(bytes.Repeat([]byte("x"), 3*maxLine)); err != nil {
		t.Fatal(err)
	}
	if len(p.rest) > maxLine || b.Len() < 2*maxLine {
		t.Errorf("a line without an end is kept: %d bytes; written: %d", len(p.rest), b.Len())
	}
}
