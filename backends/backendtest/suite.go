// Package backendtest is what every backend must be able to do: the life of a
// machine, with interruptions, told as tests. A backend's own tests call Run.
package backendtest

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"tool/core/machines/deploy"
)

// Config is a backend with what the suite must do behind its back.
type Config struct {
	Backend deploy.Backend
	// Machine returns all that is needed to make a machine of that name. Every
	// call for one test returns machines of one deployment; the same name gives
	// the same machine.
	Machine func(t *testing.T, name string) *deploy.Machine
	// Kill ends a running machine as a crash would.
	Kill func(t *testing.T, m *deploy.Machine)
	// LoseDisk removes a stopped or running machine's disk.
	LoseDisk func(t *testing.T, m *deploy.Machine)
	// Left lists what there still is of a machine: files, processes.
	Left func(t *testing.T, m *deploy.Machine) []string
}

// stepTimeout is more than any step may take.
const stepTimeout = 3 * time.Minute

// Run runs the suite.
func Run(t *testing.T, c Config) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, *life)
	}{
		{"Life", testLife},
		{"Crash", testCrash},
		{"Hardware", testHardware},
		{"Interrupted", testInterrupted},
		{"Twice", testTwice},
		{"TwoMachines", testTwoMachines},
		{"LostDisk", testLostDisk},
		{"DestroyRunning", testDestroyRunning},
		{"Refused", testRefused},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, &life{t, c}) })
	}
}

// life is a test's view of the backend.
type life struct {
	t *testing.T
	Config
}

func (l *life) machine(name string) *deploy.Machine {
	l.t.Helper()
	m := l.Machine(l.t, name)
	l.t.Cleanup(func() {
		// Whatever the test did: no machine is left behind.
		ctx, cancel := context.WithTimeout(context.Background(), stepTimeout)
		defer cancel()
		o, err := l.Backend.Observe(ctx, m)
		if err != nil {
			l.t.Errorf("observe at the end: %v", err)
			return
		}
		steps, err := l.Backend.Plan(m, o, deploy.Absent)
		if err != nil {
			l.t.Error(err)
		}
		for _, s := range steps {
			if err := l.Backend.Do(ctx, m, s); err != nil {
				l.t.Error(err)
			}
		}
	})
	return m
}

func (l *life) observe(m *deploy.Machine) *deploy.Observed {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), stepTimeout)
	defer cancel()
	o, err := l.Backend.Observe(ctx, m)
	if err != nil {
		l.t.Fatalf("observe %s: %v", m.Name, err)
	}
	return o
}

func (l *life) plan(m *deploy.Machine, g deploy.Goal) []deploy.Step {
	l.t.Helper()
	o := l.observe(m)
	steps, err := l.Backend.Plan(m, o, g)
	if err != nil {
		l.t.Fatalf("plan %s of %s: %v", g, m.Name, err)
	}
	again, err := l.Backend.Plan(m, o, g)
	if err != nil || fmt.Sprint(again) != fmt.Sprint(steps) {
		l.t.Fatalf("a plan made again differs: %v, %v", again, err)
	}
	for _, s := range steps {
		if s.Kind == "" || s.Text == "" {
			l.t.Errorf("a step without kind or text: %+v", s)
		}
	}
	return steps
}

func (l *life) do(m *deploy.Machine, s deploy.Step) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), stepTimeout)
	defer cancel()
	if err := l.Backend.Do(ctx, m, s); err != nil {
		l.t.Fatalf("step %s of %s: %v", s.Kind, m.Name, err)
	}
}

// reach brings m to g and proves that it is there: nothing is left to plan.
func (l *life) reach(m *deploy.Machine, g deploy.Goal) {
	l.t.Helper()
	for _, s := range l.plan(m, g) {
		l.do(m, s)
	}
	if left := l.plan(m, g); len(left) > 0 {
		l.t.Fatalf("%s of %s was reached, and there are steps again: %s", g, m.Name, kinds(left))
	}
	want := map[deploy.Goal]deploy.State{deploy.Running: deploy.StateRunning, deploy.Stopped: deploy.StateStopped, deploy.Absent: deploy.StateMissing}[g]
	l.state(m, want)
}

func (l *life) state(m *deploy.Machine, want deploy.State) *deploy.Observed {
	l.t.Helper()
	o := l.observe(m)
	if o.State != want {
		l.t.Fatalf("%s is %s (%s), want %s", m.Name, o.State, strings.Join(o.Problems, "; "), want)
	}
	return o
}

func (l *life) gone(m *deploy.Machine) {
	l.t.Helper()
	l.reach(m, deploy.Absent)
	if o := l.observe(m); o.Exists {
		l.t.Errorf("%s still exists", m.Name)
	}
	if left := l.Left(l.t, m); len(left) > 0 {
		l.t.Errorf("destroying %s left %s", m.Name, strings.Join(left, ", "))
	}
}

func kinds(steps []deploy.Step) string {
	var names []string
	for _, s := range steps {
		names = append(names, s.Kind)
	}
	return strings.Join(names, " ")
}

func destructive(steps []deploy.Step) bool {
	for _, s := range steps {
		if s.Destructive {
			return true
		}
	}
	return false
}
