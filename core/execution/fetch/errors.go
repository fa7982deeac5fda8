package fetch

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"

	"tool/core/model/digest"
)

// statusError is an answer other than success.
type statusError struct {
	code   int
	status string
}

func (e *statusError) Error() string { return e.status }

func (e *statusError) gone() bool {
	return e.code == http.StatusNotFound || e.code == http.StatusGone
}

// contentError is a mirror's wrong content.
type contentError struct {
	want, got digest.Digest
	more      bool // cut off: got is not known
}

func (e *contentError) Error() string {
	if e.more {
		return fmt.Sprintf("it sends more than the %d bytes that are pinned (sha256 %s)", e.want.Size, e.want.Hex())
	}
	return fmt.Sprintf("it sent sha256 %s (%d bytes), pinned is sha256 %s (%d bytes)", e.got.Hex(), e.got.Size, e.want.Hex(), e.want.Size)
}

// localError is a failure of this machine, for which no mirror is to blame.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

var (
	errStalled   = errors.New("it fell silent")
	errRedirects = errors.New("it redirects without end")
	errShort     = errors.New("it broke off")
	errRange     = errors.New("it sent another part of the file than was asked for")
)

// again reports whether the same mirror might do better the next time.
func again(err error) bool {
	var st *statusError
	var local *localError
	switch {
	case errors.As(err, &st):
		return st.code >= 500 || st.code == http.StatusTooManyRequests || st.code == http.StatusRequestTimeout ||
			st.code == http.StatusRequestedRangeNotSatisfiable
	case errors.As(err, &local), errors.Is(err, errStalled), errors.Is(err, errRedirects), errors.Is(err, os.ErrNotExist):
		return false
	}
	return true
}

// redacted is a URL as errors show it: without a password.
func redacted(u string) string {
	if p, err := url.Parse(u); err == nil {
		return p.Redacted()
	}
	return u
}
