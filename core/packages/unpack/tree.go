package unpack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"
	"unicode/utf8"

	"tool/core/model/digest"
	"tool/core/model/merkle"
)

const (
	// maxPath bounds an entry's path in bytes, as PATH_MAX does; it also
	// bounds how deep a tree may be.
	maxPath = 4096
	// smallFile is up to where a file is read into memory and handed over in
	// one piece, which spares the store a temporary file.
	smallFile = 64 << 10
)

// tree collects an archive's entries. Nothing is ever followed: a path is only
// a key, so an entry below a symbolic link is a conflict and not an escape.
type tree struct {
	ctx     context.Context
	sink    Sink
	opt     Options
	lim     Limits
	exclude patterns
	exec    patterns
	root    merkle.Builder
	nodes   map[string]merkle.Node // files and symlinks, by path in the tree
	entries int
	taken   int
	bytes   int64
	packed  *counter // of the archive as it is; nil where its members tell
	buf     []byte
}

func newTree(ctx context.Context, sink Sink, o Options) (*tree, error) {
	t := &tree{ctx: ctx, sink: sink, opt: o, lim: o.Limits.withDefaults(), nodes: map[string]merkle.Node{}, buf: make([]byte, smallFile)}
	var err error
	if t.exclude, err = compile(o.Exclude); err != nil {
		return nil, err
	}
	if t.exec, err = compile(o.Executable); err != nil {
		return nil, err
	}
	if o.Strip < 0 {
		return nil, fmt.Errorf("strip %d is negative", o.Strip)
	}
	if o.Prefix != "" {
		if t.opt.Prefix, err = cleanName(o.Prefix); err != nil {
			return nil, fmt.Errorf("prefix: %w", err)
		}
	}
	return t, nil
}

// Bounds of a path's number of elements: no deeper tree can be laid out, and
// what is below the usual depth counts as entries.
const (
	maxDepth   = 512
	usualDepth = 16
)

// count is called once for each entry, taken or not.
func (t *tree) count() error {
	t.entries++
	if t.entries > t.lim.Entries {
		return &LimitError{"entries", int64(t.lim.Entries)}
	}
	return t.ctx.Err()
}

// cleanName checks an archive's name for an entry and returns it without "./"
// and doubled slashes; "." is the root.
func cleanName(name string) (string, error) {
	switch {
	case name == "":
		return "", errors.New("empty name")
	case len(name) > maxPath:
		return "", fmt.Errorf("path of %d bytes is longer than %d", len(name), maxPath)
	case path.IsAbs(name):
		return "", errors.New("absolute path")
	case !utf8.ValidString(name):
		return "", errors.New("name is not UTF-8")
	case strings.Contains(name, "\x00"):
		return "", errors.New("name holds NUL")
	}
	depth := 0
	for e := range strings.SplitSeq(name, "/") {
		if depth++; depth > maxDepth {
			return "", fmt.Errorf("path of more than %d elements", maxDepth)
		}
		if e == ".." {
			return "", errors.New(`".." in path`)
		}
		if len(e) > merkle.MaxNameLen {
			return "", fmt.Errorf("path element of %d bytes is longer than %d", len(e), merkle.MaxNameLen)
		}
	}
	return path.Clean(name), nil
}

// place maps an archive's name to the tree's path. take is false for entries
// that the options leave out.
func (t *tree) place(name string) (p string, take bool, err error) {
	p, err = cleanName(name)
	if err != nil {
		return "", false, err
	}
	if t.opt.Prefix != "" {
		if p == t.opt.Prefix {
			p = "."
		} else if rest, ok := strings.CutPrefix(p, t.opt.Prefix+"/"); ok {
			p = rest
		} else {
			return "", false, nil
		}
	}
	for range t.opt.Strip {
		_, rest, ok := strings.Cut(p, "/")
		if !ok {
			return "", false, nil
		}
		p = rest
	}
	if t.opt.mergeUsr {
		p = mergeUsr(p)
	}
	// Directories that no entry is for cost memory too. Only such as no usual
	// archive has count, as entries of their own.
	if extra := strings.Count(p, "/") - usualDepth; extra > 0 {
		if t.entries += extra; t.entries > t.lim.Entries {
			return "", false, &LimitError{"entries", int64(t.lim.Entries)}
		}
	}
	if p != "." && t.exclude.match(p) {
		return "", false, nil
	}
	return p, true, nil
}

// mergeUsr maps a path of Debian's old layout to the merged one.
func mergeUsr(p string) string {
	switch top, _, _ := strings.Cut(p, "/"); top {
	case "bin", "sbin", "lib", "lib32", "lib64", "libx32", "libo32":
		return "usr/" + p
	}
	return p
}

func (t *tree) dir(p string, props merkle.Props) error {
	if _, dup := t.nodes[p]; dup {
		return errors.New("a directory where the archive has a file already")
	}
	b, err := t.root.Mkdir(p)
	if err != nil {
		return err
	}
	if b.Props.IsZero() {
		b.Props = props
	}
	t.taken++
	return nil
}

