package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"tool/core/model/digest"
)

// Learn downloads something that is not pinned yet, of at most limit bytes,
// from the first URL that has it, and returns it as a file without a name,
// with its digest. The caller closes the file, which forgets it. Nothing goes
// into the sink.
func (f *Fetcher) Learn(ctx context.Context, urls []string, limit int64) (*os.File, digest.Digest, error) {
	if len(urls) == 0 {
		return nil, digest.Digest{}, errors.New("no URL to learn from")
	}
	if err := os.MkdirAll(f.Partial, 0o755); err != nil {
		return nil, digest.Digest{}, fmt.Errorf("partial downloads: %w", err)
	}
	tmp, err := anonymous(f.Partial)
	if err != nil {
		return nil, digest.Digest{}, err
	}
	var errs []error
	for _, u := range urls {
		d, err := f.learn(ctx, tmp, u, limit)
		if err == nil {
			return tmp, d, nil
		}
		errs = append(errs, fmt.Errorf("%s: %w", redacted(u), err))
		if ctx.Err() != nil {
			break
		}
	}
	tmp.Close()
	return nil, digest.Digest{}, errors.Join(errs...)
}

// Module downloads a Go module's zip that is not pinned yet from the first
// proxy that has it. See Learn.
func (p Proxy) Module(ctx context.Context, path, version string) (*os.File, digest.Digest, error) {
	urls, err := moduleURLs(path, version, p.Proxies)
	if err != nil {
		return nil, digest.Digest{}, err
	}
	file, d, err := p.Fetcher.Learn(ctx, urls, maxModule)
	if err != nil {
		return nil, d, fmt.Errorf("Go module %s@%s: %w", path, version, err)
	}
	return file, d, nil
}

// Proxy downloads Go modules from module proxies, in order.
type Proxy struct {
	Fetcher *Fetcher
	Proxies []string // from GoProxies
}

// maxModule bounds a module's zip in bytes, as the go command does.
const maxModule = 500 << 20

func (f *Fetcher) learn(ctx context.Context, tmp *os.File, u string, limit int64) (digest.Digest, error) {
	attempts, wait := f.Attempts, f.Backoff
	if attempts <= 0 {
		attempts = DefaultAttempts
	}
	if wait <= 0 {
		wait = DefaultBackoff
	}
	for n := 1; ; n++ {
		d, err := f.learnOnce(ctx, tmp, u, limit)
		if err == nil || n >= attempts || !again(err) || ctx.Err() != nil {
			return d, err
		}
		select {
		case <-ctx.Done():
			return d, ctx.Err()
		case <-time.After(wait):
		}
		wait *= 2
	}
}

func (f *Fetcher) learnOnce(ctx context.Context, tmp *os.File, u string, limit int64) (d digest.Digest, err error) {
	p := &partial{file: tmp}
	if err := p.truncate(); err != nil {
		return d, &localError{err}
	}
	var body io.ReadCloser
	extend := func() {}
	if file, ok := localPath(u); ok {
		if body, err = os.Open(file); err != nil {
			return d, err
		}
	} else {
		var cancel context.CancelCauseFunc
		ctx, cancel = context.WithCancelCause(ctx)
		defer cancel(nil)
		timer := time.AfterFunc(f.stall(), func() { cancel(errStalled) })
		defer timer.Stop()
		extend = func() { timer.Reset(f.stall()) }
		validator := ""
		if body, err = f.request(ctx, p, u, &validator); err != nil {
			return d, cause(ctx, err)
		}
	}
	defer body.Close()
	if _, err := tmp.Seek(0, io.SeekStart); err != nil {
		return d, &localError{err}
	}
	h := digest.NewHasher()
	buf := make([]byte, 64<<10)
	for total := int64(0); ; {
		n, rerr := body.Read(buf)
		extend()
		if total += int64(n); total > limit {
			return d, &localError{fmt.Errorf("%s sends more than %d bytes", redacted(u), limit)}
		}
		h.Write(buf[:n])
		if _, err := tmp.Write(buf[:n]); err != nil {
			return d, &localError{err}
		}
		if rerr == io.EOF {
			_, err := tmp.Seek(0, io.SeekStart)
			return h.Digest(), err
		}
		if rerr != nil {
			return d, cause(ctx, rerr)
		}
	}
}
