package cas

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"tool/core/model/digest"
	"tool/core/model/merkle"
)

// CorruptError says that a file of the store does not hold what its name says.
type CorruptError struct {
	Digest digest.Digest
	Path   string
	Got    digest.Digest
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("%s is damaged: it should hold %s and holds %s", e.Path, e.Digest, e.Got)
}

// IsCorrupt reports whether err says that a blob is damaged.
func IsCorrupt(err error) bool {
	var c *CorruptError
	return errors.As(err, &c)
}

// Verify reads the blob's files and hashes them. The error is a *CorruptError
// for each damaged one (joined), or a *NotFoundError if there is none.
func (s *Store) Verify(ctx context.Context, d digest.Digest) error {
	plain, exec := s.VerifyFile(ctx, d, false), s.VerifyFile(ctx, d, true)
	switch {
	case errors.Is(plain, os.ErrNotExist) && errors.Is(exec, os.ErrNotExist):
		return &NotFoundError{d}
	case errors.Is(plain, os.ErrNotExist):
		return exec
	case errors.Is(exec, os.ErrNotExist):
		return plain
	}
	return errors.Join(plain, exec)
}

// VerifyFile hashes one of the blob's two files. It fails with a *CorruptError,
// or with os.ErrNotExist where that variant is not there.
func (s *Store) VerifyFile(ctx context.Context, d digest.Digest, executable bool) error {
	f, err := s.openFile(d, executable)
	if err != nil {
		return err
	}
	defer f.Close()
	return verifyOpen(ctx, d, f)
}

func verifyOpen(ctx context.Context, d digest.Digest, f *os.File) error {
	got, err := digest.FromReader(&ctxReader{ctx, f})
	if errors.Is(err, unix.EIO) { // the disk cannot read it: as bad as wrong bytes
		return &CorruptError{Digest: d, Path: f.Name()}
	}
	if err != nil {
		return fmt.Errorf("verify blob %s: %w", d, err)
	}
	if got != d {
		return &CorruptError{Digest: d, Path: f.Name(), Got: got}
	}
	return nil
}

// VerifyTree compares a materialised tree with its directories: the same names,
// kinds and targets, and files that are the blobs' inodes. Those which are
// not (copies) are hashed; the blobs themselves are for Verify. Only d's hash
// matters where the directory's size is not known (-1): that is an error.
func (s *Store) VerifyTree(ctx context.Context, d digest.Digest) error {
	root, err := os.Open(s.treePath(d))
	if err != nil {
		return err
	}
	defer root.Close()
	if d.Size < 0 {
		return fmt.Errorf("check tree %s: its directory: %w", d.Hex(), os.ErrNotExist)
	}
	return s.verifyDir(ctx, root, d, 0)
}

func (s *Store) verifyDir(ctx context.Context, dir *os.File, d digest.Digest, depth int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if depth >= maxDepth {
		return errTooDeep
	}
	want, err := s.GetDirectory(d)
	if err != nil {
		return err
	}
	have, err := dir.Readdirnames(-1)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	names := make([]string, 0, len(have))
	_ = want.Entries(func(name string, _ merkle.Node) error { names = append(names, name); return nil })
	slices.Sort(names)
	slices.Sort(have)
	if !slices.Equal(names, have) {
		return fmt.Errorf("%s has other entries than its directory %s says", dir.Name(), d)
	}
	return want.Entries(func(name string, n merkle.Node) error { return s.verifyEntry(ctx, dir, name, n, depth) })
}

func (s *Store) verifyEntry(ctx context.Context, dir *os.File, name string, n merkle.Node, depth int) error {
	path := filepath.Join(dir.Name(), name)
	if n.Kind == merkle.Symlink {
		target, err := os.Readlink(path)
		if err == nil && target != n.Target {
			err = fmt.Errorf("%s links to %s and should link to %s", path, target, n.Target)
		}
		return err
	}
	if n.Kind == merkle.File {
		var have, blob unix.Stat_t
		if err := unix.Fstatat(int(dir.Fd()), name, &have, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "stat", Path: path, Err: err}
		}
		if (have.Mode&0o111 != 0) != n.Executable {
			return fmt.Errorf("%s has mode %o", path, have.Mode&0o7777)
		}
		if unix.Fstatat(int(s.blobs.Fd()), blobRel(n.Digest, n.Executable), &blob, unix.AT_SYMLINK_NOFOLLOW) == nil && have.Ino == blob.Ino && have.Dev == blob.Dev {
			return nil
		}
	}
	fd, err := openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if n.Kind == merkle.File {
		return verifyOpen(ctx, n.Digest, f)
	}
	return s.verifyDir(ctx, f, n.Digest, depth+1)
}
