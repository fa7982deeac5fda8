package unpack

import (
	"bytes"
	"fmt"
	"sort"
	"strings"
	"testing"

	"tool/core/model/digest"
	"tool/core/model/merkle"
)

// mem is a Sink in memory.
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

// list shows a tree as lines: path, then "/" or "=content" or "->target",
// with * for executables and mode and owner where they are kept.
func (m *mem) list(t *testing.T, root digest.Digest) string {
	t.Helper()
	var lines []string
	props := func(p merkle.Props) string {
		s := ""
		if p.Mode != 0 {
			s += fmt.Sprintf(" %o", p.Mode)
		}
		if p.Owner != "" {
			s += " " + p.Owner
		}
		return s
	}
	var walk func(string, digest.Digest)
	walk = func(dir string, h digest.Digest) {
		d, err := m.GetDirectory(h)
		if err != nil {
			t.Fatal(err)
		}
		if dir != "" {
			lines = append(lines, dir+"/"+props(d.Props))
		}
		for _, f := range d.Files {
			star := ""
			if f.Executable {
				star = "*"
			}
			b := m.blobs[f.Digest]
			content := string(b)
			if len(content) > 20 {
				content = fmt.Sprintf("%d bytes", len(content))
			}
			lines = append(lines, strings.TrimPrefix(dir+"/"+f.Name, "/")+star+"="+content+props(f.Props))
		}
		for _, s := range d.Symlinks {
			lines = append(lines, strings.TrimPrefix(dir+"/"+s.Name, "/")+"->"+s.Target)
		}
		for _, s := range d.Directories {
			walk(strings.TrimPrefix(dir+"/"+s.Name, "/"), s.Digest)
		}
	}
	walk("", root)
	sort.Strings(lines)
	return strings.Join(lines, "\n")
}
