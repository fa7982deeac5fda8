package gomod

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	modzip "golang.org/x/mod/zip"

	"tool/core/model/digest"
	"tool/core/model/merkle"
	"tool/core/packages/unpack"
)

// SumError is a zip, or a go.mod, that is not the one which was pinned.
type SumError struct {
	Module    string // path@version
	What      string // "zip" or "go.mod"
	Want, Got string // h1:…
}

func (e *SumError) Error() string {
	return fmt.Sprintf("%s: its %s has the sum %s, pinned is %s", e.Module, e.What, e.Got, e.Want)
}

// CacheTree unpacks a module's zip into sink and returns a tree in the form of
// GOMODCACHE that holds this one module. The union of such trees is a module
// cache with which the go command builds offline (GOPROXY=off), also when it
// is read-only. The zip's content is checked against m.Sum, which must be
// given, and its go.mod against m.GoModSum, if given; a difference is a
// *SumError.
func CacheTree(ctx context.Context, r io.ReaderAt, size int64, m Module, sink unpack.Sink) (digest.Digest, error) {
	d, err := cacheTree(ctx, r, size, m, sink)
	if err != nil {
		return d, fmt.Errorf("Go module %s: %w", m, err)
	}
	return d, nil
}

func cacheTree(ctx context.Context, r io.ReaderAt, size int64, m Module, sink unpack.Sink) (digest.Digest, error) {
	escPath, err := module.EscapePath(m.Path)
	if err != nil {
		return digest.Digest{}, err
	}
	escVersion, err := module.EscapeVersion(m.Version)
	if err != nil {
		return digest.Digest{}, err
	}
	files, tree, err := unzip(ctx, r, size, m, sink, unpack.Options{
		NoModes: true, Limits: unpack.Limits{Bytes: modzip.MaxZipFile, File: modzip.MaxZipFile},
	})
	if err != nil {
		return digest.Digest{}, err
	}
	gomod, err := goMod(r, size, m, files)
	if err != nil {
		return digest.Digest{}, err
	}
	info, err := json.Marshal(struct{ Version string }{m.Version})
	if err != nil {
		return digest.Digest{}, err
	}
	var b merkle.Builder
	if err := b.Add(escPath+"@"+escVersion, merkle.Node{Kind: merkle.Dir, Digest: tree}); err != nil {
		return digest.Digest{}, err
	}
	for ext, content := range map[string][]byte{"info": info, "mod": gomod, "ziphash": []byte(m.Sum)} {
		d, err := sink.PutBytes(content)
		if err != nil {
			return digest.Digest{}, err
		}
		if err := b.Add("cache/download/"+escPath+"/@v/"+escVersion+"."+ext, merkle.Node{Kind: merkle.File, Digest: d}); err != nil {
			return digest.Digest{}, err
		}
	}
	return b.Write(sink)
}

// unzip unpacks a module zip, checks its sum and returns its files by their
// path in the module, and their tree.
func unzip(ctx context.Context, r io.ReaderAt, size int64, m Module, sink unpack.Sink, o unpack.Options) (map[string]merkle.Node, digest.Digest, error) {
	if m.Sum == "" {
		return nil, digest.Digest{}, errors.New("no sum is known to check its zip against")
	}
	if size > modzip.MaxZipFile {
		return nil, digest.Digest{}, fmt.Errorf("its zip of %d bytes is larger than %d", size, modzip.MaxZipFile)
	}
	zr, err := zip.NewReader(r, size)
	if err != nil && !errors.Is(err, zip.ErrInsecurePath) { // names are checked below
		return nil, digest.Digest{}, err
	}
	for _, f := range zr.File { // unpacking would pass over them, the sum covers them
		if !strings.HasPrefix(f.Name, m.String()+"/") {
			return nil, digest.Digest{}, fmt.Errorf("zip: %.200q is not below %s/", f.Name, m)
		}
	}
	files := map[string]merkle.Node{}
	folded := map[string]string{}
	o.Prefix = m.String()
	o.Each = func(name string, n merkle.Node) error {
		if n.Kind != merkle.File {
			return errors.New("not a regular file")
		}
		rel := strings.TrimPrefix(name, o.Prefix+"/")
		if err := module.CheckFilePath(rel); err != nil {
			return err
		}
		fold := strings.ToLower(rel)
		if other, dup := folded[fold]; dup {
			return fmt.Errorf("differs from %s in case only", other)
		}
		folded[fold] = rel
		files[rel] = n
		return nil
	}
	tree, err := unpack.Zip(ctx, r, size, sink, o)
	if err != nil {
		return nil, tree, err
	}
	// The sum covers the names with their prefix.
	sums := make(map[string][]byte, len(files))
	for rel, n := range files {
		sums[o.Prefix+"/"+rel] = n.Digest.Hash[:]
	}
	if got := hash1(sums); got != m.Sum {
		return nil, tree, &SumError{m.String(), "zip", m.Sum, got}
	}
	return files, tree, nil
}

// hash1 is the sum "h1:" over files' names and SHA-256s.
func hash1(files map[string][]byte) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(h, "%x  %s\n", files[name], name)
	}
	return "h1:" + base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// goMod returns the go.mod that a proxy would serve: the zip's own, or for
// modules from before go.mod the one that only names it.
func goMod(r io.ReaderAt, size int64, m Module, files map[string]merkle.Node) ([]byte, error) {
	b := []byte("module " + modfile.AutoQuote(m.Path) + "\n")
	if n, ok := files["go.mod"]; ok {
		if n.Digest.Size > modzip.MaxGoMod {
			return nil, fmt.Errorf("its go.mod of %d bytes is larger than %d", n.Digest.Size, modzip.MaxGoMod)
		}
		zr, err := zip.NewReader(r, size)
		if err != nil {
			return nil, err
		}
		f, err := zr.Open(m.String() + "/go.mod")
		if err != nil {
			return nil, err
		}
		defer f.Close()
		var buf bytes.Buffer
		if _, err := io.Copy(&buf, io.LimitReader(f, modzip.MaxGoMod)); err != nil {
			return nil, err
		}
		b = buf.Bytes()
	}
	if m.GoModSum != "" {
		sum := sha256.Sum256(b)
		if got := hash1(map[string][]byte{"go.mod": sum[:]}); got != m.GoModSum {
			return nil, &SumError{m.String(), "go.mod", m.GoModSum, got}
		}
	}
	return b, nil
}
