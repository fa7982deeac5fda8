package exec

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"tool/core/language/action"
	"tool/core/model/digest"
	"tool/core/model/event"
	"tool/core/model/merkle"
	"tool/core/storage/cas"
	"tool/core/storage/store"
)

// build is one Build. Its scheduler runs on the goroutine that called Build;
// goroutines that look up and execute actions tell it their outcomes.
type build struct {
	*Executor
	cas      *cas.Store
	g        *action.Graph
	outer    context.Context // the caller's
	ctx      context.Context // ends with outer, or after a failure
	cancel   context.CancelCauseFunc
	lease    *store.Lease
	ownLease bool
	events   event.Sink
	jobs     int // executions at a time
	steps    int // lookups at a time
	results  chan outcome

	// Only the scheduler writes these. An artifact's value is written once,
	// before any goroutine that reads it is started.
	nodes    []node
	values   []Realised
	known    []bool
	byKey    map[digest.Digest]int // the first action with a key
	plans    map[int]*plan         // of actions that wait for an execution slot
	counts   [states]int
	total    int
	ready    queue
	queued   queue // to be executed
	pinned   queue // of these, downloads: they wait for networks, not processors
	active   int   // lookups under way
	busy     int   // executions under way, downloads aside
	fetching int   // downloads under way
	stop     bool  // start nothing more
	executed int

	sources  []source // by artifact
	objects  *objects
	complete sync.Map // tree digest → true: all of it is in the CAS
	added    sync.Map // store.Ref → true: registered and kept
	roots    sync.Map // digest → *merkle.Directory
}

// source is the memo of one source's digest.
type source struct {
	once sync.Once
	node merkle.Node
	err  error
}

// outcome is what a goroutine tells of its action. Exactly one of entry, plan,
// need and err is set.
type outcome struct {
	id             int
	exec           bool // it held an execution slot
	key            digest.Digest
	entry          *Entry // the result
	ran            bool   // entry was made just now
	bytes          bool   // the bytes of entry's outputs are there
	plan           *plan  // not cached: to be executed
	need           []int  // artifacts whose bytes are gone
	err            error
	stdout, stderr []byte
}

// maxRewinds bounds how often one action's outputs may vanish in one build.
const maxRewinds = 3

// realise brings about the wanted artifacts and the closures of their
// references, bytes included.
func (b *build) realise(want []int) error {
	b.ready.b, b.queued.b, b.pinned.b = b, b, b
	b.plans = map[int]*plan{}
	for _, id := range want {
		if p := b.g.Artifacts[id].Producer; p >= 0 {
			b.needBytes(p)
		}
	}
	for round := 0; ; round++ {
		b.loop()
		if err := b.outer.Err(); err != nil {
			return fmt.Errorf("%w: %w", ErrInterrupted, context.Cause(b.outer))
		}
		if f := b.failures(); len(f) > 0 {
			return errors.Join(f...)
		}
		gone, err := b.register(want)
		if err != nil {
			return err
		}
		if len(gone) == 0 {
			return nil
		}
		if round > maxRewinds {
			return fmt.Errorf("%s was made and is not in the store; something removes it", b.g.Artifacts[gone[0]].Path)
		}
		for _, id := range gone {
			b.needBytes(b.g.Artifacts[id].Producer)
		}
	}
}

// loop runs until nothing is left to do.
func (b *build) loop() {
	for {
		if b.ctx.Err() != nil {
			b.stop = true
		}
		for !b.stop && b.active < b.steps && b.ready.Len() > 0 {
			b.active++
			id := b.ready.take()
			go b.step(id, b.nodes[id].bytes)
		}
		for !b.stop && b.busy < b.jobs && b.queued.Len() > 0 {
			b.busy++
			b.launch(b.queued.take())
		}
		for !b.stop && b.fetching < maxDownloads && b.pinned.Len() > 0 {
			b.fetching++
			b.launch(b.pinned.take())
		}
		if b.active+b.busy+b.fetching == 0 {
			return
		}
		b.handle(<-b.results)
	}
}

