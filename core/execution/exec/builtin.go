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

	Visible []store.Ref // all that an output can refer to

	// Refs is set by a builtin that knows what each output refers to; outputs
	// of the others are scanned, which costs reading all their bytes.
	Refs [][]store.Ref
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
	case "cpio@1":
		return cpio
	case "blobs@2":
		return blobs
	}
	return nil
}

func (b *build) cheap(name string) bool { return b.Builtins[name] == nil && standard(name) != nil }

func (b *build) runBuiltin(p *plan, visible []store.Ref) ([]merkle.Node, [][]store.Ref, error) {
	f := b.Builtins[p.a.Builtin]
	if f == nil {
		f = standard(p.a.Builtin)
	}
	if f == nil {
		return nil, nil, fmt.Errorf("there is no builtin %q", p.a.Builtin)
	}
	c := &BuiltinCall{
		Name: p.a.Builtin, Params: []byte(p.params), Inputs: p.inputs, CAS: b.cas, Store: b.Store, Visible: visible,
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
	if err == nil && c.Refs != nil && len(c.Refs) != len(nodes) {
		err = fmt.Errorf("builtin %s told the references of %d outputs instead of %d", c.Name, len(c.Refs), len(nodes))
	}
	return nodes, c.Refs, err
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

// input returns the input at an exec path; "" stands for the only one.
func (c *BuiltinCall) input(path string) (NamedInput, error) {
	if path == "" {
		return c.only()
	}
	for _, in := range c.Inputs {
		if in.Artifact.Path == path {
			return in, nil
		}
	}
	return NamedInput{}, fmt.Errorf("%s: %s is not among the inputs", c.Name, path)
}

// only returns the single input, for builtins that take one.
func (c *BuiltinCall) only() (NamedInput, error) {
	if len(c.Inputs) != 1 || len(c.Outputs) != 1 {
		return NamedInput{}, fmt.Errorf("%s takes one input and one output, not %d and %d", c.Name, len(c.Inputs), len(c.Outputs))
	}
	return c.Inputs[0], nil
}
