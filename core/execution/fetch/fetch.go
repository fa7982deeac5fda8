// Package fetch brings pinned bytes from mirrors into the content store. What
// is fetched is named by its digest, so any mirror will do: one that fails,
// stalls or sends something else is left for the next, and what has arrived
// of a file is kept for the next attempt, in this process or another.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"tool/core/model/digest"
)

// Sink keeps content. Put fails if r does not hold want. cas.Store is one.
type Sink interface {
	Put(ctx context.Context, want digest.Digest, r io.Reader) (digest.Digest, error)
}

// Request names one blob and where it may be.
type Request struct {
	Name   string // what people call it: "libssl3 3.0.17-1~deb12u2"
	Digest digest.Digest
	URLs   []string // http, https or file URLs, or absolute paths; tried in order
}

// Progress is a snapshot of one download.
type Progress struct {
	Request Request
	URL     string
	Done    int64 // bytes that are here, of Request.Digest.Size
}

// Defaults of a Fetcher's fields.
const (
	DefaultParallel = 8
	DefaultStall    = 20 * time.Second
	DefaultAttempts = 3
	DefaultBackoff  = 500 * time.Millisecond
)

// Fetcher downloads. Set its fields before the first use; it is safe for
// concurrent use after that. Zero fields other than Sink and Partial take the
// defaults.
type Fetcher struct {
	Sink     Sink
	Partial  string        // directory of partial downloads; made when needed
	Client   *http.Client  // nil: http.DefaultClient, which honours http_proxy
	Parallel int           // downloads at once
	Stall    time.Duration // without a byte for so long, a mirror is given up
	Attempts int           // for each mirror, where trying again makes sense
	Backoff  time.Duration // before the second attempt; doubles with each more
	Progress func(Progress)

	once   sync.Once
	slots  chan struct{}
	mu     sync.Mutex
	flying map[digest.Digest]*flight
}

// flight is a download that several callers wait for.
type flight struct {
	done chan struct{}
	err  error
}

// GoneError reports a pin that no mirror has any more.
type GoneError struct {
	Name   string
	Digest digest.Digest
	URLs   []string // all of which answered that there is no such file
}

func (e *GoneError) Error() string {
	return fmt.Sprintf("%s (sha256 %s) is pinned, but no mirror has it any more (tried %s): `tool lock --refresh` pins what they have now",
		e.Name, e.Digest.Hex(), strings.Join(e.URLs, ", "))
}

func (f *Fetcher) setup() {
	f.once.Do(func() {
		n := f.Parallel
		if n <= 0 {
			n = DefaultParallel
		}
		f.slots = make(chan struct{}, n)
		f.flying = map[digest.Digest]*flight{}
	})
}

// Fetch brings r's content into the sink. If every mirror says that there is
// no such file, the error is a *GoneError; otherwise it tells what each mirror
// did. Calls for the same digest share one download.
func (f *Fetcher) Fetch(ctx context.Context, r Request) error {
	f.setup()
	for {
		f.mu.Lock()
		fl, waiting := f.flying[r.Digest]
		if !waiting {
			fl = &flight{done: make(chan struct{})}
			f.flying[r.Digest] = fl
		}
		f.mu.Unlock()
		if !waiting {
			fl.err = f.slot(ctx, r)
			f.mu.Lock()
			delete(f.flying, r.Digest)
			f.mu.Unlock()
			close(fl.done)
			return fl.err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-fl.done:
			// The other caller's cancellation is not ours: take over.
			if errors.Is(fl.err, context.Canceled) || errors.Is(fl.err, context.DeadlineExceeded) {
				continue
			}
			return fl.err
		}
	}
}

// FetchAll fetches several requests, in parallel. It goes on after errors and
// returns all of them, so that every missing pin is known at once.
func (f *Fetcher) FetchAll(ctx context.Context, rs []Request) error {
	errs := make([]error, len(rs))
	var wg sync.WaitGroup
	for i, r := range rs {
		wg.Go(func() { errs[i] = f.Fetch(ctx, r) })
	}
	wg.Wait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(errs...)
}

func (f *Fetcher) slot(ctx context.Context, r Request) error {
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := f.fetch(ctx, r); err != nil {
		var gone *GoneError
		if errors.As(err, &gone) {
			return err
		}
		return fmt.Errorf("fetch %s: %w", r.Name, err)
	}
	return nil
}

func (f *Fetcher) fetch(ctx context.Context, r Request) error {
	if r.Digest.IsZero() || len(r.URLs) == 0 {
		return fmt.Errorf("no mirror is known for it (%s)", r.Digest)
	}
	p, err := openPartial(f.Partial, r.Digest)
	if err != nil {
		return err
	}
	defer p.close()
	var errs []error
	gone := 0
	for _, u := range r.URLs {
		err := f.mirror(ctx, p, r, u)
		if err == nil {
			if _, err := p.file.Seek(0, io.SeekStart); err != nil {
				return err
			}
			if _, err := f.Sink.Put(ctx, r.Digest, p.file); err != nil {
				return err
			}
			p.remove()
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var st *statusError
		if errors.Is(err, os.ErrNotExist) || errors.As(err, &st) && st.gone() {
			gone++
		}
		var local *localError
		if errors.As(err, &local) { // a full disk is full for every mirror
			return local.err
		}
		errs = append(errs, fmt.Errorf("%s: %w", redacted(u), err))
	}
	if gone == len(r.URLs) {
		e := &GoneError{Name: r.Name, Digest: r.Digest}
		for _, u := range r.URLs {
			e.URLs = append(e.URLs, redacted(u))
		}
		return e
	}
	return errors.Join(errs...)
}

// mirror gets the file from one mirror, trying again where that makes sense.
func (f *Fetcher) mirror(ctx context.Context, p *partial, r Request, u string) error {
	attempts, wait := f.Attempts, f.Backoff
	if attempts <= 0 {
		attempts = DefaultAttempts
	}
	if wait <= 0 {
		wait = DefaultBackoff
	}
	restarted := false
	validator := ""
	for n := 1; ; n++ {
		resumed := p.size > 0
		err := f.attempt(ctx, p, r, u, &validator)
		var wrong *contentError
		if errors.As(err, &wrong) {
			if terr := p.truncate(); terr != nil {
				return &localError{terr}
			}
			if resumed && !restarted { // what was here before may be to blame
				restarted = true
				continue
			}
			return err
		}
		if err == nil || !again(err) || n >= attempts {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
		wait *= 2
	}
}
