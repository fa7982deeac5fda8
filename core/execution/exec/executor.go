// Package exec is the execution phase: it turns artifacts of an action graph
// into content. An action's key is made of the digests of its realised inputs,
// so an unchanged output stops the rebuild there; a cached result needs no
// bytes at all, and bytes that are gone are made again.
package exec

import (
	"context"
	"errors"
	"fmt"
	"runtime"

	"tool/core/language/action"
	"tool/core/model/digest"
	"tool/core/model/event"
	"tool/core/model/merkle"
	"tool/core/storage/store"
)

// Executor builds artifacts. Set its fields before the first Build.
type Executor struct {
	Store    *store.Store
	Runner   Runner             // runs commands
	Cache    Cache              // action key → result
	Logs     *Logs              // what actions last wrote; nil: not kept
	Builtins map[string]Builtin // "fetch@1" → operation; those of this package are always there
	Sources  SourceDigester
	Events   event.Sink   // nil: dropped
	Lease    *store.Lease // keeps what is used from collections; nil: one for the time of a Build

	Jobs      int  // commands at a time; 0: one for each CPU
	KeepGoing bool // go on with what does not depend on a failure
	Check     bool // execute everything again and compare
	Keep      bool // leave the sandboxes of commands that fail
	Unflushed bool // leave it to the caller, who writes more, to Flush the CAS
}

// SourceDigester tells the content of workspace files. Its bytes are put into
// the CAS by Digest, unless it is a SourceImporter too. Implementations are
// safe for concurrent use.
type SourceDigester interface {
	Digest(a *action.Artifact) (merkle.Node, error)
}

// SourceImporter puts a source's bytes into the CAS; it is asked only for
// sources that something really executes with.
type SourceImporter interface {
	Import(a *action.Artifact) (merkle.Node, error)
}

// SourceChecker tells whether a source changed since Digest was asked for it.
type SourceChecker interface {
	Changed(a *action.Artifact) bool
}

// Realised is the content of an artifact.
type Realised struct {
	Node merkle.Node
	Refs []store.Ref // the objects it needs at run time: sorted, direct ones only
}

// Report is what a Build did.
type Report struct {
	Wanted   []Realised      // for each wanted artifact; Node.Kind 0 where it failed
	Total    int             // actions that were needed
	Executed int             // of these, run by this process
	Cached   int             // of these, found in the cache
	Keys     []digest.Digest // the actions' keys: roots for garbage collection
	Failures []error         // in the order of the actions' ids
}

// ErrInterrupted is the error of a Build whose context ended.
var ErrInterrupted = errors.New("the build was interrupted")

// Build realises the wanted artifacts (ids of g). When it returns without an
// error their bytes and the closures of their references are in the store. It
// fails with ErrInterrupted if ctx ended, else with Report.Failures, joined.
// The Report is there in any case.
func (e *Executor) Build(ctx context.Context, g *action.Graph, want []int) (*Report, error) {
	for _, id := range want {
		if id < 0 || id >= len(g.Artifacts) {
			return &Report{Wanted: make([]Realised, len(want))}, fmt.Errorf("action graph: there is no artifact %d", id)
		}
	}
	b, err := e.newBuild(ctx, g)
	if err != nil {
		return &Report{Wanted: make([]Realised, len(want))}, err
	}
	defer b.close()
	err = b.realise(want)
	r := b.report(want)
	if b.executed > 0 && !e.Unflushed {
		// Also after a failure: what succeeded should survive a power loss.
		err = errors.Join(err, e.Store.CAS().Flush())
	}
	return r, err
}

func (e *Executor) newBuild(ctx context.Context, g *action.Graph) (*build, error) {
	b := &build{
		Executor: e, cas: e.Store.CAS(), g: g,
		nodes:   make([]node, len(g.Actions)),
		values:  make([]Realised, len(g.Artifacts)),
		known:   make([]bool, len(g.Artifacts)),
		sources: make([]source, len(g.Artifacts)),
		byKey:   map[digest.Digest]int{},
		objects: &objects{m: map[store.Ref]*object{}, store: e.Store},
		events:  e.Events,
		jobs:    e.Jobs,
		steps:   2 * runtime.GOMAXPROCS(0),
	}
	if b.events == nil {
		b.events = event.Discard
	}
	if b.jobs <= 0 {
		b.jobs = runtime.NumCPU()
	}
	b.results = make(chan outcome, b.jobs+b.steps)
	b.outer = ctx
	b.ctx, b.cancel = context.WithCancelCause(ctx)
	b.lease = e.Lease
	if b.lease == nil {
		var err error
		if b.lease, err = e.Store.Lease(ctx); err != nil {
			return nil, fmt.Errorf("build: %w", err)
		}
		b.ownLease = true
	}
	for i, a := range g.Artifacts {
		// A pin's content is known before anybody fetched it.
		if !a.Fixed.IsZero() {
			n := merkle.Node{Kind: merkle.File, Digest: a.Fixed}
			if a.Kind == action.Tree {
				n.Kind = merkle.Dir
			}
			b.values[i], b.known[i] = Realised{Node: n}, true
		}
	}
	return b, b.depths()
}

func (b *build) close() {
	b.cancel(nil)
	if b.ownLease {
		_ = b.lease.Release() // a lease of a process that ends is void anyway
	}
}

func (b *build) report(want []int) *Report {
	r := &Report{Wanted: make([]Realised, len(want)), Failures: b.failures()}
	for i, id := range want {
		if v, ok := b.value(id); ok {
			r.Wanted[i] = v
		}
	}
	for i := range b.nodes {
		n := &b.nodes[i]
		switch n.state {
		case Unwanted:
			continue
		case Done:
			r.Executed++
		case Cached:
			r.Cached++
		}
		r.Total++
		if !n.key.IsZero() {
			r.Keys = append(r.Keys, n.key)
		}
	}
	return r
}
