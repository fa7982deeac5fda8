package cas

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"tool/core/model/digest"
)

// smallMax is up to how many bytes a Writer keeps in memory until Commit.
const smallMax = 1 << 20

// renew tells whether d is there, and if so makes it young: see the package
// comment on collections.
func (s *Store) renew(d digest.Digest) (bool, error) {
	if !s.Has(d) {
		return false, nil
	}
	unlock, err := s.Shared()
	if err != nil {
		return false, err
	}
	defer unlock()
	x, ok := s.stat(d)
	if !ok {
		return false, nil
	}
	t := fixedTimes
	if err := unix.UtimesNanoAt(int(s.blobs.Fd()), blobRel(d, x), t[:], unix.AT_SYMLINK_NOFOLLOW); err != nil {
		if err == unix.ENOENT {
			return false, nil
		}
		return false, &os.PathError{Op: "utimensat", Path: s.Path(d, x), Err: err}
	}
	return true, nil
}

// PutBytes stores b and returns its digest.
func (s *Store) PutBytes(b []byte) (digest.Digest, error) {
	d := digest.Of(b)
	if err := s.putSmall(d, b, false); err != nil {
		return digest.Digest{}, fmt.Errorf("store blob %s: %w", d, s.wrap(err))
	}
	return d, nil
}

func (s *Store) putSmall(d digest.Digest, b []byte, executable bool) error {
	if ok, err := s.renew(d); ok || err != nil {
		return err
	}
	f, err := s.newFile("blob")
	if err != nil {
		return err
	}
	if _, err = f.Write(b); err == nil {
		err = s.place(f, d, executable, false)
	}
	return s.closeTemp(f, err)
}

