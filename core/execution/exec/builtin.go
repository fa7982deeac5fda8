package exec

import (
	"context"

	"tool/core/language/action"
	"tool/core/model/merkle"
	"tool/core/storage/cas"
	"tool/core/storage/store"
)

// Builtin is an in-process operation: CAS in, CAS out. It returns one node for
// each of the call's Outputs. Its result may depend on nothing but the call.
type Builtin func(ctx context.Context, c *BuiltinCall) ([]merkle.Node, error)

// BuiltinCall is what a builtin gets.
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
