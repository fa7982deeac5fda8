package cas

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"golang.org/x/sys/unix"

	"tool/core/model/digest"
	"tool/core/model/merkle"
)

// Adopt moves a finished file, symbolic link or directory into the store, by
// hashing and renaming, and returns its node. path must be on the store's file
// system and nobody may be writing to it any more. It is gone afterwards, and
// partly gone after an error.
//
// Any executable bit makes a file executable; other mode bits, owners, times
// and extended attributes are dropped. Symbolic links are kept as they are and
// never followed. Sockets, devices and pipes are an error that names the path.
// Modes that forbid reading are no obstacle.
func (s *Store) Adopt(path string) (merkle.Node, error) {
	n, err := s.adopt(path)
	if err != nil {
		return merkle.Node{}, fmt.Errorf("take %s into the store: %w", path, s.wrap(err))
	}
	return n, nil
}

func (s *Store) adopt(path string) (merkle.Node, error) {
	path = filepath.Clean(path)
	parent, err := os.OpenFile(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return merkle.Node{}, err
	}
	defer parent.Close()
	a := &adoption{s: s, slots: make(chan struct{}, runtime.GOMAXPROCS(0))}
	return a.entry(parent, filepath.Base(path), 0)
}

type adoption struct {
	s     *Store
	slots chan struct{} // bounds the files hashed beside the walk
}

