package merkle

import (
	"encoding/hex"

	"tool/core/model/digest"
)

// Encode returns the canonical REAPI Directory message of d, which must be
// sorted. Fields are written in ascending order and defaults left out, as
// protobuf's deterministic marshaller does.
func (d *Directory) Encode() []byte {
	b := make([]byte, 0, 128*(len(d.Files)+len(d.Directories)+len(d.Symlinks)))
	var n []byte // one node, reused
	for _, f := range d.Files {
		n = appendString(n[:0], 1, f.Name)
		n = appendDigest(n, 2, f.Digest)
		if f.Executable {
			n = append(n, 4<<3, 1)
		}
		n = appendProps(n, 6, f.Props)
		b = appendBytes(b, 1, n)
	}
	for _, s := range d.Directories {
		n = appendString(n[:0], 1, s.Name)
		n = appendDigest(n, 2, s.Digest)
		b = appendBytes(b, 2, n)
	}
	for _, s := range d.Symlinks {
		n = appendString(n[:0], 1, s.Name)
		n = appendString(n, 2, s.Target)
		b = appendBytes(b, 3, n)
	}
	return appendProps(b, 5, d.Props)
}

// Digest returns the digest of d's encoding.
func (d *Directory) Digest() digest.Digest { return digest.Of(d.Encode()) }

// AppendDigest appends field number field holding a REAPI Digest message. It
// is exported for the Action and Command encoders, which share its form.
func AppendDigest(b []byte, field int, d digest.Digest) []byte { return appendDigest(b, field, d) }

// AppendString appends a length-delimited field; empty strings are left out.
func AppendString(b []byte, field int, s string) []byte { return appendString(b, field, s) }

// AppendMessage appends an embedded message, also when it is empty.
func AppendMessage(b []byte, field int, m []byte) []byte { return appendBytes(b, field, m) }

// AppendVarint appends an unsigned integer field; zero is left out.
func AppendVarint(b []byte, field int, v uint64) []byte {
	if v == 0 {
		return b
	}
	return appendUvarint(append(b, byte(field<<3)), v)
}

func appendDigest(b []byte, field int, d digest.Digest) []byte {
	var m [80]byte
	n := append(m[:0], 1<<3|2, 2*byte(len(d.Hash)))
	n = hex.AppendEncode(n, d.Hash[:])
	n = AppendVarint(n, 2, uint64(d.Size))
	return appendBytes(b, field, n)
}

func appendProps(b []byte, field int, p Props) []byte {
	if p.IsZero() {
		return b
	}
	var n []byte
	if p.Owner != "" {
		n = appendBytes(n, 1, appendString(appendString(nil, 1, "owner"), 2, p.Owner))
	}
	if p.Mode != 0 {
		n = appendBytes(n, 3, AppendVarint(nil, 1, uint64(p.Mode)))
	}
	return appendBytes(b, field, n)
}

func appendString(b []byte, field int, s string) []byte {
	if s == "" {
		return b
	}
	b = append(b, byte(field<<3|2))
	b = appendUvarint(b, uint64(len(s)))
	return append(b, s...)
}

func appendBytes(b []byte, field int, p []byte) []byte {
	b = append(b, byte(field<<3|2))
	b = appendUvarint(b, uint64(len(p)))
	return append(b, p...)
}

func appendUvarint(b []byte, v uint64) []byte {
	for v >= 0x80 {
		b = append(b, byte(v)|0x80)
		v >>= 7
	}
	return append(b, byte(v))
}
