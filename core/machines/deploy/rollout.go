package deploy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tool/core/machines/activate"
	"tool/core/machines/agent"
	"tool/core/storage/store"
)

// copies sends every machine that will switch what it lacks, and stages the
// generation there, before the first one switches.
func (a *applier) copies(ctx context.Context) error {
	names := a.having(func(m *MachinePlan) bool { return m.System == SystemSwitch })
	return a.perMachine(ctx, names, func(ms *MachineState, mp *MachinePlan) error {
		return a.retry(ctx, ms, func(c *Connection) error {
			a.doing(ms.Name, "copying")
			sent, err := c.Agent.Send(ctx, a.Store, []store.Ref{mp.To}, a.assumed(c), func(done, total int64) { a.moved(ms.Name, "copying", done, total) })
			if err != nil {
				return fmt.Errorf("copy %s: %w", mp.To, err)
			}
			a.result.addSent(sent.Bytes)
			return a.stage(ctx, c, ms, mp)
		})
	})
}

func (a *applier) stage(ctx context.Context, c *Connection, ms *MachineState, mp *MachinePlan) error {
	a.doing(ms.Name, "staging")
	return c.Agent.Stage(ctx, agent.Stage{Generation: a.plan.Generation, Ref: mp.To, Label: mp.Label, Facts: factsOf(a.D, ms, a.alloc)})
}

// retry runs f over the machine's connection, and over a fresh one, from the
// beginning, when the connection is lost. Everything f asks for is idempotent,
// and what was copied completely is not copied again.
func (a *applier) retry(ctx context.Context, ms *MachineState, f func(*Connection) error) error {
	for n := 0; ; n++ {
		c, err := a.conns.get(ctx, a.Session, ms, a.patient(ms.Name, a.Deadlines.Connect))
		if err != nil {
			return err
		}
		err = f(c)
		if err == nil || ctx.Err() != nil || !lost(err) || n == 2 {
			return err
		}
		a.conns.drop(ms.Name)
		a.said(ms.Name, "the connection was lost (%s); connecting again", firstLine(err.Error()))
	}
}

// lost reports whether err is of the connection, not an answer of the agent.
func lost(err error) bool { return !errors.As(err, new(*agent.RemoteError)) }

// rollout switches the machines wave by wave. A wave in which one fails goes
// back as a whole, and no later one begins.
func (a *applier) rollout(ctx context.Context) error {
	for i, wave := range a.plan.Waves {
		if a.result.Bad() > 0 {
			for _, w := range a.plan.Waves[i:] {
				for _, n := range a.notFailed(w) {
					a.result.set(n, Waiting, errors.New("the rollout stopped before it"))
				}
			}
			return nil
		}
		if i > 0 {
			if err := a.awaitPeers(ctx, slices.Concat(a.plan.Waves[:i]...), wave); err != nil {
				if ctx.Err() != nil {
					return ctx.Err()
				}
				for _, w := range a.plan.Waves[i:] {
					for _, n := range a.notFailed(w) {
						a.result.set(n, Waiting, err)
					}
				}
				return nil
			}
		}
		if err := a.wave(ctx, wave); err != nil {
			return err
		}
	}
	return nil
}

// awaitPeers waits until the machines that were switched before pass their checks,
// as far as they share a rollout group with the next ones: that they did when
// they were confirmed does not help the group if they have fallen over since.
func (a *applier) awaitPeers(ctx context.Context, before, next []string) error {
	var peers []string
	for _, g := range a.object.RolloutGroups {
		if slices.ContainsFunc(next, func(n string) bool { return slices.Contains(g.Machines, n) }) {
			peers = append(peers, g.Machines...)
		}
	}
	for _, n := range before {
		o := a.result.of(n)
		if o == nil || o.State != Confirmed || !slices.Contains(peers, n) {
			continue
		}
		if err := a.awaitWell(ctx, a.D.Machines[n]); err != nil {
			return err
		}
	}
	return nil
}

