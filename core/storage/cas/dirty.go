package cas

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"tool/core/model/digest"
)

// Durability. No blob is fsynced. Before its first write since its last Flush a
// process makes a marker file in dirty/, named by the kernel's boot id, and
// makes the marker durable. Flush syncs the file system, then removes the
// marker. A marker of another boot means that power was lost while writes were
// not on disk; the blobs whose ctime is not before the marker's are suspects.
//
// Each process has markers of its own, so that one process's Flush does not
// vouch for what another wrote while the sync was under way. The markers of
// processes that died in this boot stay until someone's sync has covered them.

// clockSlack is how far the clock may have been set back between the making
// of a marker and a write that it covers.
const clockSlack = 10 * time.Minute

const unknownBoot = "unknown"

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	id := strings.TrimSpace(string(b))
	if err != nil || id == "" || strings.ContainsAny(id, "./") {
		return unknownBoot
	}
	return id
}

type dirtyMark struct {
	// mu is held shared while a write is put in place, and exclusively to
	// take the marker away: so a marker covers whole writes.
	mu   sync.RWMutex
	file *os.File   // the current marker, locked; nil if there is none
	old  []*os.File // markers whose sync has not succeeded
}

func (m *dirtyMark) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var err error
	for _, f := range append(m.old, m.file) {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	m.file, m.old = nil, nil
	return err
}

// beginWrite makes sure that a marker exists and stays until endWrite.
func (s *Store) beginWrite() error {
	for {
		s.dirty.mu.RLock()
		if s.dirty.file != nil {
			return nil
		}
		s.dirty.mu.RUnlock()
		if err := s.mark(); err != nil {
			return s.wrap(err)
		}
	}
}

func (s *Store) endWrite() { s.dirty.mu.RUnlock() }

// Unflushed calls write, which puts files into the store's directory that
// share the blobs' durability: complete after the next Flush, and to be checked
// by their owner when OpenRecovering says so.
func (s *Store) Unflushed(write func() error) error {
	if err := s.beginWrite(); err != nil {
		return err
	}
	defer s.endWrite()
	return s.wrap(write())
}

func (s *Store) mark() error {
	s.dirty.mu.Lock()
	defer s.dirty.mu.Unlock()
	if s.dirty.file != nil {
		return nil
	}
	// It is locked before it gets its name: an unlocked marker is a dead one's.
	tmp := s.tmpName("dirty")
	f, err := flock(tmp, unix.LOCK_EX)
	if err != nil {
		return fmt.Errorf("mark the store as being written: %w", err)
	}
	path := filepath.Join(s.dir, "dirty", s.boot+"."+rand.Text())
	// Its name and time say all; it has no bytes that would need a sync too.
	if err = os.Rename(tmp, path); err == nil {
		err = syncDir(filepath.Join(s.dir, "dirty"))
	}
	if err != nil {
		f.Close()
		os.Remove(tmp)
		os.Remove(path)
		return fmt.Errorf("mark the store as being written: %w", err)
	}
	// The name that Flush removes is the one after the rename.
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		f.Close()
		return fmt.Errorf("mark the store as being written: %w", err)
	}
	f.Close()
	s.dirty.file = os.NewFile(uintptr(fd), path)
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Flush makes everything that this process has put into the store durable. It
// costs one sync of the file system, and nothing when there was no write.
func (s *Store) Flush() error {
	s.dirty.mu.Lock()
	mine := s.dirty.old
	if s.dirty.file != nil {
		mine = append(mine, s.dirty.file)
	}
	s.dirty.file, s.dirty.old = nil, nil
	s.dirty.mu.Unlock()

	dead, err := s.deadMarkers()
	if err == nil && len(mine)+len(dead) > 0 {
		err = unix.Syncfs(int(s.blobs.Fd()))
	}
	if err != nil {
		s.dirty.mu.Lock()
		s.dirty.old = append(s.dirty.old, mine...)
		s.dirty.mu.Unlock()
		return fmt.Errorf("flush the store to disk: %w", s.wrap(err))
	}
	for _, f := range append(mine, dead...) {
		err = errors.Join(err, removeExisting(f.Name()), f.Close())
	}
	return err
}

