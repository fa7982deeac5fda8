package workspace

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/cespare/xxhash/v2"

	"tool/core/model/digest"
)

// SourceIndex remembers the digest of each source file with the fingerprint
// that the file had, so that an unchanged file is not read again.
type SourceIndex struct {
	file  string
	mu    sync.Mutex
	known map[string]sourceEntry
	dirty bool
}

type sourceEntry struct {
	fp     Fingerprint
	digest digest.Digest
}

const sourceMagic = "tool sources 1\n"

// OpenSourceIndex reads the index of the workspace at root; damage counts as
// absence.
func OpenSourceIndex(root string) *SourceIndex {
	x := &SourceIndex{file: filepath.Join(root, StateDir, "sources"), known: map[string]sourceEntry{}}
	b, err := os.ReadFile(x.file)
	if err != nil || len(b) < len(sourceMagic)+8 || string(b[:len(sourceMagic)]) != sourceMagic {
		return x
	}
	body, sum := b[:len(b)-8], binary.BigEndian.Uint64(b[len(b)-8:])
	if xxhash.Sum64(body) != sum {
		return x
	}
	d := answerDecoder{b: body[len(sourceMagic):]}
	for len(d.b) > 0 && !d.bad {
		p := string(d.bytes())
		e := sourceEntry{fp: d.fingerprint()}
		h := d.bytes()
		if d.bad || len(h) != len(e.digest.Hash) {
			break
		}
		copy(e.digest.Hash[:], h)
		e.digest.Size = d.varint()
		if !d.bad {
			x.known[p] = e
		}
	}
	return x
}

// Lookup returns the digest of the file at rel if it is known for fp.
func (x *SourceIndex) Lookup(rel string, fp Fingerprint) (digest.Digest, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	e, ok := x.known[rel]
	return e.digest, ok && e.fp == fp
}

// Learn keeps a digest, unless the file changed too recently to trust its
// fingerprint.
func (x *SourceIndex) Learn(rel string, fp Fingerprint, d digest.Digest) {
	if fp.Racy(time.Now()) {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.known[rel] = sourceEntry{fp, d}
	x.dirty = true
}

// Save writes the index if anything was learnt.
func (x *SourceIndex) Save() error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if !x.dirty {
		return nil
	}
	b := []byte(sourceMagic)
	names := make([]string, 0, len(x.known))
	for p := range x.known {
		names = append(names, p)
	}
	slices.Sort(names)
	for _, p := range names {
		e := x.known[p]
		b = appendBytes(b, []byte(p))
		b = e.fp.append(b)
		b = appendBytes(b, e.digest.Hash[:])
		b = binary.AppendVarint(b, e.digest.Size)
	}
	b = binary.BigEndian.AppendUint64(b, xxhash.Sum64(b))
	x.dirty = false
	return WriteFileAtomic(x.file, b, 0o644)
}
