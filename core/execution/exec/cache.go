package exec

import (
	"context"
	"time"

	"tool/core/model/digest"
	"tool/core/model/merkle"
	"tool/core/storage/store"
)

// Cache remembers the results of actions by key. Get returns nil where there
// is none, or none that can be read. Implementations are safe for concurrent
// use.
type Cache interface {
	Get(key digest.Digest) *Entry
	Put(key digest.Digest, e *Entry) error
}

// Locker is a Cache that several processes share. Between Lock and unlock no
// other holder has the same key, so nobody runs its action a second time.
type Locker interface {
	Lock(ctx context.Context, key digest.Digest) (unlock func(), err error)
}

// Entry is the result of an action that succeeded.
type Entry struct {
	Outputs  []EntryOutput // sorted by path
	Owner    string        // label
	Mnemonic string
	Took     time.Duration
	Stdout   digest.Digest // zero where it wrote nothing
	Stderr   digest.Digest
	Local    bool // stays on this machine
}

// EntryOutput is one output.
type EntryOutput struct {
	Path string
	Node merkle.Node
	Refs []store.Ref
}
