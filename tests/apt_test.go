package tests

import (
	"bytes"
	"crypto"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"tool/core/model/digest"
)

// aptArchive is an apt archive on the loopback interface, with one suite,
// signed with a key made for the test.
type aptArchive struct {
	t   testing.TB
	url string
	key *openpgp.Entity

	mu       sync.Mutex
	signer   *openpgp.Entity
	packages []string // stanzas
	headers  string   // of the release
	break_   func(path string, b []byte) []byte
}

func newKey(t testing.TB) *openpgp.Entity {
	t.Helper()
	e, err := openpgp.NewEntity("archive", "", "archive@example.org", &packet.Config{Algorithm: packet.PubKeyAlgoEdDSA})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func newArchive(t testing.TB) *aptArchive {
	a := &aptArchive{t: t, key: newKey(t)}
	a.signer = a.key
	s := httptest.NewServer(a)
	t.Cleanup(s.Close)
	a.url = s.URL
	return a
}

// publicKey is armored, as apt's keyrings may be.
func (a *aptArchive) publicKey() string {
	a.t.Helper()
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	if err == nil {
		err = a.key.Serialize(w)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		a.t.Fatal(err)
	}
	return b.String() + "\n"
}

// add puts a package into the index; fields are further lines of its stanza.
func (a *aptArchive) add(name, version string, fields ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d := digest.Of([]byte(name + version))
	lines := append([]string{
		"Package: " + name, "Version: " + version, "Architecture: amd64",
		fmt.Sprintf("Filename: pool/%s_%s.deb", name, version), fmt.Sprintf("Size: %d", d.Size), "SHA256: " + d.Hex(),
	}, fields...)
	a.packages = append(a.packages, strings.Join(lines, "\n")+"\n")
}

// ServeHTTP serves InRelease and Packages.
func (a *aptArchive) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	index := []byte(strings.Join(a.packages, "\n"))
	var b []byte
	switch r.URL.Path {
	case "/dists/fake/InRelease":
		d := digest.Of(index)
		text := fmt.Sprintf("Suite: fake\nCodename: fake\nArchitectures: amd64\nComponents: main\nDate: %s\n%sSHA256:\n %s %d main/binary-amd64/Packages\n",
			time.Now().Add(-time.Hour).UTC().Format(time.RFC1123), a.headers, d.Hex(), d.Size)
		var s bytes.Buffer
		e, err := clearsign.Encode(&s, a.signer.PrivateKey, &packet.Config{DefaultHash: crypto.SHA256})
		if err == nil {
			_, err = e.Write([]byte(text))
		}
		if err == nil {
			err = e.Close()
		}
		if err != nil {
			a.t.Error(err)
		}
		b = append(s.Bytes(), '\n')
	case "/dists/fake/main/binary-amd64/Packages":
		b = index
	default:
		http.NotFound(w, r)
		return
	}
	if a.break_ != nil {
		b = a.break_(r.URL.Path, b)
	}
	_, _ = w.Write(b)
}
