package merkle

import (
	"bytes"
	"encoding/hex"
	"reflect"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"tool/core/model/digest"
)

var (
	dA = digest.Of([]byte("a"))
	dB = digest.Of([]byte("b"))
)

// The wire* functions write REAPI messages with protobuf's own encoder, field
// by field as remote_execution.proto numbers them.

func wireString(b []byte, n protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, n, protowire.BytesType), s)
}

func wireMessage(b []byte, n protowire.Number, m []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, n, protowire.BytesType), m)
}

func wireVarint(b []byte, n protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, n, protowire.VarintType), v)
}

func wireDigest(d digest.Digest) []byte {
	b := wireString(nil, 1, d.Hex())
	if d.Size != 0 {
		b = wireVarint(b, 2, uint64(d.Size))
	}
	return b
}

func wireProps(p Props) []byte {
	var b []byte
	if p.Owner != "" {
		b = wireMessage(b, 1, wireString(wireString(nil, 1, "owner"), 2, p.Owner))
	}
	if p.Mode != 0 {
		b = wireMessage(b, 3, wireVarint(nil, 1, uint64(p.Mode)))
	}
	return b
}

func wireDirectory(d *Directory) []byte {
	var b []byte
	for _, f := range d.Files {
		m := wireMessage(wireString(nil, 1, f.Name), 2, wireDigest(f.Digest))
		if f.Executable {
			m = wireVarint(m, 4, 1)
		}
		if !f.Props.IsZero() {
			m = wireMessage(m, 6, wireProps(f.Props))
		}
		b = wireMessage(b, 1, m)
	}
	for _, s := range d.Directories {
		b = wireMessage(b, 2, wireMessage(wireString(nil, 1, s.Name), 2, wireDigest(s.Digest)))
	}
	for _, s := range d.Symlinks {
		b = wireMessage(b, 3, wireString(wireString(nil, 1, s.Name), 2, s.Target))
	}
	if !d.Props.IsZero() {
		b = wireMessage(b, 5, wireProps(d.Props))
	}
	return b
}

func directories() map[string]*Directory {
	return map[string]*Directory{
		"empty":      {},
		"file":       {Files: []FileNode{{Name: "a", Digest: dA}}},
		"empty file": {Files: []FileNode{{Name: "a", Digest: digest.Empty, Executable: true}}},
		"large file": {Files: []FileNode{{Name: "a", Digest: digest.Digest{Hash: dA.Hash, Size: 1 << 40}}}},
		"symlink":    {Symlinks: []SymlinkNode{{Name: "l", Target: "../../etc/passwd"}}},
		"subdir":     {Directories: []DirectoryNode{{Name: "d", Digest: dB}}},
		"props": {
			Files: []FileNode{{Name: "sudo", Digest: dA, Executable: true, Props: Props{Mode: 0o4755}}, {Name: "x", Digest: dB, Props: Props{Owner: "0:42", Mode: 0o640}}},
			Props: Props{Mode: 0o1777, Owner: "1:1"},
		},
		"all": {
			Files:       []FileNode{{Name: "a", Digest: dA}, {Name: "z" + strings.Repeat("x", 250), Digest: dB, Executable: true}},
			Directories: []DirectoryNode{{Name: "b", Digest: dA}, {Name: "ü", Digest: dB}},
			Symlinks:    []SymlinkNode{{Name: "c", Target: strings.Repeat("t/", 2000)}},
		},
	}
}

func TestEncodeIsProtobuf(t *testing.T) {
	for name, d := range directories() {
		got, want := d.Encode(), wireDirectory(d)
		if !bytes.Equal(got, want) {
			t.Errorf("%s:\n got %x\nwant %x", name, got, want)
		}
		back, err := Decode(got)
		if err != nil {
			t.Errorf("%s: Decode: %v", name, err)
		} else if !reflect.DeepEqual(back, d) {
			t.Errorf("%s: Decode gives %+v, want %+v", name, back, d)
		}
	}
}

