package exec

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"

	"tool/core/language/action"
	"tool/core/model/event"
	"tool/core/model/merkle"
	"tool/core/storage/cas"
	"tool/core/storage/store"
)

// Builtin is an in-process operation: CAS in, CAS out. It returns one node for
// each of the call's Outputs. Its result may depend on nothing but the call.
type Builtin func(ctx context.Context, c *BuiltinCall) ([]merkle.Node, error)

// BuiltinCall is what a builtin gets. The bytes of all inputs are in the CAS.
type BuiltinCall struct {
	Name     string // "merge@1"
	Params   []byte // JSON, placeholders substituted
	Inputs   []NamedInput
	Outputs  []*action.Artifact
	CAS      *cas.Store
	Store    *store.Store
	Progress func(done, total int64) // bytes; never nil
}

// NamedInput is an input artifact and its content.
type NamedInput struct {
	Artifact *action.Artifact
	Node     merkle.Node
	Refs     []store.Ref
}

// standard returns a builtin of this package. They are quick, so they run
// where their key was computed. A golden test forces a new version when what
// one makes changes.
func standard(name string) Builtin {
	switch name {
	case "write@1":
		return write
	case "symlink@1":
		return symlink
	case "template@1":
		return template
	case "merge@1":
		return merge
	case "copy@1":
		return copyPart
	}
	return nil
}

func (b *build) cheap(name string) bool { return b.Builtins[name] == nil && standard(name) != nil }

func (b *build) runBuiltin(p *plan) ([]merkle.Node, error) {
	f := b.Builtins[p.a.Builtin]
	if f == nil {
		f = standard(p.a.Builtin)
	}
	if f == nil {
		return nil, fmt.Errorf("there is no builtin %q", p.a.Builtin)
	}
	c := &BuiltinCall{
		Name: p.a.Builtin, Params: []byte(p.params), Inputs: p.inputs, CAS: b.cas, Store: b.Store,
		Progress: func(done, total int64) {
			b.events.Send(event.ActionProgress{ID: p.id, Done: done, Total: total})
		},
	}
	for _, out := range p.a.Outputs {
		c.Outputs = append(c.Outputs, b.g.Artifacts[out])
	}
	nodes, err := f(b.ctx, c)
	if err == nil && len(nodes) != len(c.Outputs) {
		err = fmt.Errorf("builtin %s made %d outputs instead of %d", c.Name, len(nodes), len(c.Outputs))
	}
	return nodes, err
}

// decode reads the parameters into v; an unknown one is an error.
func (c *BuiltinCall) decode(v any) error {
	d := json.NewDecoder(bytes.NewReader(c.Params))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return fmt.Errorf("parameters of %s: %w", c.Name, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("parameters of %s: more than one value", c.Name)
	}
	return nil
}

// only returns the single input, for builtins that take one.
func (c *BuiltinCall) only() (NamedInput, error) {
	if len(c.Inputs) != 1 || len(c.Outputs) != 1 {
		return NamedInput{}, fmt.Errorf("%s takes one input and one output, not %d and %d", c.Name, len(c.Inputs), len(c.Outputs))
	}
	return c.Inputs[0], nil
}
