package tests

import (
	"bytes"
	"fmt"
	"os/exec"
	"testing"
)

// TestConcurrent builds overlapping targets from several processes at once:
// every one gets the right result, and no action runs twice.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	files := layers(3, 4)
	want := newPlace(t, tempDir(t), files).build("//...")

	p := newPlace(t, tempDir(t), files)
	var cmds []*exec.Cmd
	var outs, errs [3]bytes.Buffer
	for i, patterns := range [][]string{{"//..."}, {"//:report"}, {"//...", "-j3"}} {
		cmd := p.command(append([]string{"build", "--json"}, patterns...)...)
		cmd.Stdout, cmd.Stderr = &outs[i], &errs[i]
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cmds = append(cmds, cmd)
	}
	executed := 0
	for i, cmd := range cmds {
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v\n%s", err, errs[i].String())
		}
		b := readBuilt(t, outs[i].String())
		executed += b.Actions.Executed
		if i != 1 && fmt.Sprint(outputs(b)) != fmt.Sprint(outputs(want)) {
			t.Errorf("process %d made\n%v\nwant\n%v", i, outputs(b), outputs(want))
		}
	}
	if executed != want.Actions.Total {
		t.Errorf("%d actions were executed in all, want each of the %d once", executed, want.Actions.Total)
	}
	p.sound()
}

// TestConcurrentCollection collects garbage while a build runs: what the build
// uses stays.
func TestConcurrentCollection(t *testing.T) {
	t.Parallel()
	p := newPlace(t, tempDir(t), layers(3, 4))
	var out, errs bytes.Buffer
	cmd := p.command("build", "//...")
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	collections := 0
	for running := true; running; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatalf("%v\n%s", err, errs.String())
			}
			running = false
		default:
			p.must("gc")
			collections++
		}
	}
	if b := p.build("//..."); b.Actions.Executed != 0 {
		t.Errorf("%d actions had to run again after %d collections during the build", b.Actions.Executed, collections)
	}
	p.sound()
	t.Logf("%d collections", collections)
}
