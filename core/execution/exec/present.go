package exec

import (
	"errors"
	"fmt"

	"tool/core/model/digest"
	"tool/core/model/merkle"
	"tool/core/storage/cas"
)

// present reports whether all bytes of a node are in the CAS, and keeps them
// from being collected. What is complete once is not looked at again, until
// something is found to have vanished.
func (b *build) present(n merkle.Node) (bool, error) {
	if n.Kind == merkle.Symlink {
		return true, nil
	}
	if _, ok := b.complete.Load(n.Digest); ok {
		return true, nil
	}
	// First the lease, then the look: otherwise a collection could come between.
	if err := b.lease.Adopt(n.Digest); err != nil {
		return false, err
	}
	return b.look(n), nil
}

func (b *build) look(n merkle.Node) bool {
	if n.Kind == merkle.Symlink {
		return true
	}
	if _, ok := b.complete.Load(n.Digest); ok {
		return true
	}
	if n.Kind == merkle.Dir {
		d, err := b.cas.GetDirectory(n.Digest)
		if err != nil {
			return false
		}
		if d.Entries(func(_ string, n merkle.Node) error {
			if !b.look(n) {
				return errGone
			}
			return nil
		}) != nil {
			return false
		}
	} else if !b.cas.Has(n.Digest) {
		return false
	}
	b.complete.Store(n.Digest, true)
	return true
}

var errGone = errors.New("bytes are gone")

// vanished reports whether err is that of a blob that went away although it
// was there before, and forgets what was known to be there.
func (b *build) vanished(err error) bool {
	var nf *cas.NotFoundError
	if !errors.As(err, &nf) {
		return false
	}
	b.complete.Clear()
	b.added.Clear()
	return true
}

// source returns a source's content; it is asked for once in a build.
func (b *build) source(id int) (merkle.Node, error) {
	s := &b.sources[id]
	s.once.Do(func() {
		a := b.g.Artifacts[id]
		if b.Sources == nil {
			s.err = fmt.Errorf("source %s: this executor has no sources", a.Path)
			return
		}
		if s.node, s.err = b.Sources.Digest(a); s.err != nil {
			s.err = fmt.Errorf("source %s: %w", a.Path, s.err)
		}
	})
	return s.node, s.err
}

// importSource puts a source's bytes into the CAS.
func (b *build) importSource(id int) error {
	imp, ok := b.Sources.(SourceImporter)
	if !ok {
		return nil // Digest did
	}
	a := b.g.Artifacts[id]
	n, err := imp.Import(a)
	if err != nil {
		return fmt.Errorf("source %s: %w", a.Path, err)
	}
	if v, ok := b.value(id); ok && n.Digest != v.Node.Digest {
		return &SourceChangedError{a.Path}
	}
	return nil
}

// value returns what is known of an artifact.
func (b *build) value(id int) (Realised, bool) {
	if b.g.Artifacts[id].Producer < 0 && b.g.Artifacts[id].Fixed.IsZero() {
		n, err := b.source(id)
		return Realised{Node: n}, err == nil
	}
	return b.values[id], b.known[id]
}

// directory reads a tree's own level; the keys of many actions need the same.
func (b *build) directory(d digest.Digest) (*merkle.Directory, error) {
	if v, ok := b.roots.Load(d); ok {
		return v.(*merkle.Directory), nil
	}
	dir, err := b.cas.GetDirectory(d)
	if err == nil {
		b.roots.Store(d, dir)
	}
	return dir, err
}
