package cas

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"tool/core/model/digest"
)

// Link makes dst a hard link to the blob's file of the wanted mode; where that
// cannot be (another file system) it makes a copy. dst must not exist. Nobody
// may write to dst: it is the blob.
func (s *Store) Link(d digest.Digest, executable bool, dst string) error {
	if err := s.linkAt(d, executable, unix.AT_FDCWD, dst); err != nil {
		return fmt.Errorf("link blob %s to %s: %w", d, dst, s.wrap(err))
	}
	return nil
}

// linkAt is Link below a directory descriptor. Links do not look at sizes, for
// speed: a file of the wrong size is found after a loss of power, and by Verify.
func (s *Store) linkAt(d digest.Digest, executable bool, dirfd int, name string) error {
	from := blobRel(d, executable)
	err := s.linkBlob(from, dirfd, name)
	// No such file: this variant, or the directory of name; or another process
	// put a new inode in the old one's place just between look-up and link.
	for try := 0; err == unix.ENOENT && try < 8; try++ {
		if err := s.makeVariant(d, executable); err != nil {
			return err
		}
		err = s.linkBlob(from, dirfd, name)
	}
	if err == unix.EMLINK {
		// Put a new inode in the old one's place: the next 65000 links are
		// free again.
		if err := s.copyVariant(d, executable, true); err != nil {
			return err
		}
		err = s.linkBlob(from, dirfd, name)
	}
	switch err {
	case nil:
		return nil
	case unix.EMLINK, unix.EXDEV, unix.EPERM, unix.ENOTSUP:
		return s.copyAt(d, executable, dirfd, name)
	}
	return &os.PathError{Op: "link", Path: name, Err: err}
}

// makeVariant makes sure that the blob's file of the wanted mode is there.
func (s *Store) makeVariant(d digest.Digest, executable bool) error {
	var st unix.Stat_t
	if unix.Fstatat(int(s.blobs.Fd()), blobRel(d, executable), &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
		return nil
	}
	return s.copyVariant(d, executable, false)
}

func (s *Store) copyVariant(d digest.Digest, executable, replace bool) error {
	src, err := s.Open(d)
	if err != nil {
		return err
	}
	defer src.Close()
	f, err := s.newFile("variant")
	if err != nil {
		return err
	}
	if err = clone(f, src, d.Size); err == nil {
		err = s.place(f, d, executable, replace)
	}
	return s.closeTemp(f, err)
}

// copyAt writes a sealed copy of the blob.
func (s *Store) copyAt(d digest.Digest, executable bool, dirfd int, name string) error {
	src, err := s.Open(d)
	if err != nil {
		return err
	}
	defer src.Close()
	f, err := createAt(dirfd, name)
	if err != nil {
		return err
	}
	if err = clone(f, src, d.Size); err == nil {
		err = seal(f, mode(executable))
	}
	if err = errors.Join(err, f.Close()); err != nil {
		unix.Unlinkat(dirfd, name, 0)
	}
	return err
}

func createAt(dirfd int, name string) (*os.File, error) {
	for {
		fd, err := unix.Openat(dirfd, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		switch err {
		case nil:
			return os.NewFile(uintptr(fd), filepath.Base(name)), nil
		case unix.EINTR:
		default:
			return nil, &os.PathError{Op: "create", Path: name, Err: err}
		}
	}
}

// clone fills the empty dst with src, which holds size bytes: sharing blocks
// where the file system can, else by copying (in the kernel, where it can).
func clone(dst, src *os.File, size int64) error {
	if size > 0 && unix.IoctlFileClone(int(dst.Fd()), int(src.Fd())) == nil {
		return nil
	}
	n, err := io.Copy(dst, src)
	if err == nil && n != size {
		err = fmt.Errorf("%s holds %d bytes, want %d", src.Name(), n, size)
	}
	return err
}
