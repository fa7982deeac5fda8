package store

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"tool/core/model/digest"
	"tool/core/model/merkle"
)

// WhyAlive tells what keeps x, which is a Ref, a digest "<hex>/<size>" or its
// hex alone: a shortest chain "root NAME", objects, and for a blob or tree the
// path inside the last of them. It returns nil if no root and no lease keeps x.
func (s *Store) WhyAlive(x string) ([]string, error) {
	w := why{s: s, seen: map[any]bool{}}
	if ref, err := ParseRef(x); err == nil {
		w.ref = ref
	} else {
		hex, _, _ := strings.Cut(x, "/")
		d, err := digest.New(hex, 0)
		if err != nil {
			return nil, fmt.Errorf("%q is neither a store reference nor a digest", x)
		}
		w.hash = d.Hash
	}
	chain, err := w.search()
	if err != nil {
		return nil, fmt.Errorf("why is %s kept: %w", x, err)
	}
	return chain, nil
}

// why is a breadth-first search over objects and nodes.
type why struct {
	s    *Store
	ref  Ref
	hash hash
	seen map[any]bool
	todo []vertex
	at   int
}

type vertex struct {
	text   string
	path   string // inside the nearest object or root
	parent int    // index into todo; -1: none
	ref    Ref
	node   merkle.Node
}

func (w *why) search() ([]string, error) {
	if err := w.start(); err != nil {
		return nil, err
	}
	for ; w.at < len(w.todo); w.at++ {
		v := w.todo[w.at]
		if w.ref != "" && v.ref == w.ref || w.ref == "" && v.node.Kind != 0 && v.ref == "" && v.node.Digest.Hash == w.hash {
			return w.chain(w.at), nil
		}
		if err := w.expand(v); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// start pushes what roots and leases name. A root's text is the chain's first.
func (w *why) start() error {
	roots, err := w.s.Roots()
	if err != nil {
		return err
	}
	leases, err := w.s.leases(false)
	if err != nil {
		return err
	}
	for i := range roots {
		roots[i].Name = "root " + roots[i].Name
	}
	for _, l := range leases {
		roots = append(roots, Root{Name: "lease " + l.name, Refs: l.refs, Keep: l.digests})
	}
	for _, r := range roots {
		w.todo = append(w.todo, vertex{text: r.Name, parent: -1})
		root := len(w.todo) - 1
		for _, ref := range r.Refs {
			w.push(root, vertex{text: string(ref), ref: ref}, ref)
		}
		for _, d := range r.Keep {
			n := merkle.Node{Kind: merkle.File, Digest: d}
			if w.s.mayBeDirectory(d) {
				if _, err := w.s.cas.GetDirectory(d); err == nil {
					n.Kind = merkle.Dir
				}
			}
			w.push(root, vertex{node: n}, d)
		}
		for _, key := range r.Actions {
			if w.s.Results == nil {
				continue
			}
			outputs, _ := w.s.Results.Outputs(key)
			w.todo = append(w.todo, vertex{text: "result of action " + key.String(), parent: root})
			action := len(w.todo) - 1
			for _, n := range outputs {
				w.push(action, vertex{node: n}, n.Digest)
			}
		}
	}
	return nil
}

func (w *why) push(parent int, v vertex, key any) {
	if !w.seen[key] {
		w.seen[key] = true
		v.parent = parent
		w.todo = append(w.todo, v)
	}
}

func (w *why) expand(v vertex) error {
	if v.ref != "" {
		o, err := w.s.Get(v.ref)
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		for _, r := range o.Refs {
			w.push(w.at, vertex{text: string(r), ref: r}, r)
		}
		if w.ref == "" {
			w.push(w.at, vertex{node: o.Node}, o.Node.Digest)
		}
		return nil
	}
	if v.node.Kind != merkle.Dir || w.ref != "" {
		return nil
	}
	dir, err := w.s.cas.GetDirectory(v.node.Digest)
	if err != nil {
		return nil // damaged or gone: it leads nowhere
	}
	return dir.Entries(func(name string, n merkle.Node) error {
		if n.Kind != merkle.Symlink {
			w.push(w.at, vertex{path: path.Join(v.path, name), node: n}, n.Digest)
		}
		return nil
	})
}

// chain follows the parents; of the nodes inside one object only the last
// matters, whose path holds the others.
func (w *why) chain(i int) []string {
	var out []string
	if n := w.todo[i].node; n.Kind != 0 {
		text := fmt.Sprintf("%s %s", n.Kind, n.Digest)
		if p := w.todo[i].path; p != "" {
			text = p + " (" + text + ")"
		}
		out = append(out, text)
	}
	for ; i >= 0; i = w.todo[i].parent {
		if w.todo[i].text != "" {
			out = append(out, w.todo[i].text)
		}
	}
	slices.Reverse(out)
	return out
}
