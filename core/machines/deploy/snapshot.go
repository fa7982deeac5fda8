package deploy

import (
	"context"
	"errors"
	"fmt"
	"strings"
)

// CheckSnapshotName reports why a snapshot cannot be called so.
func CheckSnapshotName(name string) error {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-"
	if name == "" || len(name) > 64 || strings.Trim(name, letters) != "" || name[0] == '-' || name[0] == '.' {
		return fmt.Errorf("%q is no name for a snapshot: want up to 64 letters, digits, '.', '_' and '-'", name)
	}
	return nil
}

// snapshotter returns the backend of a machine whose snapshots are asked for.
func (s *Session) snapshotter(name string) (Snapshotter, *Machine, error) {
	ms := s.D.Machines[name]
	b, err := s.backend(ms)
	if err != nil {
		return nil, nil, err
	}
	sn, ok := b.(Snapshotter)
	if !ok {
		return nil, nil, fmt.Errorf("the %s backend takes no snapshots", b.Name())
	}
	return sn, s.D.machine(ms), nil
}

// Snapshots returns a machine's snapshots, oldest first.
func (s *Session) Snapshots(ctx context.Context, name string) ([]Snapshot, error) {
	b, m, err := s.snapshotter(name)
	if err != nil {
		return nil, err
	}
	return b.Snapshots(ctx, m)
}

// TakeSnapshot keeps the machine's state under a name.
func (s *Session) TakeSnapshot(ctx context.Context, name string, sn Snapshot) error {
	if err := CheckSnapshotName(sn.Name); err != nil {
		return err
	}
	b, m, err := s.snapshotter(name)
	if err != nil {
		return err
	}
	s.doing(name, "taking the snapshot %s", sn.Name)
	if err := b.TakeSnapshot(ctx, m, sn); err != nil {
		return fmt.Errorf("%s: %w", sn.Name, err)
	}
	return nil
}

// RestoreSnapshot brings a machine back to what it was, and starts it if it ran:
// what changed since is lost.
func (s *Session) RestoreSnapshot(ctx context.Context, name, snapshot string) error {
	b, m, err := s.snapshotter(name)
	if err != nil {
		return err
	}
	all, err := b.Snapshots(ctx, m)
	if err != nil {
		return err
	}
	found := false
	for _, sn := range all {
		found = found || sn.Name == snapshot
	}
	if !found { // known before the machine is stopped
		return fmt.Errorf("%s: %w; `tool snapshot list` tells which there are", snapshot, ErrNoSnapshot)
	}
	o, err := s.Observe(ctx, name)
	if err != nil {
		return err
	}
	if o.State != StateStopped {
		s.doing(name, "stopping")
		if err := s.Stop(ctx, name); err != nil {
			return err
		}
	}
	s.doing(name, "going back to the snapshot %s", snapshot)
	if err := b.RestoreSnapshot(ctx, m, snapshot); err != nil {
		return err
	}
	if o.State == StateStopped {
		return nil
	}
	return s.Start(ctx, name)
}

// DeleteSnapshot forgets a snapshot; what the machine has stays.
func (s *Session) DeleteSnapshot(ctx context.Context, name, snapshot string) error {
	b, m, err := s.snapshotter(name)
	if err != nil {
		return err
	}
	s.doing(name, "deleting the snapshot %s", snapshot)
	if err := b.DeleteSnapshot(ctx, m, snapshot); err != nil {
		return fmt.Errorf("%s: %w", snapshot, err)
	}
	return nil
}

// snapshotBefore names the snapshot that is taken before a machine crosses a
// state epoch on its way to a generation.
func snapshotBefore(generation int) string { return fmt.Sprintf("before-generation-%d", generation) }

// secure takes the snapshot that the plan has for a machine, just before it
// switches. One that is there was taken before an earlier attempt, which may have
// changed the data already: it stays, and is enough unless that attempt went well
// and the machine has gone back since.
func (a *applier) secure(ctx context.Context, ms *MachineState, mp *MachinePlan) error {
	if mp.Snapshot == "" {
		return nil
	}
	what := "before the data of " + strings.Join(mp.Crosses, ", ") + " is changed to what older programs cannot read"
	name := mp.Snapshot
	for n := 2; ; n++ {
		err := a.TakeSnapshot(ctx, ms.Name, Snapshot{Name: name, Description: what})
		if !errors.Is(err, ErrSnapshotExists) {
			return err
		}
		if !mp.Again {
			a.said(ms.Name, "the snapshot %s is there already", name)
			return nil
		}
		name = fmt.Sprintf("%s-%d", mp.Snapshot, n)
	}
}
