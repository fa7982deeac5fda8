package qemu

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"tool/backends/local"
)

// Names in a machine's folder.
const (
	rootFile    = "root.img"
	diskFile    = "disk.qcow2"
	seedFile    = "seed.img"
	kernelFile  = "kernel"
	initrdFile  = "initrd"
	espFile     = "esp.img"
	espDisk     = "esp.qcow2"
	varsFile    = "vars.fd"
	configFile  = "vm.json"
	runningFile = "running"
	pidFile     = "pid"
	qmpFile     = "qmp.sock"
	consoleFile = "console.log"
	logFile     = "qemu.log"
	lockFile    = "lock"
	netLink     = "net"
)

// take puts the file from into the machine's folder as dst: as a hard link, so
// that it costs nothing and outlives a collection of the store it comes from,
// or as a copy where file systems differ. What is there already is replaced.
func take(from, dst string) error {
	from, err := filepath.EvalSymlinks(from)
	if err != nil {
		return err
	}
	if sameFile(from, dst) {
		return nil
	}
	tmp := dst + local.TmpSuffix
	if err := local.Remove(tmp); err != nil {
		return err
	}
	if err := os.Link(from, tmp); err != nil {
		if err := clone(from, tmp, 0o444); err != nil {
			return err
		}
	}
	return os.Rename(tmp, dst)
}

// clone copies a file with its holes, by reference where the file system can.
func clone(from, to string, mode os.FileMode) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, out.Close()); err != nil {
			err = errors.Join(fmt.Errorf("copy %s: %w", from, err), os.Remove(to))
		}
	}()
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) != nil {
		if err := copyData(out, in); err != nil {
			return err
		}
	}
	if err := out.Chmod(mode); err != nil {
		return err
	}
	return out.Sync()
}

func copyData(out, in *os.File) error {
	info, err := in.Stat()
	if err != nil {
		return err
	}
	size := info.Size()
	for at := int64(0); at < size; {
		data, err := unix.Seek(int(in.Fd()), at, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			break // nothing but a hole is left
		}
		if err != nil {
			return err
		}
		hole, err := unix.Seek(int(in.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if _, err := io.Copy(io.NewOffsetWriter(out, data), io.NewSectionReader(in, data, hole-data)); err != nil {
			return err
		}
		at = hole
	}
	return out.Truncate(size)
}

// sameContent compares two files, quickly if they are one.
func sameContent(a, b string) (bool, error) {
	if sameFile(a, b) {
		return true, nil
	}
	x, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer x.Close()
	y, err := os.Open(b)
	if err != nil {
		return false, err
	}
	defer y.Close()
	xi, err := x.Stat()
	if err != nil {
		return false, err
	}
	yi, err := y.Stat()
	if err != nil || xi.Size() != yi.Size() {
		return false, err
	}
	bx, by := make([]byte, 1<<17), make([]byte, 1<<17)
	for {
		n, err := io.ReadFull(x, bx)
		k, _ := io.ReadFull(y, by)
		if !bytes.Equal(bx[:n], by[:k]) {
			return false, nil
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return true, nil
		}
		if err != nil {
			return false, err
		}
	}
}

func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}