func (a *applier) awaitWell(ctx context.Context, ms *MachineState) error {
	o, err := a.Observe(ctx, ms.Name)
	if err != nil {
		return err
	}
	patience := max(o.Patience, 1)
	for end := time.Now().Add(a.Deadlines.Settle * time.Duration(patience)); ; {
		var unwell []string
		err := a.retry(ctx, ms, func(c *Connection) (err error) {
			unwell, err = c.Agent.Unwell(ctx, patience)
			return err
		})
		if err == nil && len(unwell) == 0 {
			return nil
		}
		if err == nil {
			err = errors.New(Printable(strings.Join(unwell, "; ")))
		}
		if ctx.Err() != nil || time.Now().After(end) {
			return fmt.Errorf("the rollout stopped before it: %s was switched and is not well any more: %w", ms.Name, err)
		}
		a.doing(ms.Name, "not well again yet: %s", firstLine(err.Error()))
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
}

func (a *applier) notFailed(names []string) []string {
	var out []string
	for _, n := range names {
		if !a.failed(n) {
			out = append(out, n)
		}
	}
	return out
}

// wave switches machines at once: all of them come through, or none stays.
func (a *applier) wave(ctx context.Context, names []string) error {
	if err := a.perMachine(ctx, names, func(ms *MachineState, mp *MachinePlan) error { return a.switchTo(ctx, ms, mp) }); err != nil {
		return err
	}
	well := a.notFailed(names)
	if a.plan.Mode == string(activate.ModeBoot) {
		// Those that have started into it already are confirmed.
		staged := func(n string) bool { return a.plan.Machine(n).System == SystemSwitch }
		for _, n := range well {
			if staged(n) {
				a.result.set(n, Staged, nil)
			}
		}
		well, names = slices.DeleteFunc(well, staged), slices.DeleteFunc(slices.Clone(names), staged)
	}
	if len(well) == len(names) {
		// One that was ready early may have gone back since, and one may be out of
		// reach: then none is confirmed.
		if err := a.perMachine(ctx, well, func(ms *MachineState, _ *MachinePlan) error { return a.reach(ctx, ms) }); err != nil {
			return err
		}
		well = a.notFailed(names)
	}
	return a.perMachine(ctx, well, func(ms *MachineState, mp *MachinePlan) error {
		if len(well) == len(names) {
			return a.confirm(ctx, ms, mp)
		}
		return a.goBack(ctx, ms)
	})
}

// reach connects anew to a machine that waits to be confirmed: that this can be
// done is part of being well.
func (a *applier) reach(ctx context.Context, ms *MachineState) error {
	a.conns.drop(ms.Name)
	st, err := a.watch(ctx, ms)
	if err == nil && st.Over() && st.Result != activate.ResultConfirmed {
		a.judge(ms, st)
	}
	return err
}

// goBack has a machine return to what it had, because another of its wave
// failed.
func (a *applier) goBack(ctx context.Context, ms *MachineState) error {
	a.doing(ms.Name, "going back, for another of its wave failed")
	err := a.retry(ctx, ms, func(c *Connection) error {
		return c.Agent.Abandon(ctx, a.plan.Generation, "another machine of its wave failed")
	})
	if err != nil {
		return fmt.Errorf("go back: %w", err)
	}
	st, err := a.follow(ctx, ms, func(st *agent.SwitchStatus) bool { return st.Over() })
	if err != nil {
		return err
	}
	a.judge(ms, st)
	return nil
}

// switchTo starts the switch and follows it until the machine waits to be
// confirmed. A machine that resumes is only followed.
func (a *applier) switchTo(ctx context.Context, ms *MachineState, mp *MachinePlan) error {
	if mp.System != SystemResume {
		if err := a.secure(ctx, ms, mp); err != nil {
			return fmt.Errorf("take a snapshot before the switch: %w", err)
		}
		a.doing(ms.Name, "switching")
		err := a.retry(ctx, ms, func(c *Connection) error {
			// A lost answer may have begun it. One of another mode is not it: a trial
			// that waits for the next start would be waited for without end.
			if st := c.Hello.Switch; !st.Over() && st.Generation == a.plan.Generation && st.Mode == a.mode(mp) {
				return nil
			}
			o, err := a.Observe(ctx, ms.Name)
			if err != nil {
				return err
			}
			q := agent.Switch{
				Patience:   o.Patience,
				Generation: a.plan.Generation, Mode: a.mode(mp),
				ConfirmSeconds: int(a.patient(ms.Name, a.Deadlines.Confirm) / time.Second), StabilitySeconds: int(a.Deadlines.Stable / time.Second),
			}
			_, err = c.Agent.Switch(ctx, q)
			if agent.HasCode(err, agent.CodeBusy) {
				if err = a.endOther(ctx, c, ms); err == nil {
					_, err = c.Agent.Switch(ctx, q)
				}
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("begin the switch: %w", err)
		}
	}
	until := waits
	if a.plan.Mode == string(activate.ModeBoot) && mp.System == SystemSwitch {
		until = func(st *agent.SwitchStatus) bool { return st.Over() || st.Phase == activate.PhaseTrial }
	}
	st, err := a.follow(ctx, ms, until)
	if err != nil {
		return err
	}
	a.judge(ms, st)
	return nil
}

// endOther ends a switch that another deploy began and did not live to confirm:
// who has the lease knows that nobody else will.
func (a *applier) endOther(ctx context.Context, c *Connection, ms *MachineState) error {
	st, err := c.Agent.Status(ctx)
	for abandoned := false; err == nil && !st.Over(); {
		a.doing(ms.Name, "waiting for the end of another switch, to generation %d: %s", st.Generation, statusText(st))
		if st.Phase == activate.PhaseWaiting && !abandoned {
			abandoned = true
			err = c.Agent.Abandon(ctx, st.Generation, "the controller wants another generation")
			if err != nil && !agent.HasCode(err, agent.CodeNotWaiting) {
				return err
			}
		}
		st, err = c.Agent.Wait(ctx, st.Seq, statusSeconds)
	}
	return err
}

// mode is how the machine switches: one that has just started into its system
// does not wait for another start.
func (a *applier) mode(mp *MachinePlan) activate.Mode {
	if mp.System == SystemBoot {
		return activate.ModeSwitch
	}
	return activate.Mode(a.plan.Mode)
}

// judge turns a switch that ended badly into an outcome.
func (a *applier) judge(ms *MachineState, st *agent.SwitchStatus) {
	switch {
	case !st.Over() || st.Result == activate.ResultConfirmed:
	case st.Result == activate.ResultReverted:
		a.fail(ms.Name, RolledBack, &SwitchError{ms.Name, st})
	case st.Result == activate.ResultFailed: // nothing was there to go back to
		a.fail(ms.Name, Failed, &SwitchError{ms.Name, st})
	default:
		a.fail(ms.Name, RevertFailed, &SwitchError{ms.Name, st})
	}
}

// watch follows the switch until it is over or waits to be confirmed.
func (a *applier) watch(ctx context.Context, ms *MachineState) (*agent.SwitchStatus, error) {
	return a.follow(ctx, ms, waits)
}

func waits(st *agent.SwitchStatus) bool { return st.Over() || st.Phase == activate.PhaseWaiting }

// statusSeconds is how long one question for news may wait for some.
const statusSeconds = 20

// follow asks for news of the switch over as many connections as it takes,
// until it is as wanted.
func (a *applier) follow(ctx context.Context, ms *MachineState, until func(*agent.SwitchStatus) bool) (*agent.SwitchStatus, error) {
	seq := 0
	for {
		c, err := a.conns.get(ctx, a.Session, ms, a.patient(ms.Name, a.Deadlines.Boot))
		if err != nil {
			return nil, err
		}
		st, err := c.Agent.Wait(ctx, seq, statusSeconds)
		switch {
		case err != nil && (ctx.Err() != nil || !lost(err)):
			return nil, err
		case err != nil:
			a.conns.drop(ms.Name)
			continue
		case st == nil || st.Generation != a.plan.Generation:
			return nil, fmt.Errorf("it knows of no switch to generation %d: %s", a.plan.Generation, statusText(st))
		case until(st):
			return st, nil
		}
		seq = st.Seq
		a.doing(ms.Name, "%s", statusText(st))
	}
}

func statusText(st *agent.SwitchStatus) string {
	if st == nil {
		return "there has been none"
	}
	s := Printable(string(st.Phase))
	if len(st.Waits) > 0 {
		s += ", waiting for " + firstLine(Printable(st.Waits[0]))
	}
	return s
}

// confirm tells the machine, over the connection that reach has made, that it is
// well.
func (a *applier) confirm(ctx context.Context, ms *MachineState, mp *MachinePlan) error {
	st, err := a.watch(ctx, ms)
	if err != nil {
		return err
	}
	if st.Over() && st.Result != activate.ResultConfirmed {
		a.judge(ms, st)
		return nil
	}
	a.doing(ms.Name, "confirming")
	err = a.retry(ctx, ms, func(c *Connection) error { return c.Agent.Confirm(ctx, a.plan.Generation) })
	if err != nil {
		// It may have gone back meanwhile, and knows why.
		if st, werr := a.watch(ctx, ms); werr == nil && st.Over() && st.Result != activate.ResultConfirmed {
			a.judge(ms, st)
			return nil
		}
		return fmt.Errorf("confirm: %w", err)
	}
	ms.Confirmed, ms.Generation, ms.Failure, ms.Made = mp.To, a.plan.Generation, "", true
	a.result.set(ms.Name, Confirmed, nil)
	return nil
}