// maxDownloads is how many downloads run at a time, beside the jobs.
const maxDownloads = 8

// download reports whether an action brings what is pinned.
func (b *build) download(id int) bool {
	outs := b.g.Actions[id].Outputs
	return len(outs) > 0 && !b.g.Artifacts[outs[0]].Fixed.IsZero()
}

// launch starts the execution of a planned action.
func (b *build) launch(id int) {
	p := b.plans[id]
	delete(b.plans, id)
	b.set(id, Running)
	a := b.g.Actions[id]
	b.events.Send(event.ActionStarted{ID: id, Owner: a.Owner, Mnemonic: a.Mnemonic, Progress: a.Progress, At: time.Now(), Counts: b.snapshot()})
	go b.execute(p, b.nodes[id].bytes)
}

// needBytes wants an action's outputs with their bytes.
func (b *build) needBytes(id int) {
	n := &b.nodes[id]
	n.bytes = true
	switch n.state {
	case Unwanted:
		b.want(id)
	case Done, Cached:
		b.start(id)
	}
}

// want starts an action unless it was started before.
func (b *build) want(id int) {
	if b.nodes[id].state == Unwanted {
		b.total++
		b.start(id)
	}
}

// start brings an action under way: at first, or again after its outputs
// vanished.
func (b *build) start(id int) {
	b.set(id, Waiting)
	b.producers(id, func(in, p int) {
		if b.known[in] {
			return
		}
		b.want(p)
		if s := b.nodes[p].state; s != Failed && s != Skipped {
			b.await(id, p)
		}
	})
	b.settle(id)
}

// await makes id wait for p.
func (b *build) await(id, p int) {
	n := &b.nodes[p]
	n.waiters = append(n.waiters, id)
	b.nodes[id].pending++
}

// settle makes an action ready if it waits for nothing.
func (b *build) settle(id int) {
	n := &b.nodes[id]
	if n.state != Waiting || n.pending > 0 {
		return
	}
	skip := false
	b.producers(id, func(in, p int) {
		if s := b.nodes[p].state; !b.known[in] && (s == Failed || s == Skipped) {
			skip = true
		}
	})
	if skip {
		b.end(id, Skipped)
		return
	}
	b.set(id, Ready)
	b.ready.add(id)
}

// end puts an action into a final state and tells those who wait.
func (b *build) end(id int, s State) {
	n := &b.nodes[id]
	b.set(id, s)
	waiters, followers := n.waiters, n.followers
	n.waiters, n.followers = nil, nil
	for _, f := range followers { // of an action that succeeded, finish took them
		b.end(f, Skipped)
	}
	for _, w := range waiters {
		b.nodes[w].pending--
		b.settle(w)
	}
}

func (b *build) learn(artifact int, v Realised) {
	if !b.known[artifact] {
		b.values[artifact], b.known[artifact] = v, true
	}
}

// handle takes in an outcome.
func (b *build) handle(o outcome) {
	switch {
	case !o.exec:
		b.active--
	case b.download(o.id):
		b.fetching--
	default:
		b.busy--
	}
	n := &b.nodes[o.id]
	if !o.key.IsZero() {
		n.key = o.key
	}
	switch {
	case o.err != nil:
		b.fail(o)
	case o.need != nil:
		b.rewind(o.id, o.need)
	case o.plan != nil:
		if first, ok := b.byKey[o.key]; ok && first != o.id {
			switch b.nodes[first].state {
			case Waiting, Ready, Running:
				b.nodes[first].followers = append(b.nodes[first].followers, o.id)
				return
			}
		}
		b.byKey[o.key] = o.id
		b.plans[o.id] = o.plan
		if b.download(o.id) {
			b.pinned.add(o.id)
		} else {
			b.queued.add(o.id)
		}
	default:
		b.finish(o)
	}
}

