package unpack

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"

	"tool/core/model/digest"
)

// Tar unpacks a tar archive, compressed or not, into sink and returns its
// tree. Errors name the entry. What r holds after the archive's end is read
// and dropped, so that the compression's checksum was seen.
func Tar(ctx context.Context, r io.Reader, sink Sink, o Options) (digest.Digest, error) {
	t, err := newTree(ctx, sink, o)
	if err != nil {
		return digest.Digest{}, fmt.Errorf("tar: %w", err)
	}
	if err := t.tar(r); err != nil {
		return digest.Digest{}, fmt.Errorf("tar: %w", err)
	}
	d, err := t.write()
	if err != nil {
		return digest.Digest{}, fmt.Errorf("tar: %w", err)
	}
	return d, nil
}

func (t *tree) tar(r io.Reader) error {
	plain, closer, err := open(r, t.lim)
	if err != nil {
		return err
	}
	defer closer.Close()
	t.packed = plain.compressed
	tr := tar.NewReader(plain)
	for first := true; ; first = false {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) { // names are checked here
			if first && (errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, tar.ErrHeader)) {
				return fmt.Errorf("this is no tar archive, plain or compressed with xz, zstd, gzip or bzip2 (%w)", err)
			}
			return err
		}
		if err := t.count(); err != nil {
			return err
		}
		if err := t.tarEntry(h, tr); err != nil {
			return fmt.Errorf("%s: %w", shown(h.Name), err)
		}
	}
	_, err = io.Copy(io.Discard, plain)
	return err
}

// shown is an entry's name as errors call it: readable, and not endless.
func shown(name string) string {
	if len(name) > 200 {
		return fmt.Sprintf("%.200q…", name)
	}
	if q := fmt.Sprintf("%q", name); len(q) != len(name)+2 || name == "" {
		return q
	}
	return name
}

func (t *tree) tarEntry(h *tar.Header, r io.Reader) error {
	switch h.Typeflag {
	case tar.TypeXGlobalHeader:
		return nil // a comment, as git archive writes
	case tar.TypeChar, tar.TypeBlock:
		return errors.New("device node")
	case tar.TypeFifo:
		return errors.New("fifo")
	case tar.TypeReg, tar.TypeGNUSparse, tar.TypeLink, tar.TypeSymlink, tar.TypeDir:
	default:
		return fmt.Errorf("unknown type %q of entry", h.Typeflag)
	}
	p, take, err := t.place(h.Name)
	if err != nil || !take {
		return err
	}
	// Mode and owner come as the archive gives them: FileInfo().Mode() would
	// translate the special bits.
	mode := uint32(h.Mode & 0o7777)
	switch h.Typeflag {
	case tar.TypeDir:
		props, err := t.props(mode, h.Uid, h.Gid, true)
		if err != nil {
			return err
		}
		return t.dir(p, props)
	case tar.TypeSymlink:
		if t.opt.mergeUsr && mergedLink(h.Name, h.Linkname) {
			return nil
		}
		return t.symlink(h.Name, p, h.Linkname)
	case tar.TypeLink:
		to, taken, err := t.place(h.Linkname)
		if err != nil {
			return fmt.Errorf("hard link to %s: %w", shown(h.Linkname), err)
		}
		n, ok := t.nodes[to]
		if !taken {
			return fmt.Errorf("hard link to %s, which is left out", shown(h.Linkname))
		}
		if !ok {
			return fmt.Errorf("hard link to %s, which is no file earlier in the archive", shown(h.Linkname))
		}
		return t.add(h.Name, p, n)
	}
	props, err := t.props(mode, h.Uid, h.Gid, false)
	if err != nil {
		return err
	}
	return t.file(h.Name, p, r, h.Size, mode, props)
}

// mergedLink reports whether a link is itself the merged layout's: bin →
// usr/bin, as packages made for merged systems ship it.
func mergedLink(name, target string) bool {
	p, err := cleanName(name)
	return err == nil && mergeUsr(p) != p && (target == "usr/"+p || target == "/usr/"+p)
}
