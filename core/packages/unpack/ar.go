package unpack

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// arReader reads the common ar format as deb(5) restricts it: no long names,
// no symbol tables. Anything else is refused.
type arReader struct {
	r    io.Reader
	body io.LimitedReader // what is left of the current member
	pad  bool
}

const (
	arMagic  = "!<arch>\n"
	arHeader = 60
)

func newArReader(r io.Reader) (*arReader, error) {
	var magic [len(arMagic)]byte
	if _, err := io.ReadFull(r, magic[:]); err != nil {
		return nil, fmt.Errorf("ar: %w", unexpected(err))
	}
	if string(magic[:]) != arMagic {
		return nil, errors.New("ar: not an ar archive")
	}
	return &arReader{r: r, body: io.LimitedReader{R: r}}, nil
}

// next skips to the next member; io.EOF after the last one. The returned
// reader gives io.ErrUnexpectedEOF if the archive ends inside the member.
func (a *arReader) next() (name string, size int64, r io.Reader, err error) {
	if _, err := io.Copy(io.Discard, &a.body); err != nil {
		return "", 0, nil, fmt.Errorf("ar: %w", err)
	}
	if a.body.N > 0 {
		return "", 0, nil, fmt.Errorf("ar: %w", io.ErrUnexpectedEOF)
	}
	if a.pad {
		var b [1]byte
		if _, err := io.ReadFull(a.r, b[:]); err != nil && err != io.EOF {
			return "", 0, nil, fmt.Errorf("ar: %w", err)
		} else if err == io.EOF { // dpkg accepts a missing last padding byte
			return "", 0, nil, io.EOF
		}
		if b[0] != '\n' {
			return "", 0, nil, errors.New("ar: bad padding between members")
		}
	}
	var h [arHeader]byte
	if _, err := io.ReadFull(a.r, h[:]); err == io.EOF {
		return "", 0, nil, io.EOF
	} else if err != nil {
		return "", 0, nil, fmt.Errorf("ar: member header: %w", unexpected(err))
	}
	if h[58] != '`' || h[59] != '\n' {
		return "", 0, nil, errors.New("ar: bad member header")
	}
	name = strings.TrimSuffix(strings.TrimRight(string(h[:16]), " "), "/")
	for _, c := range []byte(name) {
		if c <= ' ' || c > '~' || c == '/' {
			name = ""
		}
	}
	if name == "" {
		return "", 0, nil, fmt.Errorf("ar: bad member name %q", h[:16])
	}
	digits := strings.TrimRight(string(h[48:58]), " ")
	size, err = strconv.ParseInt(digits, 10, 64)
	if err != nil || size < 0 || digits[0] == '+' {
		return "", 0, nil, fmt.Errorf("ar: member %s: bad size %q", name, digits)
	}
	a.body.N, a.pad = size, size%2 == 1
	return name, size, &strictReader{&a.body}, nil
}

// strictReader turns an early end into io.ErrUnexpectedEOF.
type strictReader struct{ l *io.LimitedReader }

func (s *strictReader) Read(p []byte) (int, error) {
	n, err := s.l.Read(p)
	if err == io.EOF && s.l.N > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
