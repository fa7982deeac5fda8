package gomod

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"tool/core/model/digest"
	"tool/core/model/merkle"
)

// mem is a store in memory, which unpack.To makes a Sink of.
type mem struct {
	blobs map[digest.Digest][]byte
	dirs  map[digest.Digest]*merkle.Directory
}

func newMem() *mem {
	return &mem{map[digest.Digest][]byte{}, map[digest.Digest]*merkle.Directory{}}
}

type memWriter struct {
	m *mem
	b bytes.Buffer
}

func (w *memWriter) Write(p []byte) (int, error)        { return w.b.Write(p) }
func (w *memWriter) Commit(bool) (digest.Digest, error) { return w.m.PutBytes(w.b.Bytes()) }
func (w *memWriter) Abort()                             {}

func (m *mem) NewWriter() (*memWriter, error) { return &memWriter{m: m}, nil }

func (m *mem) PutBytes(b []byte) (digest.Digest, error) {
	d := digest.Of(b)
	m.blobs[d] = bytes.Clone(b)
	return d, nil
}

func (m *mem) PutDirectory(d *merkle.Directory) (digest.Digest, error) {
	if err := d.Validate(); err != nil {
		return digest.Digest{}, err
	}
	h := d.Digest()
	m.dirs[h] = d
	return h, nil
}

func (m *mem) GetDirectory(h digest.Digest) (*merkle.Directory, error) {
	if d := m.dirs[h]; d != nil {
		return d, nil
	}
	return nil, fmt.Errorf("no directory %s", h)
}

// export writes a tree to disk, read-only.
func (m *mem) export(t *testing.T, h digest.Digest, dir string) {
	t.Helper()
	d, err := m.GetDirectory(h)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, f := range d.Files {
		mode := os.FileMode(0o444)
		if f.Executable {
			mode = 0o555
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name), m.blobs[f.Digest], mode); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range d.Directories {
		m.export(t, s.Digest, filepath.Join(dir, s.Name))
	}
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(dir, 0o755) }) // so that it can be removed
}
