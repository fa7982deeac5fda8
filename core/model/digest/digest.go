// Package digest names content: a SHA-256 and a size, as in the Remote
// Execution API's Digest message. Identity everywhere in tool is a Digest.
package digest

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"strconv"
	"strings"
)

// Digest identifies a blob by its SHA-256 and its size in bytes. It is
// comparable and may be a map key. The zero Digest names nothing; the digest
// of no bytes is Empty.
type Digest struct {
	Hash [sha256.Size]byte
	Size int64
}

// Empty is the digest of zero bytes.
var Empty = Of(nil)

// Of returns the digest of b.
func Of(b []byte) Digest { return Digest{Hash: sha256.Sum256(b), Size: int64(len(b))} }

// IsZero reports whether d names nothing.
func (d Digest) IsZero() bool { return d == Digest{} }

// Hex returns the hash as 64 lower-case hexadecimal characters.
func (d Digest) Hex() string { return hex.EncodeToString(d.Hash[:]) }

// String returns "<hex>/<size>", the form Parse reads.
func (d Digest) String() string { return d.Hex() + "/" + strconv.FormatInt(d.Size, 10) }

// MarshalText implements encoding.TextMarshaler with String's form.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler; see Parse.
func (d *Digest) UnmarshalText(b []byte) (err error) {
	*d, err = Parse(string(b))
	return err
}

// Parse reads "<64 hex>/<size>".
func Parse(s string) (Digest, error) {
	h, n, ok := strings.Cut(s, "/")
	if !ok {
		return Digest{}, fmt.Errorf("digest %q: want <sha256>/<size>", s)
	}
	size, err := strconv.ParseInt(n, 10, 64)
	if err != nil || strconv.FormatInt(size, 10) != n { // one digest has one form: no "+1", "-0", "007"
		return Digest{}, fmt.Errorf("digest %q: bad size %q", s, n)
	}
	return New(h, size)
}

// New returns the digest with the given hexadecimal SHA-256 and size.
func New(hexHash string, size int64) (Digest, error) {
	d := Digest{Size: size}
	if len(hexHash) != 2*sha256.Size || strings.ToLower(hexHash) != hexHash {
		return Digest{}, fmt.Errorf("sha256 %q: want %d lower-case hexadecimal characters", hexHash, 2*sha256.Size)
	}
	if _, err := hex.Decode(d.Hash[:], []byte(hexHash)); err != nil {
		return Digest{}, fmt.Errorf("sha256 %q: %w", hexHash, err)
	}
	if size < 0 {
		return Digest{}, fmt.Errorf("digest %s: negative size %d", hexHash, size)
	}
	return d, nil
}

// Hasher computes a Digest from what is written to it.
type Hasher struct {
	h hash.Hash
	n int64
}

// NewHasher returns an empty Hasher.
func NewHasher() *Hasher { return &Hasher{h: sha256.New()} }

// Write never fails.
func (h *Hasher) Write(p []byte) (int, error) {
	h.n += int64(len(p))
	return h.h.Write(p)
}

// Digest returns the digest of all bytes written so far.
func (h *Hasher) Digest() Digest {
	d := Digest{Size: h.n}
	h.h.Sum(d.Hash[:0])
	return d
}

// FromReader reads r to its end and returns the digest of what it held.
func FromReader(r io.Reader) (Digest, error) {
	h := NewHasher()
	if _, err := io.Copy(h, r); err != nil {
		return Digest{}, err
	}
	return h.Digest(), nil
}
