package pack

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"tool/core/model/digest"
	"tool/core/model/merkle"
	"tool/core/storage/store"
)

const magic = "TOOLPACK1\n"

const (
	kindBlob       = 'b'
	kindExecutable = 'x'
	kindObject     = 'o'
	kindEnd        = 'e'
)

// window bounds what a decoder must keep in memory, in bytes: machines are small.
const window = 4 << 20

// record is an object as a pack tells it.
type record struct {
	Name       string        `json:"name"`
	Kind       string        `json:"kind"` // merkle.Kind's String
	Digest     digest.Digest `json:"digest"`
	Executable bool          `json:"executable,omitempty"`
	Refs       []store.Ref   `json:"refs,omitempty"`
	Deriver    string        `json:"deriver,omitempty"`
}

// Write writes the closure of refs as a pack, without the blobs that skip
// reports true for; skip may be nil.
func Write(ctx context.Context, w io.Writer, s *store.Store, refs []store.Ref, skip func(digest.Digest) bool) error {
	l, err := Need(ctx, s, refs, nil)
	if err != nil {
		return err
	}
	if skip != nil {
		l = l.Filter(func(d digest.Digest) bool { return !skip(d) }, nil)
	}
	return WriteList(ctx, w, s, l, nil)
}

// WriteList writes what l names as a pack. progress is told how many bytes of
// blobs have gone into it; it may be nil.
func WriteList(ctx context.Context, w io.Writer, s *store.Store, l *List, progress func(done, total int64)) error {
	if err := writeList(ctx, w, s, l, progress); err != nil {
		return fmt.Errorf("write a pack: %w", err)
	}
	return nil
}

func writeList(ctx context.Context, w io.Writer, s *store.Store, l *List, progress func(done, total int64)) error {
	z, err := zstd.NewWriter(w, zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true))
	if err != nil {
		return err
	}
	defer z.Close()
	if _, err := io.WriteString(z, magic); err != nil {
		return err
	}
	p := packer{ctx: ctx, z: z, s: s, buf: make([]byte, 128<<10), progress: progress, total: l.Bytes()}
	for _, b := range l.Blobs {
		if err := p.blob(b); err != nil {
			return err
		}
	}
	for _, r := range l.Objects {
		if err := p.object(r); err != nil {
			return err
		}
	}
	if _, err := z.Write(binary.AppendUvarint([]byte{kindEnd}, uint64(len(l.Blobs)+len(l.Objects)))); err != nil {
		return err
	}
	return z.Close()
}

type packer struct {
	ctx         context.Context
	z           *zstd.Encoder
	s           *store.Store
	buf         []byte
	progress    func(done, total int64)
	done, total int64
}

func (p *packer) blob(b Blob) error {
	if err := p.ctx.Err(); err != nil {
		return err
	}
	f, err := p.s.CAS().Open(b.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	kind := byte(kindBlob)
	if b.Executable {
		kind = kindExecutable
	}
	head := append([]byte{kind}, b.Digest.Hash[:]...)
	if _, err := p.z.Write(binary.AppendUvarint(head, uint64(b.Digest.Size))); err != nil {
		return err
	}
	n, err := p.copy(io.LimitReader(f, b.Digest.Size))
	if err == nil && n != b.Digest.Size {
		err = fmt.Errorf("it has %d bytes only", n)
	}
	if err != nil {
		return fmt.Errorf("blob %s: %w", b.Digest, err)
	}
	return nil
}

func (p *packer) copy(r io.Reader) (int64, error) {
	var sum int64
	for {
		n, err := r.Read(p.buf)
		if n > 0 {
			sum += int64(n)
			p.done += int64(n)
			if _, err := p.z.Write(p.buf[:n]); err != nil {
				return sum, err
			}
			if p.progress != nil {
				p.progress(p.done, p.total)
			}
			if err := p.ctx.Err(); err != nil {
				return sum, err
			}
		}
		if err == io.EOF {
			return sum, nil
		}
		if err != nil {
			return sum, err
		}
	}
}

func (p *packer) object(r store.Ref) error {
	o, err := p.s.Get(r)
	if err != nil {
		return err
	}
	b, err := json.Marshal(record{o.Name, o.Node.Kind.String(), o.Node.Digest, o.Node.Executable && o.Node.Kind == merkle.File, o.Refs, o.Deriver})
	if err != nil {
		return err
	}
	if _, err := p.z.Write(binary.AppendUvarint([]byte{kindObject}, uint64(len(b)))); err != nil {
		return err
	}
	_, err = p.z.Write(b)
	return err
}
