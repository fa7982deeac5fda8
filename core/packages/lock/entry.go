package lock

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

func (d Deb) identity() string    { return "deb " + d.Name }
func (f File) identity() string   { return "file " + f.Name }
func (m Module) identity() string { return "gomod " + m.Path + " " + m.Version }
func (m Member) identity() string { return "set " + m.Set + " " + m.Package }

func (d Deb) text() string {
	return fmt.Sprintf("deb %s %s %s %s %d %s %s", d.Arch, d.Suite, d.Name, d.Version, d.Digest.Size, d.Digest.Hex(), d.Path)
}

func (f File) text() string {
	return fmt.Sprintf("file %s %d %s %s", f.Name, f.Digest.Size, f.Digest.Hex(), strings.Join(f.URLs, " "))
}

func (m Module) text() string {
	return fmt.Sprintf("gomod %s %s %d %s %s", m.Path, m.Version, m.Digest.Size, m.Digest.Hex(), m.Sum)
}

func (m Member) text() string { return fmt.Sprintf("set %s %s", m.Set, m.Package) }

var (
	debName    = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]*$`)
	debVersion = regexp.MustCompile(`^[0-9A-Za-z.+~:-]+$`)
	plainName  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.+/@=-]*$`)
)

func (d Deb) check() error {
	switch {
	case !debName.MatchString(d.Name):
		return fmt.Errorf("bad package name %q", d.Name)
	case !debName.MatchString(d.Arch):
		return fmt.Errorf("%s: bad architecture %q", d.Name, d.Arch)
	case !debVersion.MatchString(d.Version):
		return fmt.Errorf("%s: bad version %q", d.Name, d.Version)
	case !strings.Contains(d.Suite, "/"):
		return fmt.Errorf("%s: %q is not <suite>/<component>", d.Name, d.Suite)
	}
	if err := CheckPath(d.Suite); err != nil {
		return fmt.Errorf("%s: suite %w", d.Name, err)
	}
	if err := CheckPath(d.Path); err != nil {
		return fmt.Errorf("%s: %w", d.Name, err)
	}
	return nil
}

func (f File) check() error {
	if !plainName.MatchString(f.Name) {
		return fmt.Errorf("bad file name %q", f.Name)
	}
	if len(f.URLs) == 0 {
		return fmt.Errorf("file %s: no URL", f.Name)
	}
	for _, u := range f.URLs {
		scheme, rest, ok := strings.Cut(u, "://")
		switch {
		case !ok:
			if err := CheckPath(u); err != nil {
				return fmt.Errorf("file %s: %w", f.Name, err)
			}
		case scheme != "https" && scheme != "http" || rest == "" || rest[0] == '/':
			return fmt.Errorf("file %s: %q is neither an http or https URL nor a relative path", f.Name, u)
		}
	}
	return nil
}

func (m Module) check() error {
	if !plainName.MatchString(strings.ReplaceAll(m.Path, "~", "_")) || CheckPath(m.Path) != nil {
		return fmt.Errorf("bad module path %q", m.Path)
	}
	if !plainName.MatchString(m.Version) || m.Version[0] != 'v' || strings.Contains(m.Version, "/") {
		return fmt.Errorf("%s: bad version %q", m.Path, m.Version)
	}
	b, ok := strings.CutPrefix(m.Sum, "h1:")
	if raw, err := base64.StdEncoding.DecodeString(b); !ok || err != nil || len(raw) != 32 {
		return fmt.Errorf("%s@%s: bad sum %q, want h1:<base64 of 32 bytes>", m.Path, m.Version, m.Sum)
	}
	return nil
}

func (m Member) check() error {
	if !plainName.MatchString(m.Set) {
		return fmt.Errorf("bad set name %q", m.Set)
	}
	if !debName.MatchString(m.Package) {
		return fmt.Errorf("set %s: bad package name %q", m.Set, m.Package)
	}
	return nil
}

// CheckPath reports why p is not a clean relative slash-separated path that
// stays below where it is joined to.
func CheckPath(p string) error {
	switch {
	case p == "" || p == ".":
		return errors.New("empty path")
	case path.IsAbs(p):
		return fmt.Errorf("path %q is absolute", p)
	case strings.ContainsAny(p, "\\?#\x00"):
		return fmt.Errorf(`path %q holds one of \ ? # NUL`, p)
	case path.Clean(p) != p || p == ".." || strings.HasPrefix(p, "../"):
		return fmt.Errorf("path %q is not clean (.., // or a / at its end)", p)
	}
	return nil
}

// Bytes returns the file's content. Equal locks have equal bytes: entries are
// sorted, whatever order they are in now.
func (l *Lock) Bytes() []byte {
	var lines []string
	for _, e := range l.Debs {
		lines = append(lines, e.text())
	}
	for _, e := range l.Files {
		lines = append(lines, e.text())
	}
	for _, e := range l.Modules {
		lines = append(lines, e.text())
	}
	for _, e := range l.Members {
		lines = append(lines, e.text())
	}
	slices.Sort(lines)
	var b bytes.Buffer
	b.WriteString(Header + "\n")
	for _, s := range lines {
		b.WriteString(s + "\n")
	}
	return b.Bytes()
}

// Validate reports what Parse would say of Bytes' result, for locks that were
// made by a program. Writers call it before they write.
func (l *Lock) Validate() error {
	_, err := Parse("lock", l.Bytes())
	return err
}

// Format returns b as Bytes would write it, and whether b differs from that.
func Format(name string, b []byte) (out []byte, changed bool, err error) {
	l, err := Parse(name, b)
	if err != nil {
		return nil, false, err
	}
	out = l.Bytes()
	return out, !bytes.Equal(out, b), nil
}
