package debian

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"tool/core/model/digest"
)

// world makes packages of lines "name version; Field: value; …".
func world(t testing.TB, lines ...string) *Index {
	t.Helper()
	var b strings.Builder
	for _, l := range lines {
		parts := strings.Split(l, ";")
		name, version, _ := strings.Cut(strings.TrimSpace(parts[0]), " ")
		d := digest.Of([]byte(l))
		fmt.Fprintf(&b, "Package: %s\nVersion: %s\nArchitecture: amd64\nFilename: pool/%s_%s.deb\nSize: %d\nSHA256: %s\n", name, version, name, version, d.Size, d.Hex())
		for _, f := range parts[1:] {
			fmt.Fprintf(&b, "%s\n", strings.TrimSpace(f))
		}
		b.WriteString("\n")
	}
	pkgs, err := ReadPackages("Packages", "test/main", strings.NewReader(b.String()))
	if err != nil {
		t.Fatal(err)
	}
	ix := NewIndex("amd64")
	if err := ix.Add(pkgs...); err != nil {
		t.Fatal(err)
	}
	return ix
}

func TestResolve(t *testing.T) {
	ix := world(t,
		"app 1; Depends: lib (>= 1), mail | postfix, awk",
		"lib 1", "lib 2", "lib 3; Depends: broken",
		"exim 1; Provides: mail; Priority: optional", "sendmail 1; Provides: mail; Priority: optional",
		"mawk 1; Provides: awk; Priority: required", "gawk 1; Provides: awk; Priority: optional",
		"postfix 1",
		"needs-old 1; Depends: lib (= 1)", "needs-two 1; Depends: lib (= 2), needs-old",
		"alt 1; Depends: missing | lib (<< 3)",
		"chosen-first 1; Depends: gawk | mawk, mawk",
		"foe 1; Conflicts: friend (<< 2)", "friend 1", "friend 2", "friends 1; Depends: foe, friend (<< 2)", "careful 1; Depends: foe, friend (<< 2) | lib (= 1)",
		"self 1; Provides: mta; Conflicts: mta", "other-mta 1; Provides: mta; Conflicts: mta", "both 1; Depends: self, other-mta",
		"versioned 1; Depends: api (>= 2)", "api-impl 1; Provides: api (= 2.1)", "api-old 1; Provides: api",
		"script 1; Depends: debconf (>= 0.5) | debconf-2.0, perl:any", "cdebconf 1; Provides: debconf-2.0", "debconf 1; Provides: debconf-2.0", "perl 5",
		"virtual-debconf 1; Depends: debconf-2.0",
		"loop-a 1; Depends: loop-b", "loop-b 1; Pre-Depends: loop-a",
		"base-files 1; Essential: yes", "dpkg 1; Essential: yes",
		"foreign 1; Depends: lib:i386", "same-source 1; Source: s (9); Depends: thing", "z-thing 1; Source: s; Provides: thing", "a-thing 1; Provides: thing",
		"libssl3 3.0.7", "openssh-server 1; Depends: libssl3 (>= 3.0.9)", "meta 1; Depends: openssh-server",
	)
	for _, c := range []struct {
		name string
		req  Request
		want string // packages, or "error: …"
	}{
		{"virtual, priority, newest fitting", Request{Install: []string{"app", "lib=2"}}, "app lib=2 mawk exim"},
		{"preferred version", Request{Install: []string{"app"}, Prefer: map[string]string{"lib": "1"}}, "app lib=1 mawk exim"},
		{"preferred version that does not fit", Request{Install: []string{"needs-old"}, Prefer: map[string]string{"lib": "2"}}, "needs-old lib=1"},
		{"first alternative is missing", Request{Install: []string{"alt"}}, "alt lib=2"},
		{"chosen one wins", Request{Install: []string{"chosen-first"}}, "chosen-first mawk"},
		{"asked-for alternative wins", Request{Install: []string{"app", "postfix", "lib=1"}}, "app lib=1 mawk postfix"},
		{"conflict moves on", Request{Install: []string{"careful"}}, "careful foe lib=1"},
		{"versioned provides", Request{Install: []string{"versioned"}}, "api-impl versioned"},
		{"excluded", Request{Install: []string{"script"}, Exclude: []string{"debconf", "perl"}}, "script"},
		{"excluded provider", Request{Install: []string{"virtual-debconf"}, Exclude: []string{"debconf"}}, "virtual-debconf"},
		{"not excluded", Request{Install: []string{"script"}}, "debconf perl script"},
		{"loop", Request{Install: []string{"loop-a"}}, "loop-a loop-b"},
		{"essential", Request{Essential: true, Exclude: []string{"dpkg"}}, "base-files"},
		{"had", Request{Install: []string{"alt"}, Have: []string{"lib=2"}}, "alt"},
		{"had, version not known", Request{Install: []string{"needs-old"}, Have: []string{"lib=9"}}, "needs-old"},
		{"had provides", Request{Install: []string{"app"}, Have: []string{"gawk=1", "lib=2", "sendmail=1"}}, "app"},
		{"same source", Request{Install: []string{"same-source"}}, "same-source z-thing"},
		{"same twice", Request{Install: []string{"lib=2", "lib=2"}}, "lib=2"},

		{"chain", Request{Install: []string{"meta"}}, "error: meta → openssh-server → libssl3 (>= 3.0.9): no package satisfies it; there is libssl3 3.0.7 in test/main"},
		{"two versions", Request{Install: []string{"needs-two"}}, "error: needs-two → needs-old → lib (= 1): no package satisfies it; lib 2 is chosen already for needs-two"},
		{"had wrong version", Request{Install: []string{"needs-old"}, Have: []string{"lib=2"}}, "error: needs-old → lib (= 1): no package satisfies it; lib 2 is chosen already by another set"},
		{"missing", Request{Install: []string{"lib"}}, "error: lib → broken: no package satisfies it"},
		{"typo", Request{Install: []string{"opensh-server"}}, "error: opensh-server: no such package; did you mean openssh-server?"},
		{"virtual root", Request{Install: []string{"mail"}}, "error: mail: it is a virtual package; choose one of those that provide it: exim, sendmail"},
		{"no such version", Request{Install: []string{"friend=9"}}, "error: friend=9: no such version; there is 2 in test/main, 1 in test/main"},
		{"asked for and excluded", Request{Install: []string{"lib"}, Exclude: []string{"lib"}}, "error: lib: it is asked for and excluded"},
		{"conflict", Request{Install: []string{"friends"}}, "error: friends → friend (<< 2): foe conflicts with friend (<< 2), and friend is 1"},
		{"conflict of roots", Request{Install: []string{"foe", "friend=1"}}, "error: friend: foe conflicts with friend (<< 2), and friend is 1"},
		{"conflict over a virtual package", Request{Install: []string{"both"}}, "error: both → other-mta: other-mta conflicts with mta, which self provides"},
		{"other architecture", Request{Install: []string{"foreign"}}, "error: foreign → lib:i386: no package satisfies it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			pkgs, err := Resolve(ix, c.req)
			got := []string{}
			for _, p := range pkgs {
				s := p.Name
				if p.Name == "lib" {
					s += "=" + p.Version
				}
				got = append(got, s)
			}
			if err != nil {
				var re *ResolveError
				if !errors.As(err, &re) {
					t.Errorf("%T is not a *ResolveError", err)
				}
				if rest, ok := strings.CutPrefix(c.want, "error: "); !ok || !strings.HasPrefix(err.Error(), rest) {
					t.Errorf("got error\n%v, want\n%s", err, c.want)
				}
				return
			}
			want := strings.Fields(c.want)
			seen := map[string]bool{}
			for _, w := range want {
				seen[w] = true
			}
			ok := len(got) == len(want)
			for _, g := range got {
				ok = ok && seen[g]
			}
			if !ok {
				t.Errorf("got %v, want %s", got, c.want)
			}
		})
	}
}

func TestReadPackagesErrors(t *testing.T) {
	const good = "Package: a\nVersion: 1\nArchitecture: amd64\nFilename: pool/a.deb\nSize: 1\nSHA256: " +
		"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n"
	for _, c := range []struct{ old, new, want string }{
		{"Package: a", "Package: ../a", `P:1: bad package name "../a"`},
		{"Version: 1", "Version: ", `P:1: a: version ""`},
		{"pool/a.deb", "../../etc/shadow", "P:1: a: path"},
		{"Size: 1", "Size: -1", "P:1: a: "},
		{"SHA256: a", "SHA256: x", "P:1: a: sha256"},
	} {
		if _, err := ReadPackages("P", "s/main", strings.NewReader(strings.Replace(good, c.old, c.new, 1))); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", c.new, err, c.want)
		}
	}
	if pkgs, err := ReadPackages("P", "s/main", strings.NewReader(good)); err != nil || len(pkgs) != 1 {
		t.Errorf("%v %v", pkgs, err)
	}
}
