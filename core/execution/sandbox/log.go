package sandbox

import (
	"fmt"

	"golang.org/x/sys/unix"

	"tool/core/execution/exec"
)

// log keeps the head and the tail of a stream in bounded memory, however much
// is written: a command that prints for an hour can fill neither memory nor disk.
type log struct {
	head []byte
	ring []byte // the tail, once head is full; wraps at next
	next int
	cut  int64 // bytes that fell out of ring
}

const (
	logHead = exec.MaxLog / 2
	logTail = exec.MaxLog/2 - 128 // leaves room for the line between them
)

// Write never fails.
func (l *log) Write(p []byte) (int, error) {
	n := len(p)
	if room := logHead - len(l.head); room > 0 {
		k := min(room, len(p))
		l.head = append(l.head, p[:k]...)
		p = p[k:]
	}
	for len(p) > 0 {
		if room := logTail - len(l.ring); room > 0 {
			k := min(room, len(p))
			l.ring = append(l.ring, p[:k]...)
			p = p[k:]
			continue
		}
		k := copy(l.ring[l.next:], p)
		l.next = (l.next + k) % logTail
		l.cut += int64(k)
		p = p[k:]
	}
	return n, nil
}

// Bytes returns what was kept, at most exec.MaxLog bytes.
func (l *log) Bytes() []byte {
	if len(l.ring) == 0 {
		return l.head
	}
	b := make([]byte, 0, len(l.head)+len(l.ring)+128)
	b = append(b, l.head...)
	if l.cut > 0 {
		b = fmt.Appendf(b, "\n... %d bytes left out ...\n", l.cut)
	}
	b = append(b, l.ring[l.next:]...)
	return append(b, l.ring[:l.next]...)
}

// stream is a pipe to which a command writes, and what was read of it. The
// descriptors are plain ones: the worker's single thread polls them itself.
type stream struct {
	log  log
	r, w int // -1: closed
}

func (s *stream) open() error {
	var p [2]int
	s.r, s.w = -1, -1
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return fmt.Errorf("pipe: %w", err)
	}
	s.r, s.w = p[0], p[1]
	return nil
}

func (s *stream) closeWriter() {
	if s.w > 0 {
		unix.Close(s.w)
		s.w = -1
	}
}

func (s *stream) close() {
	s.closeWriter()
	if s.r > 0 {
		unix.Close(s.r)
		s.r = -1
	}
}

// read takes in what is there, waiting for some, and reports whether there may
// be more.
func (s *stream) read(buf []byte) bool {
	if s.r < 0 {
		return false
	}
	n, err := unix.Read(s.r, buf)
	if err == unix.EINTR {
		return true
	}
	if n <= 0 {
		unix.Close(s.r)
		s.r = -1
		return false
	}
	_, _ = s.log.Write(buf[:n])
	return true
}
