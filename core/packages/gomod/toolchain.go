package gomod

import (
	"context"
	"fmt"
	"io"
	"path"

	"tool/core/model/digest"
	"tool/core/model/merkle"
	"tool/core/packages/unpack"
)

// ToolchainPath is the module that Go toolchains come as.
const ToolchainPath = "golang.org/toolchain"

// ToolchainModule returns the module of a Go release for a platform, for
// example "1.26.8", "linux", "amd64". Its Sum is not known.
func ToolchainModule(release, goos, goarch string) Module {
	return Module{Path: ToolchainPath, Version: fmt.Sprintf("v0.0.1-go%s.%s-%s", release, goos, goarch)}
}

// Toolchain unpacks a Go toolchain's zip into sink and returns the tree of a
// GOROOT. Zips of modules hold no modes and no nested modules, so, as the go
// command does after it fetched a toolchain, programs are marked executable
// and every _go.mod is there as go.mod too. The content is checked against
// m.Sum; a difference is a *SumError.
func Toolchain(ctx context.Context, r io.ReaderAt, size int64, m Module, sink unpack.Sink) (digest.Digest, error) {
	d, err := toolchain(ctx, r, size, m, sink)
	if err != nil {
		return d, fmt.Errorf("Go toolchain %s: %w", m.Version, err)
	}
	return d, nil
}

func toolchain(ctx context.Context, r io.ReaderAt, size int64, m Module, sink unpack.Sink) (digest.Digest, error) {
	files, _, err := unzip(ctx, r, size, m, sink, unpack.Options{
		NoModes: true, Limits: unpack.Limits{Bytes: 2 << 30, File: 1 << 30},
		Executable: []string{"bin/**", "pkg/tool/**", "lib/go_?*_?*_exec", "lib/*/go_?*_?*_exec"},
	})
	if err != nil {
		return digest.Digest{}, err
	}
	var b merkle.Builder
	for p, n := range files {
		if err := b.Add(p, n); err != nil {
			return digest.Digest{}, err
		}
		if path.Base(p) != "_go.mod" {
			continue
		}
		plain := path.Join(path.Dir(p), "go.mod")
		if _, ok := files[plain]; ok {
			continue
		}
		if err := b.Add(plain, n); err != nil {
			return digest.Digest{}, err
		}
	}
	return b.Write(sink)
}
