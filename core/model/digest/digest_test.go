package digest

import (
	"encoding/json"
	"strings"
	"testing"
)

const abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"

func TestOf(t *testing.T) {
	if got, want := Of([]byte("abc")).String(), abc+"/3"; got != want {
		t.Errorf("Of(abc) = %s, want %s", got, want)
	}
	got, err := FromReader(strings.NewReader("abc"))
	if err != nil || got != Of([]byte("abc")) {
		t.Errorf("FromReader = %s, %v", got, err)
	}
	if Empty.Size != 0 || Empty.IsZero() {
		t.Errorf("Empty = %s, zero %v", Empty, Empty.IsZero())
	}
	if !(Digest{}).IsZero() {
		t.Error("the zero Digest is not zero")
	}
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		in string
		ok bool
	}{
		{abc + "/3", true},
		{abc + "/0", true},
		{abc + "/9223372036854775807", true},
		{abc, false},
		{abc + "/", false},
		{abc + "/-1", false},
		{abc + "/-0", false},
		{abc + "/+3", false},
		{abc + "/03", false},
		{abc + "/3 ", false},
		{abc + "/3/3", false},
		{abc + "/9223372036854775808", false},
		{strings.ToUpper(abc) + "/3", false},
		{abc[1:] + "/3", false},
		{"g" + abc[1:] + "/3", false},
		{"../" + abc[3:] + "/3", false},
		{"", false},
	} {
		d, err := Parse(c.in)
		if (err == nil) != c.ok {
			t.Errorf("Parse(%q) = %v, %v", c.in, d, err)
		}
		if err == nil && d.String() != c.in {
			t.Errorf("Parse(%q).String() = %q", c.in, d)
		}
	}
}

func TestJSON(t *testing.T) {
	in := map[Digest]Digest{Of([]byte("k")): Of([]byte("v")), {}: Empty}
	b, err := json.Marshal(in)
	if err != nil {
		t.Fatal(err)
	}
	var out map[Digest]Digest
	if err := json.Unmarshal(b, &out); err != nil || len(out) != 2 || out[Of([]byte("k"))] != Of([]byte("v")) || out[Digest{}] != Empty {
		t.Errorf("round trip of %s: %v, %v", b, out, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(abc + "/3")
	f.Add(abc + "/-0")
	f.Add("/")
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := Parse(s); err == nil && d.String() != s {
			t.Errorf("Parse(%q) accepts what String writes as %q", s, d)
		}
	})
}
