package exec

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"tool/core/language/action"
	"tool/core/model/digest"
	"tool/core/model/merkle"
	"tool/core/storage/store"
)

// step computes an action's key and looks it up. With bytes, a result whose
// outputs are not wholly in the CAS is none. It runs on its own goroutine.
func (b *build) step(id int, bytes bool) {
	o := outcome{id: id, bytes: bytes}
	defer func() { b.results <- o }()
	a := b.g.Actions[id]
	p, err := b.plan(id)
	var need *needError
	if errors.As(err, &need) {
		o.need = []int{need.artifact}
		return
	}
	if err != nil {
		o.err = b.wrap(a, err)
		return
	}
	o.key = p.key
	if !b.Check {
		if o.entry = b.cached(p.key, bytes); o.entry != nil {
			return
		}
	}
	if a.Builtin != "" && b.cheap(a.Builtin) && !b.Check {
		b.alone(p, &o) // not worth a slot
		return
	}
	o.plan = p
}

func (b *build) cached(key digest.Digest, bytes bool) *Entry {
	e := b.Cache.Get(key)
	if e == nil || !bytes {
		return e
	}
	for _, out := range e.Outputs {
		if ok, err := b.present(out.Node); err != nil || !ok {
			return nil
		}
	}
	return e
}

// execute runs an action that was not cached, in an execution slot.
func (b *build) execute(p *plan, bytes bool) {
	o := outcome{id: p.id, exec: true, key: p.key, bytes: bytes}
	defer func() { b.results <- o }()
	b.alone(p, &o)
}

// alone performs an action, or takes the result of another process that was at
// it meanwhile.
func (b *build) alone(p *plan, o *outcome) {
	if l, ok := b.Cache.(Locker); ok {
		unlock, err := l.Lock(b.ctx, p.key)
		if err != nil {
			o.err = b.wrap(p.a, err)
			return
		}
		defer unlock()
		if !b.Check {
			if o.entry = b.cached(p.key, o.bytes); o.entry != nil {
				return
			}
		}
	}
	if b.Check {
		b.check(p, o)
		return
	}
	b.perform(p, o)
}

// perform runs an action and records its result.
func (b *build) perform(p *plan, o *outcome) {
	gone, err := b.gather(p)
	if err != nil {
		o.err = b.wrap(p.a, err)
		return
	}
	if len(gone) > 0 {
		o.need = gone
		return
	}
	start := time.Now()
	e, err := b.run(p, o)
	if err != nil {
		if b.vanished(err) {
			// Something was deleted under our hands; now its producer is found.
			if gone, err2 := b.gather(p); err2 == nil && len(gone) > 0 {
				o.need = gone
				return
			}
		}
		o.err = b.wrap(p.a, err)
		b.log(p, o, start)
		return
	}
	if err := b.unchanged(p); err != nil {
		o.err = b.wrap(p.a, err)
		return
	}
	e.Took = time.Since(start)
	b.log(p, o, start)
	if err := b.Cache.Put(p.key, e); err != nil {
		o.err = b.wrap(p.a, fmt.Errorf("keep its result: %w", err))
		return
	}
	o.entry, o.ran = e, true
}

// gather makes sure that the bytes of all inputs are there. It returns the
// artifacts whose are not.
func (b *build) gather(p *plan) (gone []int, err error) {
	check := func(id int, n merkle.Node) error {
		if ok, err := b.present(n); err != nil || ok {
			return err
		}
		if b.g.Artifacts[id].Producer >= 0 {
			gone = append(gone, id)
			return nil
		}
		if err := b.importSource(id); err != nil {
			return err
		}
		if ok, err := b.present(n); err != nil {
			return err
		} else if !ok {
			return fmt.Errorf("the bytes of the source %s are not in the store", b.g.Artifacts[id].Path)
		}
		return nil
	}
	for _, in := range p.inputs {
		if err := check(in.Artifact.ID, in.Node); err != nil {
			return nil, err
		}
	}
	if !p.root.IsZero() {
		if err := check(p.a.Root, merkle.Node{Kind: merkle.Dir, Digest: p.root}); err != nil {
			return nil, err
		}
	}
	more, err := b.addObjects(p.objects)
	return append(gone, more...), err
}

// run executes the command or builtin and returns its result.
func (b *build) run(p *plan, o *outcome) (*Entry, error) {
	candidates := make([]store.Ref, len(p.objects))
	for i, ob := range p.objects {
		candidates[i] = ob.ref
	}
	var nodes []merkle.Node
	var refs [][]store.Ref // nil: not known before a scan
	var err error
	if p.a.Builtin != "" {
		nodes, refs, err = b.runBuiltin(p, candidates)
	} else {
		nodes, err = b.runCommand(p, o)
	}
	if err != nil {
		return nil, err
	}
	e := &Entry{Owner: p.a.Owner, Mnemonic: p.a.Mnemonic, Local: p.a.Local}
	for i, id := range p.a.Outputs {
		art := b.g.Artifacts[id]
		if err := fits(art, nodes[i]); err != nil {
			return nil, err
		}
		out := EntryOutput{Path: art.Path, Node: nodes[i]}
		if refs != nil {
			out.Refs = refs[i]
		} else if len(candidates) > 0 {
			if out.Refs, err = b.Store.Scan(b.ctx, nodes[i], candidates); err != nil {
				return nil, fmt.Errorf("output %s: %w", art.Path, err)
			}
		}
		e.Outputs = append(e.Outputs, out)
	}
	slices.SortFunc(e.Outputs, func(x, y EntryOutput) int { return strings.Compare(x.Path, y.Path) })
	for _, l := range []struct {
		b  []byte
		to *digest.Digest
	}{{o.stdout, &e.Stdout}, {o.stderr, &e.Stderr}} {
		if len(l.b) > 0 {
			if *l.to, err = b.cas.PutBytes(l.b); err != nil {
				return nil, err
			}
		}
	}
	for _, out := range e.Outputs {
		if out.Node.Kind != merkle.Symlink {
			if err := b.lease.Adopt(out.Node.Digest); err != nil {
				return nil, err
			}
		}
		if out.Node.Kind == merkle.File {
			b.complete.Store(out.Node.Digest, true) // it was put a moment ago
		}
	}
	return e, nil
}

