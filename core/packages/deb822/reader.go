// Package deb822 reads Debian's control format: paragraphs of "Field: value"
// lines, as in Packages, Release, .sources and control files. It streams, so
// an index of 60,000 paragraphs needs the memory of one, and everything it
// reads is bounded: indexes come from mirrors.
package deb822

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Bounds of what is read.
const (
	MaxLine      = 1 << 20 // bytes in one line
	MaxParagraph = 8 << 20 // bytes in one paragraph; a Release file is a single one
	MaxFields    = 256     // fields in one paragraph
)

// Error is a syntax error with its place.
type Error struct {
	Name string // the name given to NewReader
	Line int    // from 1
	Text string
}

func (e *Error) Error() string { return fmt.Sprintf("%s:%d: %s", e.Name, e.Line, e.Text) }

// Reader reads paragraphs one after the other.
type Reader struct {
	name string
	r    *bufio.Reader
	line int
	p    Paragraph
	err  error
}

// NewReader returns a Reader of r; name is what errors call it.
func NewReader(name string, r io.Reader) *Reader {
	return &Reader{name: name, r: bufio.NewReaderSize(r, 64<<10)}
}

// Paragraph is a list of fields. What Next returned is valid until the next
// call of Next; the strings that its methods return stay valid.
type Paragraph struct {
	Line   int // where it starts, from 1
	buf    []byte
	fields []field
}

type field struct{ name, nameEnd, value, valueEnd int }

// Next returns the next paragraph, io.EOF after the last one, or an *Error.
// After an error it returns the same error again.
func (r *Reader) Next() (*Paragraph, error) {
	if r.err != nil {
		return nil, r.err
	}
	p := &r.p
	p.buf, p.fields, p.Line = p.buf[:0], p.fields[:0], 0
	for {
		line, err := r.readLine()
		if err == io.EOF {
			r.err = io.EOF
			if len(p.fields) == 0 {
				return nil, io.EOF
			}
			return p, nil
		}
		if err == nil {
			if len(line) > 0 && line[0] == '#' {
				continue
			}
			trimmed := bytes.TrimRight(line, " \t\r")
			if len(trimmed) == 0 {
				if len(p.fields) > 0 {
					return p, nil
				}
				continue
			}
			err = r.add(trimmed)
		}
		if err != nil {
			r.err = err
			return nil, err
		}
	}
}

// readLine returns a line without its newline, valid until the next read.
func (r *Reader) readLine() ([]byte, error) {
	line, err := r.r.ReadSlice('\n')
	r.line++
	if err == bufio.ErrBufferFull {
		long := bytes.Clone(line)
		for err == bufio.ErrBufferFull && len(long) <= MaxLine {
			line, err = r.r.ReadSlice('\n')
			long = append(long, line...)
		}
		line = long
	}
	switch {
	case len(line) > MaxLine:
		return nil, r.errorf("line is longer than %d bytes", MaxLine)
	case err == io.EOF && len(line) > 0:
		return line, nil
	case err == io.EOF:
		return nil, io.EOF
	case err != nil:
		return nil, fmt.Errorf("%s:%d: %w", r.name, r.line, err)
	}
	return line[:len(line)-1], nil
}

func (r *Reader) errorf(format string, args ...any) error {
	return &Error{r.name, r.line, fmt.Sprintf(format, args...)}
}

func (r *Reader) add(line []byte) error {
	p := &r.p
	if len(p.buf)+len(line) > MaxParagraph {
		return r.errorf("paragraph is longer than %d bytes", MaxParagraph)
	}
	if line[0] == ' ' || line[0] == '\t' {
		if len(p.fields) == 0 {
			return r.errorf("continuation line without a field before it")
		}
		p.buf = append(append(p.buf, '\n'), line[1:]...)
		p.fields[len(p.fields)-1].valueEnd = len(p.buf)
		return nil
	}
	colon := bytes.IndexByte(line, ':')
	if colon <= 0 {
		return r.errorf("want \"Field: value\", got %.60q", line)
	}
	if line[0] == '-' {
		return r.errorf("field name %.60q starts with a dash", line[:colon])
	}
	for _, c := range line[:colon] {
		if c <= ' ' || c > '~' {
			return r.errorf("bad field name %.60q", line[:colon])
		}
	}
	if _, dup := p.find(line[:colon]); dup {
		return r.errorf("field %s appears twice", line[:colon])
	}
	if len(p.fields) == MaxFields {
		return r.errorf("more than %d fields", MaxFields)
	}
	if len(p.fields) == 0 {
		p.Line = r.line
	}
	f := field{name: len(p.buf)}
	p.buf = append(p.buf, line[:colon]...)
	f.nameEnd = len(p.buf)
	f.value = len(p.buf)
	p.buf = append(p.buf, bytes.TrimLeft(line[colon+1:], " \t")...)
	f.valueEnd = len(p.buf)
	p.fields = append(p.fields, f)
	return nil
}

func (p *Paragraph) find(name []byte) (field, bool) {
	for _, f := range p.fields {
		if f.nameEnd-f.name == len(name) && bytes.EqualFold(p.buf[f.name:f.nameEnd], name) {
			return f, true
		}
	}
	return field{}, false
}

// Get returns the value of a field, "" if there is none. The name's case does
// not matter. Continuation lines are separated by newlines, each without the
// one blank it started with.
func (p *Paragraph) Get(name string) string {
	for _, f := range p.fields {
		if f.nameEnd-f.name == len(name) && strings.EqualFold(string(p.buf[f.name:f.nameEnd]), name) {
			return string(p.buf[f.value:f.valueEnd])
		}
	}
	return ""
}

// Lines returns the value's non-empty lines, trimmed: the form of multi-line
// lists such as Release's SHA256.
func (p *Paragraph) Lines(name string) []string {
	var out []string
	for line := range strings.SplitSeq(p.Get(name), "\n") {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out
}

// Names returns the fields' names in the order of the file.
func (p *Paragraph) Names() []string {
	out := make([]string, len(p.fields))
	for i, f := range p.fields {
		out[i] = string(p.buf[f.name:f.nameEnd])
	}
	return out
}

// One reads a file that holds exactly one paragraph, such as a Release or a
// control file. The paragraph stays valid.
func One(name string, r io.Reader) (*Paragraph, error) {
	rd := NewReader(name, r)
	p, err := rd.Next()
	if err == io.EOF {
		return nil, &Error{name, rd.line, "no paragraph"}
	}
	if err != nil {
		return nil, err
	}
	out := *p
	rd.p = Paragraph{}
	if _, err := rd.Next(); err == nil {
		return nil, &Error{name, rd.line, "more than one paragraph"}
	} else if !errors.Is(err, io.EOF) {
		return nil, err
	}
	return &out, nil
}
