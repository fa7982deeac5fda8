package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"tool/core/model/digest"
)

// attempt continues p from u and checks the whole. Errors: *contentError,
// *statusError, *localError, or what went wrong on the way.
func (f *Fetcher) attempt(ctx context.Context, p *partial, r Request, u string, validator *string) error {
	if p.size >= r.Digest.Size && p.size > 0 { // complete before, but not handed over
		if err := p.check(r.Digest); err == nil {
			return nil
		}
		if err := p.truncate(); err != nil {
			return &localError{err}
		}
	}
	var body io.ReadCloser
	var timer *time.Timer
	if file, ok := localPath(u); ok {
		in, err := os.Open(file)
		if err != nil {
			return err
		}
		if err := p.truncate(); err != nil {
			in.Close()
			return &localError{err}
		}
		body = in
	} else {
		var cancel context.CancelCauseFunc
		ctx, cancel = context.WithCancelCause(ctx)
		defer cancel(nil)
		timer = time.AfterFunc(f.stall(), func() { cancel(errStalled) })
		defer timer.Stop()
		var err error
		if body, err = f.request(ctx, p, u, validator); err != nil {
			return cause(ctx, err)
		}
	}
	defer body.Close()
	return cause(ctx, f.receive(p, r, u, body, timer))
}

// receive appends body to p and checks what p holds then.
func (f *Fetcher) receive(p *partial, r Request, u string, body io.Reader, timer *time.Timer) error {
	h, err := p.hash()
	if err != nil {
		return &localError{err}
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := body.Read(buf)
		if n > 0 {
			if timer != nil {
				timer.Reset(f.stall())
			}
			if p.size+int64(n) > r.Digest.Size {
				return &contentError{want: r.Digest, more: true}
			}
			h.Write(buf[:n])
			if _, err := p.file.Write(buf[:n]); err != nil {
				return &localError{fmt.Errorf("partial download: %w", err)}
			}
			p.size += int64(n)
			if f.Progress != nil {
				f.Progress(Progress{r, redacted(u), p.size})
			}
		}
		if err == nil {
			continue
		}
		switch d := h.Digest(); {
		case d == r.Digest:
			return nil
		case err != io.EOF:
			return err
		case timer == nil || p.size == r.Digest.Size: // a local file does not break off
			return &contentError{want: r.Digest, got: d}
		}
		return fmt.Errorf("%w after %d of %d bytes", errShort, p.size, r.Digest.Size)
	}
}

func (p *partial) check(want digest.Digest) error {
	h, err := p.hash()
	if err != nil {
		return err
	}
	if d := h.Digest(); d != want {
		return &contentError{want: want, got: d}
	}
	return nil
}

func (f *Fetcher) request(ctx context.Context, p *partial, u string, validator *string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, err
	}
	// The digest is of the bytes as they are stored, so no transfer encoding
	// may be undone on the way.
	req.Header.Set("Accept-Encoding", "identity")
	from := p.size
	if from > 0 {
		req.Header.Set("Range", fmt.Sprintf("bytes=%d-", from))
		if *validator != "" { // a validator of this very URL; the digest checks the rest
			req.Header.Set("If-Range", *validator)
		}
	}
	resp, err := f.client().Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // the URL is named by the caller
		}
		return nil, err
	}
	fail := func(err error) (io.ReadCloser, error) {
		resp.Body.Close()
		return nil, err
	}
	switch resp.StatusCode {
	case http.StatusPartialContent:
		if !strings.HasPrefix(resp.Header.Get("Content-Range"), fmt.Sprintf("bytes %d-", from)) || from == 0 {
			if err := p.truncate(); err != nil {
				return fail(&localError{err})
			}
			return fail(errRange)
		}
	case http.StatusOK: // the server ignores ranges, or the file is another one
		if err := p.truncate(); err != nil {
			return fail(&localError{err})
		}
	default:
		if resp.StatusCode == http.StatusRequestedRangeNotSatisfiable {
			if err := p.truncate(); err != nil {
				return fail(&localError{err})
			}
		}
		return fail(&statusError{resp.StatusCode, resp.Status})
	}
	*validator = resp.Header.Get("ETag")
	if *validator == "" || strings.HasPrefix(*validator, "W/") { // weak ones must not be used
		*validator = resp.Header.Get("Last-Modified")
	}
	return resp.Body, nil
}

// client returns the configured client with a bound on redirects of our own,
// so that a loop can be told from a broken connection.
func (f *Fetcher) client() *http.Client {
	c := http.DefaultClient
	if f.Client != nil {
		c = f.Client
	}
	own := *c
	own.CheckRedirect = func(req *http.Request, via []*http.Request) error {
		if len(via) >= 10 {
			return errRedirects
		}
		if c.CheckRedirect != nil {
			return c.CheckRedirect(req, via)
		}
		return nil
	}
	return &own
}

func (f *Fetcher) stall() time.Duration {
	if f.Stall > 0 {
		return f.Stall
	}
	return DefaultStall
}

// cause replaces the transport's "context canceled" by what cancelled it.
func cause(ctx context.Context, err error) error {
	var local *localError
	if c := context.Cause(ctx); err != nil && c != nil && !errors.As(err, &local) {
		return c
	}
	return err
}

// localPath returns the file that a file: URL or an absolute path names.
func localPath(u string) (string, bool) {
	if filepath.IsAbs(u) {
		return u, true
	}
	p, err := url.Parse(u)
	if err != nil || p.Scheme != "file" || (p.Host != "" && p.Host != "localhost") {
		return "", false
	}
	return p.Path, true
}
