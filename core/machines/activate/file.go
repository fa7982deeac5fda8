package activate

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// owned is the mode and owner of a file. Owners are set by root only.
type owned struct {
	mode     os.FileMode
	uid, gid int
	lazy     bool // it need not survive a loss of power: it is made at each start
}

// writeFile replaces path by rename. A file that is as it should be stays as it
// is, with its time.
func writeFile(path string, b []byte, o owned) error {
	if same(path, b, o) {
		return nil
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".tool-")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil && os.Geteuid() == 0 {
		err = f.Chown(o.uid, o.gid)
	}
	if err == nil {
		err = f.Chmod(o.mode)
	}
	if err == nil && !o.lazy {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	if o.lazy {
		return nil
	}
	return syncDir(filepath.Dir(path))
}

func same(path string, b []byte, o owned) bool {
	fi, err := os.Lstat(path)
	if err != nil || !fi.Mode().IsRegular() || fi.Size() != int64(len(b)) || fi.Mode().Perm() != o.mode {
		return false
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); !ok || os.Geteuid() == 0 && (int(st.Uid) != o.uid || int(st.Gid) != o.gid) {
		return false
	}
	have, err := os.ReadFile(path)
	return err == nil && bytes.Equal(have, b)
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return writeFile(path, append(b, '\n'), owned{mode: 0o600})
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// linkTo makes path a symbolic link to target, by rename. It replaces a file or
// link, never a folder.
func linkTo(target, path string) error {
	if have, err := os.Readlink(path); err == nil && have == target {
		return nil
	}
	tmp, err := tempName(path)
	if err != nil {
		return err
	}
	if err := os.Symlink(target, tmp); err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	return nil
}

// tempName returns an unused name beside path.
func tempName(path string) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".tool-")
	if err != nil {
		return "", err
	}
	f.Close()
	return f.Name(), os.Remove(f.Name())
}

// makeDir makes a folder with its mode and owner, and gives them to one that
// is there. Anything else at path is an error.
func makeDir(path string, o owned) error {
	err := os.Mkdir(path, o.mode.Perm())
	if err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	fi, lerr := os.Lstat(path)
	if lerr != nil {
		return lerr
	}
	if !fi.IsDir() {
		return fmt.Errorf("%s is a %v and should be a folder: move it away", path, fi.Mode().Type())
	}
	if err == nil && os.Geteuid() == 0 {
		if err := os.Chown(path, o.uid, o.gid); err != nil {
			return err
		}
	}
	if fi.Mode()&(os.ModePerm|os.ModeSticky|os.ModeSetgid) != o.mode {
		return os.Chmod(path, o.mode)
	}
	return nil
}

// flock locks path, which it creates, until the file is closed or the process
// ends. Without wait, a lock that another holds is unix.EWOULDBLOCK.
func flock(path string, wait bool) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, err
	}
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	for {
		err := unix.Flock(int(f.Fd()), how)
		if err == nil {
			return f, nil
		}
		if err != unix.EINTR {
			f.Close()
			return nil, &os.PathError{Op: "flock", Path: path, Err: err}
		}
	}
}
