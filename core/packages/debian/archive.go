package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tool/core/model/digest"
	"tool/core/packages/unpack"
)

// Bounds of what a mirror may send, in bytes.
const (
	maxInRelease = 32 << 20
	maxPackages  = 512 << 20 // compressed; plain is bounded by unpack.Limits' ratio
	maxPlain     = 4 << 30
)

// Archive reads indexes of apt sources. The zero Archive uses the default HTTP
// client, which honours http_proxy and https_proxy, and keeps nothing.
type Archive struct {
	Client *http.Client
	Cache  string    // directory that keeps indexes by their digest; "" keeps none
	Root   string    // where default keyrings are looked for; "" means /
	Now    time.Time // zero means the present
	Stall  time.Duration
}

// Packages returns the packages of a suite ("bookworm/main") for an
// architecture from the first of its mirrors that answers. Signatures, dates
// and digests are checked, whatever the mirror.
func (a *Archive) Packages(ctx context.Context, sources []Source, name, arch string) ([]*Package, error) {
	suite, component := SplitSuite(name)
	srcs := SourcesFor(sources, name, arch)
	if len(srcs) == 0 {
		return nil, fmt.Errorf("no source for the Debian suite %s: neither tool.toml nor this machine's /etc/apt names one; add to tool.toml:\n\n\t[mirrors.debian]\n\t%q = [\"http://MIRROR/debian\"]", suite+"/"+component, suite)
	}
	var errs []error
	for _, s := range srcs {
		for _, base := range s.URIs {
			pkgs, err := a.fromMirror(ctx, s, base, suite, component, arch)
			if err == nil {
				return pkgs, nil
			}
			errs = append(errs, err)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
		}
	}
	return nil, fmt.Errorf("indexes of %s/%s: %w", suite, component, errors.Join(errs...))
}

func (a *Archive) fromMirror(ctx context.Context, s Source, base, suite, component, arch string) ([]*Package, error) {
	dist := base + "/dists/" + suite + "/"
	rel, err := a.release(ctx, s, dist, suite)
	if err != nil {
		return nil, err
	}
	label := suite + "/" + component
	dirs := []string{component + "/binary-" + arch}
	if !rel.NoAll && slices.Contains(rel.Archs, "all") {
		dirs = append(dirs, component+"/binary-all")
	}
	var out []*Package
	for i, dir := range dirs {
		d, path, ok := rel.packages(dir)
		if !ok {
			if i > 0 {
				continue // it lists "all", but as part of the others
			}
			return nil, fmt.Errorf("%sInRelease lists no %s/Packages: the suite has no component %s for %s", dist, dir, component, arch)
		}
		b, err := a.index(ctx, dist, path, d, rel.ByHash)
		if err != nil {
			return nil, err
		}
		pkgs, err := readCompressed(dist+path, label, b)
		if err != nil {
			return nil, err
		}
		out = append(out, pkgs...)
	}
	return out, nil
}

func (a *Archive) release(ctx context.Context, s Source, dist, suite string) (*Release, error) {
	url := dist + "InRelease"
	b, err := a.get(ctx, url, maxInRelease)
	if err != nil {
		return nil, err
	}
	now := a.Now
	if now.IsZero() {
		now = time.Now()
	}
	text := b
	if s.Trusted {
		if _, after, ok := bytes.Cut(b, []byte("\n\n")); ok && bytes.HasPrefix(b, []byte("-----BEGIN PGP")) {
			text, _, _ = bytes.Cut(after, []byte("\n-----BEGIN PGP SIGNATURE"))
		}
	} else {
		root := a.Root
		if root == "" {
			root = "/"
		}
		rings, err := keyrings(root, s)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", url, err)
		}
		if text, err = VerifyInRelease(b, rings, now); err != nil {
			return nil, fmt.Errorf("%s: %w", url, err)
		}
	}
	rel, err := ParseRelease(url, text)
	if err != nil {
		return nil, err
	}
	if s.Stale {
		rel.ValidUntil = time.Time{}
	}
	if err := rel.Check(suite, now); err != nil {
		return nil, fmt.Errorf("%s: %w", url, err)
	}
	return rel, nil
}

// packages picks the best compressed form of an index.
func (r *Release) packages(dir string) (digest.Digest, string, bool) {
	for _, ext := range []string{".xz", ".gz", ""} {
		if d, ok := r.File(dir + "/Packages" + ext); ok {
			return d, dir + "/Packages" + ext, true
		}
	}
	return digest.Digest{}, "", false
}

func (a *Archive) index(ctx context.Context, dist, path string, want digest.Digest, byHash bool) ([]byte, error) {
	if want.Size > maxPackages {
		return nil, fmt.Errorf("%s%s: %d bytes is more than an index may have", dist, path, want.Size)
	}
	kept := ""
	if a.Cache != "" {
		kept = filepath.Join(a.Cache, want.Hex())
		if b, err := os.ReadFile(kept); err == nil && digest.Of(b) == want {
			return b, nil
		}
	}
	urls := []string{dist + path}
	if byHash { // does not change under our hands while the mirror is updated
		urls = append([]string{dist + path[:strings.LastIndexByte(path, '/')] + "/by-hash/SHA256/" + want.Hex()}, urls...)
	}
	var errs []error
	for _, u := range urls {
		b, err := a.get(ctx, u, want.Size)
		if err == nil && digest.Of(b) != want {
			err = fmt.Errorf("%s: got %s, InRelease promises %s", u, digest.Of(b), want)
		}
		if err == nil {
			return b, a.keep(kept, b)
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func (a *Archive) keep(file string, b []byte) error {
	if file == "" {
		return nil
	}
	if err := os.MkdirAll(a.Cache, 0o755); err != nil {
		return fmt.Errorf("index cache: %w", err)
	}
	tmp, err := os.CreateTemp(a.Cache, ".tmp-")
	if err != nil {
		return fmt.Errorf("index cache: %w", err)
	}
	defer os.Remove(tmp.Name())
	if _, err := tmp.Write(b); err != nil {
		tmp.Close()
		return fmt.Errorf("index cache: %w", err)
	}
	if err := tmp.Close(); err != nil {
		return fmt.Errorf("index cache: %w", err)
	}
	return os.Rename(tmp.Name(), file)
}

func readCompressed(name, suite string, b []byte) ([]*Package, error) {
	r, err := unpack.Decompress(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	defer r.Close()
	return ReadPackages(name, suite, io.LimitReader(r, maxPlain))
}
