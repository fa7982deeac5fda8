package cas

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ReadSmall reads a whole regular file of at most max bytes. os.ReadFile would
// make three times as many system calls for it (it tries to poll each file),
// and a build of a thousand cached actions reads thousands of small files.
func ReadSmall(path string, max int64) ([]byte, error) {
	fd, err := openat(unix.AT_FDCWD, path, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, &os.PathError{Op: "stat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > max {
		return nil, fmt.Errorf("read %s: it is not a file of at most %d bytes", path, max)
	}
	b := make([]byte, st.Size)
	for n := 0; n < len(b); {
		k, err := unix.Read(fd, b[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return nil, &os.PathError{Op: "read", Path: path, Err: err}
		}
		if k == 0 { // it was cut short meanwhile
			return b[:n], nil
		}
		n += k
	}
	return b, nil
}

// WriteSmall makes a new file that holds b, with mode 0644 less the umask; with
// sync its bytes are on disk on return. Like ReadSmall it spares system calls.
// After an error there may be a file, to be removed.
func WriteSmall(path string, b []byte, sync bool) error {
	fd, err := create(path, 0o644)
	if err != nil {
		return err
	}
	for err == nil && len(b) > 0 {
		var n int
		n, err = unix.Write(fd, b)
		if err == unix.EINTR {
			err = nil
		}
		b = b[max(n, 0):]
	}
	if err == nil && sync {
		err = unix.Fsync(fd)
	}
	if cerr := unix.Close(fd); err == nil {
		err = cerr
	}
	if err != nil {
		return &os.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

// create makes a file that must not exist.
func create(path string, mode uint32) (int, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		switch err {
		case nil:
			return fd, nil
		case unix.EINTR:
		default:
			return -1, &os.PathError{Op: "create", Path: path, Err: err}
		}
	}
}
