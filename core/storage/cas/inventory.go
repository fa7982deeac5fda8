package cas

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tool/core/model/digest"
)

// Each calls f for every blob file, each variant by itself, in no order. size
// is the file's size and the digest's; where the file was cut short that digest
// is wrong, which Verify tells. ctime is when the blob was last put or linked.
func (s *Store) Each(f func(d digest.Digest, executable bool, size int64, ctime time.Time) error) error {
	for i := range 256 {
		shard := filepath.Join(s.dir, "blobs", fmt.Sprintf("%02x", i))
		dir, err := os.Open(shard)
		if err != nil {
			return fmt.Errorf("list blobs: %w", err)
		}
		names, err := dir.Readdirnames(-1)
		if err != nil {
			dir.Close()
			return fmt.Errorf("list blobs: %w", err)
		}
		for _, name := range names {
			hex, executable := strings.CutSuffix(name, execExt)
			d, err := digest.New(hex, 0)
			if err != nil {
				continue // not ours
			}
			var st unix.Stat_t
			if err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
				continue // removed meanwhile
			}
			d.Size = st.Size
			if err := f(d, executable, st.Size, ctimeOf(&st)); err != nil {
				dir.Close()
				return err
			}
		}
		dir.Close()
	}
	return nil
}

// Stat returns the youngest ctime of the blob's files; ok is false if there
// are none. The digest's size is not looked at.
func (s *Store) Stat(d digest.Digest) (ctime time.Time, ok bool) {
	var st unix.Stat_t
	for _, x := range [2]bool{false, true} {
		if unix.Fstatat(int(s.blobs.Fd()), blobRel(d, x), &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
			if t := ctimeOf(&st); !ok || t.After(ctime) {
				ctime, ok = t, true
			}
		}
	}
	return ctime, ok
}

// Remove deletes both files of a blob. It asks nobody: see Exclusive. A blob
// that is not there is no error.
func (s *Store) Remove(d digest.Digest) error {
	return errors.Join(s.removeFile(d, false), s.removeFile(d, true))
}

// RemoveFile deletes one of the blob's two files.
func (s *Store) RemoveFile(d digest.Digest, executable bool) error {
	return s.removeFile(d, executable)
}

func (s *Store) removeFile(d digest.Digest, executable bool) error {
	s.dirs.drop(d)
	if err := unix.Unlinkat(int(s.blobs.Fd()), blobRel(d, executable), 0); err != nil && err != unix.ENOENT {
		return fmt.Errorf("remove blob %s: %w", d, err)
	}
	return nil
}

// EachTree calls f for every materialised tree. The size in the digest is that
// of the Directory blob, or -1 if the blob is gone.
func (s *Store) EachTree(f func(d digest.Digest, ctime time.Time) error) error {
	entries, err := os.ReadDir(filepath.Join(s.dir, "trees"))
	if err != nil {
		return fmt.Errorf("list trees: %w", err)
	}
	for _, e := range entries {
		d, err := digest.New(e.Name(), 0)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Lstat(filepath.Join(s.dir, "trees", e.Name()), &st) != nil {
			continue
		}
		ctime := ctimeOf(&st)
		d.Size = -1
		for _, x := range [2]bool{false, true} {
			if unix.Fstatat(int(s.blobs.Fd()), blobRel(d, x), &st, unix.AT_SYMLINK_NOFOLLOW) == nil {
				d.Size = st.Size
				break
			}
		}
		if err := f(d, ctime); err != nil {
			return err
		}
	}
	return nil
}

// HideTree takes a materialised tree away at once and returns the path under
// tmp where it is now, for RemoveAll. It returns "" if there was none. Only
// d's hash is looked at.
func (s *Store) HideTree(d digest.Digest) (string, error) {
	from := s.treePath(d)
	var st unix.Stat_t
	if err := unix.Lstat(from, &st); err != nil {
		return "", nil
	}
	// Moving a directory changes its "..", which takes write permission on it.
	if st.Mode&0o700 != 0o700 {
		if err := os.Chmod(from, 0o755); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("remove tree %s: %w", d.Hex(), err)
		}
	}
	to := s.tmpName("tree")
	if err := os.Rename(from, to); errors.Is(err, os.ErrNotExist) {
		return "", nil
	} else if err != nil {
		return "", fmt.Errorf("remove tree %s: %w", d.Hex(), err)
	}
	return to, nil
}

// RemoveTree deletes a materialised tree. Only d's hash is looked at.
func (s *Store) RemoveTree(d digest.Digest) error {
	p, err := s.HideTree(d)
	if p == "" || err != nil {
		return err
	}
	return removeAll(p)
}

func (s *Store) treePath(d digest.Digest) string { return filepath.Join(s.dir, "trees", d.Hex()) }
