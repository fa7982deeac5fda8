package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func seed(id string, agent []byte, sum string) []byte {
	header := fmt.Sprintf(`{"id":%q,"agent":{"size":%d,"sha256":%q},"facts":{}}`, id, len(agent), sum)
	b := fmt.Appendf(nil, "%s%016x\n%s", seedMagic, len(header), header)
	b = append(b, make([]byte, -len(b)&(seedAlign-1))...)
	return append(b, agent...)
}

func sumOf(b []byte) string {
	s := sha256.Sum256(b)
	return hex.EncodeToString(s[:])
}

func silent(t *testing.T) *console {
	t.Helper()
	f, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return &console{file: f}
}

func inUse(t *testing.T, root string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, agentLink, "tool"))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTakeAgent(t *testing.T) {
	root, c := t.TempDir(), silent(t)
	one, two := []byte("agent one"), []byte("agent two")
	take := func(id string, agent []byte) {
		t.Helper()
		if err := takeAgent(c, bytes.NewReader(seed(id, agent, sumOf(agent))), root); err != nil {
			t.Fatal(err)
		}
	}
	take("1", one)
	if got := inUse(t, root); got != "agent one" {
		t.Errorf("in use is %q", got)
	}
	// A newer agent that came another way stays, although the seed is still there.
	dir := filepath.Join(root, agentDir, sumOf(two))
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "tool"), two, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := replaceLink(filepath.Join(root, agentLink), sumOf(two)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(root, agentDir, sumOf(one))); err != nil {
		t.Fatal(err)
	}
	take("1", one)
	if got := inUse(t, root); got != "agent two" {
		t.Errorf("after the upgrade in use is %q", got)
	}
	take("2", one) // another seed counts
	if got := inUse(t, root); got != "agent one" {
		t.Errorf("after another seed in use is %q", got)
	}
	// Without its agent a machine takes the seed's again.
	if err := os.RemoveAll(filepath.Join(root, agentDir, sumOf(one))); err != nil {
		t.Fatal(err)
	}
	take("2", one)
	if got := inUse(t, root); got != "agent one" {
		t.Errorf("after the loss in use is %q", got)
	}
}

func TestBadSeeds(t *testing.T) {
	agent := []byte("agent")
	good := seed("1", agent, sumOf(agent))
	for name, c := range map[string]struct {
		seed []byte
		want string
	}{
		"damaged agent": {append(bytes.Clone(good[:len(good)-1]), 'x'), "its SHA-256 is"},
		"cut off":       {good[:len(good)-2], "its SHA-256 is"},
		"no magic":      {append([]byte("TOOLSEED2\n"), good[10:]...), "does not begin"},
		"large header":  {[]byte(seedMagic + "0000000010000000\n"), "has the size"},
		"no number":     {[]byte(seedMagic + "-000000000000001\n"), "has the size"},
		"no header":     {[]byte(seedMagic + "0000000000000010\n"), "header"},
		"no JSON":       {[]byte(seedMagic + "0000000000000002\n{x"), "header"},
		"path as sum":   {seed("1", agent, "../../etc"), "is not a SHA-256"},
		"upper case":    {seed("1", agent, strings.ToUpper(sumOf(agent))), "is not a SHA-256"},
		"no id":         {seed("", agent, sumOf(agent)), "the id"},
		"no agent":      {seed("1", nil, sumOf(nil)), "has 0 bytes"},
	} {
		root := t.TempDir()
		err := takeAgent(silent(t), bytes.NewReader(c.seed), root)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %s", name, err, c.want)
		}
		if exists(filepath.Join(root, agentLink)) {
			t.Errorf("%s: an agent is in use", name)
		}
	}
}

func FuzzReadSeed(f *testing.F) {
	f.Add(seed("1", []byte("agent"), sumOf([]byte("agent"))))
	f.Add([]byte(seedMagic + "0000000000000002\n{}"))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, start, err := readSeed(bytes.NewReader(b))
		if err == nil && (h.Agent.Size > maxAgent || start%seedAlign != 0 || len(h.Agent.SHA256) != 64) {
			t.Errorf("%+v at %d", h, start)
		}
	})
}

func FuzzSuperblock(f *testing.F) {
	b := make([]byte, 2048)
	b[1024+0x38], b[1024+0x39] = 0x53, 0xEF
	copy(b[1024+0x78:], rootLabel)
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := readSuperblock(bytes.NewReader(b))
		if err == nil && (s.blockSize < 1024 || s.blockSize > 64<<10 || len(s.label) > 16) {
			t.Errorf("%+v", s)
		}
	})
}

func TestScanDisks(t *testing.T) {
	class, dev := t.TempDir(), t.TempDir()
	root := make([]byte, 4096)
	root[1024+0x38], root[1024+0x39] = 0x53, 0xEF
	root[1024+0x04] = 100
	root[1024+0x18] = 2
	copy(root[1024+0x78:], rootLabel)
	for name, content := range map[string][]byte{"vda": make([]byte, 8192), "vdb": root, "vdc": seed("1", []byte("a"), sumOf([]byte("a"))), "vdd": root, "loop0": root, "sr0": nil} {
		for _, dir := range []string{class, dev} {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	d, seen, err := scanDisks(class, dev)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	if d.root == nil || d.seed == nil || filepath.Base(d.root.path) != "vdb" || filepath.Base(d.seed.path) != "vdc" || len(seen) != 5 {
		t.Errorf("found %+v, %+v among %v", d.root, d.seed, seen)
	}
	if d.root.fs.blocks != 100 || d.root.fs.blockSize != 4096 {
		t.Errorf("the file system is %+v", d.root.fs)
	}
}

func TestPanicSeconds(t *testing.T) {
	for line, want := range map[string]int{"": 10, "quiet": 10, "panic=3 quiet\n": 3, "panic=0": 10, "panic=-1": 0, "panic=x": 10, "panic=5 panic=7": 7, "panic=99999": 3600} {
		if got := panicSeconds(line); got != want {
			t.Errorf("%q: %d, want %d", line, got, want)
		}
	}
}
