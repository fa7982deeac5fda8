package cas

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"tool/core/model/digest"
)

// stat finds the variant of d that is there with the right size.
func (s *Store) stat(d digest.Digest) (executable, ok bool) {
	var st unix.Stat_t
	for _, x := range [2]bool{false, true} {
		if err := unix.Fstatat(int(s.blobs.Fd()), blobRel(d, x), &st, unix.AT_SYMLINK_NOFOLLOW); err == nil && st.Size == d.Size && st.Mode&unix.S_IFMT == unix.S_IFREG {
			return x, true
		}
	}
	return false, false
}

// Has reports whether the blob is in the store, with the right size.
func (s *Store) Has(d digest.Digest) bool {
	_, ok := s.stat(d)
	return ok
}

// Missing returns those of ds that the store does not hold, in the order given.
func (s *Store) Missing(ds []digest.Digest) []digest.Digest {
	var missing []digest.Digest
	for _, d := range ds {
		if !s.Has(d) {
			missing = append(missing, d)
		}
	}
	return missing
}

// Open opens a blob for reading. It fails with a *NotFoundError where the store
// does not hold the blob.
func (s *Store) Open(d digest.Digest) (*os.File, error) {
	for _, x := range [2]bool{false, true} {
		f, err := s.openFile(d, x)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("open blob %s: %w", d, err)
		}
		fi, err := f.Stat()
		if err == nil && fi.Size() == d.Size && fi.Mode().IsRegular() {
			return f, nil
		}
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("open blob %s: %w", d, err)
		}
	}
	return nil, &NotFoundError{d}
}

func (s *Store) openFile(d digest.Digest, executable bool) (*os.File, error) {
	fd, err := openat(int(s.blobs.Fd()), blobRel(d, executable), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: s.Path(d, executable), Err: err}
	}
	return os.NewFile(uintptr(fd), s.Path(d, executable)), nil
}

// ReadAll returns the bytes of a blob of at most max bytes. It does not hash them.
func (s *Store) ReadAll(d digest.Digest, max int64) ([]byte, error) {
	if d.Size > max {
		return nil, fmt.Errorf("blob %s is larger than the %d bytes expected", d, max)
	}
	f, err := s.Open(d)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b := make([]byte, d.Size)
	if _, err := io.ReadFull(f, b); err != nil {
		return nil, fmt.Errorf("read blob %s: %w", d, err)
	}
	return b, nil
}
