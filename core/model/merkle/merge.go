package merkle

import (
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"

	"tool/core/model/digest"
)

// Mount is one tree of a merge. Name is how errors call it (a label).
type Mount struct {
	Name string
	Tree digest.Digest
}

// Collision is the error of two trees that hold different things at one path.
type Collision struct {
	Path string
	A, B string // the mounts' names
	Why  string
}

func (c *Collision) Error() string {
	return fmt.Sprintf("%s is in both %s and %s, and they differ (%s)", c.Path, c.A, c.B, c.Why)
}

// Merge writes the union of the trees and returns its root. Directories merge;
// a file or symlink may be in several trees only if it is the same in all.
// Every other overlap is a *Collision; all of them (up to 20) are reported,
// joined. A directory's Props come from the first tree that gives any.
func Merge(gp GetPutter, mounts []Mount) (digest.Digest, error) {
	if len(mounts) == 0 {
		return gp.PutDirectory(&Directory{})
	}
	m := merger{gp: gp}
	d, err := m.merge("", mounts)
	if err != nil {
		return digest.Digest{}, err
	}
	return d, errors.Join(m.collisions...)
}

type merger struct {
	gp         GetPutter
	collisions []error
}

type origin struct {
	node Node
	from string
}

func (m *merger) merge(dir string, mounts []Mount) (digest.Digest, error) {
	distinct := mounts[:0:0]
	seen := map[digest.Digest]bool{}
	for _, t := range mounts {
		if !seen[t.Tree] {
			seen[t.Tree] = true
			distinct = append(distinct, t)
		}
	}
	if len(distinct) == 1 { // one tree, or the same tree again: nothing to read
		return distinct[0].Tree, nil
	}
	out := &Directory{}
	subs := map[string][]Mount{}
	leaves := map[string]origin{}
	for _, t := range distinct {
		d, err := m.gp.GetDirectory(t.Tree)
		if err != nil {
			return digest.Digest{}, fmt.Errorf("%s: %w", t.Name, err)
		}
		if out.Props.IsZero() {
			out.Props = d.Props
		}
		_ = d.Entries(func(name string, n Node) error {
			if n.Kind == Dir {
				if o, ok := leaves[name]; ok {
					m.collide(dir, name, o, origin{n, t.Name})
					return nil
				}
				subs[name] = append(subs[name], Mount{t.Name, n.Digest})
				return nil
			}
			if s := subs[name]; s != nil {
				m.collide(dir, name, origin{Node{Kind: Dir}, s[0].Name}, origin{n, t.Name})
				return nil
			}
			if o, ok := leaves[name]; ok {
				if o.node != n {
					m.collide(dir, name, o, origin{n, t.Name})
				}
				return nil
			}
			leaves[name] = origin{n, t.Name}
			return nil
		})
	}
	for name, o := range leaves {
		out.add(name, o.node)
	}
	// In order, so that the collisions reported do not depend on the map.
	for _, name := range slices.Sorted(maps.Keys(subs)) {
		sub, err := m.merge(path.Join(dir, name), subs[name])
		if err != nil {
			return digest.Digest{}, err
		}
		out.Directories = append(out.Directories, DirectoryNode{name, sub})
	}
	out.Sort()
	return m.gp.PutDirectory(out)
}

func (m *merger) collide(dir, name string, a, b origin) {
	if len(m.collisions) >= 20 {
		return
	}
	why := fmt.Sprintf("a %s and a %s", a.node.Kind, b.node.Kind)
	if a.node.Kind == b.node.Kind {
		switch {
		case a.node.Kind == Symlink:
			why = fmt.Sprintf("links to %s and to %s", a.node.Target, b.node.Target)
		case a.node.Digest != b.node.Digest:
			why = "different contents"
		default:
			why = "different modes"
		}
	}
	m.collisions = append(m.collisions, &Collision{path.Join(dir, name), a.from, b.from, why})
}

// At returns the tree that holds node at path p and nothing else.
func At(to Putter, p string, n Node) (digest.Digest, error) {
	var b Builder
	if p == "" || p == "." {
		if n.Kind != Dir {
			return digest.Digest{}, fmt.Errorf("a %s cannot be the root of a tree", n.Kind)
		}
		return n.Digest, nil
	}
	if err := b.Add(p, n); err != nil {
		return digest.Digest{}, err
	}
	return b.Write(to)
}
