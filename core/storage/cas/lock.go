package cas

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// flock opens path, creating it, and locks it. Closing the file unlocks it, and
// so does the kernel when the process dies.
func flock(path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o644)
	if err != nil {
		return nil, err
	}
	if err := flockFile(f, how); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

func flockFile(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err == nil {
			return nil
		}
		if err != unix.EINTR {
			return &os.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
	}
}

// Shared holds the barrier that keeps collections out until unlock is called.
// Hold it briefly: for checking that something exists and recording that it is
// needed. It waits while a collection deletes.
func (s *Store) Shared() (unlock func(), err error) {
	fd, err := s.shared()
	if err != nil {
		return nil, fmt.Errorf("take the store's barrier: %w", s.wrap(err))
	}
	return func() { unix.Close(fd) }, nil
}

// shared is what flock does with three system calls instead of eleven: a build
// takes the barrier for each blob that it finds.
func (s *Store) shared() (int, error) {
	path := s.dir + "/lock"
	for {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o644)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return -1, &os.PathError{Op: "open", Path: path, Err: err}
		}
		for {
			if err = unix.Flock(fd, unix.LOCK_SH); err != unix.EINTR {
				break
			}
		}
		if err != nil {
			unix.Close(fd)
			return -1, &os.PathError{Op: "flock", Path: path, Err: err}
		}
		return fd, nil
	}
}

// Exclusive holds the barrier alone, for a collection. While it is held, puts
// of blobs that exist, and everything else that calls Shared, wait: the holder
// must not call them itself.
func (s *Store) Exclusive(ctx context.Context) (unlock func(), err error) {
	path := filepath.Join(s.dir, "lock")
	// flock cannot be interrupted, so ask again until ctx ends.
	for wait := time.Millisecond; ; wait = min(2*wait, 100*time.Millisecond) {
		f, err := flock(path, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("take the store's barrier: %w", s.wrap(err))
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("take the store's barrier: %w", ctx.Err())
		case <-time.After(wait):
		}
	}
}
