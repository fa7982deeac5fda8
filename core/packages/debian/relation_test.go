package debian

import (
	"fmt"
	"testing"
)

func TestParseRelations(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "[]"},
		{" a , b(>=1) ,\n c | d:any (<< 2:3-4~x) ,", "[a b (>= 1) c | d:any (<< 2:3-4~x)]"},
		{"a (< 1), a (> 1)", "[a (<= 1) a (>= 1)]"},
		{"a [amd64], b [!amd64], c [i386 arm64], d [linux-any], e [!i386]", "[a d e]"},
		{"a <!nocheck>, b <cross>, c <cross> <!stage1>, d <!nocheck !cross>", "[a c d]"},
		{"a [i386] | b", "[b]"},
		{"libc6 (>= 2.34) [amd64] <!x>", "[libc6 (>= 2.34)]"},
	} {
		got, err := ParseRelations(c.in, "amd64")
		if err != nil || fmt.Sprint(got) != c.want {
			t.Errorf("%q: got %v, %v, want %s", c.in, got, err, c.want)
		}
	}
	for _, bad := range []string{"a b", "a (1)", "a (>= )", "a (>= 1", "a [x", "a <x", "(>= 1)", "a (=> 1)", "-a", "a/b", "a || b"} {
		if got, err := ParseRelations(bad, "amd64"); err == nil {
			t.Errorf("%q: got %v, want an error", bad, got)
		}
	}
}

func FuzzParseRelations(f *testing.F) {
	f.Add("a:any (>= 1) [amd64 !i386] <!x> | b, c")
	f.Fuzz(func(t *testing.T, s string) {
		gs, err := ParseRelations(s, "amd64")
		if err != nil {
			return
		}
		for _, g := range gs {
			again, err := ParseRelations(g.String(), "amd64")
			if err != nil || len(again) != 1 || again[0].String() != g.String() {
				t.Fatalf("%q: %q became %v, %v", s, g, again, err)
			}
		}
	})
}
