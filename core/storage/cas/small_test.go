package cas

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSmallFiles(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string][]byte{"empty": {}, "one": {'x'}, "many": bytes.Repeat([]byte("0123456789"), 100_000)} {
		p := filepath.Join(dir, name)
		if err := WriteSmall(p, content, name == "one"); err != nil {
			t.Fatal(err)
		}
		if b, err := ReadSmall(p, int64(len(content))); err != nil || !bytes.Equal(b, content) {
			t.Errorf("%s: read %d bytes, %v", name, len(b), err)
		}
		if err := WriteSmall(p, content, false); !errors.Is(err, os.ErrExist) {
			t.Errorf("%s: written twice: %v", name, err)
		}
	}
	many := filepath.Join(dir, "many")
	if _, err := ReadSmall(many, 999_999); err == nil {
		t.Error("a file that is too large was read")
	}
	if _, err := ReadSmall(dir, 1<<20); err == nil {
		t.Error("a directory was read")
	}
	if _, err := ReadSmall(filepath.Join(dir, "none"), 1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSmall(pipe, 1); err == nil { // and it does not wait for a writer
		t.Error("a pipe was read")
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink("elsewhere", link); err != nil {
		t.Fatal(err)
	}
	if err := WriteSmall(link, []byte("x"), false); err == nil {
		t.Error("written through a symbolic link")
	}
}
