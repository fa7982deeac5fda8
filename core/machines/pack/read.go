package pack

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"tool/core/model/digest"
	"tool/core/model/merkle"
	"tool/core/storage/cas"
	"tool/core/storage/store"
)

// maxBlob and maxRecord bound what one frame may claim, in bytes. A record of
// the largest size has 250,000 references.
const (
	maxBlob   = 64 << 30
	maxRecord = 64 << 20
)

// Received counts what a pack brought.
type Received struct {
	Blobs   int         `json:"blobs"`
	Bytes   int64       `json:"bytes"` // of the blobs
	Objects []store.Ref `json:"objects,omitempty"`
}

// Read takes a pack into s. The caller holds a lease, or a collection may take
// what arrives. Every blob is hashed before it is given its name, and every
// object's reference is computed anew, so a hostile pack can waste space and
// no more. After an error, and a stream that breaks off is one, what was
// complete stays.
func Read(ctx context.Context, r io.Reader, s *store.Store) (Received, error) {
	u := unpacker{ctx: ctx, s: s, buf: make([]byte, 128<<10)}
	err := u.run(r)
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("the stream broke off: %w", io.ErrUnexpectedEOF)
		}
		err = fmt.Errorf("read a pack: %w", err)
	}
	return u.got, err
}

type unpacker struct {
	ctx     context.Context
	s       *store.Store
	r       *bufio.Reader
	buf     []byte
	waiting []store.Object // read and not added
	size    uint64         // bytes of their records
	got     Received
}

func (u *unpacker) run(r io.Reader) error {
	z, err := zstd.NewReader(r, zstd.WithDecoderMaxWindow(2*window), zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true))
	if err != nil {
		return err
	}
	defer z.Close()
	u.r = bufio.NewReaderSize(z, 64<<10)
	head := make([]byte, len(magic))
	if _, err := io.ReadFull(u.r, head); err != nil {
		return err
	}
	if string(head) != magic {
		return fmt.Errorf("it begins with %q, not %q", head, magic)
	}
	var records uint64
	for {
		if err := u.ctx.Err(); err != nil {
			return err
		}
		kind, err := u.r.ReadByte()
		if err != nil {
			return err
		}
		if kind != kindObject {
			if err := u.add(); err != nil {
				return err
			}
		}
		switch kind {
		case kindBlob, kindExecutable:
			err = u.blob(kind == kindExecutable)
		case kindObject:
			err = u.object()
		case kindEnd:
			return u.end(records)
		default:
			err = fmt.Errorf("frame %d is of unknown kind %q", records, kind)
		}
		if err != nil {
			return err
		}
		records++
	}
}

func (u *unpacker) end(records uint64) error {
	n, err := binary.ReadUvarint(u.r)
	if err != nil {
		return err
	}
	if n != records {
		return fmt.Errorf("it says that it has %d frames and has %d", n, records)
	}
	if _, err := u.r.ReadByte(); err != io.EOF { // also reads zstd's checksum
		if err == nil {
			err = errors.New("something follows its end")
		}
		return err
	}
	return nil
}

func (u *unpacker) blob(executable bool) error {
	var d digest.Digest
	if _, err := io.ReadFull(u.r, d.Hash[:]); err != nil {
		return err
	}
	size, err := binary.ReadUvarint(u.r)
	if err != nil {
		return err
	}
	if size > maxBlob {
		return fmt.Errorf("blob %s of %d bytes is larger than %d", d.Hex(), size, int64(maxBlob))
	}
	d.Size = int64(size)
	w, err := u.s.CAS().NewWriter()
	if err != nil {
		return err
	}
	defer w.Abort()
	for left := d.Size; left > 0; {
		if err := u.ctx.Err(); err != nil {
			return err
		}
		n, err := u.r.Read(u.buf[:min(left, int64(len(u.buf)))])
		left -= int64(n)
		if _, err := w.Write(u.buf[:n]); err != nil {
			return fmt.Errorf("blob %s: %w", d, err)
		}
		if err != nil && (left > 0 || err != io.EOF) {
			return err
		}
	}
	if got := w.Digest(); got != d {
		return &cas.MismatchError{Want: d, Got: got}
	}
	if _, err := w.Commit(executable); err != nil {
		return err
	}
	u.got.Blobs++
	u.got.Bytes += d.Size
	return nil
}

func (u *unpacker) object() error {
	size, err := binary.ReadUvarint(u.r)
	if err != nil {
		return err
	}
	if size > maxRecord {
		return fmt.Errorf("an object's record of %d bytes is larger than %d", size, maxRecord)
	}
	// It grows with what arrives: a claim alone takes no memory.
	b, err := io.ReadAll(io.LimitReader(u.r, int64(size)))
	if err != nil {
		return err
	}
	if uint64(len(b)) != size {
		return io.ErrUnexpectedEOF
	}
	var rec record
	if err := json.Unmarshal(b, &rec); err != nil {
		return fmt.Errorf("an object's record: %w", err)
	}
	o := store.Object{Name: rec.Name, Refs: rec.Refs, Deriver: rec.Deriver, Node: merkle.Node{Digest: rec.Digest, Executable: rec.Executable}}
	switch rec.Kind {
	case merkle.File.String():
		o.Node.Kind = merkle.File
	case merkle.Dir.String():
		o.Node.Kind = merkle.Dir
	default:
		return fmt.Errorf("object %.80q is of unknown kind %.80q", rec.Name, rec.Kind)
	}
	u.waiting = append(u.waiting, o)
	if u.size += size; len(u.waiting) < maxWaiting && u.size < maxWaitingBytes {
		return nil
	}
	return u.add()
}

// What is read of objects before they are added.
const (
	maxWaiting      = 512
	maxWaitingBytes = 4 << 20
)

// add registers the objects that wait, in their order.
func (u *unpacker) add() error {
	if len(u.waiting) == 0 {
		return nil
	}
	prefetch(u.ctx, u.s.CAS(), u.waiting)
	refs, err := u.s.AddAll(u.ctx, u.waiting)
	u.got.Objects = append(u.got.Objects, refs...)
	u.waiting, u.size = nil, 0
	return err
}
