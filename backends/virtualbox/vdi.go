package virtualbox

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
)

// Where a VDI's header has what matters here, in bytes.
const (
	vdiSignatureAt = 64
	vdiSignature   = 0xbeda107f
	vdiVersionAt   = 68
	vdiSizeAt      = 368 // of the disk, from version 1.1 on
	vdiHeader      = 376
)

// vdiCapacity returns the size of the disk in a VDI, in MiB. The file is asked
// because VirtualBox's server tells what it remembers, which of a running
// machine's disk may be the size of the image below.
func vdiCapacity(path string) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var b [vdiHeader]byte
	if _, err := f.ReadAt(b[:], 0); err != nil {
		return 0, fmt.Errorf("%s is not a VDI: %w", path, err)
	}
	n, err := capacityOf(b[:])
	if err != nil {
		return 0, fmt.Errorf("%s is not a VDI: %w", path, err)
	}
	return n, nil
}

func capacityOf(b []byte) (int, error) {
	le := binary.LittleEndian
	if len(b) < vdiHeader || le.Uint32(b[vdiSignatureAt:]) != vdiSignature {
		return 0, errors.New("it has no signature of one")
	}
	if v := le.Uint32(b[vdiVersionAt:]); v>>16 != 1 || v&0xffff < 1 {
		return 0, fmt.Errorf("version %d.%d", v>>16, v&0xffff)
	}
	size := le.Uint64(b[vdiSizeAt:])
	if size>>20 > 1<<30 {
		return 0, fmt.Errorf("a disk of %d bytes", size)
	}
	return int(size >> 20), nil
}
