package debian

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// Keyring is a list of OpenPGP public keys.
type Keyring struct {
	Origin string // the file, for errors
	keys   openpgp.EntityList
}

// ReadKeyring reads a keyring, binary or armored.
func ReadKeyring(origin string, b []byte) (*Keyring, error) {
	var keys openpgp.EntityList
	var err error
	if bytes.Contains(b[:min(len(b), 4096)], []byte("-----BEGIN PGP")) {
		keys, err = openpgp.ReadArmoredKeyRing(bytes.NewReader(b))
	} else {
		keys, err = openpgp.ReadKeyRing(bytes.NewReader(b))
	}
	if err != nil {
		return nil, fmt.Errorf("keyring %s: %w", origin, err)
	}
	return &Keyring{origin, keys}, nil
}

// maxKeyring bounds a keyring file in bytes.
const maxKeyring = 16 << 20

// keyrings returns those a source is to be checked with: its own Signed-By,
// else the ones that apt trusts, below root. Files that are missing are an
// error only where the source names them.
func keyrings(root string, s Source) ([]*Keyring, error) {
	var out []*Keyring
	if len(s.Key) > 0 {
		k, err := ReadKeyring("the key in "+s.Origin, s.Key)
		if err != nil {
			return nil, err
		}
		return []*Keyring{k}, nil
	}
	var files []string
	for _, f := range s.SignedBy {
		if !filepath.IsAbs(f) {
			return nil, fmt.Errorf("%s: Signed-By %q: only keyring files and inline keys are supported, not fingerprints", s.Origin, f)
		}
		files = append(files, f)
	}
	if len(files) == 0 {
		files = append(files, filepath.Join(root, "usr/share/keyrings/debian-archive-keyring.gpg"))
		for _, pattern := range []string{"etc/apt/trusted.gpg", "etc/apt/trusted.gpg.d/*.gpg", "etc/apt/trusted.gpg.d/*.asc"} {
			more, _ := filepath.Glob(filepath.Join(root, pattern))
			files = append(files, more...)
		}
	}
	for _, f := range files {
		st, err := os.Stat(f)
		if errors.Is(err, os.ErrNotExist) && len(s.SignedBy) == 0 {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("keyring: %w", err)
		}
		if st.Size() == 0 || st.Size() > maxKeyring {
			continue
		}
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, fmt.Errorf("keyring: %w", err)
		}
		k, err := ReadKeyring(f, b)
		if err != nil {
			if len(s.SignedBy) > 0 {
				return nil, err
			}
			continue // one broken file in trusted.gpg.d must not stop the others
		}
		out = append(out, k)
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no keyring to check signatures with (looked for %s): install debian-archive-keyring", strings.Join(files, ", "))
	}
	return out, nil
}

// VerifyInRelease checks the clear-signature of an InRelease file against the
// keyrings and returns the signed text. Anything outside the signed part is
// refused, so that what is read is what was signed.
func VerifyInRelease(b []byte, rings []*Keyring, now time.Time) ([]byte, error) {
	if !bytes.HasPrefix(b, []byte("-----BEGIN PGP SIGNED MESSAGE-----")) {
		return nil, errors.New("it is not clear-signed")
	}
	block, rest := clearsign.Decode(b)
	if block == nil {
		return nil, errors.New("its clear-signature is malformed")
	}
	if len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("there is text after its signature")
	}
	config := &packet.Config{Time: func() time.Time { return now }, DefaultHash: crypto.SHA256}
	sig, err := readAll(block.ArmoredSignature.Body, 1<<20)
	if err != nil {
		return nil, fmt.Errorf("its signature: %w", err)
	}
	var why []string
	for _, k := range rings {
		_, err := openpgp.CheckDetachedSignature(k.keys, bytes.NewReader(block.Bytes), bytes.NewReader(sig), config)
		if err == nil {
			return block.Plaintext, nil
		}
		why = append(why, fmt.Sprintf("%s: %v", k.Origin, strings.TrimPrefix(err.Error(), "openpgp: ")))
	}
	return nil, fmt.Errorf("no good signature (tried %s)", strings.Join(why, "; "))
}
