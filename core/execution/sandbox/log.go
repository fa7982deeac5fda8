package sandbox

import (
	"fmt"
	"io"

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

// readAll drains r into l and tells done.
func (l *log) readAll(r io.ReadCloser, done chan<- struct{}) {
	buf := make([]byte, 16<<10)
	for {
		n, err := r.Read(buf)
		_, _ = l.Write(buf[:n])
		if err != nil {
			break
		}
	}
	r.Close()
	done <- struct{}{}
}
