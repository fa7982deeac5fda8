package debian

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"tool/core/model/digest"
	"tool/core/packages/lock"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// signer is a key made for a test.
type signer struct{ *openpgp.Entity }

func newSigner(t testing.TB) signer {
	t.Helper()
	e, err := openpgp.NewEntity("archive", "", "archive@example.org", &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return now.Add(-time.Hour) }})
	if err != nil {
		t.Fatal(err)
	}
	return signer{e}
}

func (s signer) sign(t testing.TB, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, s.PrivateKey, &packet.Config{DefaultHash: crypto.SHA256, Time: func() time.Time { return now }})
	if err == nil {
		_, err = w.Write([]byte(text))
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	b.WriteByte('\n')
	return b.Bytes()
}

func (s signer) public(t testing.TB, armored bool) []byte {
	t.Helper()
	var b bytes.Buffer
	if !armored {
		if err := s.Serialize(&b); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	if err == nil {
		err = s.Serialize(w)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestVerifyInRelease(t *testing.T) {
	s, other := newSigner(t), newSigner(t)
	ring := func(k signer, armored bool) *Keyring {
		r, err := ReadKeyring("/keys/a.gpg", k.public(t, armored))
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	const text = "Suite: x\nSHA256:\n a\n"
	good := s.sign(t, text)
	for _, armored := range []bool{false, true} {
		got, err := VerifyInRelease(good, []*Keyring{ring(other, false), ring(s, armored)}, now)
		if err != nil || strings.TrimSpace(string(got)) != strings.TrimSpace(text) {
			t.Errorf("got %q, %v", got, err)
		}
	}
	for _, c := range []struct {
		name string
		b    []byte
		ring *Keyring
		want string
	}{
		{"another key", good, ring(other, false), "no good signature (tried /keys/a.gpg: "},
		{"changed", bytes.Replace(good, []byte("Suite: x"), []byte("Suite: y"), 1), ring(s, false), "no good signature (tried /keys/a.gpg: "},
		{"unsigned", []byte(text), ring(s, false), "it is not clear-signed"},
		{"text before", append([]byte("Suite: y\n"), good...), ring(s, false), "it is not clear-signed"},
		{"text after", append(bytes.Clone(good), "Suite: y\n"...), ring(s, false), "there is text after its signature"},
		{"cut", good[:len(good)-20], ring(s, false), "malformed"},
	} {
		if _, err := VerifyInRelease(c.b, []*Keyring{c.ring}, now); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", c.name, err, c.want)
		}
	}
}

// fake is an apt archive in memory, over HTTP.
type fake struct {
	*httptest.Server
	key     signer
	files   map[string][]byte
	keyring string
	reads   atomic.Int64 // of indexes
}

func newFake(t *testing.T) *fake {
	f := &fake{key: newSigner(t), files: map[string][]byte{}, keyring: filepath.Join(t.TempDir(), "key.gpg")}
	if err := os.WriteFile(f.keyring, f.key.public(t, false), 0o644); err != nil {
		t.Fatal(err)
	}
	f.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, ok := f.files[r.URL.Path]
		if !ok {
			w.WriteHeader(404)
			return
		}
		if !strings.HasSuffix(r.URL.Path, "/InRelease") {
			f.reads.Add(1)
		}
		w.Write(b)
	}))
	t.Cleanup(f.Close)
	return f
}

