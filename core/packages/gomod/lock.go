package gomod

import (
	"archive/zip"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	modzip "golang.org/x/mod/zip"

	"tool/core/model/digest"
	"tool/core/packages/lock"
)

// Getter downloads a module's zip, pinned by nothing yet, as a file that is
// gone once closed, and its digest. fetch.Proxy is one.
type Getter interface {
	Module(ctx context.Context, path, version string) (*os.File, digest.Digest, error)
}

// LockModules returns the lock entries of a plan, in its order. Each zip that
// old (which may be nil) does not pin is downloaded once, to learn its size
// and SHA-256, and its content is checked against the plan's sum. A module
// without one, such as a toolchain, is trusted the first time it is seen; what
// it was then is what the lock pins.
func LockModules(ctx context.Context, g Getter, plan []Module, old *lock.Lock) ([]lock.Module, error) {
	const parallel = 4
	out := make([]lock.Module, len(plan))
	errs := make([]error, len(plan))
	slots := make(chan struct{}, parallel)
	var wg sync.WaitGroup
	for i, m := range plan {
		if old != nil {
			if e, ok := old.Module(m.Path, m.Version); ok && (m.Sum == "" || m.Sum == e.Sum) {
				out[i] = e
				continue
			}
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if errs[i] = ctx.Err(); errs[i] == nil {
				out[i], errs[i] = lockModule(ctx, g, m)
			}
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return out, nil
}

func lockModule(ctx context.Context, g Getter, m Module) (lock.Module, error) {
	f, d, err := g.Module(ctx, m.Path, m.Version)
	if err != nil {
		return lock.Module{}, err
	}
	defer f.Close()
	sum, err := Sum(f, d.Size)
	if err != nil {
		return lock.Module{}, fmt.Errorf("Go module %s: %w", m, err)
	}
	if m.Sum != "" && sum != m.Sum {
		return lock.Module{}, fmt.Errorf("Go module: %w", &SumError{m.String(), "zip", m.Sum, sum})
	}
	return lock.Module{Path: m.Path, Version: m.Version, Digest: d, Sum: sum}, nil
}

// Sum returns the "h1:…" of a module's zip of size bytes, as go.sum has it.
func Sum(r io.ReaderAt, size int64) (string, error) {
	const maxUnpacked = 2 << 30 // toolchains are larger than modules may be
	if size > modzip.MaxZipFile {
		return "", fmt.Errorf("zip of %d bytes is larger than %d", size, modzip.MaxZipFile)
	}
	zr, err := zip.NewReader(r, size)
	if err != nil {
		return "", err
	}
	files := make(map[string][]byte, len(zr.File))
	left := int64(maxUnpacked)
	for _, f := range zr.File {
		if _, dup := files[f.Name]; dup {
			return "", fmt.Errorf("zip: %q is there twice", f.Name)
		}
		rc, err := f.Open()
		if err != nil {
			return "", fmt.Errorf("zip: %q: %w", f.Name, err)
		}
		h := sha256.New()
		n, err := io.Copy(h, io.LimitReader(rc, left+1))
		rc.Close()
		if err != nil {
			return "", fmt.Errorf("zip: %q: %w", f.Name, err)
		}
		if left -= n; left < 0 {
			return "", fmt.Errorf("zip: holds more than %d bytes", int64(maxUnpacked))
		}
		files[f.Name] = h.Sum(nil)
	}
	return hash1(files), nil
}