// fits reports why a node cannot be the content of an artifact.
func fits(a *action.Artifact, n merkle.Node) error {
	ok := n.Kind == merkle.File || n.Kind == merkle.Symlink
	if a.Kind == action.Tree {
		ok = n.Kind == merkle.Dir
	}
	if !ok {
		return fmt.Errorf("output %s is a %s, not a %s", a.Path, n.Kind, a.Kind)
	}
	if !a.Fixed.IsZero() && n.Digest != a.Fixed {
		return fmt.Errorf("output %s has the digest %s, but it is pinned to %s", a.Path, n.Digest, a.Fixed)
	}
	return nil
}

func (b *build) runCommand(p *plan, o *outcome) ([]merkle.Node, error) {
	if b.Runner == nil {
		return nil, errors.New("this executor runs no commands")
	}
	s := &Spawn{
		Name: p.a.Owner + " " + p.a.Mnemonic, Argv: p.command.argv, Env: p.command.env, Root: p.root,
		Timeout: p.a.Timeout, Tmpfs: p.a.Tmpfs, Keep: b.Keep,
	}
	for _, in := range p.inputs {
		s.Inputs = append(s.Inputs, Input{in.Artifact.Path, in.Node})
	}
	for _, f := range p.spilled {
		if _, err := b.cas.PutBytes(f.content); err != nil {
			return nil, err
		}
		s.Inputs = append(s.Inputs, Input{f.path, merkle.Node{Kind: merkle.File, Digest: f.digest}})
	}
	slices.SortFunc(s.Inputs, func(x, y Input) int { return strings.Compare(x.Path, y.Path) })
	for _, ob := range p.objects {
		s.Objects = append(s.Objects, Object{string(ob.ref), ob.node})
	}
	for _, id := range p.a.Outputs {
		art := b.g.Artifacts[id]
		s.Outputs = append(s.Outputs, Output{art.Path, art.Kind == action.Tree})
	}
	r, err := b.Runner.Run(b.ctx, s)
	if err != nil {
		return nil, err
	}
	o.stdout, o.stderr = r.Stdout, r.Stderr
	e := &ActionError{
		Action: p.a, Argv: s.Argv, ExitCode: r.ExitCode, TimedOut: r.TimedOut, Timeout: p.a.Timeout,
		Stdout: r.Stdout, Stderr: r.Stderr, Problems: r.Problems, Kept: r.Kept,
	}
	if r.ExitCode != 0 || r.TimedOut {
		return nil, e
	}
	nodes := make([]merkle.Node, len(s.Outputs))
	for i, out := range s.Outputs {
		if r.Outputs[i] == nil {
			if !slices.ContainsFunc(r.Problems, func(p string) bool {
				return strings.HasPrefix(p, "output "+out.Path+" ") || strings.HasPrefix(p, "output "+out.Path+":")
			}) {
				e.Missing = append(e.Missing, out.Path)
			}
			continue
		}
		nodes[i] = *r.Outputs[i]
	}
	if len(e.Missing)+len(e.Problems) > 0 {
		return nil, e
	}
	return nodes, nil
}

// unchanged fails if a source was edited while the action used it: then nobody
// knows what its result was made of.
func (b *build) unchanged(p *plan) error {
	c, ok := b.Sources.(SourceChecker)
	if !ok {
		return nil
	}
	for _, in := range p.inputs {
		if in.Artifact.Producer < 0 && in.Artifact.Fixed.IsZero() && c.Changed(in.Artifact) {
			return &SourceChangedError{in.Artifact.Path}
		}
	}
	return nil
}

// wrap makes err an *ActionError of a, unless it says itself what action it is
// about, or is an interruption.
func (b *build) wrap(a *action.Action, err error) error {
	var e *ActionError
	var differs *NotReproducibleError // names the action itself
	if errors.As(err, &e) || errors.As(err, &differs) || b.ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(b.ctx))) {
		return err
	}
	return b.actionError(a, err)
}

func (b *build) log(p *plan, o *outcome, start time.Time) {
	if b.Logs == nil {
		return
	}
	l := Log{Owner: p.a.Owner, Mnemonic: p.a.Mnemonic, Position: p.a.Position, At: start, Took: time.Since(start), Stdout: o.stdout, Stderr: o.stderr}
	if len(p.a.Outputs) > 0 {
		l.Output = b.g.Artifacts[p.a.Outputs[0]].Path
	}
	if p.a.Builtin == "" {
		l.Argv = p.command.argv
	}
	var e *ActionError
	switch {
	case errors.As(o.err, &e): // without what the log has anyway
		said := *e
		said.Stdout, said.Stderr = nil, nil
		l.Error = said.Error()
	case o.err != nil:
		l.Error = o.err.Error()
	}
	// A log that cannot be written must not fail a build that succeeded.
	_ = b.Logs.put(&l, p.a.Builtin != "" && o.err == nil)
}
