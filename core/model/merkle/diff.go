package merkle

import (
	"iter"
	"path"
	"slices"

	"tool/core/model/digest"
)

// Change is one path at which two trees differ. A node of Kind 0 means the
// path is absent on that side.
type Change struct {
	Path     string
	Old, New Node
}

// Diff yields the differing paths of two trees in path order. Equal subtrees
// are not read. An absent directory is one Change, not one for each file in it.
func Diff(g Getter, a, b digest.Digest) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) { diff(g, "", a, b, yield) }
}

func diff(g Getter, dir string, a, b digest.Digest, yield func(Change, error) bool) bool {
	if a == b {
		return true
	}
	da, err := g.GetDirectory(a)
	if err != nil {
		return yield(Change{Path: dir}, err)
	}
	db, err := g.GetDirectory(b)
	if err != nil {
		return yield(Change{Path: dir}, err)
	}
	if da.Props != db.Props && !yield(Change{dir, Node{Kind: Dir, Digest: a, Props: da.Props}, Node{Kind: Dir, Digest: b, Props: db.Props}}, nil) {
		return false
	}
	var names []string
	collect := func(name string, _ Node) error { names = append(names, name); return nil }
	_ = da.Entries(collect)
	_ = db.Entries(collect)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		na, _ := da.Lookup(name)
		nb, _ := db.Lookup(name)
		p := path.Join(dir, name)
		switch {
		case na == nb:
		case na.Kind == Dir && nb.Kind == Dir:
			if !diff(g, p, na.Digest, nb.Digest, yield) {
				return false
			}
		default:
			if !yield(Change{p, na, nb}, nil) {
				return false
			}
		}
	}
	return true
}
