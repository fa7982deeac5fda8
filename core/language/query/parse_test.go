package query_test

import (
	"strings"
	"testing"

	"tool/core/language/query"
)

func TestString(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"a+b-c^d", "a + b-c ^ d"}, // - may stand inside a word
		{"a + b - c ^ d", "a + b - c ^ d"},
		{"a union (b except c) intersect d", "a + (b - c) ^ d"},
		{"((a))", "a"},
		{"let x=a in $x+$x", "let x = a in $x + $x"},
		{"a + (let x = b in $x)", "a + (let x = b in $x)"},
		{"a + let x = b in $x + c", "a + (let x = b in $x + c)"},
		{`set(a 'b c' "d'e")`, `set(a "b c" "d'e")`},
		{`kind('a "b"', c)`, `kind('a "b"', c)`},
		{`deps("let", 007)`, `deps("let", 7)`},
		{`"$x" + ""`, `"$x" + ""`},
		{"rbuildfiles(a, b/c)", "rbuildfiles(a, b/c)"},
	} {
		x, err := query.Parse(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if got := x.String(); got != c.want {
			t.Errorf("%s: got %s, want %s", c.text, got, c.want)
		}
	}
}

func TestParseActions(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"//a", "//a"},
		{"deps(//a)", "deps(//a)"},
		{`mnemonic("Go.*", deps(//a))`, "mnemonic ^(?:Go.*)$ deps(//a)"},
		{`outputs(x, (inputs("a|b", //a + //b)))`, "outputs ^(?:x)$ inputs ^(?:a|b)$ //a + //b"},
		{"deps(inputs(x, //a))", `inputs() gives actions, which deps() cannot take`},
		{"deps(//b + inputs(x, //a))", "inputs() gives actions: it may stand only outermost"},
		{"let x = mnemonic(x, //a) in $x", "mnemonic() gives actions: it may stand only outermost"},
		{"inputs('(', //a)", "inputs: error parsing regexp"},
		{"input(x, //a)", `did you mean "inputs"?`},
	} {
		x, filters, err := query.ParseActions(c.text)
		if err != nil {
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: got %v, want …%s…", c.text, err, c.want)
			}
			continue
		}
		var b strings.Builder
		for _, f := range filters {
			b.WriteString(f.Function + " " + f.Pattern.String() + " ")
		}
		if got := b.String() + x.String(); got != c.want {
			t.Errorf("%s: got %s, want %s", c.text, got, c.want)
		}
	}
}

// FuzzParse holds that nothing panics, that String is read back as itself, and
// that errors can be shown.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"//a", "deps(//a, 2)", "let x = //a in $x + (//b ^ //c) - set(d 'e f')", "attr(srcs, '[\\[ ]x', //...)",
		"mnemonic(\"Go.*\", inputs(a, //b))", "((((", "a + + b", "\"", "set(a,b)", "//a:b=c", "$", "let in in in in", "é", "a\nb\t'c",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if x, _, err := query.ParseActions(s); err == nil {
			_ = x.String()
		} else if err.Error() == "" {
			t.Error("an empty error")
		}
		x, err := query.Parse(s)
		if err != nil {
			_ = err.Error()
			return
		}
		text := x.String()
		again, err := query.Parse(text)
		if err != nil {
			if strings.Contains(err.Error(), "levels of nesting") {
				return // its own parentheses may be one too many
			}
			t.Fatalf("%q → %q: %v", s, text, err)
		}
		if got := again.String(); got != text {
			t.Errorf("%q → %q → %q", s, text, got)
		}
	})
}
