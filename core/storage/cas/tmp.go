package cas

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// session is this process's directory under tmp/. A flock on the directory
// itself tells others that its owner lives; no pid can be mistaken for another.
type session struct {
	path string
	dir  *os.File
}

func newSession(tmp string) (*session, error) {
	for {
		p := filepath.Join(tmp, rand.Text())
		if err := os.Mkdir(p, 0o755); err != nil {
			return nil, err
		}
		d, err := os.Open(p)
		if errors.Is(err, os.ErrNotExist) {
			continue // a cleaner was faster than our lock
		}
		if err != nil {
			return nil, err
		}
		if err := flockFile(d, unix.LOCK_EX); err != nil {
			d.Close()
			return nil, err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err == nil {
			return &session{p, d}, nil
		}
		d.Close()
	}
}

func (s *session) close() error {
	err := removeAll(s.path)
	return errors.Join(err, s.dir.Close())
}

// cleanTmp removes the sessions of dead processes.
func (s *Store) cleanTmp() error {
	tmp := filepath.Join(s.dir, "tmp")
	entries, err := os.ReadDir(tmp)
	if err != nil {
		return err
	}
	for _, e := range entries {
		p := filepath.Join(tmp, e.Name())
		if !e.IsDir() {
			if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
			continue
		}
		d, err := os.OpenFile(p, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		err = flockFile(d, unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			err = removeAll(p)
		} else if errors.Is(err, unix.EWOULDBLOCK) {
			err = nil
		}
		d.Close()
		if err != nil {
			return fmt.Errorf("clean up after a dead process: %w", err)
		}
	}
	return nil
}

// tmpName returns a path under tmp that no one uses.
func (s *Store) tmpName(prefix string) string {
	return filepath.Join(s.sess.path, prefix+"-"+strconv.FormatUint(s.seq.Add(1), 10))
}

// TempDir makes an empty directory under tmp/, on the file system of the
// store, so that Adopt can rename out of it. prefix is for people. The
// directory goes away when the process dies and someone opens the store.
func (s *Store) TempDir(prefix string) (string, error) {
	if strings.Contains(prefix, "/") {
		return "", fmt.Errorf("temporary directory: prefix %q holds a slash", prefix)
	}
	p := s.tmpName("d-" + prefix)
	if err := os.Mkdir(p, 0o755); err != nil {
		return "", fmt.Errorf("make a temporary directory: %w", s.wrap(err))
	}
	return p, nil
}

// RemoveAll removes path and all below it, whatever the modes of directories
// are, and follows no symbolic link. A path that does not exist is no error.
func (s *Store) RemoveAll(path string) error { return removeAll(path) }

func removeAll(path string) error {
	parent, err := os.OpenFile(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	defer parent.Close()
	if err := removeAt(parent, filepath.Base(path), 0); err != nil {
		return fmt.Errorf("remove %s: %w", path, err)
	}
	return nil
}

// maxDepth bounds how deep directories nest: each level holds a descriptor.
const maxDepth = 512

var errTooDeep = fmt.Errorf("directories nest deeper than %d", maxDepth)

func removeAt(parent *os.File, name string, depth int) error {
	err := unix.Unlinkat(int(parent.Fd()), name, 0)
	if err == nil || err == unix.ENOENT {
		return nil
	}
	if err != unix.EISDIR && err != unix.EPERM {
		return &os.PathError{Op: "unlink", Path: filepath.Join(parent.Name(), name), Err: err}
	}
	if err := unix.Unlinkat(int(parent.Fd()), name, unix.AT_REMOVEDIR); err == nil || err == unix.ENOENT {
		return nil
	}
	d, err := openDirAt(parent, name)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer d.Close()
	if depth >= maxDepth {
		return flatten(parent, d, name)
	}
	for {
		names, err := d.Readdirnames(1024)
		for _, n := range names {
			if err := removeAt(d, n, depth+1); err != nil {
				return err
			}
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, io.EOF) {
			return err
		}
		err = unix.Unlinkat(int(parent.Fd()), name, unix.AT_REMOVEDIR)
		if err == nil || err == unix.ENOENT {
			return nil
		}
		if err != unix.ENOTEMPTY {
			return &os.PathError{Op: "rmdir", Path: filepath.Join(parent.Name(), name), Err: err}
		}
		// flatten put more here, or the listing missed some: each round removes something.
		if _, err := d.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
}

// flatten removes a directory too deep to recurse into: hostile code may nest
// more directories than there are descriptors. Its children are moved up beside
// it, where the walk over the parent finds them.
func flatten(parent, d *os.File, name string) error {
	names, err := d.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, n := range names {
		// Moving a directory changes its "..", which takes write permission on it.
		if err := chmodAt(d, n, unix.S_IFDIR, 0o700); err != nil && !errors.Is(err, errChanged) {
			return err
		}
		to := rand.Text()
		if err := unix.Renameat(int(d.Fd()), n, int(parent.Fd()), to); err != nil {
			return &os.PathError{Op: "rename", Path: filepath.Join(d.Name(), n), Err: err}
		}
	}
	if err := unix.Unlinkat(int(parent.Fd()), name, unix.AT_REMOVEDIR); err != nil {
		return &os.PathError{Op: "rmdir", Path: filepath.Join(parent.Name(), name), Err: err}
	}
	return nil
}

// openDirAt opens a directory that we own so that it can be listed and
// changed, whatever its mode was. It follows no symbolic link.
func openDirAt(parent *os.File, name string) (*os.File, error) {
	p := filepath.Join(parent.Name(), name)
	if err := chmodAt(parent, name, unix.S_IFDIR, 0o700); err != nil {
		return nil, err
	}
	fd, err := openat(int(parent.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: p, Err: err}
	}
	return os.NewFile(uintptr(fd), p), nil
}

func openat(dirfd int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat(dirfd, name, flags|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

var errChanged = errors.New("is not of the expected type")

// chmodAt makes sure that the mode of name holds at least bits. fchmodat
// follows symbolic links, so the way is through a descriptor that needs no
// permission and that has been checked to be of the wanted type.
func chmodAt(parent *os.File, name string, kind, bits uint32) error {
	p := filepath.Join(parent.Name(), name)
	fd, err := openat(int(parent.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW)
	if err != nil {
		return &os.PathError{Op: "open", Path: p, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &os.PathError{Op: "stat", Path: p, Err: err}
	}
	if st.Mode&unix.S_IFMT != kind {
		return &os.PathError{Op: "open", Path: p, Err: errChanged}
	}
	if st.Mode&bits == bits {
		return nil
	}
	err = unix.Fchmodat(fd, "", st.Mode&0o777|bits, unix.AT_EMPTY_PATH) // Linux 6.6
	if err != nil {
		err = unix.Fchmodat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), st.Mode&0o777|bits, 0)
	}
	if err != nil {
		return &os.PathError{Op: "chmod", Path: p, Err: err}
	}
	return nil
}