// publish replaces a suite by packages "name version; Field: value".
func (f *fake) publish(t *testing.T, suite, header string, lines ...string) {
	t.Helper()
	var plain, packed bytes.Buffer
	for _, l := range lines {
		parts := strings.Split(l, ";")
		name, version, _ := strings.Cut(parts[0], " ")
		d := digest.Of([]byte(l))
		fmt.Fprintf(&plain, "Package: %s\nVersion: %s\nArchitecture: amd64\nFilename: pool/%s_%s.deb\nSize: %d\nSHA256: %s\n%s\n\n",
			name, version, name, version, d.Size, d.Hex(), strings.Join(parts[1:], "\n"))
	}
	w := gzip.NewWriter(&packed)
	w.Write(bytes.TrimSpace(plain.Bytes()))
	w.Close()
	d := digest.Of(packed.Bytes())
	dist := "/debian/dists/" + suite + "/"
	f.files[dist+"main/binary-amd64/by-hash/SHA256/"+d.Hex()] = packed.Bytes()
	f.files[dist+"InRelease"] = f.key.sign(t, fmt.Sprintf("Suite: stable\nCodename: %s\nDate: %s\nAcquire-By-Hash: yes\n%sSHA256:\n %s %d main/binary-amd64/Packages.gz\n",
		suite, now.Format("Mon, 02 Jan 2006 15:04:05 MST"), header, d.Hex(), d.Size))
}

func (f *fake) sources() []Source {
	return []Source{{URIs: []string{f.URL + "/gone", f.URL + "/debian"}, Suites: []string{"test", "test-security"}, SignedBy: []string{f.keyring}, Origin: "test"}}
}

func TestUpdate(t *testing.T) {
	f := newFake(t)
	f.publish(t, "test", "", "app 1;Depends: lib", "lib 1", "tool 1;Depends: lib, libc", "libc 1")
	o := Options{Arch: "amd64", Sources: f.sources(), Now: now, Cache: filepath.Join(t.TempDir(), "cache"), Sets: []SetRequest{
		{Name: "top", Install: []string{"tool"}, Have: []string{"mid"}, Suites: []string{"test"}},
		{Name: "mid", Install: []string{"app"}, Have: []string{"base"}, Suites: []string{"test"}},
		{Name: "base", Install: []string{"libc"}, Suites: []string{"test/main"}},
	}}
	update := func(want, changes string) {
		t.Helper()
		l, cs, err := Update(context.Background(), o)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, d := range l.Debs {
			got = append(got, d.Name+"="+d.Version)
		}
		for _, s := range l.Sets() {
			got = append(got, s+":")
			for _, d := range l.Set(s) {
				got = append(got, d.Name)
			}
		}
		if g := strings.Join(got, " "); g != want {
			t.Errorf("got  %s\nwant %s", g, want)
		}
		if cs.String() != changes {
			t.Errorf("got changes\n%swant\n%s", cs, changes)
		}
		o.Lock = l
	}
	o.Lock = &lock.Lock{Modules: []lock.Module{{Path: "a.b/c", Version: "v1.0.0", Digest: digest.Of(nil), Sum: "h1:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="}}}
	const sets = " base: libc mid: app lib top: tool"
	update("app=1 lib=1 libc=1 tool=1"+sets, "+ app 1\n+ lib 1\n+ libc 1\n+ tool 1\n")
	if len(o.Lock.Modules) != 1 {
		t.Error("the Go module was lost")
	}
	reads := f.reads.Load()
	f.publish(t, "test", "", "app 1;Depends: lib", "lib 1", "lib 2", "tool 1;Depends: lib, libc", "libc 2")
	update("app=1 lib=1 libc=2 tool=1"+sets, "~ libc 1 → 2 (the archive does not have the old version any more)\n")
	update("app=1 lib=1 libc=2 tool=1"+sets, "")
	if n := f.reads.Load() - reads; n != 1 {
		t.Errorf("read %d indexes, want 1: the cache must give the second", n)
	}
	o.Refresh = true
	update("app=1 lib=2 libc=2 tool=1"+sets, "~ lib 1 → 2\n")
	o.Sets = o.Sets[2:]
	update("libc=2 base: libc", "- app 1\n- lib 2\n- tool 1\n")

	f.publish(t, "test-security", "", "libc 3")
	o.Sets[0].Suites = append(o.Sets[0].Suites, "test-security")
	update("libc=3 base: libc", "~ libc 2 → 3\n")
	if d, _ := o.Lock.Deb("libc"); d.Suite != "test-security/main" {
		t.Errorf("got %v", d)
	}
}

