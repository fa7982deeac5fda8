// Package pack moves objects between stores: it finds what the closure of some
// objects holds that another store lacks, writes that as one stream, and takes
// such a stream in, trusting nothing in it.
//
// A pack is a zstd stream of
//
//	TOOLPACK1\n
//	b <32 bytes SHA-256> <uvarint size> <bytes>   a blob; x instead of b: wanted executable
//	o <uvarint size> <JSON record>                an object
//	e <uvarint records>                           the end
//
// Blobs come before directories that name them, and all blobs before objects;
// objects come after those they refer to. So whatever has arrived when a
// stream breaks off is of use, and the next one need not bring it again.
package pack

import (
	"context"
	"fmt"

	"tool/core/model/digest"
	"tool/core/model/merkle"
	"tool/core/storage/cas"
	"tool/core/storage/store"
)

// Blob is a blob to send. Executable tells which form the receiver makes first.
type Blob struct {
	Digest     digest.Digest
	Executable bool
}

// List is what a pack holds, in the order in which it holds it.
type List struct {
	Blobs   []Blob
	Objects []store.Ref
}

// Bytes returns the bytes of the blobs, uncompressed.
func (l *List) Bytes() int64 {
	var n int64
	for _, b := range l.Blobs {
		n += b.Digest.Size
	}
	return n
}

// Filter returns what of l is wanted, in the same order. A nil function wants
// all.
func (l *List) Filter(blob func(digest.Digest) bool, object func(store.Ref) bool) *List {
	out := &List{}
	for _, b := range l.Blobs {
		if blob == nil || blob(b.Digest) {
			out.Blobs = append(out.Blobs, b)
		}
	}
	for _, r := range l.Objects {
		if object == nil || object(r) {
			out.Objects = append(out.Objects, r)
		}
	}
	return out
}

// Need lists what the closure of refs holds and the closure of assume does not.
// Where refs are among what assume reaches, that is nothing, found without
// reading a tree.
func Need(ctx context.Context, s *store.Store, refs, assume []store.Ref) (*List, error) {
	have := map[store.Ref]bool{}
	if len(assume) > 0 {
		known, err := s.Closure(assume...)
		if err != nil {
			return nil, fmt.Errorf("list what the machine has: %w", err)
		}
		for _, r := range known {
			have[r] = true
		}
	}
	w := walker{ctx: ctx, s: s, seenRef: have, seen: map[digest.Digest]bool{}}
	var fresh []*store.Object
	for _, r := range refs {
		if err := w.object(r, &fresh); err != nil {
			return nil, fmt.Errorf("list the closure: %w", err)
		}
	}
	if len(fresh) == 0 {
		return &List{}, nil
	}
	// What is there already is walked first, so that it is met as seen.
	for r := range have {
		if w.added[r] {
			continue
		}
		o, err := s.Get(r)
		if err != nil {
			return nil, fmt.Errorf("list what the machine has: %w", err)
		}
		if err := w.node(o.Node); err != nil {
			return nil, fmt.Errorf("list what %s holds: %w", r, err)
		}
	}
	w.blobs = nil
	for _, o := range fresh {
		if err := w.node(o.Node); err != nil {
			return nil, fmt.Errorf("list what %s holds: %w", o.Ref, err)
		}
	}
	out := &List{Blobs: w.blobs}
	for _, o := range fresh {
		out.Objects = append(out.Objects, o.Ref)
	}
	return out, nil
}

type walker struct {
	ctx     context.Context
	s       *store.Store
	seenRef map[store.Ref]bool
	added   map[store.Ref]bool
	seen    map[digest.Digest]bool
	blobs   []Blob
}

// object appends r's closure to out, referents first.
func (w *walker) object(r store.Ref, out *[]*store.Object) error {
	if w.seenRef[r] {
		return nil
	}
	w.seenRef[r] = true
	if w.added == nil {
		w.added = map[store.Ref]bool{}
	}
	w.added[r] = true
	o, err := w.s.Get(r)
	if err != nil {
		return err
	}
	for _, to := range o.Refs {
		if err := w.object(to, out); err != nil {
			return err
		}
	}
	*out = append(*out, o)
	return nil
}

// node appends the blobs below n that were not met, children first.
func (w *walker) node(n merkle.Node) error {
	if n.Kind != merkle.File && n.Kind != merkle.Dir || w.seen[n.Digest] {
		return nil
	}
	w.seen[n.Digest] = true
	if n.Kind == merkle.Dir {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		dir, err := w.s.CAS().GetDirectory(n.Digest)
		if err != nil {
			return err
		}
		if err := dir.Entries(func(_ string, n merkle.Node) error { return w.node(n) }); err != nil {
			return err
		}
	}
	w.blobs = append(w.blobs, Blob{n.Digest, n.Executable})
	return nil
}

// Files calls f for each blob of the closure of refs, files and folders, each
// once, with the form in which a tree first wants it. It is what a base image
// holds: the builtin blobs@2 makes it of the same.
func Files(ctx context.Context, s *store.Store, refs []store.Ref, f func(Blob, *cas.Store) error) error {
	l, err := Need(ctx, s, refs, nil)
	if err != nil {
		return err
	}
	for _, b := range l.Blobs {
		if err := f(b, s.CAS()); err != nil {
			return err
		}
	}
	return nil
}
