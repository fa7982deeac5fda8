package debian

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
)

const attempts = 3

// get reads a URL, or a file, of at most limit bytes. It tries again when a
// server fails or falls silent; not when it says no.
func (a *Archive) get(ctx context.Context, u string, limit int64) ([]byte, error) {
	if file, ok := localPath(u); ok {
		f, err := os.Open(file)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		b, err := readAll(f, limit)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", u, err)
		}
		return b, nil
	}
	for n := 1; ; n++ {
		b, again, err := a.once(ctx, u, limit)
		if err == nil {
			return b, nil
		}
		if !again || n == attempts || ctx.Err() != nil {
			return nil, fmt.Errorf("get %s: %w", u, err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Duration(n) * 500 * time.Millisecond):
		}
	}
}

var errStalled = errors.New("the server fell silent")

func (a *Archive) once(ctx context.Context, u string, limit int64) (b []byte, again bool, err error) {
	stall := a.Stall
	if stall == 0 {
		stall = 20 * time.Second
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(stall, func() { cancel(errStalled) })
	defer timer.Stop()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u, nil)
	if err != nil {
		return nil, false, err
	}
	client := a.Client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err == nil {
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return nil, resp.StatusCode >= 500, errors.New(resp.Status)
		}
		b, err = readAll(&alive{resp.Body, timer, stall}, limit)
	}
	if c := context.Cause(ctx); err != nil && c != nil {
		err = c
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		err = ue.Err
	}
	return b, !errors.Is(err, errTooLarge), err
}

// alive puts the timer off whenever something arrives.
type alive struct {
	r     io.Reader
	timer *time.Timer
	stall time.Duration
}

func (a *alive) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	if n > 0 {
		a.timer.Reset(a.stall)
	}
	return n, err
}

var errTooLarge = errors.New("it is larger than it may be")

func readAll(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, errTooLarge
	}
	return b, nil
}

// localPath returns the file that a file: URL or a plain path names.
func localPath(u string) (string, bool) {
	if filepath.IsAbs(u) {
		return u, true
	}
	rest, ok := strings.CutPrefix(u, "file:")
	if !ok {
		return "", false
	}
	rest = strings.TrimPrefix(rest, "//")
	if p, err := url.PathUnescape(rest); err == nil {
		rest = p
	}
	return rest, true
}
