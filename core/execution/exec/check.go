package exec

import (
	"slices"

	"tool/core/language/action"
	"tool/core/model/digest"
	"tool/core/model/merkle"
)

// check executes an action although its result may be known, and compares. The
// known result stays the one that counts, so that one action that is not
// reproducible does not change all others' keys.
func (b *build) check(p *plan, o *outcome) {
	old := b.cached(p.key, true)
	if old == nil {
		b.perform(p, o)
		if old = o.entry; old == nil {
			return
		}
	}
	o.entry = old
	if pinned := slices.ContainsFunc(p.a.Outputs, func(id int) bool { return !b.g.Artifacts[id].Fixed.IsZero() }); pinned {
		return // its content is checked against the pin
	}
	gone, err := b.gather(p)
	if len(gone) > 0 {
		o.entry, o.ran, o.need = nil, false, gone
		return
	}
	var again *Entry
	if err == nil {
		again, err = b.run(p, o)
	}
	if err == nil {
		o.ran = true
		err = b.differ(p.a, old, again)
	}
	if err != nil {
		o.entry, o.err = nil, b.wrap(p.a, err)
	}
}

// differ returns a *NotReproducibleError for the first difference.
func (b *build) differ(a *action.Action, old, again *Entry) error {
	for i, o := range old.Outputs {
		n := again.Outputs[i]
		if o.Node == n.Node {
			continue
		}
		e := &NotReproducibleError{Action: a, Output: o.Path, Old: o.Node, New: n.Node}
		if o.Node.Kind == merkle.Dir && n.Node.Kind == merkle.Dir {
			b.firstDifference(e, o.Node.Digest, n.Node.Digest)
		}
		return e
	}
	return nil
}

func (b *build) firstDifference(e *NotReproducibleError, old, again digest.Digest) {
	for c, err := range merkle.Diff(b.cas, old, again) {
		if err == nil {
			e.Path, e.Old, e.New = c.Path, c.Old, c.New
		}
		return
	}
}
