package backendtest

import (
	"context"
	"sync"
	"testing"

	"tool/core/machines/deploy"
)

func testLife(t *testing.T, l *life) {
	m := l.machine("m0")
	if o := l.state(m, deploy.StateMissing); o.Exists || o.Complete {
		t.Errorf("a machine that was never made is observed as %+v", o)
	}
	if steps := l.plan(m, deploy.Absent); len(steps) > 0 {
		t.Errorf("there are steps to destroy what is not there: %s", kinds(steps))
	}
	if steps := l.plan(m, deploy.Running); len(steps) == 0 || destructive(steps) {
		t.Errorf("making a machine is planned as %+v", steps)
	}
	l.reach(m, deploy.Running)
	o := l.observe(m)
	if !o.Exists || !o.Complete || o.ID == "" || o.Hardware.Memory != m.Hardware.Memory || o.Hardware.Disk != m.Hardware.Disk {
		t.Errorf("a running machine is observed as %+v", o)
	}
	l.reach(m, deploy.Stopped)
	if o := l.observe(m); !o.Complete {
		t.Errorf("a stopped machine is not complete: %v", o.Missing)
	}
	l.reach(m, deploy.Running)
	l.gone(m)
	l.gone(m)
}

func testCrash(t *testing.T, l *life) {
	m := l.machine("m0")
	l.reach(m, deploy.Running)
	l.Kill(t, m)
	l.state(m, deploy.StateCrashed)
	l.reach(m, deploy.Running)
	l.Kill(t, m)
	l.reach(m, deploy.Stopped)
	l.gone(m)
}

func testHardware(t *testing.T, l *life) {
	m := l.machine("m0")
	l.reach(m, deploy.Running)
	m.Hardware.Memory *= 2
	m.Hardware.Disk *= 2
	if steps := l.plan(m, deploy.Running); len(steps) == 0 || destructive(steps) {
		t.Fatalf("a change of hardware is planned as %+v", steps)
	}
	l.reach(m, deploy.Running)
	if o := l.observe(m); o.Hardware.Memory != m.Hardware.Memory || o.Hardware.Disk != m.Hardware.Disk {
		t.Errorf("the hardware is %+v", o.Hardware)
	}
	m.Hardware.Disk /= 2
	o := l.observe(m)
	steps, err := l.Backend.Plan(m, o, deploy.Running)
	if err == nil && !destructive(steps) {
		t.Errorf("a smaller disk is planned as if it lost nothing: %+v", steps)
	}
	m.Hardware.Disk *= 2
	l.gone(m)
}

// testInterrupted ends making a machine after each of its steps, as a killed
// process would, and goes on with what is observed then.
func testInterrupted(t *testing.T, l *life) {
	for k := 1; ; k++ {
		m := l.machine("m0")
		steps := l.plan(m, deploy.Running)
		if k >= len(steps) {
			return
		}
		for _, s := range steps[:k] {
			l.do(m, s)
		}
		if o := l.observe(m); o.State == deploy.StateRunning {
			t.Errorf("after %s it runs already", kinds(steps[:k]))
		}
		l.reach(m, deploy.Running)
		l.gone(m)
	}
}

// testTwice does every step twice, since who was killed cannot know whether its
// last one was done.
func testTwice(t *testing.T, l *life) {
	m := l.machine("m0")
	for _, g := range []deploy.Goal{deploy.Running, deploy.Stopped, deploy.Running, deploy.Absent} {
		for _, s := range l.plan(m, g) {
			l.do(m, s)
			l.do(m, s)
		}
		l.reach(m, g)
	}
}

func testTwoMachines(t *testing.T, l *life) {
	machines := []*deploy.Machine{l.machine("m0"), l.machine("m1")}
	for _, g := range []deploy.Goal{deploy.Running, deploy.Stopped, deploy.Running, deploy.Absent} {
		var wg sync.WaitGroup
		for _, m := range machines {
			steps := l.plan(m, g)
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(context.Background(), stepTimeout)
				defer cancel()
				for _, s := range steps {
					if err := l.Backend.Do(ctx, m, s); err != nil {
						t.Errorf("step %s of %s: %v", s.Kind, m.Name, err)
						return
					}
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		for _, m := range machines {
			l.reach(m, g)
		}
	}
	for _, m := range machines {
		l.gone(m)
	}
}

func testLostDisk(t *testing.T, l *life) {
	m := l.machine("m0")
	l.reach(m, deploy.Running)
	l.LoseDisk(t, m)
	if o := l.observe(m); o.Complete {
		t.Error("a machine without its disk is complete")
	}
	l.reach(m, deploy.Running)
	l.reach(m, deploy.Stopped)
	l.LoseDisk(t, m)
	l.reach(m, deploy.Running)
	l.gone(m)
}

func testDestroyRunning(t *testing.T, l *life) {
	m := l.machine("m0")
	l.reach(m, deploy.Running)
	steps := l.plan(m, deploy.Absent)
	if !destructive(steps) {
		t.Errorf("destroying is planned as if nothing was lost: %+v", steps)
	}
	l.gone(m)
	l.reach(m, deploy.Running)
	l.gone(m)
}

// testRefused shows that what cannot be is refused in the plan, before anything
// is done, and that an unknown step or goal is an error.
func testRefused(t *testing.T, l *life) {
	m := l.machine("m0")
	o := l.observe(m)
	if _, err := l.Backend.Plan(m, o, "elsewhere"); err == nil {
		t.Error("an unknown goal is planned")
	}
	if err := l.Backend.Do(context.Background(), m, deploy.Step{Kind: "no such step"}); err == nil {
		t.Error("an unknown step is done")
	}
	m.Hardware.Memory = 0
	if steps, err := l.Backend.Plan(m, o, deploy.Running); err == nil {
		t.Errorf("a machine without memory is planned as %+v", steps)
	}
}
