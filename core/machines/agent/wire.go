// Package agent is the protocol between a controller and a machine's agent: one
// stream in each direction, which SSH carries. Requests are answered in order,
// one at a time, and each may be made again after a lost connection.
//
// The agent speaks first:
//
//	TOOLAGENT1\n
//	a frame with its Hello
//
// A frame is 4 bytes of length, big-endian, of what follows: a byte of kind and
// the payload. Kind j is JSON: a request {"method", "params"} or an answer
// {"result"} or {"error": {"code", "message"}}. Kind d is a piece of a stream
// that follows the request "receive" or "agent", and z its end.
package agent

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
)

// Protocol is the version that Hello tells.
const Protocol = 1

const magic = "TOOLAGENT1\n"

const (
	kindJSON = 'j'
	kindData = 'd'
	kindEnd  = 'z'
)

// maxRequest and maxAnswer bound frames, in bytes: neither end trusts the other
// with its memory. A request with a million blobs has 50 MB.
const (
	maxRequest = 256 << 20
	maxAnswer  = 64 << 20
	pieceSize  = 128 << 10
)

type wire struct {
	r   *bufio.Reader
	w   *bufio.Writer
	max int // of a frame read
}

func newWire(rw io.ReadWriter, max int) *wire {
	return &wire{bufio.NewReaderSize(rw, 64<<10), bufio.NewWriterSize(rw, 64<<10), max}
}

// write sends a frame. The caller flushes.
func (c *wire) write(kind byte, payload []byte) error {
	var head [5]byte
	binary.BigEndian.PutUint32(head[:], uint32(len(payload)+1))
	head[4] = kind
	if _, err := c.w.Write(head[:]); err != nil {
		return err
	}
	_, err := c.w.Write(payload)
	return err
}

func (c *wire) writeJSON(v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if err := c.write(kindJSON, b); err != nil {
		return err
	}
	return c.w.Flush()
}

// read returns a frame. Memory grows with what arrives, not with what a length
// claims.
func (c *wire) read() (kind byte, payload []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || int64(n) > int64(c.max) {
		return 0, nil, fmt.Errorf("a frame of %d bytes; at most %d are allowed", n, c.max)
	}
	payload, err = readExactly(c.r, int(n)-1)
	return head[4], payload, err
}

func readExactly(r io.Reader, n int) ([]byte, error) {
	if n <= 1<<20 {
		b := make([]byte, n)
		_, err := io.ReadFull(r, b)
		return b, unexpected(err)
	}
	b, err := io.ReadAll(io.LimitReader(r, int64(n)))
	if err == nil && len(b) < n {
		err = io.ErrUnexpectedEOF
	}
	return b, err
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

func (c *wire) readJSON(v any) error {
	kind, b, err := c.read()
	if err != nil {
		return err
	}
	if kind != kindJSON {
		return fmt.Errorf("a frame of kind %q where JSON was due", kind)
	}
	return json.Unmarshal(b, v)
}

// pieces is the stream that follows a request, as a reader. It is to be read or
// drained to its end before the next frame.
type pieces struct {
	c    *wire
	rest []byte
	done bool
	err  error
}

func (p *pieces) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		if p.err != nil {
			return 0, p.err
		}
		if p.done {
			return 0, io.EOF
		}
		kind, payload, err := p.c.read()
		switch {
		case err != nil:
			p.err = unexpected(err)
		case kind == kindData:
			p.rest = payload
		case kind == kindEnd:
			p.done = true
		default:
			p.err = fmt.Errorf("a frame of kind %q in a stream", kind)
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// drain reads what is left, so that the next frame is a request.
func (p *pieces) drain() error {
	_, err := io.Copy(io.Discard, p)
	return err
}

// pieceWriter sends what is written to it in pieces.
type pieceWriter struct {
	c     *wire
	bytes int64
}

func (w *pieceWriter) Write(b []byte) (int, error) {
	sent := 0
	for len(b) > 0 {
		n := min(len(b), pieceSize)
		if err := w.c.write(kindData, b[:n]); err != nil {
			return sent, err
		}
		b = b[n:]
		sent += n
		w.bytes += int64(n)
	}
	return sent, nil
}
