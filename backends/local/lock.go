package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Lock lets one step at a time work on a machine. The lock goes with the
// process that holds it.
func Lock(ctx context.Context, path string) (unlock func(), err error) {
	return LockFor(ctx, path, 2*time.Minute)
}

// LockFor is Lock for work that takes longer: it waits as long as that may take.
func LockFor(ctx context.Context, path string, limit time.Duration) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	end := time.Now().Add(limit)
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		if time.Now().After(end) {
			err = fmt.Errorf("another command has been working on it for %s: wait for it or end it", limit)
		} else if err = Pause(ctx, 50*time.Millisecond); err == nil {
			continue
		}
		_ = f.Close()
		return nil, err
	}
}

// Pause waits, or returns the reason why not.
func Pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
