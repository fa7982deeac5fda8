package cas

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"tool/core/model/digest"
	"tool/core/model/merkle"
)

func TestAdopt(t *testing.T) {
	s := open(t)
	top, err := s.TempDir("out")
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(top, "out")
	secret := filepath.Join(top, "secret")
	os.WriteFile(secret, []byte("outside"), 0o600)
	os.MkdirAll(filepath.Join(out, "locked/empty"), 0o755)
	for p, c := range map[string]struct {
		content string
		mode    os.FileMode
	}{"plain": {"plain", 0o644}, "suid": {"suid", 0o4755}, "group-x": {"gx", 0o410}, "none": {"none", 0}, "locked/f": {"f", 0o200}, "big": {strings.Repeat("b", 3<<20), 0o600}} {
		f := filepath.Join(out, p)
		if err := os.WriteFile(f, []byte(c.content), 0o600); err != nil {
			t.Fatal(err)
		}
		os.Chmod(f, c.mode.Perm()|map[bool]os.FileMode{true: os.ModeSetuid}[c.mode&0o4000 != 0])
	}
	os.Link(filepath.Join(out, "plain"), filepath.Join(out, "second-name"))
	os.Link(filepath.Join(out, "big"), filepath.Join(top, "outside-name"))
	os.Symlink("../secret", filepath.Join(out, "up"))
	os.Symlink("/etc", filepath.Join(out, "locked/etc"))
	os.Chmod(filepath.Join(out, "locked/empty"), 0)
	os.Chmod(filepath.Join(out, "locked"), 0o555)

	node, err := s.Adopt(out)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(out); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the source is still there: %v", err)
	}
	want := map[string]string{"big": "f", "group-x": "x", "locked": "d", "locked/empty": "d", "locked/etc": "l/etc", "locked/f": "f",
		"none": "f", "plain": "f", "second-name": "f", "suid": "x", "up": "l../secret"}
	got := map[string]string{}
	err = merkle.Walk(s, node.Digest, func(p string, n merkle.Node) error {
		switch {
		case n.Kind == merkle.Dir:
			got[p] = "d"
		case n.Kind == merkle.Symlink:
			got[p] = "l" + n.Target
		case n.Executable:
			got[p] = "x"
		default:
			got[p] = "f"
		}
		if n.Kind == merkle.File {
			if err := s.Verify(t.Context(), n.Digest); err != nil {
				t.Errorf("%s: %v", p, err)
			}
			for _, x := range []bool{false, true} {
				if fi, err := os.Stat(s.Path(n.Digest, x)); err == nil && fi.Mode() != os.FileMode(mode(x)) {
					t.Errorf("%s: blob of mode %v", p, fi.Mode())
				}
			}
		}
		return nil
	})
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %v, %v\nwant %v", got, err, want)
	}
	// The name outside must not reach the blob.
	if err := os.WriteFile(filepath.Join(top, "outside-name"), []byte("overwritten"), 0); err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), digest.Of([]byte(strings.Repeat("b", 3<<20)))); err != nil {
		t.Errorf("a second name of the output reaches into the store: %v", err)
	}
	if b, _ := os.ReadFile(secret); string(b) != "outside" {
		t.Errorf("a link was followed: %q", b)
	}
}

func TestAdoptKinds(t *testing.T) {
	s := open(t)
	top, err := s.TempDir("out")
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(top, "link")
	os.Symlink("nowhere", link)
	if n, err := s.Adopt(link); err != nil || n != (merkle.Node{Kind: merkle.Symlink, Target: "nowhere"}) {
		t.Errorf("link: %+v, %v", n, err)
	}
	f := filepath.Join(top, "f")
	os.WriteFile(f, []byte("!"), 0o711)
	if n, err := s.Adopt(f + "/"); err != nil || n != (merkle.Node{Kind: merkle.File, Digest: digest.Of([]byte("!")), Executable: true}) {
		t.Errorf("file: %+v, %v", n, err)
	}
	if _, err := s.Adopt(f); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing: %v", err)
	}
	pipe := filepath.Join(top, "d", "pipe")
	os.Mkdir(filepath.Dir(pipe), 0o755)
	if err := unix.Mkfifo(pipe, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Adopt(filepath.Dir(pipe)); err == nil || !strings.Contains(err.Error(), pipe+" is a named pipe") {
		t.Errorf("pipe: %v", err)
	}
	sock := filepath.Join(top, "sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	// A socket's path may be 107 bytes long; a descriptor makes it short.
	dir, err := os.Open(top)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/sock", dir.Fd())}); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Adopt(sock); err == nil || !strings.Contains(err.Error(), "is a socket") {
		t.Errorf("socket: %v", err)
	}
	// A file with an access list or the like must not give it to the blob.
	attr := filepath.Join(top, "attr")
	os.WriteFile(attr, []byte("with attribute"), 0o644)
	if err := unix.Setxattr(attr, "user.x", []byte("1"), 0); err == nil {
		n, err := s.Adopt(attr)
		if err != nil {
			t.Fatal(err)
		}
		if size, err := unix.Listxattr(s.Path(n.Digest, false), nil); err != nil || size != 0 {
			t.Errorf("the blob has attributes: %d bytes, %v", size, err)
		}
	}
}
