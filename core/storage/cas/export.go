package cas

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"tool/core/model/digest"
	"tool/core/model/merkle"
)

// Export writes a file, symbolic link or tree to dst for a user: writable
// copies (modes 0644 and 0755, today's times), never hard links. dst must not
// exist; it appears complete, by rename, or not at all.
func (s *Store) Export(ctx context.Context, node merkle.Node, dst string) error {
	if err := s.export(ctx, node, dst); err != nil {
		return fmt.Errorf("export to %s: %w", dst, err)
	}
	return nil
}

func (s *Store) export(ctx context.Context, node merkle.Node, dst string) error {
	dst, err := filepath.Abs(dst)
	if err != nil {
		return err
	}
	// A directory of our own beside dst, so that a hostile neighbour cannot
	// guess a name inside it.
	tmp, err := os.MkdirTemp(filepath.Dir(dst), ".export-")
	if err != nil {
		return err
	}
	defer removeAll(tmp)
	dir, err := os.OpenFile(tmp, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer dir.Close()
	e := exporter{s: s, ctx: ctx}
	if err := e.write(int(dir.Fd()), "x", node, 0); err != nil {
		return err
	}
	err = unix.Renameat2(int(dir.Fd()), "x", unix.AT_FDCWD, dst, unix.RENAME_NOREPLACE)
	if err == unix.EINVAL || err == unix.ENOSYS || err == unix.ENOTSUP { // not on this file system
		if _, err := os.Lstat(dst); err == nil {
			return os.ErrExist
		}
		err = unix.Renameat(int(dir.Fd()), "x", unix.AT_FDCWD, dst)
	}
	if err != nil {
		return &os.PathError{Op: "rename", Path: dst, Err: err}
	}
	return nil
}

type exporter struct {
	s       *Store
	ctx     context.Context
	entries int64
}

func (e *exporter) write(dirfd int, name string, n merkle.Node, depth int) error {
	if err := e.ctx.Err(); err != nil {
		return err
	}
	if e.entries++; e.entries > e.s.maxEntries {
		return fmt.Errorf("tree has more than %d entries", e.s.maxEntries)
	}
	switch n.Kind {
	case merkle.File:
		return e.file(dirfd, name, n.Digest, n.Executable)
	case merkle.Symlink:
		if err := unix.Symlinkat(n.Target, dirfd, name); err != nil {
			return &os.PathError{Op: "symlink", Path: name, Err: err}
		}
		return nil
	case merkle.Dir:
		return e.dir(dirfd, name, n.Digest, depth)
	}
	return fmt.Errorf("%s: there is nothing to export", name)
}

func (e *exporter) dir(dirfd int, name string, d digest.Digest, depth int) error {
	if depth >= maxDepth {
		return errTooDeep
	}
	dir, err := e.s.GetDirectory(d)
	if err != nil {
		return err
	}
	if err := unix.Mkdirat(dirfd, name, 0o755); err != nil {
		return &os.PathError{Op: "mkdir", Path: name, Err: err}
	}
	fd, err := openat(dirfd, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer unix.Close(fd)
	return dir.Entries(func(child string, n merkle.Node) error {
		if err := e.write(fd, child, n, depth+1); err != nil {
			return fmt.Errorf("%s: %w", child, err)
		}
		return nil
	})
}

func (e *exporter) file(dirfd int, name string, d digest.Digest, executable bool) error {
	src, err := e.s.Open(d)
	if err != nil {
		return err
	}
	defer src.Close()
	f, err := createAt(dirfd, name)
	if err != nil {
		return err
	}
	err = clone(f, src, d.Size)
	if err == nil {
		m := os.FileMode(0o644)
		if executable {
			m = 0o755
		}
		err = f.Chmod(m)
	}
	return errors.Join(err, f.Close())
}
