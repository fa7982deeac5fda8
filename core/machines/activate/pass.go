package activate

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"tool/core/machines/system"
	"tool/core/model/digest"
	"tool/core/model/merkle"
)

// verbTime bounds one systemctl: units have time limits of their own, this is
// for a systemd that does not answer.
const verbTime = 15 * time.Minute

// apply does a pass from where it stands. Each step is written down before the
// next begins and may be done twice.
func (m *Machine) apply(ctx context.Context, s *SwitchStatus, p *Pass) error {
	for p.Step != StepDone {
		var err error
		next := StepDone
		switch p.Step {
		case StepStop:
			err, next = m.stopUnits(ctx, s, p), StepFlip
		case StepFlip:
			err, next = m.flipTo(ctx, p), StepReload
		case StepReload:
			err, next = m.reload(ctx, p), StepStart
		case StepStart:
			err = m.startUnits(ctx, s, p)
		default:
			err = fmt.Errorf("step %q is not known to this agent", p.Step)
		}
		if err != nil {
			return err
		}
		p.Step = next
		if err := m.save(s); err != nil {
			return err
		}
	}
	return nil
}

func (m *Machine) stopUnits(ctx context.Context, s *SwitchStatus, p *Pass) error {
	units := p.with(system.Stop, system.StopStart)
	if err := m.do(ctx, s, "stop", units); err != nil {
		return err
	}
	for _, u := range units {
		if u.State == Broken {
			return fmt.Errorf("%s cannot be stopped: %s", u.Unit, u.Error)
		}
	}
	return nil
}

const reloadVerb = "reload-or-restart"

// unreadError says that a unit did not take its new files. It goes on with the
// old ones and looks well, but could not be started again.
type unreadError struct{ unit, why string }

func (e *unreadError) Error() string { return e.unit + " does not reload: " + e.why }

func (m *Machine) startUnits(ctx context.Context, s *SwitchStatus, p *Pass) error {
	// One after the other, for it matters which does not reload.
	for _, u := range p.with(system.Reload) {
		err := m.do(ctx, s, reloadVerb, []*UnitProgress{u})
		if errors.As(err, new(*unreadError)) && p != s.Forward {
			m.log("%v", err) // there is no other way back
			continue
		}
		if err != nil {
			return err
		}
	}
	for _, step := range []struct {
		verb    string
		actions []system.Action
	}{
		{"restart", []system.Action{system.Restart}},
		{"start", []system.Action{system.Start, system.StopStart}},
	} {
		// What fails to start may come up by itself: the health checks decide.
		if err := m.do(ctx, s, step.verb, p.with(step.actions...)); err != nil {
			return err
		}
	}
	for _, u := range p.with(system.None) {
		u.State = Done
	}
	return nil
}

// do runs a verb on units and writes down how each fared. An error is only for
// what makes it senseless to go on.
func (m *Machine) do(ctx context.Context, s *SwitchStatus, verb string, units []*UnitProgress) error {
	if len(units) == 0 {
		return nil
	}
	var names []string
	for _, u := range units {
		if u.Action == system.StopStart && verb == "start" || u.State != Done {
			u.State = Doing
			names = append(names, u.Unit)
		}
	}
	if len(names) == 0 {
		return nil
	}
	m.log("%s %v", verb, names)
	if err := m.save(s); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, verbTime)
	defer cancel()
	verbErr := m.Systemd.Do(ctx, verb, names...)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	states, err := m.Systemd.Show(ctx, names...)
	if err != nil {
		return err
	}
	i := 0
	var unread error
	for _, u := range units {
		if u.State != Doing {
			continue
		}
		state := states[i]
		i++
		ok := verbErr == nil && !state.Failed()
		if verb == "stop" { // a unit that is not there is stopped
			ok = state.Active == "inactive" || state.Active == "failed"
		}
		u.State, u.Error = Done, ""
		if !ok && (verb == "stop" || !state.Well()) {
			u.State, u.Error = Broken, fmt.Sprintf("it is %s (%s)", state.Active, state.Result)
			if verbErr != nil {
				u.Error += ": " + clip(verbErr.Error(), 2000)
			}
		} else if !ok && verb == reloadVerb {
			u.State, u.Error = Broken, clip(verbErr.Error(), 2000)
			unread = &unreadError{u.Unit, strings.SplitN(u.Error, "\n", 2)[0]}
		}
	}
	if err := m.save(s); err != nil {
		return err
	}
	return unread
}

