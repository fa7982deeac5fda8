package merkle

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"tool/core/model/digest"
)

// MaxEncoded bounds the encoding of one Directory in bytes: a hostile blob
// named as a directory must not fill memory.
const MaxEncoded = 64 << 20

var errTruncated = errors.New("truncated")

// Decode reads a canonical encoding. It refuses anything that Encode would not
// have written: unknown fields, unsorted or repeated names, names with
// slashes, non-minimal numbers. So one tree has one digest.
func Decode(b []byte) (*Directory, error) {
	if len(b) > MaxEncoded {
		return nil, fmt.Errorf("directory of %d bytes is larger than %d", len(b), MaxEncoded)
	}
	d := &Directory{}
	err := fields(b, func(field int, _ uint64, m []byte) (err error) {
		switch field {
		case 1:
			var f FileNode
			f, err = decodeFile(m)
			d.Files = append(d.Files, f)
		case 2:
			var s DirectoryNode
			s.Name, s.Digest, err = decodeNode(m)
			d.Directories = append(d.Directories, s)
		case 3:
			var s SymlinkNode
			err = fields(m, func(field int, _ uint64, v []byte) error {
				switch field {
				case 1:
					s.Name = string(v)
				case 2:
					s.Target = string(v)
				}
				return nil
			})
			d.Symlinks = append(d.Symlinks, s)
		case 5:
			d.Props, err = decodeProps(m)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	if err := d.Validate(); err != nil {
		return nil, fmt.Errorf("directory: %w", err)
	}
	if !bytes.Equal(d.Encode(), b) {
		return nil, errors.New("directory: not in canonical form")
	}
	return d, nil
}

func decodeFile(m []byte) (f FileNode, err error) {
	err = fields(m, func(field int, v uint64, b []byte) (err error) {
		switch field {
		case 1:
			f.Name = string(b)
		case 2:
			f.Digest, err = decodeDigest(b)
		case 4:
			f.Executable = v == 1
		case 6:
			f.Props, err = decodeProps(b)
		}
		return err
	})
	return f, err
}

func decodeNode(m []byte) (name string, d digest.Digest, err error) {
	err = fields(m, func(field int, _ uint64, b []byte) (err error) {
		switch field {
		case 1:
			name = string(b)
		case 2:
			d, err = decodeDigest(b)
		}
		return err
	})
	return name, d, err
}

func decodeDigest(m []byte) (digest.Digest, error) {
	var h string
	var size uint64
	if err := fields(m, func(field int, v uint64, b []byte) error {
		switch field {
		case 1:
			h = string(b)
		case 2:
			size = v
		}
		return nil
	}); err != nil {
		return digest.Digest{}, err
	}
	return digest.New(h, int64(size))
}

func decodeProps(m []byte) (p Props, err error) {
	err = fields(m, func(field int, _ uint64, b []byte) error {
		return fields(b, func(f int, v uint64, b []byte) error {
			switch {
			case field == 1 && f == 2:
				p.Owner = string(b)
			case field == 3 && f == 1:
				p.Mode = uint32(min(v, 1<<31))
			}
			return nil
		})
	})
	return p, err
}

// fields walks the fields of a protobuf message; v is a varint's value, b a
// length-delimited field's bytes.
func fields(m []byte, each func(field int, v uint64, b []byte) error) error {
	for len(m) > 0 {
		tag, n := binary.Uvarint(m)
		if n <= 0 || tag>>3 == 0 || tag>>3 > 64 {
			return errTruncated
		}
		m = m[n:]
		v, n := binary.Uvarint(m)
		if n <= 0 {
			return errTruncated
		}
		m = m[n:]
		var b []byte
		switch tag & 7 {
		case 0:
		case 2:
			if v > uint64(len(m)) {
				return errTruncated
			}
			b, m = m[:v], m[v:]
			v = 0
		default:
			return fmt.Errorf("wire type %d", tag&7)
		}
		if err := each(int(tag>>3), v, b); err != nil {
			return err
		}
	}
	return nil
}
