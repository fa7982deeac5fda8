package store

import (
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"tool/core/model/merkle"
)

// Ref names an object: "<32 base32 characters>-<name>". It is the object's
// file name in the store directory and below /tool/store.
type Ref string

// HashLen is the length of a Ref's hash part in characters; MaxNameLen bounds
// an object's name in bytes, so that a Ref fits into a file name.
const (
	HashLen    = 32
	MaxNameLen = 200
)

// alphabet has no e, o, u and t, as Nix's: refs spell no words, and no run of
// hexadecimal is long without an e. Scan depends on it.
const alphabet = "0123456789abcdfghijklmnpqrsvwxyz"

// Hash returns the 32 characters by which Scan finds the object.
func (r Ref) Hash() string {
	if len(r) < HashLen {
		return ""
	}
	return string(r[:HashLen])
}

// Name returns the object's name.
func (r Ref) Name() string {
	if len(r) <= HashLen {
		return ""
	}
	return string(r[HashLen+1:])
}

// ParseRef checks that s has the form of a Ref. Such a string is safe as a file
// name.
func ParseRef(s string) (Ref, error) {
	if len(s) < HashLen+2 || s[HashLen] != '-' {
		return "", fmt.Errorf("store reference %.80q: want <%d characters>-<name>", s, HashLen)
	}
	for i := range HashLen {
		if strings.IndexByte(alphabet, s[i]) < 0 {
			return "", fmt.Errorf("store reference %.80q: %q is not in the hash alphabet", s, s[i])
		}
	}
	if err := CheckName(s[HashLen+1:]); err != nil {
		return "", fmt.Errorf("store reference %.80q: %w", s, err)
	}
	return Ref(s), nil
}

// CheckName reports why name cannot be the name of an object.
func CheckName(name string) error {
	switch {
	case name == "":
		return fmt.Errorf("an object needs a name")
	case len(name) > MaxNameLen:
		return fmt.Errorf("object name %.40q… is longer than %d bytes", name, MaxNameLen)
	case name[0] == '.':
		return fmt.Errorf("object name %q starts with a dot", name)
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && strings.IndexByte("+._-?=", c) < 0 {
			return fmt.Errorf("object name %q holds %q; letters, digits and +._-?= are allowed", name, c)
		}
	}
	return nil
}

// MakeRef computes the Ref of an object: a hash of its name, its node and what
// it refers to, and nothing else. The order of refs does not matter.
func MakeRef(name string, node merkle.Node, refs []Ref) Ref {
	refs = sortedRefs(refs)
	// Each field is preceded by its length, so no two objects share an encoding.
	b := []byte("tool-object-1\n")
	field := func(s string) {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	field(name)
	field(node.Kind.String())
	field(node.Digest.String())
	executable := ""
	if node.Executable {
		executable = "executable"
	}
	field(executable)
	field(node.Target)
	for _, r := range refs {
		field(string(r))
	}
	h := sha256.Sum256(b)
	return Ref(base32.NewEncoding(alphabet).WithPadding(base32.NoPadding).EncodeToString(h[:20]) + "-" + name)
}

func sortedRefs(refs []Ref) []Ref {
	refs = slices.Clone(refs)
	slices.Sort(refs)
	return slices.Compact(refs)
}
