package lock

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"tool/core/model/digest"
)

// Bounds of a lock file, in bytes and lines: far above what anyone needs, far
// below what hurts.
const (
	MaxSize = 64 << 20
	maxLine = 16 << 10
	maxErrs = 20
)

// Parse reads a lock file; name is what errors call it. Lines may come in any
// order, because merges leave them so. Every bad line is reported (up to 20),
// as file:line: message. The result is sorted.
func Parse(name string, b []byte) (*Lock, error) {
	if len(b) > MaxSize {
		return nil, fmt.Errorf("%s: %d bytes is more than a lock file may hold (%d)", name, len(b), MaxSize)
	}
	p := parser{name: name, lock: &Lock{}, lines: map[string]int{}}
	p.run(string(b))
	if len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	p.lock.Sort()
	return p.lock, nil
}

type parser struct {
	name  string
	lock  *Lock
	line  int
	lines map[string]int // identity of an entry → line where it stands
	errs  []error
}

func (p *parser) errorf(line int, format string, args ...any) {
	if len(p.errs) < maxErrs {
		p.errs = append(p.errs, fmt.Errorf("%s:%d: %w", p.name, line, fmt.Errorf(format, args...)))
	}
}

func (p *parser) run(text string) {
	header := false
	for p.line = 1; text != ""; p.line++ {
		var line string
		line, text, _ = strings.Cut(text, "\n")
		line = strings.TrimSuffix(line, "\r") // a checkout with core.autocrlf
		switch {
		case conflictMarker(line):
			p.errorf(p.line, "a merge conflict was left here (%.7s): keep both sides' lines, then run `tool lock`, which sorts out the rest", line)
		case line == "":
		case !header:
			header = true
			if line != Header {
				if v, ok := strings.CutPrefix(line, "tool-lock "); ok {
					p.errorf(p.line, "lock format %q is not known to this version of tool, which writes %q", v, Header)
				} else {
					p.errorf(p.line, "the first line must be %q", Header)
				}
				return
			}
		case line == Header: // both sides of a merge had it
		case len(line) > maxLine:
			p.errorf(p.line, "line of %d bytes", len(line))
		default:
			if err := p.entry(line); err != nil {
				p.errorf(p.line, "%w", err)
			}
		}
	}
	if !header && len(p.errs) == 0 {
		p.errorf(1, "empty: the first line must be %q", Header)
	}
	for _, m := range p.lock.Members {
		if _, ok := p.lines["deb "+m.Package]; !ok {
			p.errorf(p.lines[m.identity()], "set %s has %s, but no deb line pins it: run `tool lock`", m.Set, m.Package)
		}
	}
}

func conflictMarker(line string) bool {
	for _, m := range []string{"<<<<<<<", "|||||||", "=======", ">>>>>>>"} {
		if rest, ok := strings.CutPrefix(line, m); ok && (rest == "" || rest[0] == ' ') {
			return true
		}
	}
	return false
}

func (p *parser) entry(line string) error {
	if !utf8.ValidString(line) {
		return errors.New("not UTF-8")
	}
	f := strings.Split(line, " ")
	if err := checkFields(f); err != nil {
		return err
	}
	switch f[0] {
	case "deb":
		if len(f) != 8 {
			return fmt.Errorf("deb line has %d fields, want: deb <arch> <suite>/<component> <name> <version> <size> <sha256> <path>", len(f))
		}
		d := Deb{Arch: f[1], Suite: f[2], Name: f[3], Version: f[4], Path: f[7]}
		var err error
		if d.Digest, err = pin(f[5], f[6]); err != nil {
			return fmt.Errorf("%s: %w", d.Name, err)
		}
		return add(p, &p.lock.Debs, d)
	case "file":
		if len(f) < 5 {
			return fmt.Errorf("file line has %d fields, want: file <name> <size> <sha256> <url>", len(f))
		}
		e := File{Name: f[1], URLs: f[4:]}
		var err error
		if e.Digest, err = pin(f[2], f[3]); err != nil {
			return fmt.Errorf("%s: %w", e.Name, err)
		}
		return add(p, &p.lock.Files, e)
	case "gomod":
		if len(f) != 6 {
			return fmt.Errorf("gomod line has %d fields, want: gomod <module> <version> <size> <sha256> <h1>", len(f))
		}
		m := Module{Path: f[1], Version: f[2], Sum: f[5]}
		var err error
		if m.Digest, err = pin(f[3], f[4]); err != nil {
			return fmt.Errorf("%s: %w", m.Path, err)
		}
		return add(p, &p.lock.Modules, m)
	case "set":
		if len(f) != 3 {
			return fmt.Errorf("set line has %d fields, want: set <set> <package>", len(f))
		}
		return add(p, &p.lock.Members, Member{f[1], f[2]})
	}
	return fmt.Errorf("unknown entry %q, want deb, file, gomod or set", f[0])
}

// entry is what the four kinds of lines have in common.
type entry interface {
	identity() string // what may stand in a lock only once
	check() error
	text() string // the line
}

func add[E entry](p *parser, to *[]E, e E) error {
	if err := e.check(); err != nil {
		return err
	}
	id := e.identity()
	if at, dup := p.lines[id]; dup {
		for _, old := range *to {
			if old.identity() == id && old.text() == e.text() {
				return fmt.Errorf("duplicate of line %d: delete one", at)
			}
		}
		return fmt.Errorf("%s is pinned differently on line %d: delete one of the two and run `tool lock`", id, at)
	}
	p.lines[id] = p.line
	*to = append(*to, e)
	return nil
}

func checkFields(fields []string) error {
	for _, f := range fields {
		if f == "" {
			return errors.New("empty field: fields are separated by single spaces, with none at the end")
		}
		for _, r := range f {
			if unicode.IsSpace(r) || unicode.IsControl(r) || r == utf8.RuneError {
				return fmt.Errorf("field %q holds a character that is not allowed", f)
			}
		}
	}
	return nil
}

func pin(size, sha string) (digest.Digest, error) {
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil || n < 0 || strconv.FormatInt(n, 10) != size {
		return digest.Digest{}, fmt.Errorf("bad size %q", size)
	}
	return digest.New(sha, n)
}