func (t *tree) add(name, p string, n merkle.Node) error {
	if p == "." {
		return fmt.Errorf("a %s cannot be the root of a tree", n.Kind)
	}
	if old, dup := t.nodes[p]; dup {
		if old == n {
			return nil
		}
		return fmt.Errorf("the archive holds a different %s with this path already", old.Kind)
	}
	if err := t.root.Add(p, n); err != nil {
		return err
	}
	t.nodes[p] = n
	t.taken++
	if t.opt.Each != nil {
		return t.opt.Each(name, n)
	}
	return nil
}

// symlink checks a target: its form, and that it stays inside the tree.
func (t *tree) symlink(name, p, target string) error {
	switch {
	case target == "" || len(target) > merkle.MaxTargetLen:
		return fmt.Errorf("symbolic link with a target of %d bytes", len(target))
	case !utf8.ValidString(target) || strings.Contains(target, "\x00"):
		return errors.New("symbolic link with a target that is not text")
	case path.IsAbs(target):
		if !t.opt.AbsoluteLinks {
			return fmt.Errorf("symbolic link to the absolute path %s", target)
		}
	default:
		if to := path.Join(path.Dir(p), target); to == ".." || strings.HasPrefix(to, "../") {
			return fmt.Errorf("symbolic link to %s, which is outside of the archive", target)
		}
	}
	return t.add(name, p, merkle.Node{Kind: merkle.Symlink, Target: target})
}

// file reads one file's bytes; size is what the archive says, or -1. With
// size -1, r is bounded by the limits alone.
func (t *tree) file(name, p string, r io.Reader, size int64, perm uint32, props merkle.Props) error {
	exec := perm&0o111 != 0 && !t.opt.NoModes || len(t.exec) > 0 && t.exec.match(p)
	if size > t.lim.File {
		return &LimitError{"bytes in one file", t.lim.File}
	}
	if size > t.lim.Bytes-t.bytes {
		return &LimitError{"bytes", t.lim.Bytes}
	}
	d, err := t.store(r, exec)
	if err != nil {
		return err
	}
	if size >= 0 && d.Size != size {
		return fmt.Errorf("holds %d bytes, the archive promised %d", d.Size, size)
	}
	return t.add(name, p, merkle.Node{Kind: merkle.File, Digest: d, Executable: exec, Props: props})
}

func (t *tree) store(r io.Reader, exec bool) (digest.Digest, error) {
	n, err := io.ReadFull(r, t.buf)
	t.bytes += int64(n)
	switch {
	case t.bytes > t.lim.Bytes:
		return digest.Digest{}, &LimitError{"bytes", t.lim.Bytes}
	case err == io.EOF || err == io.ErrUnexpectedEOF && n < len(t.buf):
		// ReadFull gives the same error for a short file and for a reader
		// that broke off; the caller compares sizes.
		if !exec {
			return t.sink.PutBytes(t.buf[:n])
		}
	case err != nil:
		return digest.Digest{}, err
	}
	w, werr := t.sink.NewWriter()
	if werr != nil {
		return digest.Digest{}, werr
	}
	for total := int64(n); ; {
		if _, werr := w.Write(t.buf[:n]); werr != nil {
			w.Abort()
			return digest.Digest{}, werr
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return w.Commit(exec)
		}
		if err == nil {
			err = t.ctx.Err()
		}
		if err == nil {
			n, err = io.ReadFull(r, t.buf)
			total += int64(n)
			t.bytes += int64(n)
		}
		switch {
		case total > t.lim.File:
			err = &LimitError{"bytes in one file", t.lim.File}
		case t.bytes > t.lim.Bytes:
			err = &LimitError{"bytes", t.lim.Bytes}
		case t.packed != nil && t.bytes > t.lim.Floor && t.bytes/t.lim.Ratio > t.packed.n:
			// A sparse file's holes are in no archive.
			err = &LimitError{"unpacked bytes per compressed byte", t.lim.Ratio}
		}
		if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
			w.Abort()
			return digest.Digest{}, err
		}
	}
}

// props returns what of a mode and an owner a plain node does not say.
func (t *tree) props(mode uint32, uid, gid int, isDir bool) (merkle.Props, error) {
	if !t.opt.KeepProps {
		return merkle.Props{}, nil
	}
	var p merkle.Props
	mode &= 0o7777
	if mode != 0o755 && (isDir || mode != 0o644) {
		p.Mode = mode
		if mode == 0 { // 0 would mean the default
			return p, errors.New("mode 0")
		}
	}
	if uid != 0 || gid != 0 {
		const most = 1<<32 - 2
		if uid < 0 || gid < 0 || uid > most || gid > most {
			return p, fmt.Errorf("owner %d:%d is out of range", uid, gid)
		}
		p.Owner = strconv.Itoa(uid) + ":" + strconv.Itoa(gid)
	}
	return p, nil
}

// write returns the tree of everything taken.
func (t *tree) write() (digest.Digest, error) {
	if t.opt.Prefix != "" && t.taken == 0 {
		return digest.Digest{}, fmt.Errorf("nothing in the archive is below %s", t.opt.Prefix)
	}
	return t.root.Write(t.sink)
}
