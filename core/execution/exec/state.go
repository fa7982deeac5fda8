package exec

import (
	"container/heap"
	"fmt"

	"tool/core/model/digest"
	"tool/core/model/event"
)

// State is where an action stands. Every action is in exactly one state.
type State uint8

// The states of an action.
const (
	Unwanted State = iota // nobody needs it
	Waiting               // for inputs that are being made
	Ready                 // its inputs are known; its key is computed and looked up
	Running               // it executes
	Done                  // it executed
	Cached                // its result was in the cache
	Failed                //
	Skipped               // something it needs failed
	states
)

func (s State) String() string {
	return [...]string{"unwanted", "waiting", "ready", "running", "done", "cached", "failed", "skipped"}[s]
}

// node is what the scheduler knows of one action. Only the scheduler's
// goroutine touches it.
type node struct {
	state     State
	bytes     bool  // its outputs' bytes are needed, not just their digests
	depth     int32 // actions on the longest path from here to the end
	pending   int32 // producers it still waits for
	rewinds   int8  // times its outputs were found missing
	key       digest.Digest
	waiters   []int // actions to tell when this one ends
	followers []int // actions with the same key, which take over its result
	err       error
}

// set makes every transition of every action, and keeps the counts.
func (b *build) set(id int, s State) {
	n := &b.nodes[id]
	b.counts[n.state]--
	b.counts[s]++
	n.state = s
}

func (b *build) snapshot() event.Counts {
	c := &b.counts
	return event.Counts{
		Total:   b.total - c[Skipped],
		Waiting: c[Waiting], Ready: c[Ready], Running: c[Running],
		Done: c[Done], Cached: c[Cached], Failed: c[Failed],
	}
}

// queue hands out the action with the longest path to go first, so that the
// critical path does not start last; ties go by id, to be the same each time.
type queue struct {
	b   *build
	ids []int
}

func (q *queue) Len() int { return len(q.ids) }
func (q *queue) Less(i, j int) bool {
	a, b := q.ids[i], q.ids[j]
	if da, db := q.b.nodes[a].depth, q.b.nodes[b].depth; da != db {
		return da > db
	}
	return a < b
}
func (q *queue) Swap(i, j int) { q.ids[i], q.ids[j] = q.ids[j], q.ids[i] }
func (q *queue) Push(x any)    { q.ids = append(q.ids, x.(int)) }
func (q *queue) Pop() any {
	n := len(q.ids) - 1
	x := q.ids[n]
	q.ids = q.ids[:n]
	return x
}
func (q *queue) add(id int) { heap.Push(q, id) }
func (q *queue) take() int  { return heap.Pop(q).(int) }

// depths computes each action's longest path to the end, and refuses a graph
// that is not one.
func (b *build) depths() error {
	consumers := make([]int32, len(b.g.Actions)) // that are not ordered yet
	each := func(id int, f func(p int)) {
		b.producers(id, func(_, p int) { f(p) })
	}
	for id, a := range b.g.Actions {
		if a.ID != id {
			return fmt.Errorf("action graph: action %d calls itself %d", id, a.ID)
		}
		for _, in := range a.Inputs {
			if in < 0 || in >= len(b.g.Artifacts) {
				return fmt.Errorf("action graph: action %d has no input %d", id, in)
			}
		}
		each(id, func(p int) { consumers[p]++ })
	}
	var todo []int
	for id := range consumers {
		if consumers[id] == 0 {
			todo = append(todo, id)
		}
	}
	ordered := 0
	for len(todo) > 0 {
		id := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		ordered++
		each(id, func(p int) {
			b.nodes[p].depth = max(b.nodes[p].depth, b.nodes[id].depth+1)
			if consumers[p]--; consumers[p] == 0 {
				todo = append(todo, p)
			}
		})
	}
	if ordered < len(consumers) {
		for id, n := range consumers {
			if n > 0 {
				return fmt.Errorf("action graph: %s (%s) depends on its own output", b.g.Actions[id].Owner, b.g.Actions[id].Mnemonic)
			}
		}
	}
	return nil
}

// producers calls f for each input (and the root) that an action makes.
func (b *build) producers(id int, f func(artifact, producer int)) {
	a := b.g.Actions[id]
	for _, in := range a.Inputs {
		if p := b.g.Artifacts[in].Producer; p >= 0 {
			f(in, p)
		}
	}
	if a.Root >= 0 && a.Builtin == "" {
		if p := b.g.Artifacts[a.Root].Producer; p >= 0 {
			f(a.Root, p)
		}
	}
}
