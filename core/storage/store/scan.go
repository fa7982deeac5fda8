package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"

	"tool/core/model/digest"
	"tool/core/model/merkle"
)

// Scan returns those of candidates whose hash parts occur in the contents of
// the node's files or in the targets of its symbolic links, sorted. That is how
// an output tells which of its inputs it needs at run time.
func (s *Store) Scan(ctx context.Context, node merkle.Node, candidates []Ref) ([]Ref, error) {
	if len(candidates) == 0 {
		return nil, nil
	}
	f := newFinder(candidates)
	var files []digest.Digest
	seen := map[digest.Digest]bool{}
	var collect func(merkle.Node) error
	collect = func(n merkle.Node) error {
		switch n.Kind {
		case merkle.Symlink:
			f.scan([]byte(n.Target))
			return nil
		case merkle.File:
			if !seen[n.Digest] && n.Digest.Size >= HashLen {
				seen[n.Digest] = true
				files = append(files, n.Digest)
			}
			return nil
		case merkle.Dir:
			if seen[n.Digest] {
				return nil
			}
			seen[n.Digest] = true
			dir, err := s.cas.GetDirectory(n.Digest)
			if err != nil {
				return err
			}
			return dir.Entries(func(_ string, n merkle.Node) error { return collect(n) })
		}
		return nil
	}
	if err := collect(node); err != nil {
		return nil, fmt.Errorf("scan for references: %w", err)
	}
	if err := s.scanFiles(ctx, f, files); err != nil {
		return nil, fmt.Errorf("scan for references: %w", err)
	}
	return f.found(), nil
}

func (s *Store) scanFiles(ctx context.Context, f *finder, files []digest.Digest) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	work := make(chan digest.Digest)
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), len(files)) {
		wg.Go(func() {
			buf := make([]byte, scanBuffer)
			for d := range work {
				if err := s.scanFile(ctx, f, d, buf); err != nil {
					cancel(err)
				}
			}
		})
	}
	for _, d := range files {
		if ctx.Err() != nil || f.all() {
			break
		}
		work <- d
	}
	close(work)
	wg.Wait()
	return context.Cause(ctx)
}

const scanBuffer = 256 << 10

func (s *Store) scanFile(ctx context.Context, f *finder, d digest.Digest, buf []byte) error {
	file, err := s.cas.Open(d)
	if err != nil {
		return err
	}
	defer file.Close()
	return f.stream(ctx, file, buf)
}

// finder looks for hash parts. It is safe for concurrent use.
type finder struct {
	refs map[[HashLen]byte][]Ref // read only
	inB  [256]bool               // the alphabet
	mu   sync.Mutex
	hits map[[HashLen]byte]bool
}

func newFinder(candidates []Ref) *finder {
	f := &finder{refs: map[[HashLen]byte][]Ref{}, hits: map[[HashLen]byte]bool{}}
	for _, r := range candidates {
		if len(r) >= HashLen {
			h := [HashLen]byte([]byte(r[:HashLen]))
			f.refs[h] = append(f.refs[h], r)
		}
	}
	for i := range len(alphabet) {
		f.inB[alphabet[i]] = true
	}
	return f
}

// stream scans r. The last HashLen-1 bytes of each buffer are seen again with
// the next, so a hash part across the boundary is found.
func (f *finder) stream(ctx context.Context, r io.Reader, buf []byte) error {
	kept := 0
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		if f.all() {
			return nil
		}
		n, err := r.Read(buf[kept:])
		b := buf[:kept+n]
		f.scan(b)
		kept = copy(buf, b[max(0, len(b)-(HashLen-1)):])
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// scan looks at b from the end of each window backwards: a byte outside of the
// alphabet rules out all windows that hold it, so most text is skipped in steps
// of up to HashLen.
func (f *finder) scan(b []byte) {
	for i := 0; i+HashLen <= len(b); {
		j := i + HashLen - 1
		for j >= i && f.inB[b[j]] {
			j--
		}
		if j >= i {
			i = j + 1
			continue
		}
		f.match(b[i : i+HashLen])
		// The window is inside a run: one new byte decides about the next.
		for i++; i+HashLen <= len(b) && f.inB[b[i+HashLen-1]]; i++ {
			f.match(b[i : i+HashLen])
		}
		i += HashLen // the byte that ended the run is in none of the windows from here on
	}
}

func (f *finder) match(window []byte) {
	h := [HashLen]byte(window)
	if _, ok := f.refs[h]; ok {
		f.mu.Lock()
		f.hits[h] = true
		f.mu.Unlock()
	}
}

func (f *finder) all() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.hits) == len(f.refs)
}

func (f *finder) found() []Ref {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []Ref
	for h := range f.hits {
		out = append(out, f.refs[h]...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
