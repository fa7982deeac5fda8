package unpack

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// entry is one entry of a test's archive.
type entry struct {
	name string
	typ  byte // as in tar; 0 is a file
	body string
	mode int64
	uid  int
	link string
}

func makeTar(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		h := &tar.Header{Name: e.name, Typeflag: e.typ, Mode: e.mode, Uid: e.uid, Gid: e.uid, Linkname: e.link, Size: int64(len(e.body))}
		if h.Typeflag == 0 {
			h.Typeflag = tar.TypeReg
		}
		if h.Mode == 0 {
			h.Mode = 0o644
			if e.typ == tar.TypeDir {
				h.Mode = 0o755
			}
		}
		if e.typ == tar.TypeXGlobalHeader {
			h = &tar.Header{Typeflag: e.typ, PAXRecords: map[string]string{"comment": "x"}}
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, e.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func compress(t testing.TB, format string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser
	var err error
	switch format {
	case "":
		return b
	case "gz":
		w = gzip.NewWriter(&out)
	case "xz":
		w, err = xz.NewWriter(&out)
	case "zst":
		w, err = zstd.NewWriter(&out)
	}
	if err == nil {
		_, err = w.Write(b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func makeAr(members ...string) []byte {
	b := []byte(arMagic)
	for i := 0; i < len(members); i += 2 {
		b = fmt.Appendf(b, "%-16s%-12d%-6d%-6d%-8s%-10d`\n%s", members[i], 0, 0, 0, "100644", len(members[i+1]), members[i+1])
		if len(members[i+1])%2 == 1 {
			b = append(b, '\n')
		}
	}
	return b
}

const controlText = "Package: p\nVersion: 1\nArchitecture: all\n"

func makeDeb(t testing.TB, format string, entries ...entry) []byte {
	control := makeTar(t, entry{name: "./", typ: tar.TypeDir}, entry{name: "./control", body: controlText},
		entry{name: "./conffiles", body: "/etc/p\nremove-on-upgrade /etc/q\n"}, entry{name: "./md5sums", body: "x"})
	ext := ""
	if format != "" {
		ext = "." + format
	}
	return makeAr("debian-binary", "2.0\n", "control.tar"+ext, string(compress(t, format, control)),
		"_extra", "x", "data.tar"+ext, string(compress(t, format, makeTar(t, entries...))))
}

func TestDeb(t *testing.T) {
	big := strings.Repeat("big", smallFile)
	entries := []entry{
		{name: "./", typ: tar.TypeDir},
		{name: "./bin/", typ: tar.TypeDir},
		{name: "./bin/sh", body: "sh", mode: 0o755},
		{name: "./bin/ping", body: "ping", mode: 0o4755},
		{name: "./usr/bin/sh", body: "sh", mode: 0o755}, // the same after merging
		{name: "./usr/bin/hard", typ: tar.TypeLink, link: "./bin/sh"},
		{name: "./lib64", typ: tar.TypeSymlink, link: "usr/lib64"},
		{name: "./lib/x.so", typ: tar.TypeSymlink, link: "x.so.1"},
		{name: "./lib/x.so.1", body: big},
		{name: "./etc/shadow", body: "", mode: 0o640, uid: 42},
		{name: "./etc/alt", typ: tar.TypeSymlink, link: "/etc/alternatives/alt"},
		{name: "./var/mail/", typ: tar.TypeDir, mode: 0o2775, uid: 8},
		{name: "./usr/share/doc/p/", typ: tar.TypeDir},
		{name: "./usr/share/doc/p/copyright", body: "c"},
		{name: "./usr/share/ca/Főtanúsítvány.crt", body: "ő"},
		{name: "./" + strings.Repeat("long/", 40) + "name", body: "l"},
	}
	want := `etc/
etc/alt->/etc/alternatives/alt
etc/shadow= 640 42:42
usr/
usr/bin/
usr/bin/hard*=sh
usr/bin/ping*=ping 4755
usr/bin/sh*=sh
usr/lib/
usr/lib/x.so->x.so.1
usr/lib/x.so.1=196608 bytes
usr/share/
usr/share/ca/
usr/share/ca/Főtanúsítvány.crt=ő
var/
var/mail/ 2775 8:8`
	for _, format := range []string{"", "gz", "xz", "zst"} {
		m := newMem()
		b := makeDeb(t, format, entries...)
		d, c, err := Deb(context.Background(), iotest{bytes.NewReader(b)}, To(m), Options{Exclude: []string{"usr/share/doc/**", "long/**"}, Prefix: "ignored"})
		if err != nil {
			t.Fatalf("%s: %v", format, err)
		}
		got := strings.Replace(m.list(t, d), "long/\n", "", 1)
		if got != want {
			t.Errorf("%s: got\n%s\nwant\n%s", format, got, want)
		}
		if c.Package != "p" || c.Version != "1" || c.Architecture != "all" || strings.Join(c.Conffiles(), " ") != "/etc/p /etc/q" || len(c.Files) != 2 {
			t.Errorf("control: %+v", c)
		}
	}
}

// iotest gives a few bytes at a time.
type iotest struct{ r io.Reader }

func (i iotest) Read(p []byte) (int, error) { return i.r.Read(p[:min(len(p), 7001)]) }

func TestDebErrors(t *testing.T) {
	good := makeDeb(t, "xz", entry{name: "./a", body: "a"})
	control := string(makeTar(t, entry{name: "control", body: controlText}))
	flipped := bytes.Clone(good)
	flipped[len(flipped)-60] ^= 1
	for _, c := range []struct {
		name string
		b    []byte
		want string
	}{
		{"empty", nil, "deb: ar: unexpected EOF"},
		{"no ar", []byte("PK\x03\x04xxxxxxxx"), "not an ar archive"},
		{"cut", good[:len(good)-30], "data.tar: "},
		{"flipped bit", flipped, "data.tar: "},
		{"no data", makeAr("debian-binary", "2.0\n", "control.tar", control), "no data.tar"},
		{"wrong order", makeAr("debian-binary", "2.0\n", "data.tar", ""), "member data.tar where control.tar was expected"},
		{"wrong version", makeAr("debian-binary", "3.0\n"), `format version "3.0" is not known`},
		{"no version", makeAr("control.tar", ""), "the first member is control.tar"},
		{"no control file", makeAr("debian-binary", "2.0\n", "control.tar", string(makeTar(t)), "data.tar", ""), "control.tar: no control file"},
		{"lzma", makeAr("debian-binary", "2.0\n", "control.tar", control, "data.tar.lzma", ""), "member data.tar.lzma where data.tar was expected"},
		{"bad header", []byte(arMagic + strings.Repeat("x", 60)), "bad member header"},
		{"bad size", []byte(arMagic + fmt.Sprintf("%-16s%-12d%-6d%-6d%-8s%-10s`\n", "debian-binary", 0, 0, 0, "0", "-1")), `bad size "-1"`},
		{"bad name", []byte(arMagic + fmt.Sprintf("%-16s%-12d%-6d%-6d%-8s%-10s`\n", "a/b", 0, 0, 0, "0", "1")), "bad member name"},
		{"path", makeDeb(t, "", entry{name: "../x"}), `data.tar: ../x: ".." in path`},
	} {
		if _, _, err := Deb(context.Background(), bytes.NewReader(c.b), To(newMem()), Options{}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
	}
}

func TestTar(t *testing.T) {
	for _, c := range []struct {
		name    string
		o       Options
		entries []entry
		want    string // or "error: …"
	}{
		{"plain", Options{}, []entry{{typ: tar.TypeXGlobalHeader}, {name: "a/b", body: "b", uid: 1000, mode: 0o600}, {name: "a/c", body: "c", mode: 0o711}}, "a/\na/b=b\na/c*=c"},
		{"empty", Options{}, nil, ""},
		{"prefix", Options{Prefix: "top-1.0/"}, []entry{{name: "top-1.0/", typ: tar.TypeDir}, {name: "top-1.0/a", body: "a"}, {name: "other", body: "o"}}, "a=a"},
		{"prefix and strip", Options{Prefix: "p", Strip: 1}, []entry{{name: "p/x/a", body: "a"}, {name: "p/b", body: "b"}}, "a=a"},
		{"prefix that is not there", Options{Prefix: "q"}, []entry{{name: "p/a"}}, "error: nothing in the archive is below q"},
		{"exclude", Options{Exclude: []string{"*.txt", "d/**"}}, []entry{{name: "a.txt"}, {name: "d", typ: tar.TypeDir}, {name: "d/x/y"}, {name: "x/a.txt", body: "x"}}, "d/\nx/\nx/a.txt=x"},
		{"executable", Options{Executable: []string{"bin/*"}, NoModes: true}, []entry{{name: "bin/a"}, {name: "b", mode: 0o755}}, "b=\nbin/\nbin/a*="},
		{"props", Options{KeepProps: true}, []entry{{name: "a", mode: 0o600, uid: 7}}, "a= 600 7:7"},
		{"identical twice", Options{}, []entry{{name: "a", body: "1"}, {name: "./a", body: "1"}}, "a=1"},
		{"link inside", Options{}, []entry{{name: "d/l", typ: tar.TypeSymlink, link: "../a"}}, "d/\nd/l->../a"},
		{"absolute link allowed", Options{AbsoluteLinks: true}, []entry{{name: "l", typ: tar.TypeSymlink, link: "/etc"}}, "l->/etc"},
		{"hard link", Options{Strip: 1}, []entry{{name: "p/a", body: "a", mode: 0o755}, {name: "p/b", typ: tar.TypeLink, link: "p/a"}}, "a*=a\nb*=a"},

		{"absolute", Options{}, []entry{{name: "/etc/passwd"}}, "error: tar: /etc/passwd: absolute path"},
		{"dotdot", Options{}, []entry{{name: "a/../../b"}}, `error: tar: a/../../b: ".." in path`},
		{"absolute link", Options{}, []entry{{name: "l", typ: tar.TypeSymlink, link: "/etc"}}, "error: tar: l: symbolic link to the absolute path /etc"},
		{"link outside", Options{}, []entry{{name: "d/l", typ: tar.TypeSymlink, link: "../../x"}}, "error: tar: d/l: symbolic link to ../../x, which is outside"},
		{"below a link", Options{AbsoluteLinks: true}, []entry{{name: "l", typ: tar.TypeSymlink, link: "/etc"}, {name: "l/passwd"}}, "error: tar: l/passwd: "},
		{"file for directory", Options{}, []entry{{name: "a/b"}, {name: "a"}}, "error: tar: a: "},
		{"directory for file", Options{}, []entry{{name: "a"}, {name: "a", typ: tar.TypeDir}}, "error: tar: a"},
		{"different twice", Options{}, []entry{{name: "a", body: "1"}, {name: "a", body: "2"}}, "error: tar: a: the archive holds a different file"},
		{"hard link outside", Options{}, []entry{{name: "b", typ: tar.TypeLink, link: "../../etc/shadow"}}, `error: tar: b: hard link to ../../etc/shadow: ".." in path`},
		{"hard link to nothing", Options{}, []entry{{name: "b", typ: tar.TypeLink, link: "c"}}, "error: tar: b: hard link to c, which is no file earlier"},
		{"hard link left out", Options{Exclude: []string{"a"}}, []entry{{name: "a"}, {name: "b", typ: tar.TypeLink, link: "a"}}, "error: tar: b: hard link to a, which is left out"},
		{"device", Options{}, []entry{{name: "d", typ: tar.TypeChar}}, "error: tar: d: device node"},
		{"fifo", Options{}, []entry{{name: "f", typ: tar.TypeFifo}}, "error: tar: f: fifo"},
		{"not UTF-8", Options{}, []entry{{name: "a\xff"}}, `error: tar: "a\xff": name is not UTF-8`},
		{"long element", Options{}, []entry{{name: strings.Repeat("x", 300)}}, "error: tar: \"xxx"},
		{"long path", Options{}, []entry{{name: strings.Repeat("x/", 3000) + "x"}}, "path of 6001 bytes is longer"},
		{"entries", Options{Limits: Limits{Entries: 1}}, []entry{{name: "a"}, {name: "b"}}, "error: tar: more than 1 entries"},
		{"bytes", Options{Limits: Limits{Bytes: 3}}, []entry{{name: "a", body: "12"}, {name: "b", body: "12"}}, "error: tar: b: more than 3 bytes: refused"},
		{"file", Options{Limits: Limits{File: 3}}, []entry{{name: "a", body: "1234"}}, "error: tar: a: more than 3 bytes in one file"},
		{"bad pattern", Options{Exclude: []string{"a/**/b"}}, nil, "error: tar: pattern \"a/**/b\""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMem()
			d, err := Tar(context.Background(), bytes.NewReader(makeTar(t, c.entries...)), To(m), c.o)
			if want, ok := strings.CutPrefix(c.want, "error: "); ok || err != nil {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %s", err, want)
				}
				return
			}
			if got := m.list(t, d); got != c.want {
				t.Errorf("got\n%s\nwant\n%s", got, c.want)
			}
		})
	}
}

func TestBombs(t *testing.T) {
	lim := Limits{Floor: 1 << 20}
	zeros := makeTar(t, entry{name: "zeros", body: strings.Repeat("\x00", 4<<20)})
	for _, format := range []string{"gz", "xz"} {
		for _, o := range []Options{{Limits: lim}, {Limits: lim, Exclude: []string{"zeros"}}} { // also where it is only passed over
			var le *LimitError
			if _, err := Tar(context.Background(), bytes.NewReader(compress(t, format, zeros)), To(newMem()), o); !errors.As(err, &le) {
				t.Errorf("%s: got %v", format, err)
			}
		}
	}
	for _, size := range []byte{0x20, 0x28, 0x1f} { // powers of two: 4 GB, 1 TB, 2 GB of holes
		var le *LimitError
		if _, err := Tar(context.Background(), bytes.NewReader(sparse(size)), To(newMem()), Options{Limits: lim}); !errors.As(err, &le) {
			t.Errorf("sparse file of 2^%d bytes: %v", size, err)
		}
	}
	// Directories that no entry is for.
	var deep []entry
	for i := range 100 {
		deep = append(deep, entry{name: fmt.Sprintf("%d/", i) + strings.Repeat("x/", 500) + "y"})
	}
	var le *LimitError
	if _, err := Tar(context.Background(), bytes.NewReader(makeTar(t, deep...)), To(newMem()), Options{Limits: Limits{Entries: 10000}}); !errors.As(err, &le) {
		t.Errorf("deep paths: %v", err)
	}
	if _, err := Tar(context.Background(), bytes.NewReader(makeTar(t, entry{name: strings.Repeat("x/", 600) + "y"})), To(newMem()), Options{}); err == nil {
		t.Error("a path of 600 elements is taken")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Tar(ctx, bytes.NewReader(makeTar(t, entry{name: "a"})), To(newMem()), Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// sparse is a tar of one file that is a hole of 2^size bytes.
func sparse(size byte) []byte {
	h := [512]byte{}
	copy(h[:], "sparse")
	copy(h[100:], "0000644\x000000000\x000000000\x0000000000000\x0000000000000\x00")
	h[156] = tar.TypeGNUSparse
	copy(h[257:], "ustar  \x00")
	h[483] = 0x80 // its real size, in base 256
	binary.BigEndian.PutUint64(h[487:], 1<<size)
	copy(h[148:], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	return append(h[:], make([]byte, 1024)...)
}

func makeZip(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		mode := fs.FileMode(0o644)
		if e.mode != 0 {
			mode = fs.FileMode(e.mode)
		}
		if e.typ == tar.TypeSymlink {
			mode |= fs.ModeSymlink
		}
		if e.typ == tar.TypeFifo {
			mode |= fs.ModeNamedPipe
		}
		h.SetMode(mode)
		f, err := w.CreateHeader(h)
		if err == nil {
			_, err = io.WriteString(f, e.body)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestZip(t *testing.T) {
	for _, c := range []struct {
		o       Options
		entries []entry
		want    string
	}{
		{Options{}, []entry{{name: "a/"}, {name: "a/b", body: "b", mode: 0o755}, {name: "l", typ: tar.TypeSymlink, body: "a/b"}}, "a/\na/b*=b\nl->a/b"},
		{Options{Prefix: "m@v1", NoModes: true}, []entry{{name: "m@v1/a", body: "a", mode: 0o755}}, "a=a"},
		{Options{}, []entry{{name: "../a"}}, `error: zip: ../a: ".." in path`},
		{Options{}, []entry{{name: "/a"}}, `error: zip: /a: absolute path`},
		{Options{}, []entry{{name: "l", typ: tar.TypeSymlink, body: "../x"}}, `error: zip: l: symbolic link to ../x`},
		{Options{}, []entry{{name: "f", typ: tar.TypeFifo}}, `error: zip: f: neither a file`},
		{Options{Limits: Limits{Bytes: 3}}, []entry{{name: "a", body: "1234"}}, `error: zip: a: more than 3 bytes`},
		{Options{}, []entry{{name: "a", body: "1"}, {name: "a", body: "2"}}, `error: zip: a: the archive holds a different file`},
	} {
		m := newMem()
		b := makeZip(t, c.entries...)
		d, err := Zip(context.Background(), bytes.NewReader(b), int64(len(b)), To(m), c.o)
		if want, ok := strings.CutPrefix(c.want, "error: "); ok || err != nil {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
			continue
		}
		if got := m.list(t, d); got != c.want {
			t.Errorf("got\n%s\nwant\n%s", got, c.want)
		}
	}
	zeros := makeZip(t, entry{name: "z", body: strings.Repeat("\x00", 4<<20)})
	var le *LimitError
	if _, err := Zip(context.Background(), bytes.NewReader(zeros), int64(len(zeros)), To(newMem()), Options{Limits: Limits{Floor: 1 << 20}}); !errors.As(err, &le) {
		t.Errorf("got %v", err)
	}
}

// TestGolden pins the trees' digests: the builtins are part of action keys, so
// what one makes of an archive may only change along with its version.
func TestGolden(t *testing.T) {
	ctx := context.Background()
	entries := []entry{{name: "./bin/a", body: "a", mode: 0o4755, uid: 1}, {name: "./etc/l", typ: tar.TypeSymlink, link: "/x"}}
	b := makeDeb(t, "", entries...)
	d, _, err := Deb(ctx, bytes.NewReader(b), To(newMem()), Options{})
	if want := "9c525108ed4fad1809c31e4d7b8c56d659eca1137c611c4cf78c75873c37bba1/154"; err != nil || d.String() != want {
		t.Errorf("unpack-deb@1: got %s, %v, want %s", d, err, want)
	}
	d, err = Tar(ctx, bytes.NewReader(compress(t, "gz", makeTar(t, entries[0], entry{name: "etc/l", typ: tar.TypeSymlink, link: "../bin/a"}))), To(newMem()), Options{})
	if want := "160c50eca8aa0d4cf6bc33f1b71ca07378d1ba415124d4462f27a8edf14f6187/154"; err != nil || d.String() != want {
		t.Errorf("unpack@1, tar: got %s, %v, want %s", d, err, want)
	}
	b = makeZip(t, entry{name: "bin/a", body: "a", mode: 0o755}, entry{name: "etc/l", typ: tar.TypeSymlink, body: "x"})
	d, err = Zip(ctx, bytes.NewReader(b), int64(len(b)), To(newMem()), Options{})
	if want := "0ab2e73e83d200e9bcbb3178eb8b7851774a21ae8a67215ad15540a7fb1579af/154"; err != nil || d.String() != want {
		t.Errorf("unpack@1, zip: got %s, %v, want %s", d, err, want)
	}
}
