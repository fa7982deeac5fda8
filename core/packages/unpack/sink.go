package unpack

import (
	"io"

	"tool/core/model/digest"
	"tool/core/model/merkle"
)

// Writer takes one file's bytes. Exactly one of Commit and Abort ends it.
type Writer interface {
	io.Writer
	// Commit keeps the bytes and returns their digest.
	Commit(executable bool) (digest.Digest, error)
	// Abort forgets them.
	Abort()
}

// Sink is where unpacked files and directories go: a content-addressed store.
// It must be safe for use by one goroutine per archive.
type Sink interface {
	merkle.Putter
	NewWriter() (Writer, error)
	// PutBytes keeps a small file that is not executable.
	PutBytes([]byte) (digest.Digest, error)
}

// Store is a Sink whose writers have a concrete type, as cas.Store has.
type Store[W Writer] interface {
	merkle.Putter
	NewWriter() (W, error)
	PutBytes([]byte) (digest.Digest, error)
}

// To makes a Sink of a store: unpack.To(store).
func To[W Writer](s Store[W]) Sink { return storeSink[W]{s} }

type storeSink[W Writer] struct{ Store[W] }

func (s storeSink[W]) NewWriter() (Writer, error) {
	w, err := s.Store.NewWriter()
	if err != nil { // not (w, err): a nil *W in an interface is not nil
		return nil, err
	}
	return w, nil
}
