package fetch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"tool/core/model/digest"
)

// partial is a file that is being downloaded. It is kept under its digest, so
// that a later attempt goes on where this one ended. A lock on the file keeps
// a second process from writing into it; that one uses a file of its own,
// which has no name and so is never left behind.
type partial struct {
	file  *os.File
	size  int64
	named bool
}

func openPartial(dir string, d digest.Digest) (*partial, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("partial downloads: %w", err)
	}
	name := filepath.Join(dir, d.Hex())
	for {
		f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o644)
		if err != nil {
			return nil, fmt.Errorf("partial download: %w", err)
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			f.Close()
			tmp, err := anonymous(dir)
			if err != nil {
				return nil, err
			}
			return &partial{file: tmp}, nil
		}
		// Between opening and locking, its holder may have finished with it
		// and removed it.
		st, err := f.Stat()
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("partial download: %w", err)
		}
		now, err := os.Stat(name)
		if err == nil && os.SameFile(st, now) {
			p := &partial{file: f, size: st.Size(), named: true}
			if p.size > d.Size {
				if err := p.truncate(); err != nil {
					f.Close()
					return nil, err
				}
			}
			return p, nil
		}
		f.Close()
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("partial download: %w", err)
		}
	}
}

// anonymous returns a new file without a name.
func anonymous(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, ".tmp-")
	if err != nil {
		return nil, fmt.Errorf("partial download: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("partial download: %w", err)
	}
	return f, nil
}

func (p *partial) truncate() error {
	p.size = 0
	return p.file.Truncate(0)
}

// hash returns a hasher that has seen what is here, and leaves the file's
// position at its end.
func (p *partial) hash() (*digest.Hasher, error) {
	h := digest.NewHasher()
	if _, err := p.file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	n, err := io.Copy(h, p.file)
	p.size = n
	return h, err
}

// remove forgets the file, while its lock is still held.
func (p *partial) remove() {
	if p.named {
		os.Remove(p.file.Name())
	}
}

// close releases the file; what is in it stays for the next attempt, unless
// nothing is.
func (p *partial) close() {
	if p.size == 0 {
		p.remove()
	}
	p.file.Close()
}
