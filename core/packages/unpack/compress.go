package unpack

import (
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	"github.com/therootcompany/xz"
)

// maxWindow bounds a decompressor's memory in bytes. xz -9 and zstd --long=27
// need no more; what needs more is refused.
const maxWindow = 128 << 20

// Decompress returns the plain bytes of r, told from its first bytes to be xz,
// zstd, gzip, bzip2 or not compressed. The caller closes the result, which
// does not close r.
func Decompress(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	magic, err := b.Peek(6)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte("\xfd7zXZ\x00")):
		x, err := xz.NewReader(b, maxWindow)
		if err != nil {
			return nil, fmt.Errorf("xz: %w", err)
		}
		return named{"xz", x, func() {}}, nil
	case bytes.HasPrefix(magic, []byte("\x28\xb5\x2f\xfd")):
		// One goroutine per archive: parallelism is over archives.
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return nil, fmt.Errorf("zstd: %w", err)
		}
		return named{"zstd", z, z.Close}, nil
	case bytes.HasPrefix(magic, []byte("\x1f\x8b")):
		g, err := gzip.NewReader(b)
		if err != nil {
			return nil, fmt.Errorf("gzip: %w", unexpected(err))
		}
		return named{"gzip", g, func() {}}, nil
	case bytes.HasPrefix(magic, []byte("BZh")):
		return named{"bzip2", bzip2.NewReader(b), func() {}}, nil
	}
	return named{"", b, func() {}}, nil
}

// named adds the format's name to errors.
type named struct {
	format string
	r      io.Reader
	close  func()
}

func (n named) Read(p []byte) (int, error) {
	k, err := n.r.Read(p)
	if err != nil && err != io.EOF && n.format != "" {
		err = fmt.Errorf("%s: %w", n.format, err)
	}
	return k, err
}

func (n named) Close() error {
	n.close()
	return nil
}

// counter counts what was read through it.
type counter struct {
	r io.Reader
	n int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	return n, err
}

// guarded fails once more comes out of a decompressor than the limits allow.
// It sees skipped entries and headers too, so that no part of an archive can
// burn time unseen.
type guarded struct {
	plain      io.Reader
	compressed *counter
	lim        Limits
	n          int64
}

func (g *guarded) Read(p []byte) (int, error) {
	n, err := g.plain.Read(p)
	g.n += int64(n)
	if g.n > g.lim.Floor && g.n/g.lim.Ratio > g.compressed.n {
		return 0, &LimitError{"unpacked bytes per compressed byte", g.lim.Ratio}
	}
	// Headers and padding come on top of the files' bytes.
	if g.n > g.lim.Bytes+int64(g.lim.Entries)*2048 {
		return 0, &LimitError{"bytes", g.lim.Bytes}
	}
	return n, err
}

// open decompresses r under the limits.
func open(r io.Reader, lim Limits) (*guarded, io.Closer, error) {
	c := &counter{r: r}
	plain, err := Decompress(c)
	if err != nil {
		return nil, nil, err
	}
	return &guarded{plain: plain, compressed: c, lim: lim}, plain, nil
}
