package cas

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"tool/core/model/digest"
	"tool/core/model/merkle"
)

// maxEntries bounds what one tree may expand to: a few small directories that
// name each other many times would otherwise fill the disk with inodes.
const maxEntries = 1 << 24

// Materialise lays the tree out as hard links and returns its path,
// trees/<hex>. The tree is complete when the path exists, for it appears by
// rename; two processes that make it at once get the same. Directories have
// mode 0555. Nothing keeps the tree but a root or a lease: Adopt it there first.
func (s *Store) Materialise(ctx context.Context, tree digest.Digest) (path string, err error) {
	path = s.treePath(tree)
	var st unix.Stat_t
	if unix.Lstat(path, &st) == nil {
		if st.Mode&0o777 != execMode { // its maker died after the rename
			os.Chmod(path, execMode)
		}
		return path, nil
	}
	tmp := s.tmpName("tree")
	if err := s.layOut(ctx, tree, tmp); err != nil {
		removeAll(tmp)
		return "", fmt.Errorf("materialise tree %s: %w", tree, s.wrap(err))
	}
	if err := s.showTree(tmp, path); err != nil {
		removeAll(tmp)
		return "", fmt.Errorf("materialise tree %s: %w", tree, s.wrap(err))
	}
	return path, nil
}

func (s *Store) showTree(tmp, path string) error {
	if err := s.beginWrite(); err != nil {
		return err
	}
	defer s.endWrite()
	err := os.Rename(tmp, path)
	if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) {
		return removeAll(tmp) // another was faster
	}
	if err != nil {
		return err
	}
	// Only now: to rename a directory elsewhere takes write permission on it.
	if err := os.Chmod(path, execMode); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

type layout struct {
	s       *Store
	ctx     context.Context
	entries atomic.Int64
	slots   chan struct{} // one for each goroutine beyond the first
	wg      sync.WaitGroup
	mu      sync.Mutex
	err     error
}

func (s *Store) layOut(ctx context.Context, tree digest.Digest, path string) error {
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	dir, err := os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	l := &layout{s: s, ctx: ctx, slots: make(chan struct{}, runtime.GOMAXPROCS(0)-1)}
	l.fill(dir, tree, "", 0)
	l.wg.Wait()
	return l.err
}

func (l *layout) fail(path string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err == nil {
		if path != "" {
			err = fmt.Errorf("%s: %w", path, err)
		}
		l.err = err
	}
}

func (l *layout) failed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err != nil
}

// fill makes the entries of tree in dir, closes dir, and gives it its final
// mode unless it is the root.
func (l *layout) fill(dir *os.File, tree digest.Digest, path string, depth int) {
	defer dir.Close()
	if err := l.fillDir(dir, tree, path, depth); err != nil {
		l.fail(path, err)
	}
}

func (l *layout) fillDir(dir *os.File, tree digest.Digest, path string, depth int) error {
	if err := l.ctx.Err(); err != nil {
		return err
	}
	if depth >= maxDepth {
		return errTooDeep
	}
	d, err := l.s.GetDirectory(tree)
	if err != nil {
		return err
	}
	if l.entries.Add(int64(len(d.Files)+len(d.Directories)+len(d.Symlinks))) > l.s.maxEntries {
		return fmt.Errorf("tree has more than %d entries", l.s.maxEntries)
	}
	fd := int(dir.Fd())
	for _, f := range d.Files {
		place := l.s.linkAt
		if l.s.props && !f.Props.IsZero() {
			place = func(d digest.Digest, executable bool, dirfd int, name string) error {
				return l.s.placeOwned(d, executable, f.Props, dirfd, name)
			}
		}
		if err := place(f.Digest, f.Executable, fd, f.Name); err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	for _, link := range d.Symlinks {
		if err := unix.Symlinkat(link.Target, fd, link.Name); err != nil {
			return &os.PathError{Op: "symlink", Path: link.Name, Err: err}
		}
		t := fixedTimes
		if err := unix.UtimesNanoAt(fd, link.Name, t[:], unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return &os.PathError{Op: "utimensat", Path: link.Name, Err: err}
		}
	}
	type sub struct {
		dir  *os.File
		node merkle.DirectoryNode
	}
	for _, n := range d.Directories {
		if l.failed() {
			return nil
		}
		if err := unix.Mkdirat(fd, n.Name, 0o755); err != nil {
			return &os.PathError{Op: "mkdir", Path: n.Name, Err: err}
		}
		subfd, err := openat(fd, n.Name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW)
		if err != nil {
			return &os.PathError{Op: "open", Path: n.Name, Err: err}
		}
		child := sub{os.NewFile(uintptr(subfd), n.Name), n}
		p := filepath.Join(path, n.Name)
		select {
		case l.slots <- struct{}{}:
			l.wg.Go(func() {
				defer func() { <-l.slots }()
				l.fill(child.dir, child.node.Digest, p, depth+1)
			})
		default:
			l.fill(child.dir, child.node.Digest, p, depth+1)
		}
	}
	// The children have their descriptors, so the mode no longer matters to
	// them. The times are not changed by what happens inside the children.
	if depth == 0 {
		return setTimes(dir)
	}
	if l.s.props && !d.Props.IsZero() {
		p := d.Props
		p.Mode &^= 0o222 // nobody writes into a tree
		return apply(dir, execMode, p)
	}
	return seal(dir, execMode)
}

// placeOwned writes a copy of the blob with the mode and owner that p tells.
func (s *Store) placeOwned(d digest.Digest, executable bool, p merkle.Props, dirfd int, name string) error {
	if err := s.copyAt(d, executable, dirfd, name); err != nil {
		return err
	}
	fd, err := openat(dirfd, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK)
	if err != nil {
		return &os.PathError{Op: "open", Path: name, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return apply(f, mode(executable), p)
}

// apply gives an open file or directory the mode and owner that p tells, and
// normal where p tells no mode.
func apply(f *os.File, normal uint32, p merkle.Props) error {
	if p.Mode != 0 {
		normal = p.Mode
	}
	if p.Owner != "" {
		u, g, _ := strings.Cut(p.Owner, ":")
		uid, err := strconv.ParseUint(u, 10, 31)
		if err != nil {
			return fmt.Errorf("owner of %s: %w", f.Name(), err)
		}
		gid, err := strconv.ParseUint(g, 10, 31)
		if err != nil {
			return fmt.Errorf("owner of %s: %w", f.Name(), err)
		}
		if err := f.Chown(int(uid), int(gid)); err != nil { // before the mode: it clears setuid
			return err
		}
	}
	return seal(f, normal)
}
