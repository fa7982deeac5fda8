package tests

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"testing"
)

const unpackBuild = `load("@rules//archive:defs.star", "unpacked")

unpacked(name = "x", src = "archive")
`

// bare makes a workspace without an environment.
func bare(t testing.TB, files map[string]string) *place {
	p := &place{t: t, dir: tempDir(t), store: tempDir(t)}
	p.write("tool.toml", "")
	for name, content := range files {
		p.write(name, content)
	}
	return p
}

func tarOf(t testing.TB, hs ...tar.Header) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range hs {
		content := ""
		if h.Typeflag == 0 {
			h.Typeflag, content = tar.TypeReg, "x"
		}
		h.Mode, h.Size, h.Format = 0o644, int64(len(content)), tar.FormatPAX
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestHostileArchives unpacks archives that want out of their folder, or more
// than there is.
func TestHostileArchives(t *testing.T) {
	t.Parallel()
	good := tar.Header{Name: "dir/good"}
	link := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
	}
	for name, c := range map[string]struct {
		archive string
		want    string
	}{
		"absolute":       {tarOf(t, good, tar.Header{Name: "/etc/passwd"}), "tar: /etc/passwd: absolute path"},
		"dotdot":         {tarOf(t, good, tar.Header{Name: "dir/../../escaped"}), `tar: dir/../../escaped: ".." in path`},
		"absolute link":  {tarOf(t, good, link("dir/l", "/etc/shadow")), "tar: dir/l: symbolic link to the absolute path /etc/shadow"},
		"link out":       {tarOf(t, good, link("dir/l", "../../up")), "tar: dir/l: symbolic link to ../../up, which is outside of the archive"},
		"below a link":   {tarOf(t, good, link("l", "dir"), tar.Header{Name: "l/under"}), `tar: l/under: path "l/under": l is a symlink already, not a directory to fill`},
		"hard link out":  {tarOf(t, good, tar.Header{Typeflag: tar.TypeLink, Name: "h", Linkname: "../../etc/shadow"}), `tar: h: hard link to ../../etc/shadow: ".." in path`},
		"hard link none": {tarOf(t, good, tar.Header{Typeflag: tar.TypeLink, Name: "h", Linkname: "nothing"}), "tar: h: hard link to nothing, which is no file earlier in the archive"},
		"device":         {tarOf(t, good, tar.Header{Typeflag: tar.TypeChar, Name: "dev/kmem", Devmajor: 1, Devminor: 2}), "tar: dev/kmem: device node"},
		"fifo":           {tarOf(t, good, tar.Header{Typeflag: tar.TypeFifo, Name: "pipe"}), "tar: pipe: fifo"},
		"twice":          {tarOf(t, good, link("dir/good", "x")), "tar: dir/good: the archive holds a different file with this path already"},
		"truncated":      {tarOf(t, good)[:512], "tar: dir/good: holds 0 bytes, the archive promised 1"},
		"no archive":     {"this is no archive at all, just some text", "tar: this is no tar archive, plain or compressed with xz, zstd, gzip or bzip2 (unexpected EOF)"},
		"bomb":           {bomb(t), "tar: zeros: more than 400 unpacked bytes per compressed byte: refused as a decompression bomb"},
		"zip dotdot":     {zipOf(t, "../escaped"), `zip: ../escaped: ".." in path`},
		"zip absolute":   {zipOf(t, "/etc/passwd"), "zip: /etc/passwd: absolute path"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := bare(t, map[string]string{"BUILD.star": unpackBuild, "archive": c.archive})
			p.fails(1, "error: BUILD.star:3:9: //:x: Unpack failed: "+c.want+"\n", "build", "//:x")
			if r := p.tool("store", "verify"); r.code != 0 {
				t.Errorf("%s%s", r.stdout, r.stderr)
			}
		})
	}
	t.Run("good", func(t *testing.T) {
		p := bare(t, map[string]string{"BUILD.star": unpackBuild, "archive": tarOf(t, good, link("dir/l", "good"), link("up", "dir/../dir/good"))})
		p.must("build", "//:x")
		if p.read(".tool/out/x/dir/l") != "x" {
			t.Error("dir/l is not the file")
		}
	})
}

// bomb is a small archive of a large file of zeros.
func bomb(t testing.TB) string {
	t.Helper()
	const size = 256 << 20
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(z)
	if err := w.WriteHeader(&tar.Header{Name: "zeros", Mode: 0o644, Size: size}); err != nil {
		t.Fatal(err)
	}
	zeros := make([]byte, 1<<20)
	for range size / len(zeros) {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []io.Closer{w, z} {
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

func zipOf(t testing.TB, names ...string) string {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, n := range names {
		f, err := w.Create(n)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(f, "x")
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
