package activate

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf16"

	"golang.org/x/sys/unix"
)

// loaderVendor is the vendor GUID of the boot loader interface's variables.
const loaderVendor = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"

// attributes of a variable that outlives a restart and is for boot loader and
// system alike.
const attributes = 1 | 2 | 4

// immutable is FS_IMMUTABLE_FL of linux/fs.h.
const immutable = 0x10

// findESP returns the block device whose FAT file system has our label. It
// reads the devices' first sectors: udev may not have seen them yet.
func findESP(sys, dev string) (string, error) {
	entries, err := os.ReadDir(sys)
	if err != nil {
		return "", fmt.Errorf("look for the EFI system partition: %w", err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "loop") || strings.HasPrefix(e.Name(), "ram") {
			continue
		}
		path := filepath.Join(dev, e.Name())
		if fatLabel(path) == espLabel {
			return path, nil
		}
	}
	return "", fmt.Errorf("no partition has a FAT file system with the label %s", espLabel)
}

// fatLabel returns the label in a FAT file system's first sector, or "".
func fatLabel(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	var sector [512]byte
	if _, err := io.ReadFull(f, sector[:]); err != nil || sector[510] != 0x55 || sector[511] != 0xaa {
		return ""
	}
	switch {
	case string(sector[82:87]) == "FAT32":
		return strings.TrimRight(string(sector[71:82]), " ")
	case string(sector[54:57]) == "FAT":
		return strings.TrimRight(string(sector[43:54]), " ")
	}
	return ""
}

// setVariable writes a variable of the boot loader interface.
func (m *Machine) setVariable(name, value string) error {
	path := m.path("sys/firmware/efi/efivars", name+"-"+loaderVendor)
	b := binary.LittleEndian.AppendUint32(nil, attributes)
	for _, c := range append(utf16.Encode([]rune(value)), 0) {
		b = binary.LittleEndian.AppendUint16(b, c)
	}
	if err := writeVariable(path, b); err != nil {
		return fmt.Errorf("set the firmware's variable %s: %w", name, err)
	}
	return nil
}

// writeVariable replaces a file of efivarfs, which wants all in one write, and
// marks variables immutable so that nobody removes them by mistake.
func writeVariable(path string, b []byte) error {
	if f, err := os.Open(path); err == nil {
		flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
		if err == nil && flags&immutable != 0 {
			err = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags&^immutable)
		}
		f.Close()
		if err != nil && err != unix.ENOTTY {
			return &fs.PathError{Op: "make mutable", Path: path, Err: err}
		}
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE, 0o644)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%w (was the machine started with UEFI?)", err)
		}
		return err
	}
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}