func TestUpdateErrors(t *testing.T) {
	f := newFake(t)
	set := func(s SetRequest) []SetRequest {
		if s.Suites == nil {
			s.Suites = []string{"test"}
		}
		return []SetRequest{s}
	}
	other := newSigner(t)
	otherRing := filepath.Join(t.TempDir(), "other.gpg")
	if err := os.WriteFile(otherRing, other.public(t, true), 0o644); err != nil {
		t.Fatal(err)
	}
	app := func(header string) func() { return func() { f.publish(t, "test", header, "app 1;Depends: nothing") } }
	for _, c := range []struct {
		name    string
		prepare func()
		o       Options
		want    string
	}{
		{"unsatisfied", app(""), Options{Sets: set(SetRequest{Name: "s", Install: []string{"app"}})}, "package set s: app → nothing: no package satisfies it"},
		{"no source", app(""), Options{Sources: []Source{{}}, Sets: set(SetRequest{Name: "s"})}, "[mirrors.debian]\n\t\"test\" = ["},
		{"no suites", app(""), Options{Sets: []SetRequest{{Name: "s"}}}, "package set s: no suites given"},
		{"no component", app(""), Options{Sets: set(SetRequest{Name: "s", Suites: []string{"test/contrib"}})}, "the suite has no component contrib for amd64"},
		{"cycle", app(""), Options{Sets: []SetRequest{{Name: "a", Have: []string{"b"}}, {Name: "b", Have: []string{"a"}}}}, "package sets build on each other: a → b → a"},
		{"unknown set", app(""), Options{Sets: []SetRequest{{Name: "a", Have: []string{"b"}}}}, "package set a builds on b, which is not declared"},
		{"twice", app(""), Options{Sets: []SetRequest{{Name: "a"}, {Name: "a"}}}, "package set a is declared twice"},
		{"wrong key", app(""), Options{Sources: []Source{{URIs: []string{f.URL + "/debian"}, Suites: []string{"test"}, SignedBy: []string{otherRing}}},
			Sets: set(SetRequest{Name: "s"})}, "no good signature (tried " + otherRing},
		{"missing key", app(""), Options{Sources: []Source{{URIs: []string{f.URL + "/debian"}, Suites: []string{"test"}, SignedBy: []string{"/none.gpg"}}},
			Sets: set(SetRequest{Name: "s"})}, "keyring: stat /none.gpg"},
		{"expired", app("Valid-Until: Fri, 02 Jan 2026 00:00:00 UTC\n"), Options{Sets: set(SetRequest{Name: "s"})}, "it was valid until 2026-01-02T00:00:00Z"},
		{"another suite", func() {
			f.publish(t, "test", "")
			f.files["/debian/dists/test-security/InRelease"] = f.files["/debian/dists/test/InRelease"]
		}, Options{Sets: set(SetRequest{Name: "s", Suites: []string{"test-security"}})}, `it is of the suite "stable", codename "test"`},
		{"changed index", func() {
			app("")()
			for name := range f.files {
				if strings.Contains(name, "by-hash") {
					f.files[name] = []byte("x")
				}
			}
		}, Options{Sets: set(SetRequest{Name: "s"})}, "InRelease promises"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.prepare()
			c.o.Arch, c.o.Now = "amd64", now
			if c.o.Sources == nil {
				c.o.Sources = f.sources()
			}
			if _, _, err := Update(context.Background(), c.o); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v\nwant %s", err, c.want)
			}
		})
	}
	app("Valid-Until: Fri, 02 Jan 2026 00:00:00 UTC\n")()
	stale := f.sources()
	stale[0].Stale = true
	if _, _, err := Update(context.Background(), Options{Sources: stale, Sets: set(SetRequest{Name: "s"}), Arch: "amd64", Now: now}); err != nil {
		t.Errorf("a source that may be stale: %v", err)
	}
}
