package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"tool/core/model/digest"
	"tool/core/model/merkle"
	"tool/core/storage/cas"
)

// ResultIndex is the action cache, as a collection sees it. Its methods are
// called while the store's barrier is held and must not put or adopt anything.
type ResultIndex interface {
	// Outputs returns the nodes of a result's outputs; false if there is none.
	Outputs(key digest.Digest) ([]merkle.Node, bool)
	// Each calls f for every result, with the time when it was last used.
	Each(f func(key digest.Digest, modified time.Time) error) error
	// Remove deletes a result.
	Remove(key digest.Digest) error
}

type hash = [32]byte

// marking finds what is alive. Blobs are known by hash alone, for a file that
// was cut short has the name of one and the size of another.
type marking struct {
	s       *Store
	ctx     context.Context
	results ResultIndex // may be nil
	cutoff  time.Time   // what changed at or after it is alive; zero: nothing is by age
	without []string    // roots that keep nothing: they are about to be removed

	objects map[Ref]bool
	blobs   map[hash]bool
	trees   map[hash]bool // those whose children are marked
	actions map[digest.Digest]bool
}

func (s *Store) newMarking(ctx context.Context, results ResultIndex, cutoff time.Time) *marking {
	return &marking{s: s, ctx: ctx, results: results, cutoff: cutoff,
		objects: map[Ref]bool{}, blobs: map[hash]bool{}, trees: map[hash]bool{}, actions: map[digest.Digest]bool{}}
}

func (m *marking) young(t time.Time) bool { return !m.cutoff.IsZero() && !t.Before(m.cutoff) }

// all marks from roots, leases and age.
func (m *marking) all(clean bool) error {
	leases, err := m.s.leases(clean)
	if err != nil {
		return err
	}
	for _, l := range leases {
		if m.cutoff.IsZero() || l.start.Before(m.cutoff) {
			m.cutoff = l.start
		}
	}
	roots, err := m.s.Roots()
	if err != nil {
		return err
	}
	for _, l := range leases {
		roots = append(roots, Root{Name: "lease " + l.name, Refs: l.refs, Keep: l.digests})
	}
	for _, r := range roots {
		if slices.Contains(m.without, r.Name) {
			continue
		}
		if err := m.root(&r); err != nil {
			return fmt.Errorf("what %s keeps: %w", r.Name, err)
		}
	}
	names, err := m.s.objectNames()
	if err != nil {
		return err
	}
	for _, r := range names {
		fi, err := os.Lstat(m.s.objectPath(r))
		if err == nil && m.young(changed(fi)) {
			if err := m.object(r); err != nil {
				return err
			}
		}
	}
	err = m.s.cas.EachTree(func(d digest.Digest, ctime time.Time) error {
		if d.Size >= 0 && m.young(ctime) {
			return m.tree(d)
		}
		return nil
	})
	if err != nil || m.results == nil {
		return err
	}
	return m.results.Each(func(key digest.Digest, modified time.Time) error {
		if m.young(modified) {
			return m.action(key)
		}
		return nil
	})
}

func (m *marking) root(r *Root) error {
	for _, ref := range r.Refs {
		if err := m.object(ref); err != nil {
			return err
		}
	}
	for _, d := range r.Keep {
		if err := m.either(d); err != nil {
			return err
		}
	}
	if len(r.Actions) > 0 && m.results == nil {
		return errors.New("it keeps results of actions, and no action cache was given to find their outputs")
	}
	for _, key := range r.Actions {
		if err := m.action(key); err != nil {
			return err
		}
	}
	return nil
}

func (m *marking) action(key digest.Digest) error {
	if m.actions[key] {
		return nil
	}
	m.actions[key] = true
	nodes, _ := m.results.Outputs(key)
	for _, n := range nodes {
		if err := m.node(n); err != nil {
			return err
		}
	}
	return nil
}

// object marks a closure. What is not there cannot be kept: that is Verify's
// to report, not a reason never to collect again.
func (m *marking) object(r Ref) error {
	for todo := []Ref{r}; len(todo) > 0; {
		r := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		if m.objects[r] {
			continue
		}
		m.objects[r] = true
		o, err := m.s.Get(r)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if err := m.node(o.Node); err != nil {
			return err
		}
		todo = append(todo, o.Refs...)
	}
	return nil
}

func (m *marking) node(n merkle.Node) error {
	switch n.Kind {
	case merkle.File:
		m.blobs[n.Digest.Hash] = true
	case merkle.Dir:
		return m.tree(n.Digest)
	}
	return nil
}

func (m *marking) tree(d digest.Digest) error {
	m.blobs[d.Hash] = true
	if m.trees[d.Hash] {
		return nil
	}
	m.trees[d.Hash] = true
	if err := m.ctx.Err(); err != nil {
		return err
	}
	dir, err := m.s.cas.GetDirectory(d)
	if errors.Is(err, os.ErrNotExist) || cas.IsCorrupt(err) {
		return nil
	}
	if err != nil {
		return err
	}
	return dir.Entries(func(_ string, n merkle.Node) error { return m.node(n) })
}

// either marks a digest that may name a file or a tree: if it reads as a tree,
// it counts as one. A file that happens to read as one keeps some blobs more.
func (m *marking) either(d digest.Digest) error {
	m.blobs[d.Hash] = true
	if m.s.mayBeDirectory(d) {
		if _, err := m.s.cas.GetDirectory(d); err == nil {
			return m.tree(d)
		}
	}
	return nil
}

// mayBeDirectory looks at the size and the first byte, the tag of one of a
// Directory's fields, so that large files are not read in vain.
func (s *Store) mayBeDirectory(d digest.Digest) bool {
	if d.Size > merkle.MaxEncoded {
		return false
	}
	if d.Size == 0 {
		return true
	}
	f, err := s.cas.Open(d)
	if err != nil {
		return false
	}
	defer f.Close()
	var b [1]byte
	if _, err := f.Read(b[:]); err != nil {
		return false
	}
	return b[0]&7 == 2 && b[0]>>3 >= 1 && b[0]>>3 <= 5
}
