package deb822

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func all(s string) (string, error) {
	r := NewReader("f", strings.NewReader(s))
	var b strings.Builder
	for {
		p, err := r.Next()
		if err == io.EOF {
			return b.String(), nil
		}
		if err != nil {
			return b.String(), err
		}
		fmt.Fprintf(&b, "@%d", p.Line)
		for _, n := range p.Names() {
			fmt.Fprintf(&b, " %s=%q", n, p.Get(strings.ToUpper(n)))
		}
		b.WriteString("\n")
	}
}

func TestReader(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"\n \n\t\n", ""},
		{"A: 1", "@1 A=\"1\"\n"},
		{"A: 1\r\nB:2  \r\n\r\n", "@1 A=\"1\" B=\"2\"\n"},
		{"\n# c\nA: 1\n# c\n b\n .\n  c\n\n\nB:\n x\n", "@3 A=\"1\\nb\\n.\\n c\"\n@10 B=\"\\nx\"\n"},
		{"A: a:b", "@1 A=\"a:b\"\n"},
	} {
		got, err := all(c.in)
		if err != nil || got != c.want {
			t.Errorf("%q: got %q, %v, want %q", c.in, got, err, c.want)
		}
	}
}

func TestErrors(t *testing.T) {
	var many strings.Builder
	for i := range MaxFields + 1 {
		fmt.Fprintf(&many, "F%d: x\n", i)
	}
	for _, c := range []struct{ in, want string }{
		{" x", "f:1: continuation line without a field before it"},
		{"A: 1\nfoo\n", `f:2: want "Field: value", got "foo"`},
		{": 1", `f:1: want "Field: value", got ": 1"`},
		{"A: 1\na: 2", "f:2: field a appears twice"},
		{"-A: 1", `f:1: field name "-A" starts with a dash`},
		{"A B: 1", `f:1: bad field name "A B"`},
		{"A: " + strings.Repeat("x", MaxLine), "f:1: line is longer than 1048576 bytes"},
		{"A: x\n" + strings.Repeat(" "+strings.Repeat("x", 1<<19)+"\n", 17), "f:17: paragraph is longer than 8388608 bytes"},
		{many.String(), "f:257: more than 256 fields"},
	} {
		_, err := all(c.in)
		var e *Error
		if !errors.As(err, &e) || err.Error() != c.want {
			t.Errorf("%.40q: got error %v, want %s", c.in, err, c.want)
		}
	}
}

func TestOne(t *testing.T) {
	p, err := One("f", strings.NewReader("A: 1\nS:\n x 1\n\n y 2\n"))
	if err == nil {
		t.Errorf("two paragraphs: %v", p)
	}
	p, err = One("f", strings.NewReader("\nA: 1\nS:\n x 1\n y 2\n\n"))
	if err != nil || p.Get("a") != "1" || strings.Join(p.Lines("s"), "|") != "x 1|y 2" {
		t.Errorf("got %v, %v", p, err)
	}
	if _, err := One("f", strings.NewReader("")); err == nil {
		t.Error("empty: no error")
	}
}

func FuzzReader(f *testing.F) {
	f.Add("A: 1\n b\n\nB: 2\n")
	f.Add("#\n\nA:\n .\n")
	f.Fuzz(func(t *testing.T, s string) {
		r := NewReader("f", strings.NewReader(s))
		for {
			p, err := r.Next()
			if err != nil {
				return
			}
			if len(p.Names()) == 0 || p.Line < 1 {
				t.Fatalf("empty paragraph at %d", p.Line)
			}
			for _, n := range p.Names() {
				if strings.Contains(n, "\n") || n == "" {
					t.Fatalf("bad name %q", n)
				}
				p.Get(n)
			}
		}
	})
}

func BenchmarkReader(b *testing.B) {
	s := strings.Repeat("Package: x\nVersion: 1\nDepends: a, b (>= 1), c | d\nDescription: abc\n def\nSHA256: 0123456789\n\n", 10000)
	b.SetBytes(int64(len(s)))
	for b.Loop() {
		r := NewReader("f", strings.NewReader(s))
		for {
			if _, err := r.Next(); err != nil {
				break
			}
		}
	}
}
