package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"tool/core/model/digest"
)

type memSink struct {
	mu sync.Mutex
	m  map[digest.Digest]int
}

func (s *memSink) Put(_ context.Context, want digest.Digest, r io.Reader) (digest.Digest, error) {
	d, err := digest.FromReader(r)
	if err == nil && d != want {
		err = fmt.Errorf("sink got %s, want %s", d, want)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[d]++
	return d, err
}

var content = bytes.Repeat([]byte("0123456789abcdef"), 20000) // 320 KB

// server behaves badly in one way or another; requests are counted.
type server struct {
	*httptest.Server
	requests atomic.Int64
	ranges   atomic.Int64 // requests with a Range
}

func serve(t *testing.T, h func(n int64, w http.ResponseWriter, r *http.Request)) *server {
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") != "" {
			s.ranges.Add(1)
		}
		h(s.requests.Add(1), w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func good(_ int64, w http.ResponseWriter, r *http.Request) {
	w.Header().Set("ETag", `"v1"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
}

// half sends the first half and breaks the connection.
func half(w http.ResponseWriter) {
	w.Header().Set("Content-Length", fmt.Sprint(len(content)))
	w.Header().Set("ETag", `"v1"`)
	w.Write(content[:len(content)/2])
	w.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

func status(code int) func(int64, http.ResponseWriter, *http.Request) {
	return func(_ int64, w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

func newFetcher(t *testing.T) (*Fetcher, *memSink) {
	s := &memSink{m: map[digest.Digest]int{}}
	return &Fetcher{Sink: s, Partial: filepath.Join(t.TempDir(), "partial"), Backoff: time.Millisecond}, s
}

func TestFetch(t *testing.T) {
	want := digest.Of(content)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, content, 0o644); err != nil {
		t.Fatal(err)
	}
	type handler = func(int64, http.ResponseWriter, *http.Request)
	for _, c := range []struct {
		name     string
		mirrors  []handler
		err      string // "" means success
		requests int64  // to the first mirror
		ranges   int64
	}{
		{"plain", []handler{good}, "", 1, 0},
		{"broken off, resumed", []handler{func(n int64, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				half(w)
			}
			if r.Header.Get("If-Range") != `"v1"` {
				t.Errorf("If-Range is %q", r.Header.Get("If-Range"))
			}
			good(n, w, r)
		}}, "", 2, 1},
		{"broken off, range ignored", []handler{func(n int64, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				half(w)
			}
			w.Write(content)
		}}, "", 2, 1},
		{"broken off, another part sent", []handler{func(n int64, w http.ResponseWriter, r *http.Request) {
			switch n {
			case 1:
				half(w)
			case 2:
				w.Header().Set("Content-Range", fmt.Sprintf("bytes 7-%d/%d", len(content)-1, len(content)))
				w.WriteHeader(http.StatusPartialContent)
				w.Write(content[7:])
			default:
				good(n, w, r)
			}
		}}, "", 3, 1},
		{"broken off, goes on elsewhere", []handler{func(n int64, w http.ResponseWriter, r *http.Request) { half(w) }, good}, "", 3, 2},
		{"server error, then well", []handler{func(n int64, w http.ResponseWriter, r *http.Request) {
			if n < 3 {
				w.WriteHeader(503)
				return
			}
			good(n, w, r)
		}}, "", 3, 0},
		{"server errors", []handler{status(500)}, "500 Internal Server Error", 3, 0},
		{"forbidden, next", []handler{status(403), good}, "", 1, 0},
		{"missing, next", []handler{status(404), good}, "", 1, 0},
		{"missing everywhere", []handler{status(404), status(410)}, "`tool lock --refresh`", 1, 0},
		{"missing here, broken there", []handler{status(404), status(403)}, "403 Forbidden", 1, 0},
		{"garbage", []handler{func(n int64, w http.ResponseWriter, r *http.Request) {
			w.Write(bytes.Repeat([]byte("x"), len(content)))
		}}, "it sent sha256 ", 1, 0},
		{"garbage, next", []handler{func(n int64, w http.ResponseWriter, r *http.Request) {
			w.Write(bytes.Repeat([]byte("x"), len(content)))
		}, good}, "", 1, 0},
		{"half garbage, then broken off, next", []handler{func(n int64, w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") != "" {
				w.WriteHeader(403)
				return
			}
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			w.Write(bytes.Repeat([]byte("x"), 1000))
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, good}, "", 2, 1},
		{"too much", []handler{func(n int64, w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil { // without end
				if _, err := w.Write(content); err != nil {
					return
				}
			}
		}}, "it sends more than the 320000 bytes that are pinned", 1, 0},
		{"too little", []handler{func(n int64, w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content[:1000]))
		}, good}, "", 3, 1},
		{"redirects without end", []handler{func(n int64, w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.Path+"x", http.StatusFound)
		}}, "it redirects without end", 10, 0},
		{"redirected", []handler{func(n int64, w http.ResponseWriter, r *http.Request) {
			if n == 1 {
				http.Redirect(w, r, "/else", http.StatusFound)
				return
			}
			good(n, w, r)
		}}, "", 2, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, sink := newFetcher(t)
			r := Request{Name: "libx 1", Digest: want}
			var first *server
			for _, h := range c.mirrors {
				s := serve(t, h)
				if first == nil {
					first = s
				}
				r.URLs = append(r.URLs, s.URL+"/libx.deb")
			}
			err := f.Fetch(context.Background(), r)
			if c.err == "" && (err != nil || sink.m[want] != 1) {
				t.Fatalf("got %v", err)
			}
			if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || !strings.Contains(err.Error(), "libx 1") || !strings.Contains(err.Error(), first.URL)) {
				t.Errorf("got error %v, want %s", err, c.err)
			}
			if first.requests.Load() != c.requests || first.ranges.Load() != c.ranges {
				t.Errorf("%d requests and %d ranges, want %d and %d", first.requests.Load(), first.ranges.Load(), c.requests, c.ranges)
			}
			var gone *GoneError
			if errors.As(err, &gone) != (c.name == "missing everywhere") {
				t.Errorf("%v", err)
			}
			if left, _ := os.ReadDir(f.Partial); c.err == "" && len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	for _, u := range []string{file, "file://" + file} {
		f, sink := newFetcher(t)
		if err := f.Fetch(context.Background(), Request{Name: "x", Digest: want, URLs: []string{filepath.Join(file, "..", "none"), u}}); err != nil || sink.m[want] != 1 {
			t.Errorf("%s: %v", u, err)
		}
		var gone *GoneError
		if err := f.Fetch(context.Background(), Request{Name: "x", Digest: want, URLs: []string{u + "none"}}); !errors.As(err, &gone) {
			t.Errorf("%s: %v", u, err)
		}
		if err := f.Fetch(context.Background(), Request{Name: "x", Digest: digest.Of([]byte("y")), URLs: []string{u}}); err == nil || !strings.Contains(err.Error(), "pinned") {
			t.Errorf("%s: %v", u, err)
		}
	}
}

func TestStall(t *testing.T) {
	slow := serve(t, func(_ int64, w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(content)))
		w.Write(content[:1000])
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	silent := serve(t, func(_ int64, w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	well := serve(t, good)
	f, sink := newFetcher(t)
	f.Stall = 50 * time.Millisecond
	r := Request{Name: "x", Digest: digest.Of(content), URLs: []string{slow.URL, silent.URL, well.URL}}
	if err := f.Fetch(context.Background(), r); err != nil || sink.m[r.Digest] != 1 || well.ranges.Load() != 1 {
		t.Errorf("%v, %d ranges", err, well.ranges.Load())
	}
	r.URLs = r.URLs[1:2]
	if err := f.Fetch(context.Background(), r); err == nil || !strings.Contains(err.Error(), "it fell silent") {
		t.Errorf("got %v", err)
	}
}

// TestResumeElsewhere continues what another process left, also when that was
// wrong, and does not touch what another is writing.
func TestResumeElsewhere(t *testing.T) {
	want := digest.Of(content)
	for name, c := range map[string]struct {
		left     []byte
		requests int64
	}{
		"half":            {content[:1000], 1},
		"all":             {content, 0},
		"wrong":           {bytes.Repeat([]byte("x"), 1000), 2},
		"wrong, complete": {bytes.Repeat([]byte("x"), len(content)), 1},
		"too long":        {append(bytes.Clone(content), 'x'), 1},
		"nothing":         {nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, good)
			f, sink := newFetcher(t)
			if err := os.MkdirAll(f.Partial, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(f.Partial, want.Hex()), c.left, 0o644); err != nil {
				t.Fatal(err)
			}
			if err := f.Fetch(context.Background(), Request{Name: "x", Digest: want, URLs: []string{s.URL}}); err != nil || sink.m[want] != 1 {
				t.Fatal(err)
			}
			if s.requests.Load() != c.requests {
				t.Errorf("%d requests, want %d", s.requests.Load(), c.requests)
			}
		})
	}
	f, sink := newFetcher(t)
	other, err := openPartial(f.Partial, want)
	if err != nil {
		t.Fatal(err)
	}
	defer other.close()
	if err := f.Fetch(context.Background(), Request{Name: "x", Digest: want, URLs: []string{serve(t, good).URL}}); err != nil || sink.m[want] != 1 {
		t.Fatal(err)
	}
	if st, err := other.file.Stat(); err != nil || st.Size() != 0 {
		t.Errorf("wrote into a locked file: %v %v", st, err)
	}
}

func TestFetchAll(t *testing.T) {
	var now, most atomic.Int64
	s := serve(t, func(_ int64, w http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if strings.Contains(r.URL.Path, "gone") {
			w.WriteHeader(404)
			return
		}
		io.WriteString(w, r.URL.Path)
	})
	f, sink := newFetcher(t)
	f.Parallel = 3
	var seen atomic.Int64
	f.Progress = func(p Progress) {
		if p.Done == p.Request.Digest.Size {
			seen.Add(1)
		}
	}
	var rs []Request
	for i := range 20 {
		p := fmt.Sprintf("/file%02d", i)
		r := Request{Name: p, Digest: digest.Of([]byte(p)), URLs: []string{s.URL + p}}
		rs = append(rs, r, r) // each twice: one download
	}
	if err := f.FetchAll(context.Background(), rs); err != nil {
		t.Fatal(err)
	}
	if most.Load() > 3 || len(sink.m) != 20 {
		t.Errorf("%d at once, %d fetched, %d seen", most.Load(), len(sink.m), seen.Load())
	}
	for _, p := range []string{"/gone1", "/gone2"} {
		rs = append(rs, Request{Name: p, Digest: digest.Of([]byte(p)), URLs: []string{s.URL + p}})
	}
	if err := f.FetchAll(context.Background(), rs); err == nil || !strings.Contains(err.Error(), "/gone1 ") || !strings.Contains(err.Error(), "/gone2 ") {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := f.FetchAll(ctx, rs); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if err := f.Fetch(context.Background(), Request{Name: "x", Digest: digest.Of(nil)}); err == nil || !strings.Contains(err.Error(), "no mirror is known") {
		t.Errorf("got %v", err)
	}
}