// newFile makes an empty file of our own under tmp.
func (s *Store) newFile(prefix string) (*os.File, error) {
	path := s.tmpName(prefix)
	fd, err := create(path, 0o600)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// closeTemp closes f and, if err tells that it was not placed, removes it.
func (s *Store) closeTemp(f *os.File, err error) error {
	err = errors.Join(err, f.Close())
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}

// place moves the finished temporary file f to where d's blob belongs.
func (s *Store) place(f *os.File, d digest.Digest, executable, replace bool) error {
	if err := s.beginWrite(); err != nil {
		return err
	}
	defer s.endWrite()
	if err := seal(f, mode(executable)); err != nil {
		return err
	}
	return s.rename(unix.AT_FDCWD, f.Name(), d, executable, replace)
}

// rename gives a sealed file its place among the blobs. A good one that is
// there already stays, for someone may be linking it at this moment; unless
// replace is set, because it has no links left.
func (s *Store) rename(dirfd int, name string, d digest.Digest, executable, replace bool) error {
	blobs, to := int(s.blobs.Fd()), blobRel(d, executable)
	if !replace {
		err := unix.Renameat2(dirfd, name, blobs, to, unix.RENAME_NOREPLACE)
		if err == nil {
			return nil
		}
		var st unix.Stat_t
		if err == unix.EEXIST && unix.Fstatat(blobs, to, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Size == d.Size && st.Mode&unix.S_IFMT == unix.S_IFREG {
			return unix.Unlinkat(dirfd, name, 0)
		}
		if err != unix.EEXIST && err != unix.EINVAL && err != unix.ENOSYS {
			return &os.PathError{Op: "rename", Path: name, Err: err}
		}
	}
	if err := unix.Renameat(dirfd, name, blobs, to); err != nil {
		return &os.PathError{Op: "rename", Path: name, Err: err}
	}
	return nil
}

// Put stores what r holds. If want is not zero, the content must have that
// digest: else the error names both and nothing is stored. Where want is in the
// store already, r is not read.
func (s *Store) Put(ctx context.Context, want digest.Digest, r io.Reader) (digest.Digest, error) {
	if !want.IsZero() {
		if ok, err := s.renew(want); ok || err != nil {
			return want, err
		}
		r = io.LimitReader(r, want.Size+1) // a sender that does not stop must not fill the disk
		if want.Size < smallMax {
			return want, s.putWanted(ctx, want, r)
		}
	}
	w, err := s.NewWriter()
	if err != nil {
		return digest.Digest{}, err
	}
	defer w.Abort()
	if _, err := io.Copy(w, &ctxReader{ctx, r}); err != nil {
		return digest.Digest{}, fmt.Errorf("store a blob: %w", err)
	}
	if got := w.hash.Digest(); !want.IsZero() && got != want {
		return digest.Digest{}, &MismatchError{Want: want, Got: got}
	}
	return w.Commit(false)
}

// putWanted is Put for what fits into memory and is not there yet.
func (s *Store) putWanted(ctx context.Context, want digest.Digest, r io.Reader) error {
	b := make([]byte, want.Size+1)
	n, err := io.ReadFull(&ctxReader{ctx, r}, b)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return fmt.Errorf("store a blob: %w", err)
	}
	if got := digest.Of(b[:n]); got != want {
		return &MismatchError{Want: want, Got: got}
	}
	if err := s.putSmall(want, b[:n], false); err != nil {
		return fmt.Errorf("store blob %s: %w", want, s.wrap(err))
	}
	return nil
}

// MismatchError says that content does not have the digest it should have.
// Where Got is longer than Want, it is the digest of a beginning.
type MismatchError struct {
	Want, Got digest.Digest
}

func (e *MismatchError) Error() string {
	if e.Got.Size > e.Want.Size {
		return fmt.Sprintf("want content with digest %s, got more than %d bytes", e.Want, e.Want.Size)
	}
	return fmt.Sprintf("want content with digest %s, got %s", e.Want, e.Got)
}

type ctxReader struct {
	ctx context.Context
	r   io.Reader
}

func (c *ctxReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// Writer makes one blob. It is for one goroutine. End it with Commit or Abort;
// Abort after Commit does nothing, so it can be deferred.
type Writer struct {
	s    *Store
	hash *digest.Hasher
	buf  []byte
	file *os.File
	done bool
}

var errWriterDone = errors.New("the blob writer has ended")

// NewWriter begins a blob.
func (s *Store) NewWriter() (*Writer, error) {
	return &Writer{s: s, hash: digest.NewHasher()}, nil
}

// Write appends p to the blob.
func (w *Writer) Write(p []byte) (int, error) {
	if w.done {
		return 0, errWriterDone
	}
	if w.file == nil {
		if len(w.buf)+len(p) <= smallMax {
			w.buf = append(w.buf, p...)
			return w.hash.Write(p)
		}
		var err error
		if w.file, err = w.s.newFile("blob"); err != nil {
			return 0, w.s.wrap(err)
		}
		if _, err := w.file.Write(w.buf); err != nil {
			return 0, w.s.wrap(err)
		}
		w.buf = nil
	}
	n, err := w.file.Write(p)
	w.hash.Write(p[:n])
	return n, w.s.wrap(err)
}

// Digest returns the digest of all that has been written.
func (w *Writer) Digest() digest.Digest { return w.hash.Digest() }

// Commit stores the blob and returns its digest. executable tells which
// variant is made if there is none yet.
func (w *Writer) Commit(executable bool) (digest.Digest, error) {
	if w.done {
		return digest.Digest{}, errWriterDone
	}
	d := w.hash.Digest()
	if err := w.commit(d, executable); err != nil {
		w.Abort()
		return digest.Digest{}, fmt.Errorf("store blob %s: %w", d, w.s.wrap(err))
	}
	w.Abort()
	return d, nil
}

func (w *Writer) commit(d digest.Digest, executable bool) error {
	if w.file == nil {
		return w.s.putSmall(d, w.buf, executable)
	}
	if fi, err := w.file.Stat(); err != nil {
		return err
	} else if fi.Size() != d.Size {
		return fmt.Errorf("a write to %s failed before", w.file.Name())
	}
	if ok, err := w.s.renew(d); ok || err != nil {
		return err
	}
	if err := w.s.place(w.file, d, executable, false); err != nil {
		return err
	}
	err := w.file.Close()
	w.file = nil
	return err
}

// Abort drops what was written.
func (w *Writer) Abort() {
	if w.file != nil {
		w.file.Close()
		os.Remove(w.file.Name())
	}
	w.file, w.buf, w.done = nil, nil, true
}
