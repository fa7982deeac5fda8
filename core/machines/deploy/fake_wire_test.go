package deploy

import (
	"encoding/binary"
	"encoding/json"
	"io"
	"net"
	"sync"
	"time"
)

// fakeConn is one end of a connection in memory. Unlike net.Pipe's it has
// room, for both ends of SSH begin by writing.
type fakeConn struct{ in, out *fakeStream }

type fakeStream struct {
	mu     sync.Mutex
	cond   *sync.Cond
	b      []byte
	closed bool
}

func newFakeStream() *fakeStream {
	s := &fakeStream{}
	s.cond = sync.NewCond(&s.mu)
	return s
}

func newFakeConn() (a, b *fakeConn) {
	x, y := newFakeStream(), newFakeStream()
	return &fakeConn{x, y}, &fakeConn{y, x}
}

func (s *fakeStream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.cond.Broadcast()
}

func (c *fakeConn) Read(p []byte) (int, error) {
	s := c.in
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.b) == 0 {
		if s.closed {
			return 0, io.EOF
		}
		s.cond.Wait()
	}
	n := copy(p, s.b)
	s.b = s.b[n:]
	return n, nil
}

func (c *fakeConn) Write(p []byte) (int, error) {
	s := c.out
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, io.ErrClosedPipe
	}
	s.b = append(s.b, p...)
	s.cond.Broadcast()
	return len(p), nil
}

func (c *fakeConn) Close() error {
	c.in.close()
	c.out.close()
	return nil
}

func (c *fakeConn) LocalAddr() net.Addr              { return &net.TCPAddr{} }
func (c *fakeConn) RemoteAddr() net.Addr             { return &net.TCPAddr{} }
func (c *fakeConn) SetDeadline(time.Time) error      { return nil }
func (c *fakeConn) SetReadDeadline(time.Time) error  { return nil }
func (c *fakeConn) SetWriteDeadline(time.Time) error { return nil }

// tapped is the machine's end of an agent connection: it tells of each request
// before the agent sees it, and of its answer before the controller does.
type tapped struct {
	rw     io.ReadWriter
	asked  func(method string)
	answer func(method string)

	frame  []byte // of what was read and not yet passed on
	method string
}

func (t *tapped) Read(p []byte) (int, error) {
	if len(t.frame) == 0 {
		var head [5]byte
		if _, err := io.ReadFull(t.rw, head[:]); err != nil {
			return 0, err
		}
		payload := make([]byte, binary.BigEndian.Uint32(head[:])-1)
		if _, err := io.ReadFull(t.rw, payload); err != nil {
			return 0, err
		}
		if head[4] == 'j' {
			var r struct{ Method string }
			if json.Unmarshal(payload, &r) == nil {
				t.method = r.Method
				t.asked(r.Method)
			}
		}
		t.frame = append(head[:], payload...)
	}
	n := copy(p, t.frame)
	t.frame = t.frame[n:]
	return n, nil
}

func (t *tapped) Write(p []byte) (int, error) {
	if t.method != "" {
		m := t.method
		t.method = ""
		t.answer(m)
	}
	return t.rw.Write(p)
}
