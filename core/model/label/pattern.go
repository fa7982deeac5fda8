package label

import (
	"fmt"
	"path"
	"strings"
)

// Pattern is one word of a command line that selects targets.
type Pattern struct {
	Negative  bool
	Recursive bool   // pkg/...
	All       bool   // :all, or a recursive pattern: every rule
	Files     bool   // :* or :all-targets: files as well
	Label     Label  // the target, or the package (Name empty) of a wildcard
	Guess     string // "bar/wiz" without // or colon: resolved against the packages that exist
	Text      string // as the user wrote it
}

// ParsePattern reads one pattern; cwd is the current directory as a package
// path, which patterns without // are relative to. A leading "-" makes the
// pattern subtract.
func ParsePattern(s, cwd string) (Pattern, error) {
	p := Pattern{Text: s}
	rest := s
	if strings.HasPrefix(rest, "-") {
		p.Negative, rest = true, rest[1:]
	}
	bad := func(err error) (Pattern, error) {
		return Pattern{}, fmt.Errorf("invalid target pattern %q: %w", s, err)
	}
	if rest == "" {
		return bad(fmt.Errorf("it is empty"))
	}
	prefix := ""
	absolute := false
	if strings.HasPrefix(rest, "@") {
		repo, tail, ok := strings.Cut(strings.TrimLeft(rest, "@"), "//")
		if !ok {
			return bad(fmt.Errorf("a repository name must be followed by //"))
		}
		if err := checkRepo(repo); err != nil {
			return bad(err)
		}
		p.Label.Repo, rest, absolute = repo, tail, true
	} else if t, ok := strings.CutPrefix(rest, "//"); ok {
		rest, absolute = t, true
	} else {
		prefix = cwd
	}
	pkg, name, hasName := strings.Cut(rest, ":")
	if pkg == "..." || strings.HasSuffix(pkg, "/...") {
		p.Recursive, p.All = true, true
		p.Label.Pkg = path.Join(prefix, strings.TrimSuffix(strings.TrimSuffix(pkg, "..."), "/"))
		switch {
		case !hasName || name == "all":
		case name == "*" || name == "all-targets":
			p.Files = true
		default:
			return bad(fmt.Errorf("after ... only :all, :* and :all-targets make sense"))
		}
		return p, checkPattern(s, CheckPackage(p.Label.Pkg))
	}
	if !hasName {
		if !absolute {
			p.Guess = path.Join(prefix, pkg)
			return p, checkPattern(s, CheckPackage(p.Guess))
		}
		l, err := Parse("//"+pkg, Label{})
		if err != nil {
			return bad(err)
		}
		l.Repo = p.Label.Repo
		p.Label = l
		return p, nil
	}
	p.Label.Pkg = path.Join(prefix, pkg)
	if err := CheckPackage(p.Label.Pkg); err != nil {
		return bad(err)
	}
	switch name {
	case "all":
		p.All = true
	case "*", "all-targets":
		p.All, p.Files = true, true
	default:
		if err := CheckName(name); err != nil {
			return bad(err)
		}
		p.Label.Name = name
	}
	return p, nil
}

func checkPattern(s string, err error) error {
	if err != nil {
		return fmt.Errorf("invalid target pattern %q: %w", s, err)
	}
	return nil
}

// String returns the pattern in a form that does not depend on the current
// folder, save for a word whose Guess is open.
func (p Pattern) String() string {
	s := p.Label.PackageString()
	switch {
	case p.Guess != "":
		s = p.Guess
	case p.Recursive:
		s = strings.TrimSuffix(s, "/") + "/..."
		if p.Label.Pkg == "" {
			s = p.Label.PackageString() + "..."
		}
	case p.All && !p.Files:
		s += ":all"
	case !p.All:
		s = p.Label.String()
	}
	if p.Files {
		s += ":all-targets"
	}
	if p.Negative {
		s = "-" + s
	}
	return s
}

// MatchesPackage reports whether a wildcard pattern covers the package.
func (p Pattern) MatchesPackage(l Label) bool {
	if l.Repo != p.Label.Repo {
		return false
	}
	if p.Recursive {
		return p.Label.Pkg == "" || l.Pkg == p.Label.Pkg || strings.HasPrefix(l.Pkg, p.Label.Pkg+"/")
	}
	return l.Pkg == p.Label.Pkg
}
