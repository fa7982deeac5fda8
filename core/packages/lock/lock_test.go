package lock

import (
	"bytes"
	"strings"
	"testing"
)

const (
	shaA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	shaB = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
	h1   = "h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	ssl  = "deb amd64 bookworm/main libssl3 3.0.17-1~deb12u2 10 " + shaA + " pool/main/o/openssl/libssl3.deb\n"
)

const sample = Header + "\n" + ssl +
	"file busybox 12 " + shaB + " https://a.example/b.tar.gz src/b.tar.gz\n" +
	"gomod golang.org/toolchain v0.0.1-go1.26.8.linux-amd64 70 " + shaB + " " + h1 + "\n" +
	"gomod golang.org/x/sys v0.49.0 7 " + shaA + " " + h1 + "\n" +
	"set zookeeper libssl3\n"

func TestRoundTrip(t *testing.T) {
	l, err := Parse("tool.lock", []byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	if got := string(l.Bytes()); got != sample {
		t.Errorf("got\n%swant\n%s", got, sample)
	}
	if d, ok := l.Deb("libssl3"); !ok || d.Version != "3.0.17-1~deb12u2" || d.Digest.Size != 10 {
		t.Errorf("Deb: %v %v", d, ok)
	}
	if s := l.Set("zookeeper"); len(s) != 1 || s[0].Name != "libssl3" {
		t.Errorf("Set: %v", s)
	}
	if m, ok := l.Module("golang.org/x/sys", "v0.49.0"); !ok || m.Sum != h1 {
		t.Errorf("Module: %v %v", m, ok)
	}
	if f, ok := l.File("busybox"); !ok || len(f.URLs) != 2 {
		t.Errorf("File: %v %v", f, ok)
	}
	lines := strings.SplitAfter(sample, "\n")
	shuffled := Header + "\n\n" + lines[4] + lines[2] + Header + "\r\n" + lines[5] + lines[1] + lines[3]
	out, changed, err := Format("f", []byte(shuffled))
	if err != nil || !changed || string(out) != sample {
		t.Errorf("Format: %v %v\n%s", err, changed, out)
	}
	if _, changed, err := Format("f", out); changed || err != nil {
		t.Errorf("Format of a formatted lock: %v %v", changed, err)
	}
}

func TestErrors(t *testing.T) {
	deb := func(old, new string) string { return Header + "\n" + strings.Replace(ssl, old, new, 1) }
	for _, c := range []struct{ in, want string }{
		{"", `f:1: empty: the first line must be "tool-lock 1"`},
		{"tool-lock 2\n", `f:1: lock format "2" is not known to this version of tool, which writes "tool-lock 1"`},
		{ssl, `f:1: the first line must be "tool-lock 1"`},
		{Header + "\n" + ssl + ssl, "f:3: duplicate of line 2: delete one"},
		{Header + "\n" + ssl + strings.Replace(ssl, "u2", "u3", 1), "f:3: deb libssl3 is pinned differently on line 2"},
		{Header + "\n<<<<<<< ours\n" + ssl + "=======\n>>>>>>> theirs\n", "f:2: a merge conflict was left here (<<<<<<<)"},
		{Header + "\n# x\n", `f:2: unknown entry "#"`},
		{Header + "\ndeb a b\n", "f:2: deb line has 3 fields"},
		{Header + "\nset a  b\n", "f:2: empty field"},
		{Header + "\nset a b\u00a0c\n", "is not allowed"},
		{Header + "\nset a \xff\n", "f:2: not UTF-8"},
		{Header + "\nset a b\n", "f:2: set a has b, but no deb line pins it: run `tool lock`"},
		{deb("pool/", "/pool/"), "is absolute"},
		{deb("pool/main", "pool/../../main"), "is not clean"},
		{deb("pool/main", ".."), "is not clean"},
		{deb(" 10 ", " 010 "), `bad size "010"`},
		{deb(" 10 ", " -1 "), `bad size "-1"`},
		{deb("aaaa", "AAAA"), "want 64 lower-case"},
		{deb("libssl3", "LibSSL"), `bad package name "LibSSL"`},
		{deb("bookworm/main", "bookworm"), "is not <suite>/<component>"},
		{deb("bookworm/main", "../main"), "is not clean"},
		{Header + "\nfile x 1 " + shaA + " ftp://x/y\n", "neither an http or https URL"},
		{Header + "\nfile x 1 " + shaA + " ../y\n", "is not clean"},
		{Header + "\ngomod a.b/c v1 1 " + shaA + " h1:x\n", "bad sum"},
		{Header + "\ngomod a.b/../c v1 1 " + shaA + " " + h1 + "\n", "bad module path"},
	} {
		_, err := Parse("f", []byte(c.in))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q:\n got %v\nwant %s", c.in, err, c.want)
		}
	}
}

func TestMergedLinesParse(t *testing.T) {
	// What git makes of two branches that each added a line at one place.
	other := strings.ReplaceAll(ssl, "libssl3", "libtls3")
	for _, s := range []string{ssl + other, other + ssl} {
		l, err := Parse("f", []byte(Header+"\n"+s))
		if err != nil || len(l.Debs) != 2 || l.Debs[0].Name != "libssl3" {
			t.Errorf("%v %v", l, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte(Header + "\n<<<<<<<\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := Parse("f", b)
		if err != nil {
			return
		}
		once := l.Bytes()
		again, err := Parse("f", once)
		if err != nil {
			t.Fatalf("%v in\n%s", err, once)
		}
		if !bytes.Equal(again.Bytes(), once) {
			t.Fatalf("not a fixed point:\n%s", once)
		}
	})
}
