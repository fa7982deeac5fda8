package exec

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"tool/core/model/digest"
	"tool/core/model/merkle"
	"tool/core/storage/store"
)

var _ store.ResultIndex = (*DiskCache)(nil)

func testEntry() *Entry {
	d := digest.Of([]byte("x"))
	n := merkle.Node{Kind: merkle.Dir, Digest: d}
	return &Entry{
		Owner: "//a", Mnemonic: "M", Took: time.Second, Stderr: d, Local: true,
		Outputs: []EntryOutput{
			{Path: "out/a", Node: merkle.Node{Kind: merkle.File, Digest: digest.Empty, Executable: true, Props: merkle.Props{Mode: 0o4755, Owner: "1:2"}}},
			{Path: "out/b", Node: n, Refs: []store.Ref{store.MakeRef("x", n, nil)}},
			{Path: "out/c", Node: merkle.Node{Kind: merkle.Symlink, Target: "../x"}},
		},
	}
}

func TestDiskCache(t *testing.T) {
	dir := t.TempDir()
	c, err := OpenCache(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	key, e := digest.Of([]byte("key")), testEntry()
	if c.Get(key) != nil {
		t.Error("an empty cache knows something")
	}
	if err := c.Put(key, e); err != nil {
		t.Fatal(err)
	}
	if got := c.Get(key); !reflect.DeepEqual(got, e) {
		t.Errorf("got %+v", got)
	}
	if nodes, ok := c.Outputs(key); !ok || len(nodes) != 4 {
		t.Errorf("outputs %v", nodes)
	}
	seen := 0
	if err := c.Each(func(k digest.Digest, _ time.Time) error {
		if k != key {
			t.Errorf("key %s", k)
		}
		seen++
		return nil
	}); err != nil || seen != 1 {
		t.Errorf("%d keys, %v", seen, err)
	}
	b, err := os.ReadFile(c.path(key))
	if err != nil {
		t.Fatal(err)
	}
	for i := range b { // whatever bit flips, it is a miss
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if err := os.WriteFile(c.path(key), bad, 0o644); err != nil {
			t.Fatal(err)
		}
		if got := c.Get(key); got != nil {
			t.Fatalf("flipped byte %d: %+v", i, got)
		}
	}
	if err := os.WriteFile(c.path(key), b[:len(b)/2], 0o644); err != nil || c.Get(key) != nil {
		t.Error("a torn file is a hit")
	}
	for range 2 {
		if err := c.Remove(key); err != nil {
			t.Fatal(err)
		}
	}
	if left, _ := filepath.Glob(dir + "/*/*"); len(left) != 0 {
		t.Errorf("left %q", left)
	}
}

func TestDiskCacheLock(t *testing.T) {
	c, err := OpenCache(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	a, b := digest.Of([]byte("a")), digest.Of([]byte("b"))
	unlockA, err := c.Lock(ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	unlockB, err := c.Lock(ctx, b) // another key is free
	if err != nil {
		t.Fatal(err)
	}
	unlockB()
	short, cancelShort := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancelShort()
	if _, err := c.Lock(short, a); err == nil {
		t.Error("two have the same lock")
	}
	unlockA()
	again, err := c.Lock(ctx, a)
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func FuzzDecodeEntry(f *testing.F) {
	b, err := encodeEntry(testEntry())
	if err != nil {
		f.Fatal(err)
	}
	_, body, _ := bytes.Cut(b, []byte("\n"))
	f.Add(body)
	f.Add([]byte(`{"outputs":[{"path":"out/a","kind":"symlink","target":"x"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		// With the right checksum, so that the fuzzer gets past it.
		sum := digest.Of(body)
		e, err := decodeEntry(append([]byte(cacheMagic+sum.Hex()+"\n"), body...))
		if err != nil {
			return
		}
		again, err := encodeEntry(e)
		if err != nil {
			t.Fatal(err)
		}
		e2, err := decodeEntry(again)
		if err != nil {
			t.Fatalf("%v of %s", err, again)
		}
		if third, _ := encodeEntry(e2); !bytes.Equal(again, third) {
			t.Errorf("%s became %s", again, third)
		}
	})
}

// TestKeyEncoding pins the bytes: another encoding would be other keys, and
// nothing that was built before would be found again.
func TestKeyEncoding(t *testing.T) {
	c := command{argv: []string{"cc", "", "-c"}, env: []string{"B=2", "A=1=x"}, outputs: []string{"out/b", "out/a"}, trees: []string{"out/b"}, tmpfs: true}
	want := "\n\x02cc\n\x00\n\x02-c" +
		"\x12\x08\n\x01A\x12\x031=x\x12\x06\n\x01B\x12\x012" +
		"*K\n\x11\n\x08OSFamily\x12\x05linux\n\x19\n\x10output-directory\x12\x05out/b\n\x0c\n\x07sandbox\x12\x011\n\x0d\n\x03tmp\x12\x06memory" +
		"2\x05build:\x05out/a:\x05out/b"
	if got := string(c.encode()); got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	key := actionKey(digest.Of([]byte("c")), digest.Of([]byte("r")), 1500*time.Millisecond)
	if got := key.String(); got != goldenKey {
		t.Errorf("got %s", got)
	}
}

const goldenKey = "4613da43c2c46d2fcc7f4804d0af1eee6e8fcdfd0df285e0f927294e57604f51/150"

func TestTail(t *testing.T) {
	for in, want := range map[string]string{
		"":            "",
		"a\n":         "a",
		"a\nb\nc\n\n": "... (1 lines before)\nb\nc",
		"a\nb":        "a\nb",
	} {
		if got := tail([]byte(in), 2); got != want {
			t.Errorf("%q: got %q", in, got)
		}
	}
}