// finish takes in a result.
func (b *build) finish(o outcome) {
	a, n := b.g.Actions[o.id], &b.nodes[o.id]
	if n.bytes && !o.bytes && !o.ran {
		b.set(o.id, Ready) // meanwhile somebody wants more than was looked for
		b.ready.add(o.id)
		return
	}
	for _, out := range a.Outputs {
		v, err := b.output(a, o.entry, out)
		if err != nil {
			o.err = err
			b.fail(o)
			return
		}
		b.learn(out, v)
	}
	state := Cached
	if o.ran {
		state = Done
		b.executed++
	}
	followers := n.followers
	n.followers = nil
	b.end(o.id, state)
	b.events.Send(event.ActionFinished{ID: o.id, Owner: a.Owner, Mnemonic: a.Mnemonic, Cached: !o.ran, Stdout: o.stdout, Stderr: o.stderr, Took: o.entry.Took, Counts: b.snapshot()})
	for _, f := range followers {
		b.finish(outcome{id: f, entry: o.entry, bytes: true})
	}
}

// output finds an output in a result, and checks it against what is known.
func (b *build) output(a *action.Action, e *Entry, out int) (Realised, error) {
	art := b.g.Artifacts[out]
	i, ok := slices.BinarySearchFunc(e.Outputs, art.Path, func(o EntryOutput, p string) int {
		return strings.Compare(o.Path, p)
	})
	if !ok {
		return Realised{}, b.actionError(a, fmt.Errorf("its result lacks the output %s", art.Path))
	}
	v := Realised{Node: e.Outputs[i].Node, Refs: e.Outputs[i].Refs}
	if !art.Fixed.IsZero() {
		if v.Node.Digest != art.Fixed {
			return v, b.actionError(a, fmt.Errorf("output %s has the digest %s, but it is pinned to %s", art.Path, v.Node.Digest, art.Fixed))
		}
		return v, nil
	}
	if b.known[out] && (v.Node != b.values[out].Node || !slices.Equal(v.Refs, b.values[out].Refs)) {
		return v, b.actionError(a, fmt.Errorf("output %s was lost from the store, and making it again gave something else (%s, before %s): the action is not reproducible; build once more to go on with the new result",
			art.Path, v.Node.Digest, b.values[out].Node.Digest))
	}
	return v, nil
}

// rewind runs the producers of lost inputs again, before the action itself.
func (b *build) rewind(id int, need []int) {
	b.set(id, Waiting)
	b.events.Send(event.ActionPostponed{ID: id, Counts: b.snapshot()})
	for _, in := range need {
		p := b.g.Artifacts[in].Producer
		n := &b.nodes[p]
		running := n.state == Waiting || n.state == Ready || n.state == Running
		if !running || !n.bytes {
			if n.rewinds++; n.rewinds > maxRewinds {
				b.fail(outcome{id: id, err: b.actionError(b.g.Actions[id], fmt.Errorf("its input %s was made %d times and is not in the store; something removes it", b.g.Artifacts[in].Path, maxRewinds))})
				return
			}
			b.needBytes(p)
		}
		switch n.state {
		case Failed, Skipped:
			b.end(id, Skipped)
			return
		case Done, Cached:
		default:
			b.await(id, p)
		}
	}
	b.settle(id)
}

func (b *build) fail(o outcome) {
	if b.ctx.Err() != nil && (errors.Is(o.err, context.Cause(b.ctx)) || errors.Is(o.err, b.ctx.Err())) {
		b.set(o.id, Skipped) // it was told to stop; that is not its failure
		return
	}
	a := b.g.Actions[o.id]
	b.nodes[o.id].err = o.err
	b.end(o.id, Failed)
	b.events.Send(event.ActionFinished{ID: o.id, Owner: a.Owner, Mnemonic: a.Mnemonic, Err: o.err, Stdout: o.stdout, Stderr: o.stderr, Counts: b.snapshot()})
	if !b.KeepGoing {
		b.stop = true
		b.cancel(errStopped)
	}
}

// errStopped ends what runs after another action failed.
var errStopped = errors.New("another action failed")

func (b *build) failures() []error {
	var errs []error
	for i := range b.nodes {
		if err := b.nodes[i].err; err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

func (b *build) actionError(a *action.Action, err error) *ActionError {
	return &ActionError{Action: a, Err: err}
}