func (a *adoption) entry(parent *os.File, name string, depth int) (merkle.Node, error) {
	var st unix.Stat_t
	if err := unix.Fstatat(int(parent.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return merkle.Node{}, pathErr("stat", parent, name, err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return a.file(parent, name)
	case unix.S_IFDIR:
		return a.dir(parent, name, depth)
	case unix.S_IFLNK:
		return a.symlink(parent, name)
	}
	return merkle.Node{}, fmt.Errorf("%s is a %s; only files, directories and symbolic links can be kept",
		filepath.Join(parent.Name(), name), typeName(st.Mode))
}

func pathErr(op string, parent *os.File, name string, err error) error {
	return &os.PathError{Op: op, Path: filepath.Join(parent.Name(), name), Err: err}
}

func typeName(mode uint32) string {
	switch mode & unix.S_IFMT {
	case unix.S_IFIFO:
		return "named pipe"
	case unix.S_IFSOCK:
		return "socket"
	case unix.S_IFBLK:
		return "block device"
	case unix.S_IFCHR:
		return "character device"
	}
	return fmt.Sprintf("file of unknown type %#o", mode&unix.S_IFMT)
}

func (a *adoption) symlink(parent *os.File, name string) (merkle.Node, error) {
	var buf [merkle.MaxTargetLen + 1]byte
	n, err := unix.Readlinkat(int(parent.Fd()), name, buf[:])
	if err == nil && n > merkle.MaxTargetLen {
		err = unix.ENAMETOOLONG
	}
	if err != nil {
		return merkle.Node{}, pathErr("readlink", parent, name, err)
	}
	if err := unix.Unlinkat(int(parent.Fd()), name, 0); err != nil {
		return merkle.Node{}, pathErr("unlink", parent, name, err)
	}
	return merkle.Node{Kind: merkle.Symlink, Target: string(buf[:n])}, nil
}

func (a *adoption) dir(parent *os.File, name string, depth int) (merkle.Node, error) {
	if depth >= maxDepth {
		return merkle.Node{}, pathErr("open", parent, name, errTooDeep)
	}
	dir, err := openDirAt(parent, name)
	if err != nil {
		return merkle.Node{}, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return merkle.Node{}, err
	}
	nodes := make([]merkle.Node, len(names))
	errs := make([]error, len(names))
	var wg sync.WaitGroup
	for i, n := range names {
		if errs[i] = merkle.CheckName(n); errs[i] != nil {
			break
		}
		select {
		case a.slots <- struct{}{}:
			var st unix.Stat_t
			if unix.Fstatat(int(dir.Fd()), n, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG {
				wg.Go(func() {
					defer func() { <-a.slots }()
					nodes[i], errs[i] = a.file(dir, n)
				})
				continue
			}
			<-a.slots
		default:
		}
		if nodes[i], errs[i] = a.entry(dir, n, depth+1); errs[i] != nil {
			break
		}
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return merkle.Node{}, err
	}
	d := &merkle.Directory{}
	for i, n := range names {
		switch node := nodes[i]; node.Kind {
		case merkle.File:
			d.Files = append(d.Files, merkle.FileNode{Name: n, Digest: node.Digest, Executable: node.Executable})
		case merkle.Dir:
			d.Directories = append(d.Directories, merkle.DirectoryNode{Name: n, Digest: node.Digest})
		case merkle.Symlink:
			d.Symlinks = append(d.Symlinks, merkle.SymlinkNode{Name: n, Target: node.Target})
		}
	}
	d.Sort()
	dd, err := a.s.PutDirectory(d)
	if err != nil {
		return merkle.Node{}, err
	}
	if err := unix.Unlinkat(int(parent.Fd()), name, unix.AT_REMOVEDIR); err != nil {
		return merkle.Node{}, pathErr("rmdir", parent, name, err)
	}
	return merkle.Node{Kind: merkle.Dir, Digest: dd}, nil
}

func (a *adoption) file(parent *os.File, name string) (merkle.Node, error) {
	f, err := openFileAt(parent, name)
	if err != nil {
		return merkle.Node{}, err
	}
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return merkle.Node{}, pathErr("stat", parent, name, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return merkle.Node{}, pathErr("open", parent, name, errChanged)
	}
	node := merkle.Node{Kind: merkle.File, Executable: st.Mode&0o111 != 0}
	if !ownInode(f, &st) {
		node.Digest, err = a.s.copyIn(f, node.Executable)
	} else {
		var moved bool
		if node.Digest, moved, err = a.s.moveIn(parent, name, f, &st, node.Executable); moved {
			return node, nil
		}
	}
	if err != nil {
		return merkle.Node{}, pathErr("store", parent, name, err)
	}
	if err := unix.Unlinkat(int(parent.Fd()), name, 0); err != nil && err != unix.ENOENT {
		return merkle.Node{}, pathErr("unlink", parent, name, err)
	}
	return node, nil
}

// openFileAt opens a file that we own for reading, whatever its mode.
func openFileAt(parent *os.File, name string) (*os.File, error) {
	const flags = unix.O_RDONLY | unix.O_NOFOLLOW | unix.O_NONBLOCK
	fd, err := openat(int(parent.Fd()), name, flags)
	if err == unix.EACCES {
		if err := chmodAt(parent, name, unix.S_IFREG, 0o400); err != nil {
			return nil, err
		}
		fd, err = openat(int(parent.Fd()), name, flags)
	}
	if err != nil {
		return nil, pathErr("open", parent, name, err)
	}
	return os.NewFile(uintptr(fd), filepath.Join(parent.Name(), name)), nil
}

// ownInode reports whether the file's inode can become a blob: nothing else
// names it (someone may write through another name), it is ours (its owner
// could make it writable again), and it carries no attributes such as access
// lists or capabilities.
func ownInode(f *os.File, st *unix.Stat_t) bool {
	if st.Nlink != 1 || int(st.Uid) != os.Geteuid() {
		return false
	}
	var buf [256]byte
	n, err := unix.Flistxattr(int(f.Fd()), buf[:])
	if err != nil {
		return err == unix.ENOTSUP
	}
	for attr := range bytes.SplitSeq(buf[:n], []byte{0}) {
		switch string(attr) {
		case "", "security.selinux", "security.ima", "security.evm": // set by the host on every file
		default:
			return false
		}
	}
	return true
}

func (s *Store) copyIn(f *os.File, executable bool) (digest.Digest, error) {
	w, err := s.NewWriter()
	if err != nil {
		return digest.Digest{}, err
	}
	defer w.Abort()
	if _, err := io.Copy(w, f); err != nil {
		return digest.Digest{}, err
	}
	return w.Commit(executable)
}

// moveIn stores a file by renaming it. moved is false if the store had its
// content already: then the file is still there.
func (s *Store) moveIn(parent *os.File, name string, f *os.File, st *unix.Stat_t, executable bool) (d digest.Digest, moved bool, err error) {
	if d, err = digest.FromReader(f); err != nil {
		return d, false, err
	}
	var now unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &now); err != nil {
		return d, false, err
	}
	if now.Size != d.Size || now.Nlink != 1 || now.Mtim != st.Mtim {
		return d, false, errors.New("someone is still writing to it")
	}
	if ok, err := s.renew(d); ok || err != nil {
		return d, false, err
	}
	if err := s.beginWrite(); err != nil {
		return d, false, err
	}
	defer s.endWrite()
	if err := seal(f, mode(executable)); err != nil {
		return d, false, err
	}
	if err := s.rename(int(parent.Fd()), name, d, executable, false); err != nil {
		if errors.Is(err, unix.EXDEV) {
			return d, false, fmt.Errorf("%w (it must be on the store's file system)", err)
		}
		return d, false, err
	}
	return d, true, nil
}