// flipTo makes another generation the active one, with its /etc.
func (m *Machine) flipTo(ctx context.Context, p *Pass) error {
	if p.To == 0 {
		return m.flipToOrigin()
	}
	g, err := m.Generation(p.To)
	if err != nil {
		return err
	}
	if _, err := m.Store.Realise(ctx, g.Ref); err != nil {
		return err
	}
	f, err := m.Facts()
	if err != nil {
		return err
	}
	o, err := m.Store.Get(g.Ref)
	if err != nil {
		return err
	}
	manifest, err := m.Manifest(g.Ref)
	if err != nil {
		return err
	}
	if err := m.flip(p.To, g.Ref); err != nil {
		return err
	}
	if err := m.fillVar(o.Node.Digest); err != nil {
		return fmt.Errorf("make /var fit generation %d: %w", p.To, err)
	}
	if err := m.writeEtc(o.Node.Digest); err != nil {
		return fmt.Errorf("make /etc fit generation %d: %w", p.To, err)
	}
	return m.writeIdentity(o.Node.Digest, manifest, f)
}

// reload makes systemd see the system as it is now.
func (m *Machine) reload(ctx context.Context, p *Pass) error {
	if p.Systemd {
		m.log("systemd executes its new program")
		if err := m.Systemd.DaemonReexec(ctx); err != nil {
			return err
		}
	}
	if err := m.Systemd.ResetFailed(ctx); err != nil {
		return err
	}
	if err := m.Systemd.DaemonReload(ctx); err != nil {
		return err
	}
	if p.Modules {
		if err := m.Systemd.Do(ctx, "restart", "systemd-modules-load.service"); err != nil {
			m.log("kernel modules: %v", err) // what needs them says so, and it may be built in
		}
	}
	if err := m.lendModules(ctx, p); err != nil {
		m.log("kernel modules: %v", err)
	}
	if err := m.reloadNetwork(ctx, p); err != nil {
		m.log("networkd: %v", err) // whether that matters the checks and the controller find out
	}
	return m.Systemd.Tmpfiles(ctx)
}

const networkd = "systemd-networkd.service"

// reloadNetwork makes networkd read its files anew where the two systems of a
// pass have others. A wrong address must show at once, while the machine still
// goes back when nobody reaches it, and not at its next start.
func (m *Machine) reloadNetwork(ctx context.Context, p *Pass) error {
	if p.From != 0 && p.To != 0 {
		from, err := m.networkTrees(p.From)
		if err != nil {
			return err
		}
		to, err := m.networkTrees(p.To)
		if err != nil {
			return err
		}
		if from == to {
			return nil
		}
	}
	states, err := m.Systemd.Show(ctx, networkd)
	if err != nil || !states[0].Well() {
		return err
	}
	m.log("networkd reads its files")
	return m.Systemd.ReloadNetwork(ctx)
}

// networkTrees names what a generation has of networkd's files.
func (m *Machine) networkTrees(n int) (dirs [2]digest.Digest, err error) {
	g, err := m.Generation(n)
	if err != nil {
		return dirs, err
	}
	o, err := m.Store.Get(g.Ref)
	if err != nil {
		return dirs, err
	}
	for i, p := range []string{"usr/lib/systemd/network", "etc/systemd/network"} {
		node, ok, err := merkle.Find(m.Store.CAS(), o.Node.Digest, p)
		if err != nil {
			return dirs, err
		}
		if ok {
			dirs[i] = node.Digest
		}
	}
	return dirs, nil
}
