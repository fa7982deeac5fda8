package exec

import (
	"fmt"
	"slices"
	"sync"

	"tool/core/model/merkle"
	"tool/core/storage/store"
)

// object is a store object of this build: an artifact that a placeholder
// names. It is registered in the store only where it is really used.
type object struct {
	ref      store.Ref
	name     string
	node     merkle.Node
	refs     []store.Ref
	owner    string
	artifact int // -1: it comes from the store
}

// objects are all those of a build, by reference.
type objects struct {
	mu    sync.RWMutex
	m     map[store.Ref]*object
	store *store.Store
}

// add makes the object of an artifact.
func (o *objects) add(name, owner string, artifact int, v Realised) (*object, error) {
	if err := store.CheckName(name); err != nil {
		return nil, err
	}
	n := v.Node
	if n.Kind != merkle.File && n.Kind != merkle.Dir {
		return nil, fmt.Errorf("a %s cannot be a store object", n.Kind)
	}
	// An object has no owner and no special mode; see store.Add.
	n = merkle.Node{Kind: n.Kind, Digest: n.Digest, Executable: n.Executable && n.Kind == merkle.File}
	ob := &object{store.MakeRef(name, n, v.Refs), name, n, v.Refs, owner, artifact}
	o.mu.Lock()
	defer o.mu.Unlock()
	if old := o.m[ob.ref]; old != nil {
		return old, nil
	}
	o.m[ob.ref] = ob
	return ob, nil
}

func (o *objects) get(r store.Ref) (*object, error) {
	o.mu.RLock()
	ob := o.m[r]
	o.mu.RUnlock()
	if ob != nil {
		return ob, nil
	}
	s, err := o.store.Get(r)
	if err != nil {
		return nil, err
	}
	return &object{r, s.Name, s.Node, s.Refs, s.Deriver, -1}, nil
}

// closure returns refs and all they need; each comes after what it needs.
func (o *objects) closure(refs []store.Ref) ([]*object, error) {
	var out []*object
	seen := map[store.Ref]bool{}
	var visit func(r store.Ref) error
	visit = func(r store.Ref) error {
		if seen[r] {
			return nil
		}
		seen[r] = true
		ob, err := o.get(r)
		if err != nil {
			return err
		}
		for _, r := range ob.refs {
			if err := visit(r); err != nil {
				return err
			}
		}
		out = append(out, ob)
		return nil
	}
	refs = slices.Sorted(slices.Values(refs))
	for _, r := range refs {
		if err := visit(r); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// register puts the closures of the wanted artifacts' references into the
// store. It returns the artifacts whose bytes are gone.
func (b *build) register(want []int) (gone []int, err error) {
	for _, id := range want {
		v, ok := b.value(id)
		if !ok {
			return nil, fmt.Errorf("%s was not made", b.g.Artifacts[id].Path)
		}
		if b.g.Artifacts[id].Producer < 0 {
			if err := b.importSource(id); err != nil {
				return nil, err
			}
		}
		all, err := b.objects.closure(v.Refs)
		if err != nil {
			return nil, fmt.Errorf("references of %s: %w", b.g.Artifacts[id].Path, err)
		}
		missing, err := b.addObjects(all)
		if err != nil {
			return nil, fmt.Errorf("references of %s: %w", b.g.Artifacts[id].Path, err)
		}
		gone = append(gone, missing...)
		ok, err = b.present(v.Node)
		if err != nil {
			return nil, err
		}
		if !ok {
			if b.g.Artifacts[id].Producer < 0 {
				return nil, fmt.Errorf("the bytes of the source %s are not in the store", b.g.Artifacts[id].Path)
			}
			gone = append(gone, id)
		}
	}
	slices.Sort(gone)
	return slices.Compact(gone), nil
}

// addObjects registers objects, which come after what they need. It returns
// the artifacts whose bytes are gone.
func (b *build) addObjects(all []*object) (gone []int, err error) {
	for _, ob := range all {
		if ob.artifact < 0 {
			continue // the store has it
		}
		ok, err := b.present(ob.node)
		if err != nil {
			return nil, err
		}
		if !ok {
			if b.g.Artifacts[ob.artifact].Producer < 0 {
				if err := b.importSource(ob.artifact); err != nil {
					return nil, err
				}
			} else {
				gone = append(gone, ob.artifact)
				continue
			}
		}
		if len(gone) > 0 {
			continue // it may need one that is gone
		}
		if _, done := b.added.Load(ob.ref); done {
			continue
		}
		ref, err := b.Store.Add(b.ctx, store.Object{Name: ob.name, Node: ob.node, Refs: ob.refs, Deriver: ob.owner})
		if err != nil {
			if b.vanished(err) {
				gone = append(gone, ob.artifact)
				continue
			}
			return nil, err
		}
		if ref != ob.ref {
			return nil, fmt.Errorf("object %s was registered as %s", ob.ref, ref)
		}
		if err := b.lease.AdoptRefs(ref); err != nil {
			return nil, err
		}
		b.added.Store(ref, true)
	}
	return gone, nil
}
