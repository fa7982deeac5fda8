package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// rootLabel is the label of the file system that the machine lives on.
const rootLabel = "tool-root"

// deadline is how long disks may take to appear.
const deadline = 30 * time.Second

// disk is an open block device.
type disk struct {
	path string
	file *os.File
	fs   superblock // of a root
}

// disks are the machine's disk and, until it is detached, its seed.
type disks struct {
	root, seed *disk
}

func (d *disks) close() {
	for _, p := range []**disk{&d.root, &d.seed} {
		if *p != nil {
			_ = (*p).file.Close()
			*p = nil
		}
	}
}

// findDisks waits for the disk. The seed is found in the same pass, since the
// drivers were loaded before.
func findDisks(c *console, wait time.Duration) (*disks, error) {
	end := time.Now().Add(wait)
	for told := false; ; {
		d, seen, err := scanDisks("/sys/class/block", "/dev")
		if err != nil {
			return nil, err
		}
		if d.root != nil {
			return d, nil
		}
		d.close()
		if time.Now().After(end) {
			have := "there is no block device at all: is a driver missing in the initrd?"
			if len(seen) > 0 {
				have = "there are " + strings.Join(seen, ", ")
			}
			return nil, fmt.Errorf("no disk has a file system labelled %s after %s; %s", rootLabel, wait, have)
		}
		if !told {
			c.printf("waiting for the disk")
			told = true
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// scanDisks looks at every block device that is listed in class once.
func scanDisks(class, dev string) (*disks, []string, error) {
	entries, err := os.ReadDir(class)
	if err != nil {
		return nil, nil, err
	}
	d := &disks{}
	var seen []string
	for _, e := range entries {
		if slices.ContainsFunc([]string{"loop", "ram", "zram", "fd"}, func(p string) bool { return strings.HasPrefix(e.Name(), p) }) {
			continue
		}
		path := filepath.Join(dev, e.Name())
		f, err := os.Open(path)
		if err != nil {
			continue // gone again, or a drive without a medium
		}
		seen = append(seen, path)
		one := &disk{path: path, file: f}
		fs, err := readSuperblock(f)
		switch {
		case d.root == nil && err == nil && fs.label == rootLabel:
			one.fs = fs
			d.root = one
		case d.seed == nil && isSeed(f):
			d.seed = one
		default:
			_ = f.Close()
		}
	}
	return d, seen, nil
}

// superblock is what matters here of ext4's.
type superblock struct {
	label     string
	blocks    uint64
	blockSize uint64
}

var errNotExt4 = errors.New("it holds no ext4 file system")

// readSuperblock reads the superblock of a disk that may hold anything.
func readSuperblock(r io.ReaderAt) (superblock, error) {
	var b [1024]byte
	if _, err := r.ReadAt(b[:], 1024); err != nil {
		return superblock{}, err
	}
	le := binary.LittleEndian
	shift := le.Uint32(b[0x18:])
	if le.Uint16(b[0x38:]) != 0xEF53 || shift > 6 {
		return superblock{}, errNotExt4
	}
	s := superblock{
		label:     strings.TrimRight(string(b[0x78:0x88]), "\x00"),
		blocks:    uint64(le.Uint32(b[0x04:])),
		blockSize: 1024 << shift,
	}
	if le.Uint32(b[0x60:])&0x80 != 0 { // 64bit
		s.blocks |= uint64(le.Uint32(b[0x150:])) << 32
	}
	return s, nil
}

// grow lets the file system mounted at dir fill its device.
func grow(c *console, d *disk, dir string) error {
	const blkGetSize64, ext4ResizeFS = 0x80081272, 0x40086610
	var size uint64
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, d.file.Fd(), blkGetSize64, uintptr(unsafe.Pointer(&size))); errno != 0 {
		return fmt.Errorf("size of %s: %w", d.path, errno)
	}
	blocks := size / d.fs.blockSize
	// A few blocks at the end may be too few for another group: not again at
	// every boot.
	if blocks < d.fs.blocks+(16<<20)/d.fs.blockSize {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), ext4ResizeFS, uintptr(unsafe.Pointer(&blocks))); errno != 0 {
		return fmt.Errorf("grow %s from %d to %d blocks: %w", d.path, d.fs.blocks, blocks, errno)
	}
	c.printf("grew %s to %d MiB", d.path, size>>20)
	return nil
}