func removeExisting(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// deadMarkers returns the markers of this boot whose processes have ended,
// opened and locked.
func (s *Store) deadMarkers() ([]*os.File, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "dirty"))
	if err != nil {
		return nil, err
	}
	var dead []*os.File
	for _, e := range entries {
		if boot, _, _ := strings.Cut(e.Name(), "."); boot != s.boot || boot == unknownBoot {
			continue
		}
		f, err := os.Open(filepath.Join(s.dir, "dirty", e.Name()))
		if err != nil {
			continue // its owner has flushed
		}
		if flockFile(f, unix.LOCK_EX|unix.LOCK_NB) != nil {
			f.Close()
			continue
		}
		dead = append(dead, f)
	}
	return dead, nil
}

// recoverPower checks what was not on disk for sure when power was lost. The
// caller holds open.lock, so nobody has the store open in this boot before the
// first such check has ended.
func (s *Store) recoverPower(check func(*Store) error) error {
	entries, err := os.ReadDir(filepath.Join(s.dir, "dirty"))
	if err != nil {
		return err
	}
	var markers []string
	var since time.Time
	for _, e := range entries {
		path := filepath.Join(s.dir, "dirty", e.Name())
		boot, _, _ := strings.Cut(e.Name(), ".")
		if boot == s.boot && boot != unknownBoot {
			continue
		}
		if f, err := os.Open(path); err == nil { // one without a boot id may be alive
			alive := flockFile(f, unix.LOCK_SH|unix.LOCK_NB) != nil
			f.Close()
			if alive {
				continue
			}
		}
		fi, err := e.Info()
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if t := fi.ModTime(); since.IsZero() || t.Before(since) {
			since = t
		}
		markers = append(markers, path)
	}
	if len(markers) == 0 {
		return nil
	}
	s.recovered = true
	if err := s.recheck(since.Add(-clockSlack)); err != nil {
		return fmt.Errorf("check the blobs after a loss of power: %w", err)
	}
	if err := s.recheckTrees(); err != nil {
		return fmt.Errorf("check the trees after a loss of power: %w", err)
	}
	if check != nil {
		if err := check(s); err != nil {
			return fmt.Errorf("check the store after a loss of power: %w", err)
		}
	}
	if err := unix.Syncfs(int(s.blobs.Fd())); err != nil {
		return err
	}
	for _, m := range markers {
		if err := removeExisting(m); err != nil {
			return err
		}
	}
	return nil
}

// recheck hashes the blobs that changed since then and removes the bad ones.
func (s *Store) recheck(since time.Time) error {
	type suspect struct {
		d          digest.Digest
		executable bool
	}
	work := make(chan suspect)
	errs := make(chan error, runtime.GOMAXPROCS(0))
	for range cap(errs) {
		go func() {
			var err error
			for w := range work {
				if err != nil {
					continue
				}
				if bad := s.VerifyFile(context.Background(), w.d, w.executable); IsCorrupt(bad) {
					err = s.removeFile(w.d, w.executable)
				} else if bad != nil {
					err = bad
				}
			}
			errs <- err
		}()
	}
	err := s.Each(func(d digest.Digest, executable bool, _ int64, ctime time.Time) error {
		if !ctime.Before(since) {
			work <- suspect{d, executable}
		}
		return nil
	})
	close(work)
	for range cap(errs) {
		err = errors.Join(err, <-errs)
	}
	return err
}

// recheckTrees removes the trees that are not whole; files of removed blobs are
// hashed. Whole ones stay, for the machine may run from one.
func (s *Store) recheckTrees() error {
	return s.EachTree(func(d digest.Digest, _ time.Time) error {
		if s.VerifyTree(context.Background(), d) == nil {
			return nil
		}
		return s.RemoveTree(d)
	})
}
