// Package label names targets as Bazel does, and the patterns that select
// several of them on a command line.
package label

import (
	"fmt"
	"strings"
)

// Label is the name of a target: @Repo//Pkg:Name. Repo is "" for the workspace
// itself; the only other repository is the embedded library, "rules".
type Label struct {
	Repo string
	Pkg  string // "" for the root package
	Name string
}

// String returns the canonical form, always with the name.
func (l Label) String() string { return l.PackageString() + ":" + l.Name }

// PackageString returns "//pkg" or "@repo//pkg".
func (l Label) PackageString() string {
	if l.Repo != "" {
		return "@" + l.Repo + "//" + l.Pkg
	}
	return "//" + l.Pkg
}

// Short returns the shortest form that parses back to l: //a/b for //a/b:b.
func (l Label) Short() string {
	if l.Pkg != "" && l.Name == l.Pkg[strings.LastIndexByte(l.Pkg, '/')+1:] {
		return l.PackageString()
	}
	return l.String()
}

// IsZero reports whether l is unset.
func (l Label) IsZero() bool { return l == Label{} }

// Package is the label's package, without a name.
func (l Label) Package() Label { return Label{Repo: l.Repo, Pkg: l.Pkg} }

// Parse reads a label as it stands in a BUILD file of the package that in
// names (its Name is ignored): "@r//p:n", "//p:n", "//p", ":n" or "n".
func Parse(s string, in Label) (Label, error) {
	l, rest := Label{Repo: in.Repo, Pkg: in.Pkg}, s
	bad := func(format string, args ...any) (Label, error) {
		return Label{}, fmt.Errorf("invalid label %q: %s", s, fmt.Sprintf(format, args...))
	}
	if r, ok := strings.CutPrefix(rest, "@"); ok {
		r = strings.TrimPrefix(r, "@")
		repo, tail, ok := strings.Cut(r, "//")
		if !ok {
			return bad("a repository name must be followed by //")
		}
		if err := checkRepo(repo); err != nil {
			return bad("%v", err)
		}
		l.Repo, rest = repo, "//"+tail
	}
	if p, ok := strings.CutPrefix(rest, "//"); ok {
		pkg, name, hasName := strings.Cut(p, ":")
		if err := CheckPackage(pkg); err != nil {
			return bad("%v", err)
		}
		l.Pkg = pkg
		if !hasName {
			if pkg == "" {
				return bad("the root package needs a target name, as in //:name")
			}
			name = pkg[strings.LastIndexByte(pkg, '/')+1:]
		}
		rest = name
	} else {
		rest = strings.TrimPrefix(rest, ":")
	}
	if err := CheckName(rest); err != nil {
		return bad("%v", err)
	}
	l.Name = rest
	return l, nil
}

func checkRepo(s string) error {
	for _, c := range s {
		if !alnum(c) && !strings.ContainsRune("._-+", c) {
			return fmt.Errorf("repository name %q holds %q", s, c)
		}
	}
	return nil
}

// CheckPackage reports why s cannot be a package name.
func CheckPackage(s string) error {
	if s == "" {
		return nil
	}
	if strings.HasPrefix(s, "/") || strings.HasSuffix(s, "/") {
		return fmt.Errorf("package name %q may not start or end with /", s)
	}
	return checkPath("package", s, "!\"#$%&'()*+,-.;<=>?@[]^_`{|}~ /")
}

// CheckName reports why s cannot be a target's name.
func CheckName(s string) error {
	if s == "" {
		return fmt.Errorf("empty target name")
	}
	if strings.HasPrefix(s, "/") || strings.HasSuffix(s, "/") {
		return fmt.Errorf("target name %q may not start or end with /", s)
	}
	return checkPath("target", s, "!%-@^_\"#$&'()*+,;<=>?[]{|}~/. ")
}

func checkPath(kind, s, extra string) error {
	for _, c := range s {
		if !alnum(c) && !strings.ContainsRune(extra, c) {
			return fmt.Errorf("%s name %q holds %q", kind, s, c)
		}
	}
	for seg := range strings.SplitSeq(s, "/") {
		switch seg {
		case "":
			return fmt.Errorf("%s name %q holds //", kind, s)
		case ".", "..":
			return fmt.Errorf("%s name %q holds the segment %q", kind, s, seg)
		}
	}
	return nil
}

func alnum(c rune) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// Less orders labels by repository, package and name.
func Less(a, b Label) bool { return Compare(a, b) < 0 }

// Compare orders labels by repository, package and name.
func Compare(a, b Label) int {
	if c := strings.Compare(a.Repo, b.Repo); c != 0 {
		return c
	}
	if c := strings.Compare(a.Pkg, b.Pkg); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}
