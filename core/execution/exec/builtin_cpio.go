package exec

import (
	"context"
	"fmt"
	"io"
	"sort"

	"tool/core/model/merkle"
	"tool/core/storage/cas"
)

// cpio packs a tree into the archive that Linux unpacks as its first file
// system: format newc, without compression, since a kernel copies faster than
// it unpacks. All belongs to root and has the time 0; modes come from the
// tree. Entries are sorted, parents first.
//
//	{}
func cpio(ctx context.Context, c *BuiltinCall) ([]merkle.Node, error) {
	if err := c.decode(&struct{}{}); err != nil {
		return nil, err
	}
	in, err := c.only()
	if err != nil {
		return nil, err
	}
	if in.Node.Kind != merkle.Dir {
		return nil, fmt.Errorf("cpio: %s is a %s, not a directory", in.Artifact.Path, in.Node.Kind)
	}
	w, err := c.CAS.NewWriter()
	if err != nil {
		return nil, err
	}
	defer w.Abort()
	a := &cpioWriter{ctx: ctx, w: w, cas: c.CAS}
	var paths []string
	nodes := map[string]merkle.Node{}
	err = merkle.Walk(c.CAS, in.Node.Digest, func(p string, n merkle.Node) error {
		paths = append(paths, p)
		nodes[p] = n
		return nil
	})
	if err != nil {
		return nil, err
	}
	sort.Strings(paths) // a parent is a prefix of its children
	for _, p := range paths {
		if err := a.node(p, nodes[p]); err != nil {
			return nil, fmt.Errorf("cpio: %s: %w", p, err)
		}
	}
	if err := a.header("TRAILER!!!", 0, 0, 1); err != nil {
		return nil, err
	}
	d, err := w.Commit(false)
	return []merkle.Node{{Kind: merkle.File, Digest: d}}, err
}

// maxCpioFile is what the format's eight hexadecimal digits of a size can say.
const maxCpioFile = 1<<32 - 1

type cpioWriter struct {
	ctx    context.Context
	w      io.Writer
	cas    *cas.Store
	inodes uint32
}

func (a *cpioWriter) node(p string, n merkle.Node) error {
	if err := a.ctx.Err(); err != nil {
		return err
	}
	switch n.Kind {
	case merkle.Dir:
		return a.header(p, 0o40755, 0, 2)
	case merkle.Symlink:
		if err := a.header(p, 0o120777, int64(len(n.Target)), 1); err != nil {
			return err
		}
		return a.data([]byte(n.Target))
	}
	mode := uint32(0o100644)
	if n.Executable {
		mode = 0o100755
	}
	if n.Digest.Size > maxCpioFile {
		return fmt.Errorf("it is too large for the archive: %d bytes", n.Digest.Size)
	}
	if err := a.header(p, mode, n.Digest.Size, 1); err != nil {
		return err
	}
	f, err := a.cas.Open(n.Digest)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := io.Copy(a.w, f); err != nil {
		return err
	}
	return a.pad(n.Digest.Size)
}

// header writes an entry's header and name. The fields are: inode, mode, owner,
// group, links, time, size, device, device number, name's length, checksum.
func (a *cpioWriter) header(name string, mode uint32, size int64, links uint32) error {
	a.inodes++
	h := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		a.inodes, mode, 0, 0, links, 0, size, 0, 0, 0, 0, len(name)+1, 0, name)
	return a.data([]byte(h))
}

func (a *cpioWriter) data(b []byte) error {
	if _, err := a.w.Write(b); err != nil {
		return err
	}
	return a.pad(int64(len(b)))
}

// pad fills up to a multiple of four bytes.
func (a *cpioWriter) pad(size int64) error {
	var zeros [3]byte
	_, err := a.w.Write(zeros[:-size&3])
	return err
}
