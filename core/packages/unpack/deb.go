// Package unpack turns archives into trees of a content-addressed store: .deb,
// tar (plain, gzip, xz, zstd, bzip2) and zip. Archives are hostile until
// proven otherwise: nothing is written outside the sink, no link is followed,
// and what an archive may hold is bounded. Everything streams; the same
// archive and options give the same tree everywhere.
package unpack

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"tool/core/model/digest"
	"tool/core/packages/deb822"
)

// Control is what a .deb says about itself.
type Control struct {
	Package, Version, Architecture string
	Fields                         *deb822.Paragraph
	Files                          map[string][]byte // every file of control.tar by name, except md5sums
}

// Conffiles returns the absolute paths of the package's configuration files.
func (c *Control) Conffiles() []string {
	var out []string
	for line := range strings.Lines(string(c.Files["conffiles"])) {
		f := strings.Fields(line)
		if len(f) > 0 && strings.HasPrefix(f[len(f)-1], "/") { // "remove-on-upgrade /etc/x"
			out = append(out, f[len(f)-1])
		}
	}
	return out
}

const maxControl = 16 << 20 // bytes in all files of control.tar

// Deb unpacks a Debian binary package into sink. The tree has the merged
// layout (bin, sbin and lib* are below usr), unusual modes and owners are kept
// as merkle.Props, and Options.Prefix and Strip do not apply. Errors name the
// member and the entry.
func Deb(ctx context.Context, r io.Reader, sink Sink, o Options) (digest.Digest, *Control, error) {
	o.Prefix, o.Strip = "", 0
	o.KeepProps, o.AbsoluteLinks, o.mergeUsr = true, true, true
	t, err := newTree(ctx, sink, o)
	if err != nil {
		return digest.Digest{}, nil, fmt.Errorf("deb: %w", err)
	}
	c, err := t.deb(r)
	if err != nil {
		return digest.Digest{}, nil, fmt.Errorf("deb: %w", err)
	}
	d, err := t.write()
	if err != nil {
		return digest.Digest{}, nil, fmt.Errorf("deb: %w", err)
	}
	return d, c, nil
}

func (t *tree) deb(r io.Reader) (*Control, error) {
	a, err := newArReader(r)
	if err != nil {
		return nil, err
	}
	if err := debVersion(a); err != nil {
		return nil, err
	}
	control, err := debMember(a, "control.tar")
	if err != nil {
		return nil, err
	}
	c, err := readControl(control)
	if err != nil {
		return nil, fmt.Errorf("control.tar: %w", err)
	}
	data, err := debMember(a, "data.tar")
	if err != nil {
		return nil, err
	}
	if err := t.tar(data); err != nil {
		return nil, fmt.Errorf("data.tar: %w", err)
	}
	for { // whatever follows is not ours, but must be well formed
		if _, _, _, err := a.next(); err == io.EOF {
			return c, nil
		} else if err != nil {
			return nil, err
		}
	}
}

func debVersion(a *arReader) error {
	name, _, r, err := a.next()
	if err != nil {
		return unexpected(err)
	}
	if name != "debian-binary" {
		return fmt.Errorf("the first member is %s, not debian-binary", name)
	}
	b, err := io.ReadAll(io.LimitReader(r, 64))
	if err != nil {
		return fmt.Errorf("debian-binary: %w", err)
	}
	if !bytes.HasPrefix(b, []byte("2.")) {
		return fmt.Errorf("format version %.10q is not known, want 2.0", bytes.TrimSpace(b))
	}
	return nil
}

// debMember returns the next member, which must be called want with the
// extension of a compression. Members with a leading _ may come between.
func debMember(a *arReader, want string) (io.Reader, error) {
	for {
		name, _, r, err := a.next()
		if err == io.EOF {
			return nil, fmt.Errorf("no %s", want)
		}
		if err != nil {
			return nil, err
		}
		if name[0] == '_' {
			continue
		}
		if rest, ok := strings.CutPrefix(name, want); ok {
			switch rest {
			case "", ".gz", ".xz", ".zst", ".bz2":
				return r, nil
			}
		}
		return nil, fmt.Errorf("member %s where %s was expected", name, want)
	}
}

func readControl(r io.Reader) (*Control, error) {
	lim := Limits{Bytes: maxControl, Entries: 1000}.withDefaults()
	plain, closer, err := open(r, lim)
	if err != nil {
		return nil, err
	}
	defer closer.Close()
	c := &Control{Files: map[string][]byte{}}
	left := int64(maxControl)
	tr := tar.NewReader(plain)
	for n := 0; ; n++ {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil && !errors.Is(err, tar.ErrInsecurePath) {
			return nil, err
		}
		if n >= lim.Entries {
			return nil, &LimitError{"entries", int64(lim.Entries)}
		}
		if h.Typeflag != tar.TypeReg {
			continue // the directory "." and nothing else, in practice
		}
		name, err := cleanName(h.Name)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", shown(h.Name), err)
		}
		if name == "md5sums" { // large, and weaker than what pins the package
			continue
		}
		if _, dup := c.Files[name]; dup {
			return nil, fmt.Errorf("%s: twice in the archive", shown(name))
		}
		b, err := io.ReadAll(io.LimitReader(tr, left+1))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", shown(name), err)
		}
		if left -= int64(len(b)); left < 0 {
			return nil, &LimitError{"bytes", maxControl}
		}
		c.Files[name] = b
	}
	if _, err := io.Copy(io.Discard, plain); err != nil {
		return nil, err
	}
	b, ok := c.Files["control"]
	if !ok {
		return nil, errors.New("no control file")
	}
	if c.Fields, err = deb822.One("control", bytes.NewReader(b)); err != nil {
		return nil, err
	}
	c.Package, c.Version, c.Architecture = c.Fields.Get("Package"), c.Fields.Get("Version"), c.Fields.Get("Architecture")
	if c.Package == "" || c.Version == "" || c.Architecture == "" {
		return nil, errors.New("control: Package, Version and Architecture must be given")
	}
	return c, nil
}
