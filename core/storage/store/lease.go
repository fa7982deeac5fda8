package store

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"tool/core/model/digest"
)

// Lease keeps what a running process uses from collections, until Release or
// the death of the process. Its methods are safe for concurrent use.
type Lease struct {
	s    *Store
	mu   sync.Mutex
	file *os.File
	have map[string]bool // lines written already
}

// Lease begins one. From now on nothing is collected that is put, adopted or
// registered after it, by anyone.
func (s *Store) Lease(ctx context.Context) (*Lease, error) {
	l, err := s.lease()
	if err != nil {
		return nil, fmt.Errorf("take a lease on the store: %w", err)
	}
	return l, nil
}

func (s *Store) lease() (*Lease, error) {
	// The barrier keeps a collection from seeing the file before it is locked.
	unlock, err := s.cas.Shared()
	if err != nil {
		return nil, err
	}
	defer unlock()
	path := filepath.Join(s.dir, "leases", rand.Text())
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o644)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	if err == nil {
		// The file system's clock, for it is compared with ctimes.
		var st unix.Stat_t
		if err = unix.Fstat(int(f.Fd()), &st); err == nil {
			_, err = fmt.Fprintf(f, "start %d\n", time.Unix(st.Ctim.Unix()).UnixNano())
		}
	}
	if err != nil {
		f.Close()
		os.Remove(path)
		return nil, err
	}
	return &Lease{s: s, file: f, have: map[string]bool{}}, nil
}

var errReleased = errors.New("the lease has been released")

// Adopt keeps blobs, and trees with all that they reach. It does not tell
// whether they are there: ask the cas afterwards, for a collection may have
// been before it. It waits while a collection deletes.
func (l *Lease) Adopt(ds ...digest.Digest) error {
	lines := make([]string, len(ds))
	for i, d := range ds {
		lines[i] = d.String()
	}
	if err := l.append(lines, nil); err != nil {
		return fmt.Errorf("keep blobs: %w", err)
	}
	return nil
}

// AdoptRefs keeps objects with their closures. One that is not registered (any
// more) is an error, a *NotRegisteredError.
func (l *Lease) AdoptRefs(refs ...Ref) error {
	lines := make([]string, len(refs))
	for i, r := range refs {
		lines[i] = "ref " + string(r)
	}
	err := l.append(lines, func() error {
		for _, r := range refs {
			if _, err := l.s.Get(r); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("keep objects: %w", err)
	}
	return nil
}

func (l *Lease) append(lines []string, check func() error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return errReleased
	}
	var b []byte
	for _, line := range lines {
		if !l.have[line] {
			b = append(append(b, line...), '\n')
		}
	}
	if len(b) == 0 {
		return nil
	}
	unlock, err := l.s.cas.Shared()
	if err != nil {
		return err
	}
	defer unlock()
	if check != nil {
		if err := check(); err != nil {
			return err
		}
	}
	size, err := l.file.Seek(0, io.SeekEnd)
	if err != nil {
		return err
	}
	if _, err := l.file.Write(b); err != nil {
		// Half a line, as a full disk leaves it, would spoil the next one.
		return errors.Join(err, l.file.Truncate(size))
	}
	for _, line := range lines {
		l.have[line] = true
	}
	return nil
}

// Release ends the lease. A second call does nothing.
func (l *Lease) Release() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	err := os.Remove(l.file.Name())
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	err = errors.Join(err, l.file.Close())
	l.file = nil
	if err != nil {
		return fmt.Errorf("release the lease: %w", err)
	}
	return nil
}

// held is what a living lease says.
type held struct {
	name    string
	start   time.Time
	digests []digest.Digest
	refs    []Ref
}

// leases reads the living leases. With clean it removes the dead ones' files;
// the caller must hold the barrier exclusively then.
func (s *Store) leases(clean bool) ([]held, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "leases"))
	if err != nil {
		return nil, fmt.Errorf("list leases: %w", err)
	}
	var out []held
	for _, e := range entries {
		path := filepath.Join(s.dir, "leases", e.Name())
		h, err := readLease(path)
		switch {
		case errors.Is(err, os.ErrNotExist):
		case err != nil:
			return nil, fmt.Errorf("lease %s: %w", e.Name(), err)
		case h == nil && clean:
			os.Remove(path)
		case h != nil:
			h.name = e.Name()
			out = append(out, *h)
		}
	}
	return out, nil
}

// readLease returns nil for a lease whose holder is gone.
func readLease(path string) (*held, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	switch err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err {
	case nil:
		return nil, nil
	case unix.EWOULDBLOCK:
	default:
		return nil, err
	}
	h := &held{}
	r := bufio.NewReader(f)
	for {
		line, err := r.ReadString('\n')
		if errors.Is(err, io.EOF) {
			return h, nil // a line without its end is one whose Adopt has not returned
		}
		if err != nil {
			return nil, err
		}
		line = line[:len(line)-1]
		if start, ok := strings.CutPrefix(line, "start "); ok {
			n, err := strconv.ParseInt(start, 10, 64)
			if err != nil {
				return nil, err
			}
			h.start = time.Unix(0, n)
		} else if ref, ok := strings.CutPrefix(line, "ref "); ok {
			h.refs = append(h.refs, Ref(ref))
		} else {
			d, err := digest.Parse(line)
			if err != nil {
				return nil, err
			}
			h.digests = append(h.digests, d)
		}
	}
}
