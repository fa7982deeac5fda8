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
	vdiIDAt        = 392
	vdiParentAt    = 424
	vdiHeader      = 440
)

// vdi is what a VDI's header says.
type vdi struct {
	capacity   int      // MiB
	id, parent [16]byte // UUIDs, as they are there; zero for one without a parent
}

// vdiCapacity returns the size of the disk in a VDI, in MiB. The file is asked
// because VirtualBox's server tells what it remembers, which of a running
// machine's disk may be the size of the image below.
func vdiCapacity(path string) (int, error) {
	v, err := readVDI(path)
	return v.capacity, err
}

func readVDI(path string) (vdi, error) {
	f, err := os.Open(path)
	if err != nil {
		return vdi{}, err
	}
	defer f.Close()
	var b [vdiHeader]byte
	if _, err := f.ReadAt(b[:], 0); err != nil {
		return vdi{}, fmt.Errorf("%s is not a VDI: %w", path, err)
	}
	v, err := parseVDI(b[:])
	if err != nil {
		return vdi{}, fmt.Errorf("%s is not a VDI: %w", path, err)
	}
	return v, nil
}

func parseVDI(b []byte) (vdi, error) {
	le := binary.LittleEndian
	if len(b) < vdiHeader || le.Uint32(b[vdiSignatureAt:]) != vdiSignature {
		return vdi{}, errors.New("it has no signature of one")
	}
	if v := le.Uint32(b[vdiVersionAt:]); v>>16 != 1 || v&0xffff < 1 {
		return vdi{}, fmt.Errorf("version %d.%d", v>>16, v&0xffff)
	}
	size := le.Uint64(b[vdiSizeAt:])
	if size>>20 > 1<<30 {
		return vdi{}, fmt.Errorf("a disk of %d bytes", size)
	}
	v := vdi{capacity: int(size >> 20)}
	copy(v.id[:], b[vdiIDAt:])
	copy(v.parent[:], b[vdiParentAt:])
	return v, nil
}
