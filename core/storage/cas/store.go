// Package cas is a content-addressed store in one directory: blobs by SHA-256,
// trees as merkle Directory blobs, and a cache of trees laid out as hard links.
//
//	blobs/ab/<64 hex>      a blob, mode 0444
//	blobs/ab/<64 hex>.x    the same bytes, mode 0555, made on demand
//	trees/<64 hex>/        a tree of hard links to blobs; may vanish any time
//	tmp/<session>/         what one process is writing
//	dirty/<boot>.<random>  one process has writes that are not known durable
//	lock                   the barrier between collections and everyone else
//	open.lock              serialises Open: recovery and cleaning
//
// # Two inodes
//
// A mode belongs to an inode, so a file that is wanted both plain and
// executable has two. Each alone is enough for the blob to be there.
//
// # Several processes
//
// Any number of processes may have a store open. A blob appears by rename,
// complete, and is never changed afterwards; two that write the same blob
// rename the same bytes. Presence of a Directory blob says nothing about what
// it names: ask Missing for the whole tree where that matters.
//
// # Collections
//
// A put of what is there already renews the blob's ctime while it holds the
// barrier shared, and a collection, which holds the barrier exclusively, spares
// what is younger than the oldest lease. So a put either finds the blob and
// keeps it, or finds it gone and writes it.
package cas

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"tool/core/model/digest"
)

// Mtime is the modification time, in seconds since 1970, of every blob file
// and of all that Materialise makes: 1980-01-01, the earliest that zip archives
// can hold. A sandbox sees the same times on every machine.
const Mtime = 315532800

const (
	blobMode = 0o444
	execMode = 0o555
	execExt  = ".x"
)

// Store is an open store. Its methods are safe for concurrent use.
type Store struct {
	dir   string
	blobs *os.File // blobs/, for *at calls with short paths
	sess  *session
	dirs  dirCache
	dirty dirtyMark
	boot  string
	seq   atomic.Uint64 // numbers temporary names of this session

	recovered bool
	props     bool // Materialise applies them: see ApplyProps
	closeOnce sync.Once
	closeErr  error

	maxEntries int64
	linkBlob   func(from string, dirfd int, name string) error // linkat; a test makes it fail
}

// NotFoundError says that the store does not hold a blob.
type NotFoundError struct {
	Digest digest.Digest
}

func (e *NotFoundError) Error() string { return fmt.Sprintf("blob %s is not in the store", e.Digest) }

// Is makes errors.Is(err, os.ErrNotExist) true.
func (e *NotFoundError) Is(target error) bool { return target == os.ErrNotExist }

// Open opens the store in dir and creates it where there is none. It removes
// what dead processes left under tmp and, when the machine lost power since the
// last Flush of some process, checks the blobs written since then (Recovered).
func Open(dir string) (*Store, error) { return OpenRecovering(dir, nil) }

// OpenRecovering is Open for a caller that keeps files of its own in dir. After
// a loss of power it calls check once the blobs have been checked. Should the
// process die before check has returned, the next Open does it all again.
func OpenRecovering(dir string, check func(*Store) error) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	s := &Store{dir: abs, boot: bootID(), maxEntries: maxEntries}
	s.linkBlob = func(from string, dirfd int, name string) error {
		return unix.Linkat(int(s.blobs.Fd()), from, dirfd, name, 0)
	}
	if err := s.open(check); err != nil {
		if s.blobs != nil {
			s.blobs.Close()
		}
		if s.sess != nil {
			s.sess.close()
		}
		return nil, fmt.Errorf("open store %s: %w", dir, s.wrap(err))
	}
	return s, nil
}

func (s *Store) open(check func(*Store) error) error {
	for _, d := range []string{"", "blobs", "trees", "tmp", "dirty"} {
		if err := os.MkdirAll(filepath.Join(s.dir, d), 0o755); err != nil {
			return err
		}
	}
	// The last shard is made last, so it tells that all are there.
	if _, err := os.Lstat(filepath.Join(s.dir, "blobs", "ff")); err != nil {
		for i := range 256 {
			if err := os.Mkdir(filepath.Join(s.dir, "blobs", fmt.Sprintf("%02x", i)), 0o755); err != nil && !errors.Is(err, os.ErrExist) {
				return err
			}
		}
	}
	var err error
	if s.blobs, err = os.Open(filepath.Join(s.dir, "blobs")); err != nil {
		return err
	}
	lock, err := flock(filepath.Join(s.dir, "open.lock"), unix.LOCK_EX)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := s.cleanTmp(); err != nil {
		return err
	}
	if s.sess, err = newSession(filepath.Join(s.dir, "tmp")); err != nil {
		return err
	}
	return s.recoverPower(check)
}

// Close releases the store. It does not Flush: what was not flushed is checked
// after a power loss, by the next Open.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.closeErr = errors.Join(s.sess.close(), s.dirty.close(), s.blobs.Close())
	})
	return s.closeErr
}

// Dir returns the store's absolute directory.
func (s *Store) Dir() string { return s.dir }

// ApplyProps makes Materialise give files and directories the modes and owners
// that their nodes tell, as a machine needs them to run: such files are copies,
// for a blob's inode is shared with trees that want it otherwise. It takes root.
// Call it right after Open, and for all the life of a store's directory or never:
// trees that are laid out already stay as they are.
func (s *Store) ApplyProps() { s.props = true }

// Recovered reports whether this Open found that power was lost and checked
// the blobs.
func (s *Store) Recovered() bool { return s.recovered }

// blobRel is the path of a blob relative to blobs/.
func blobRel(d digest.Digest, executable bool) string {
	h := d.Hex()
	if executable {
		return h[:2] + "/" + h + execExt
	}
	return h[:2] + "/" + h
}

// Path returns where the blob's file is, or would be. The file may be absent
// while the other variant is there.
func (s *Store) Path(d digest.Digest, executable bool) string {
	return filepath.Join(s.dir, "blobs", blobRel(d, executable))
}

func mode(executable bool) uint32 {
	if executable {
		return execMode
	}
	return blobMode
}

// fixedTimes keeps the access time, so that a scan does not rewrite inodes.
var fixedTimes = [2]unix.Timespec{{Nsec: unix.UTIME_OMIT}, {Sec: Mtime}}

// seal gives an open file or directory its final times and mode. The order
// does not matter to others: nothing points to it yet.
func seal(f *os.File, m uint32) error {
	if err := unix.Fchmod(int(f.Fd()), m); err != nil {
		return &os.PathError{Op: "chmod", Path: f.Name(), Err: err}
	}
	return setTimes(f)
}

func setTimes(f *os.File) error {
	t := fixedTimes
	if err := unix.UtimesNanoAt(int(f.Fd()), "", t[:], unix.AT_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "utimensat", Path: f.Name(), Err: err}
	}
	return nil
}

func ctimeOf(st *unix.Stat_t) time.Time { return time.Unix(st.Ctim.Unix()) }

// FullError says that the file system of the store has no room left.
type FullError struct {
	Dir string
	Err error
}

func (e *FullError) Error() string {
	return fmt.Sprintf("the store directory %s is full (free some space, or collect garbage): %v", e.Dir, e.Err)
}

// Unwrap returns the system's error.
func (e *FullError) Unwrap() error { return e.Err }

// IsFull reports whether err came from a full disk or quota.
func IsFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// wrap makes errors of a full disk say which directory to look at.
func (s *Store) wrap(err error) error {
	if err == nil || !IsFull(err) {
		return err
	}
	var have *FullError
	if errors.As(err, &have) {
		return err
	}
	return &FullError{Dir: s.dir, Err: err}
}
