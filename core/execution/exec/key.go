package exec

import (
	"slices"
	"strings"
	"time"

	"tool/core/model/digest"
	"tool/core/model/merkle"
)

// sandboxVersion is part of every key: results made under other rules of the
// sandbox are other results.
const sandboxVersion = "1"

// command holds what the REAPI Command message says.
type command struct {
	argv    []string
	env     []string // KEY=VALUE
	outputs []string // paths
	trees   []string // those of outputs that are directories
	pins    []string // "PATH DIGEST" of outputs whose content is known beforehand
	tmpfs   bool
}

// encode returns the Command message. Lists whose order means nothing are
// sorted, as the protocol asks.
func (c *command) encode() []byte {
	var b []byte
	for _, a := range c.argv {
		b = merkle.AppendMessage(b, 1, []byte(a)) // also when empty
	}
	for _, kv := range slices.Sorted(slices.Values(c.env)) {
		k, v, _ := strings.Cut(kv, "=")
		b = merkle.AppendMessage(b, 2, merkle.AppendString(merkle.AppendString(nil, 1, k), 2, v))
	}
	var p []byte
	property := func(name, value string) {
		p = merkle.AppendMessage(p, 1, merkle.AppendString(merkle.AppendString(nil, 1, name), 2, value))
	}
	property("OSFamily", "linux")
	// The sandbox makes a directory output before the command runs, so it
	// matters which ones are.
	for _, t := range slices.Sorted(slices.Values(c.trees)) {
		property("output-directory", t)
	}
	// The same address with another pin is another action: what was there before
	// is not what is wanted now.
	for _, p := range slices.Sorted(slices.Values(c.pins)) {
		property("pin", p)
	}
	property("sandbox", sandboxVersion)
	if c.tmpfs {
		property("tmp", "memory")
	}
	b = merkle.AppendMessage(b, 5, p)
	b = merkle.AppendString(b, 6, "build")
	for _, o := range slices.Sorted(slices.Values(c.outputs)) {
		b = merkle.AppendMessage(b, 7, []byte(o))
	}
	return b
}

// actionKey returns the digest of the REAPI Action message.
func actionKey(cmd, root digest.Digest, timeout time.Duration) digest.Digest {
	b := merkle.AppendDigest(nil, 1, cmd)
	b = merkle.AppendDigest(b, 2, root)
	if timeout > 0 {
		d := merkle.AppendVarint(nil, 1, uint64(timeout/time.Second))
		b = merkle.AppendMessage(b, 6, merkle.AppendVarint(d, 2, uint64(timeout%time.Second)))
	}
	return digest.Of(b)
}

// hashOnly computes trees without keeping them: a key needs no more.
type hashOnly struct{}

// PutDirectory implements merkle.Putter.
func (hashOnly) PutDirectory(d *merkle.Directory) (digest.Digest, error) {
	return d.Digest(), nil
}
