package store

import (
	"context"
	"fmt"
	"slices"

	"tool/core/model/digest"
	"tool/core/model/merkle"
	"tool/core/storage/cas"
)

// unique walks nodes and meets each blob once.
type unique struct {
	s     *Store
	ctx   context.Context
	check bool                   // a missing blob is an error
	there map[digest.Digest]bool // with check: found already; may be nil
	seen  map[digest.Digest]bool
	size  int64                                   // bytes of the blobs met
	visit func(d digest.Digest, kind merkle.Kind) // may be nil
}

func (u *unique) node(n merkle.Node) error {
	if n.Kind != merkle.File && n.Kind != merkle.Dir {
		return nil
	}
	if u.seen[n.Digest] {
		return nil
	}
	if u.seen == nil {
		u.seen = map[digest.Digest]bool{}
	}
	u.seen[n.Digest] = true
	u.size += n.Digest.Size
	if u.check && !u.there[n.Digest] {
		if !u.s.cas.Has(n.Digest) {
			return &cas.NotFoundError{Digest: n.Digest}
		}
		if u.there != nil {
			u.there[n.Digest] = true
		}
	}
	if u.visit != nil {
		u.visit(n.Digest, n.Kind)
	}
	if n.Kind == merkle.File {
		return nil
	}
	if err := u.ctx.Err(); err != nil {
		return err
	}
	dir, err := u.s.cas.GetDirectory(n.Digest)
	if err != nil {
		return err
	}
	return dir.Entries(func(_ string, n merkle.Node) error { return u.node(n) })
}

// Closure returns refs and everything that they need, sorted.
func (s *Store) Closure(refs ...Ref) ([]Ref, error) {
	seen := map[Ref]bool{}
	todo := slices.Clone(refs)
	var out []Ref
	for len(todo) > 0 {
		r := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if seen[r] {
			continue
		}
		seen[r] = true
		o, err := s.Get(r)
		if err != nil {
			return nil, fmt.Errorf("closure: %w", err)
		}
		out = append(out, r)
		todo = append(todo, o.Refs...)
	}
	slices.Sort(out)
	return out, nil
}

// Referrers returns the objects that refer to r directly, sorted. It reads the
// metadata of all objects.
func (s *Store) Referrers(r Ref) ([]Ref, error) {
	all, err := s.Objects()
	if err != nil {
		return nil, err
	}
	var out []Ref
	for _, o := range all {
		if slices.Contains(o.Refs, r) {
			out = append(out, o.Ref)
		}
	}
	return out, nil
}

// WhyDepends returns a shortest chain of references from from to to, both
// included, or nil if from does not need to.
func (s *Store) WhyDepends(from, to Ref) ([]Ref, error) {
	for _, r := range []Ref{from, to} {
		if _, err := s.Get(r); err != nil {
			return nil, err
		}
	}
	came := map[Ref]Ref{from: ""}
	for todo := []Ref{from}; len(todo) > 0; todo = todo[1:] {
		if todo[0] == to {
			var path []Ref
			for r := to; r != ""; r = came[r] {
				path = append(path, r)
			}
			slices.Reverse(path)
			return path, nil
		}
		o, err := s.Get(todo[0])
		if err != nil {
			return nil, err
		}
		for _, r := range o.Refs {
			if _, ok := came[r]; !ok {
				came[r] = todo[0]
				todo = append(todo, r)
			}
		}
	}
	return nil, nil
}

// Size returns the bytes of the object's own unique blobs: its files and its
// directories' encodings.
func (s *Store) Size(r Ref) (int64, error) {
	o, err := s.Get(r)
	if err != nil {
		return 0, err
	}
	return o.Size, nil
}

// ClosureSize returns the bytes of the unique blobs of all that refs need. A
// blob that several objects hold counts once.
func (s *Store) ClosureSize(refs ...Ref) (int64, error) {
	all, err := s.Closure(refs...)
	if err != nil {
		return 0, err
	}
	u := unique{s: s, ctx: context.Background()}
	for _, r := range all {
		o, err := s.Get(r)
		if err != nil {
			return 0, err
		}
		if err := u.node(o.Node); err != nil {
			return 0, fmt.Errorf("size of %s: %w", r, err)
		}
	}
	return u.size, nil
}
