package unpack

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"tool/core/model/digest"
	"tool/core/model/merkle"
)

// Zip unpacks a zip archive of size bytes into sink and returns its tree.
// Errors name the entry.
func Zip(ctx context.Context, r io.ReaderAt, size int64, sink Sink, o Options) (digest.Digest, error) {
	t, err := newTree(ctx, sink, o)
	if err != nil {
		return digest.Digest{}, fmt.Errorf("zip: %w", err)
	}
	// Members may overlap, so the whole file's size is what bounds the ratio.
	if most := max(size*t.lim.Ratio, t.lim.Floor); most < t.lim.Bytes {
		t.lim.Bytes = most
	}
	zr, err := zip.NewReader(r, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // names are checked here
		return digest.Digest{}, fmt.Errorf("zip: %w", err)
	}
	for _, f := range zr.File {
		if err := t.count(); err != nil {
			return digest.Digest{}, fmt.Errorf("zip: %w", err)
		}
		if err := t.zipEntry(f); err != nil {
			return digest.Digest{}, fmt.Errorf("zip: %s: %w", shown(f.Name), err)
		}
	}
	d, err := t.write()
	if err != nil {
		return digest.Digest{}, fmt.Errorf("zip: %w", err)
	}
	return d, nil
}

func (t *tree) zipEntry(f *zip.File) error {
	p, take, err := t.place(f.Name)
	if err != nil || !take {
		return err
	}
	mode := f.Mode()
	if strings.HasSuffix(f.Name, "/") || mode.IsDir() {
		return t.dir(p, merkle.Props{})
	}
	if mode.Type() != 0 && mode.Type() != fs.ModeSymlink {
		return fmt.Errorf("neither a file nor a directory nor a symbolic link (%v)", mode.Type())
	}
	if f.UncompressedSize64 > 1<<62 {
		return &LimitError{"bytes in one file", t.lim.File}
	}
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	if mode.Type() == fs.ModeSymlink {
		target, err := io.ReadAll(io.LimitReader(r, merkle.MaxTargetLen+1))
		if err != nil {
			return err
		}
		return t.symlink(f.Name, p, string(target))
	}
	return t.file(f.Name, p, r, int64(f.UncompressedSize64), uint32(mode.Perm()), merkle.Props{})
}
