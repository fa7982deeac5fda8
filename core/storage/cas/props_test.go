package cas

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"tool/core/model/merkle"
)

// TestApplyProps: a machine's trees carry setuid bits and owners, as copies;
// the blobs stay as they are.
func TestApplyProps(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("LOUD: owners were not tested: that takes root")
	}
	s := open(t)
	s.ApplyProps()
	d := put(t, s, "su")
	private, err := s.PutDirectory(&merkle.Directory{Props: merkle.Props{Mode: 0o1733, Owner: "7:8"}})
	if err != nil {
		t.Fatal(err)
	}
	tree, err := s.PutDirectory(&merkle.Directory{
		Files: []merkle.FileNode{
			{Name: "plain", Digest: d, Executable: true},
			{Name: "su", Digest: d, Executable: true, Props: merkle.Props{Mode: 0o4755}},
			{Name: "wall", Digest: d, Executable: true, Props: merkle.Props{Mode: 0o2755, Owner: "0:42"}},
		},
		Directories: []merkle.DirectoryNode{{Name: "private", Digest: private}},
	})
	if err != nil {
		t.Fatal(err)
	}
	path, err := s.Materialise(t.Context(), tree)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]struct {
		mode     uint32
		uid, gid uint32
	}{
		"plain": {unix.S_IFREG | 0o555, 0, 0}, "su": {unix.S_IFREG | 0o4755, 0, 0}, "wall": {unix.S_IFREG | 0o2755, 0, 42},
		"private": {unix.S_IFDIR | 0o1511, 7, 8}, ".": {unix.S_IFDIR | 0o555, 0, 0},
	} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(path, name), &st); err != nil || st.Mode != want.mode || st.Uid != want.uid || st.Gid != want.gid {
			t.Errorf("%s: mode %o, owner %d:%d, %v; want %o", name, st.Mode, st.Uid, st.Gid, err, want.mode)
		}
	}
	var blob unix.Stat_t
	if err := unix.Lstat(s.Path(d, true), &blob); err != nil || blob.Mode != unix.S_IFREG|0o555 {
		t.Errorf("the blob has mode %o, %v", blob.Mode, err)
	}
	if err := s.VerifyTree(t.Context(), tree); err != nil {
		t.Error(err)
	}
	if again, err := s.Materialise(t.Context(), tree); err != nil || again != path {
		t.Errorf("again: %s, %v", again, err)
	}
}
