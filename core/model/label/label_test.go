package label

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	in := Label{Pkg: "a/b"}
	for _, c := range []struct{ s, want string }{
		{"//x:y", "//x:y"}, {"//x", "//x:x"}, {"//x/y", "//x/y:y"}, {":n", "//a/b:n"}, {"n", "//a/b:n"},
		{"sub/n.c", "//a/b:sub/n.c"}, {"@rules//go:defs.star", "@rules//go:defs.star"}, {"@//x:y", "//x:y"},
		{"@@//x:y", "//x:y"}, {"//:root", "//:root"}, {"libstdc++6", "//a/b:libstdc++6"}, {"@rules//go", "@rules//go:go"},
	} {
		l, err := Parse(c.s, in)
		if err != nil || l.String() != c.want {
			t.Errorf("Parse(%q) = %v, %v; want %s", c.s, l, err, c.want)
		}
	}
	for _, s := range []string{"", ":", "//", "//a//b:c", "//a/../b:c", "//a:b/../c", "/a:b", "//a/:b", "@x", "//a:b:c", "//a:/b", "a\x00b", "//./a", "@r!//a:b"} {
		if l, err := Parse(s, in); err == nil {
			t.Errorf("Parse(%q) = %v, want an error", s, l)
		} else if !strings.Contains(err.Error(), "invalid label") {
			t.Errorf("Parse(%q): %v", s, err)
		}
	}
}

func TestPattern(t *testing.T) {
	for _, c := range []struct {
		s, cwd string
		want   Pattern
	}{
		{"//a/...", "", Pattern{Recursive: true, All: true, Label: Label{Pkg: "a"}}},
		{"...", "x", Pattern{Recursive: true, All: true, Label: Label{Pkg: "x"}}},
		{"//...", "x", Pattern{Recursive: true, All: true}},
		{"-//a:b", "", Pattern{Negative: true, Label: Label{Pkg: "a", Name: "b"}}},
		{":all", "x/y", Pattern{All: true, Label: Label{Pkg: "x/y"}}},
		{"b:*", "x", Pattern{All: true, Files: true, Label: Label{Pkg: "x/b"}}},
		{"bar/wiz", "foo", Pattern{Guess: "foo/bar/wiz"}},
		{"@rules//go:all", "foo", Pattern{All: true, Label: Label{Repo: "rules", Pkg: "go"}}},
		{"//a/...:all-targets", "", Pattern{Recursive: true, All: true, Files: true, Label: Label{Pkg: "a"}}},
	} {
		c.want.Text = c.s
		p, err := ParsePattern(c.s, c.cwd)
		if err != nil || p != c.want {
			t.Errorf("ParsePattern(%q) = %+v, %v; want %+v", c.s, p, err, c.want)
		}
	}
	for _, c := range []struct{ s, cwd, want string }{
		{"...", "x", "//x/..."}, {"//...", "x", "//..."}, {":b", "x", "//x:b"}, {"-//a/...", "", "-//a/..."},
		{":*", "x", "//x:all-targets"}, {":all", "", "//:all"}, {"@rules//go/...:*", "", "@rules//go/...:all-targets"},
	} {
		p, err := ParsePattern(c.s, c.cwd)
		if err != nil || p.String() != c.want {
			t.Errorf("ParsePattern(%q).String() = %s, %v; want %s", c.s, p, err, c.want)
		}
	}
	for _, s := range []string{"", "-", "//a/...:b", "//a//b", "//a:b/..", "@x"} {
		if p, err := ParsePattern(s, ""); err == nil {
			t.Errorf("ParsePattern(%q) = %+v, want an error", s, p)
		}
	}
}

func TestNearest(t *testing.T) {
	if got := Nearest("marathn", []string{"master", "marathon", "x"}); got != "marathon" {
		t.Errorf("got %q", got)
	}
	if got := Nearest("zookeeper", []string{"docker"}); got != "" {
		t.Errorf("got %q", got)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"//a:b", ":x", "@rules//a", "//a/b", "x/y.c", "//:a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := Parse(s, Label{Pkg: "p"})
		if err != nil {
			return
		}
		again, err := Parse(l.String(), Label{})
		if err != nil || again != l {
			t.Errorf("%q → %v → %v, %v", s, l, again, err)
		}
		if short, err := Parse(l.Short(), Label{}); err != nil || short != l {
			t.Errorf("%q: short form %q → %v, %v", s, l.Short(), short, err)
		}
	})
}
