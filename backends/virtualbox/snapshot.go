package virtualbox

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"tool/core/machines/deploy"
)

// Snapshots implements deploy.Snapshotter.
func (b *Backend) Snapshots(ctx context.Context, m *deploy.Machine) ([]deploy.Snapshot, error) {
	all, err := b.entries(ctx, m)
	if err != nil {
		return nil, err
	}
	out := []deploy.Snapshot{}
	for _, e := range all {
		out = append(out, deploy.Snapshot{Name: e.name, Description: e.description, Current: e.current})
	}
	return out, nil
}

// entries returns the machine's snapshots.
func (b *Backend) entries(ctx context.Context, m *deploy.Machine) ([]snapshotEntry, error) {
	v, err := b.look(ctx, m)
	if err != nil {
		return nil, err
	}
	if !v.registered || v.inaccessible != "" {
		return nil, errors.New("it is not there")
	}
	if len(v.snapshots()) == 0 {
		return nil, nil // to ask for them would be an error
	}
	out, err := b.m.run(ctx, "snapshot", idOf(m), "list", "--machinereadable")
	return parseSnapshots(out), err
}

func (b *Backend) entry(ctx context.Context, m *deploy.Machine, name string) (*snapshotEntry, error) {
	all, err := b.entries(ctx, m)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(all, func(e snapshotEntry) bool { return e.name == name }); i >= 0 {
		return &all[i], nil
	}
	return nil, nil
}

// TakeSnapshot implements deploy.Snapshotter. Of a running machine its memory is
// kept, too, for which VirtualBox pauses it.
func (b *Backend) TakeSnapshot(ctx context.Context, m *deploy.Machine, s deploy.Snapshot) error {
	return b.locked(ctx, m, func(ctx context.Context, m *deploy.Machine) error {
		have, err := b.entry(ctx, m, s.Name)
		if err != nil {
			return err
		}
		if have != nil {
			return deploy.ErrSnapshotExists
		}
		_, err = b.m.runFor(ctx, longTimeout, "snapshot", idOf(m), "take", s.Name, "--description", s.Description)
		return err
	})
}

// RestoreSnapshot implements deploy.Snapshotter.
func (b *Backend) RestoreSnapshot(ctx context.Context, m *deploy.Machine, name string) error {
	return b.named(ctx, m, name, func(e *snapshotEntry) error {
		v, err := b.look(ctx, m)
		if err != nil {
			return err
		}
		if v.live() {
			return fmt.Errorf("VirtualBox says that it is %s: it must be stopped for this", v.state())
		}
		_, err = b.m.runFor(ctx, longTimeout, "snapshot", idOf(m), "restore", e.id)
		return err
	})
}

// DeleteSnapshot implements deploy.Snapshotter. What changed since goes into the
// disks below, which takes what its size takes.
func (b *Backend) DeleteSnapshot(ctx context.Context, m *deploy.Machine, name string) error {
	return b.named(ctx, m, name, func(e *snapshotEntry) error {
		_, err := b.m.runFor(ctx, longTimeout, "snapshot", idOf(m), "delete", e.id)
		return err
	})
}

func (b *Backend) named(ctx context.Context, m *deploy.Machine, name string, do func(*snapshotEntry) error) error {
	return b.locked(ctx, m, func(ctx context.Context, m *deploy.Machine) error {
		e, err := b.entry(ctx, m, name)
		if err != nil {
			return err
		}
		if e == nil {
			return deploy.ErrNoSnapshot
		}
		return do(e)
	})
}
