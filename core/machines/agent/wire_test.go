package agent

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"tool/core/machines/activate"
	"tool/core/machines/pack"
	"tool/core/model/digest"
)

// stream is a connection whose other end has said all it will.
type stream struct {
	io.Reader
	written bytes.Buffer
}

func (s *stream) Write(b []byte) (int, error) { return s.written.Write(b) }
func (s *stream) Close() error                { return nil }

func TestHostileMachine(t *testing.T) {
	for text, want := range map[string]string{
		"":                            "EOF",
		"Welcome to Debian!\n":        `"Welcome to Debian!\n" instead of greeting`,
		"TOOLAGENT9\n":                "instead of greeting",
		magic + "\x00\x00\x00\x03j{]": "invalid",
		magic + "\xff\xff\xff\xffj":   "a frame of",
		magic + "\x00\x00\x00\x00j":   "a frame of",
		magic + "\x00\x00\x00\x03d{}": "where JSON was due",
		magic + "\x00\x00\x00\x03j{}": "speaks protocol 0",
		magic + "\x00\x00\x00\x64j{}": "unexpected EOF",
	} {
		if _, _, err := NewClient(t.Context(), &stream{Reader: strings.NewReader(text)}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", text, err, want)
		}
	}
}

func TestDigests(t *testing.T) {
	want := []digest.Digest{digest.Of([]byte("a")), digest.Empty, {Size: 1 << 40}}
	var blobs []pack.Blob
	for _, d := range want {
		blobs = append(blobs, pack.Blob{Digest: d})
	}
	b := packDigests(blobs)
	got, err := unpackDigests(b)
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := unpackDigests(b[:len(b)-7]); err == nil {
		t.Error("a list that breaks off passed")
	}
	bits := bitmap(11, func(i int) bool { return i%3 == 0 })
	for i := range 20 {
		if bit(bits, i) != (i < 11 && i%3 == 0) {
			t.Errorf("bit %d", i)
		}
	}
}

// FuzzServe: whatever a controller sends, the agent answers or hangs up.
func FuzzServe(f *testing.F) {
	frame := func(kind byte, b string) string {
		n := len(b) + 1
		return string([]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n), kind}) + b
	}
	f.Add([]byte(frame('j', `{"method":"status"}`)))
	f.Add([]byte(frame('j', `{"method":"missing","params":{"objects":["x"],"blobs":"AAAA"}}`)))
	f.Add([]byte(frame('j', `{"method":"receive","params":{"bytes":1}}`) + frame('d', "x") + frame('z', "")))
	f.Add([]byte(frame('j', `{"method":"stage","params":{"generation":1,"ref":"../x"}}`)))
	f.Add([]byte(frame('j', `{"method":"wait","params":{"seq":1}}`)))
	sd := &fakeSystemd{active: map[string]bool{}, ended: make(chan error, 10)}
	m, err := activate.Open(f.TempDir(), sd)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if bytes.Contains(b, []byte(`"facts"`)) || bytes.Contains(b, []byte(`"agent"`)) {
			return // they write, and are allowed to
		}
		s := &stream{Reader: bytes.NewReader(b)}
		err := Serve(t.Context(), m, s)
		if !bytes.HasPrefix(s.written.Bytes(), []byte(magic)) {
			t.Errorf("no greeting: %v", err)
		}
		_ = fmt.Sprint(err)
	})
}
