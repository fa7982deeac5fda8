package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"io"
	"testing"
)

func FuzzDeb(f *testing.F) {
	for _, format := range []string{"", "gz", "xz", "zst"} {
		f.Add(makeDeb(f, format, entry{name: "./bin/a", body: "a"}, entry{name: "b", typ: tar.TypeLink, link: "bin/a"}))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m := newMem()
		d, c, err := Deb(context.Background(), bytes.NewReader(b), To(m), fuzzLimits)
		if err == nil && (c == nil || m.list(t, d) == "x") {
			t.Fatal("no control")
		}
	})
}

var fuzzLimits = Options{Limits: Limits{Bytes: 1 << 20, Entries: 100}}

func FuzzTar(f *testing.F) {
	f.Add(makeTar(f, entry{name: "a/b", body: "x"}, entry{name: "l", typ: tar.TypeSymlink, link: "a"}))
	f.Add(compress(f, "xz", makeTar(f, entry{name: "a"})))
	f.Fuzz(func(t *testing.T, b []byte) {
		m := newMem()
		if d, err := Tar(context.Background(), bytes.NewReader(b), To(m), fuzzLimits); err == nil {
			m.list(t, d)
		}
	})
}

func FuzzAr(f *testing.F) {
	f.Add(makeAr("debian-binary", "2.0\n", "x", "y"))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := newArReader(bytes.NewReader(b))
		if err != nil {
			return
		}
		total := int64(0)
		for {
			_, size, r, err := a.next()
			if err != nil {
				return
			}
			n, err := io.Copy(io.Discard, r)
			if total += n; n > size || err == nil && n != size || total > int64(len(b)) {
				t.Fatalf("%d of %d bytes, %v", n, size, err)
			}
		}
	})
}

func FuzzXZ(f *testing.F) {
	f.Add(compress(f, "xz", []byte("hello, hello, hello")))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := Decompress(bytes.NewReader(append([]byte("\xfd7zXZ\x00"), b...)))
		if err == nil {
			io.Copy(io.Discard, io.LimitReader(r, 1<<20))
			r.Close()
		}
	})
}
