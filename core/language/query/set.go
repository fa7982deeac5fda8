package query

import (
	"iter"
	"math/bits"
)

// set is a set of target ids, a bit each.
type set []uint64

func newSet(ids ...int) set {
	var s set
	for _, id := range ids {
		s.add(id)
	}
	return s
}

func (s *set) add(id int) {
	for id>>6 >= len(*s) {
		*s = append(*s, 0)
	}
	(*s)[id>>6] |= 1 << (id & 63)
}

func (s set) has(id int) bool { return id>>6 < len(s) && s[id>>6]&(1<<(id&63)) != 0 }

func (s set) len() int {
	n := 0
	for _, w := range s {
		n += bits.OnesCount64(w)
	}
	return n
}

// all yields the members in ascending order.
func (s set) all() iter.Seq[int] {
	return func(yield func(int) bool) {
		for i, w := range s {
			for ; w != 0; w &= w - 1 {
				if !yield(i<<6 + bits.TrailingZeros64(w)) {
					return
				}
			}
		}
	}
}

func (s set) union(o set) set {
	if len(o) > len(s) {
		s, o = o, s
	}
	out := append(set(nil), s...)
	for i, w := range o {
		out[i] |= w
	}
	return out
}

func (s set) intersect(o set) set {
	out := make(set, min(len(s), len(o)))
	for i := range out {
		out[i] = s[i] & o[i]
	}
	return out
}

func (s set) except(o set) set {
	out := append(set(nil), s...)
	for i := range min(len(out), len(o)) {
		out[i] &^= o[i]
	}
	return out
}
