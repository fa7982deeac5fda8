package store

import (
	"context"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"tool/core/model/merkle"
)

// Publish registers and realises many objects, and adds them to the lease. It
// is Add and Realise for each, side by side; but what is there as it should be,
// which is nearly all after a small change, costs two looks and no write. It
// returns the objects with Ref and Size filled in, in the order given. After an
// error some may have been published.
func (s *Store) Publish(ctx context.Context, l *Lease, objects []Object) ([]Object, error) {
	out := make([]Object, len(objects))
	lines := make([]string, len(objects))
	for i, o := range objects {
		o, err := normal(o)
		if err != nil {
			return nil, fmt.Errorf("add object %s: %w", o.Name, err)
		}
		out[i] = o
		lines[i] = "ref " + string(o.Ref)
	}
	// The lease first: what is found after it stays, so it needs no renewal.
	if err := l.append(lines, nil); err != nil {
		return nil, fmt.Errorf("keep objects: %w", err)
	}
	var next atomic.Int64
	errs := make([]error, len(out))
	var failed atomic.Bool
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(out)) {
		wg.Go(func() {
			for !failed.Load() {
				i := int(next.Add(1)) - 1
				if i >= len(out) {
					return
				}
				if errs[i] = s.publish(ctx, &out[i]); errs[i] != nil {
					failed.Store(true)
				}
			}
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			return nil, fmt.Errorf("publish %s: %w", out[i].Name, err)
		}
	}
	return out, nil
}

func (s *Store) publish(ctx context.Context, o *Object) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	known, err := s.Get(o.Ref)
	if err != nil || s.checkLink(known) != nil {
		if _, err := s.add(ctx, *o, nil); err != nil {
			return err
		}
		if _, err := s.Realise(ctx, o.Ref); err != nil {
			return err
		}
		if known, err = s.Get(o.Ref); err != nil {
			return err
		}
	}
	o.Size = known.Size
	return nil
}

// normal returns an object in the form that Add registers, with its Ref.
func normal(o Object) (Object, error) {
	if err := CheckName(o.Name); err != nil {
		return o, err
	}
	if o.Node.Kind != merkle.File && o.Node.Kind != merkle.Dir {
		return o, fmt.Errorf("a %s cannot be an object", o.Node.Kind)
	}
	o.Node = merkle.Node{Kind: o.Node.Kind, Digest: o.Node.Digest, Executable: o.Node.Executable && o.Node.Kind == merkle.File}
	o.Refs = sortedRefs(o.Refs)
	o.Ref = MakeRef(o.Name, o.Node, o.Refs)
	return o, nil
}