// TestEncodeGolden pins the bytes: a digest that is stored today must name the
// same tree for ever.
func TestEncodeGolden(t *testing.T) {
	d := &Directory{
		Files:    []FileNode{{Name: "hi", Digest: digest.Of([]byte("hi\n")), Executable: true}},
		Symlinks: []SymlinkNode{{Name: "l", Target: "hi"}},
	}
	const want = "0a4c" + "0a026869" + "1244" + "0a40" +
		"39386561366534663231366632666234623639666666396233613434383432633338363836636136383566336635356463343863356433666231313037626534" +
		"1003" + "2001" + "1a07" + "0a016c" + "12026869"
	if got := hex.EncodeToString(d.Encode()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestDecodeRefuses(t *testing.T) {
	file := func(name string) []byte {
		return wireMessage(nil, 1, wireMessage(wireString(nil, 1, name), 2, wireDigest(dA)))
	}
	join := func(b ...[]byte) []byte { return bytes.Join(b, nil) }
	for name, b := range map[string][]byte{
		"unsorted":           join(file("b"), file("a")),
		"twice":              join(file("a"), file("a")),
		"twice over kinds":   join(file("a"), wireMessage(nil, 3, wireString(wireString(nil, 1, "a"), 2, "t"))),
		"slash":              file("a/b"),
		"dotdot":             file(".."),
		"dot":                file("."),
		"NUL":                file("a\x00b"),
		"no name":            wireMessage(nil, 1, wireMessage(nil, 2, wireDigest(dA))),
		"long name":          file(strings.Repeat("n", 256)),
		"no digest":          wireMessage(nil, 1, wireString(nil, 1, "a")),
		"unknown field":      wireString(nil, 7, "x"),
		"fields in disorder": join(wireMessage(nil, 3, wireString(wireString(nil, 1, "l"), 2, "t")), file("a")),
		"explicit default":   wireMessage(nil, 1, wireVarint(wireMessage(wireString(nil, 1, "a"), 2, wireDigest(dA)), 4, 0)),
		"executable 2":       wireMessage(nil, 1, wireVarint(wireMessage(wireString(nil, 1, "a"), 2, wireDigest(dA)), 4, 2)),
		"negative size":      wireMessage(nil, 1, wireMessage(wireString(nil, 1, "a"), 2, wireVarint(wireString(nil, 1, dA.Hex()), 2, 1<<63))),
		"upper-case digest":  wireMessage(nil, 1, wireMessage(wireString(nil, 1, "a"), 2, wireVarint(wireString(nil, 1, strings.ToUpper(dA.Hex())), 2, 1))),
		"empty target":       wireMessage(nil, 3, wireString(nil, 1, "l")),
		"target with NUL":    wireMessage(nil, 3, wireString(wireString(nil, 1, "l"), 2, "a\x00")),
		"long target":        wireMessage(nil, 3, wireString(wireString(nil, 1, "l"), 2, strings.Repeat("t", 4096))),
		"mode too large":     wireMessage(nil, 5, wireMessage(nil, 3, wireVarint(nil, 1, 1<<32|0o644))),
		"owner by name":      wireMessage(nil, 5, wireMessage(nil, 1, wireString(wireString(nil, 1, "owner"), 2, "root:root"))),
		"foreign property":   wireMessage(nil, 5, wireMessage(nil, 1, wireString(wireString(nil, 1, "x"), 2, "1:1"))),
		"truncated":          file("abc")[:10],
		"length past end":    {0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f},
		"endless varint":     bytes.Repeat([]byte{0xff}, 20),
		"long varint":        append([]byte{0x8a, 0x00}, file("a")[1:]...),
		"wire type 1":        {0x09, 0, 0, 0, 0, 0, 0, 0, 0},
		"group":              {0x0b, 0x0c},
	} {
		if d, err := Decode(b); err == nil {
			t.Errorf("%s: Decode(%x) = %+v", name, b, d)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, d := range directories() {
		f.Add(d.Encode())
	}
	f.Add([]byte{0x0a, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Decode(b)
		if err != nil {
			return
		}
		if err := d.Validate(); err != nil {
			t.Errorf("decoded an invalid directory: %v", err)
		}
		if got := wireDirectory(d); !bytes.Equal(got, b) {
			t.Errorf("%x decodes to what protobuf writes as %x", b, got)
		}
	})
}
