package activate

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"tool/core/storage/cas"
)

// reserve is what must stay free on the root file system, in bytes, so that
// logs and state can be written.
const reserve = 32 << 20

// NoSpaceError says that the machine's disk has too little room.
type NoSpaceError struct {
	Need, Free int64 // bytes; Need includes the reserve
	Err        error // what failed, where something did
}

func (e *NoSpaceError) Error() string {
	s := fmt.Sprintf("the machine's root file system has %d MiB free and %d MiB are needed: let it collect garbage (`tool agent gc`), or give it a larger disk", e.Free>>20, (e.Need+1<<20-1)>>20)
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns what failed.
func (e *NoSpaceError) Unwrap() error { return e.Err }

// FreeBytes returns how much root may still write.
func (m *Machine) FreeBytes() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(m.path("tool"), &st); err != nil {
		return 0, fmt.Errorf("ask for free space: %w", err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// CheckSpace reports a *NoSpaceError where need bytes do not fit.
func (m *Machine) CheckSpace(need int64) error {
	free, err := m.FreeBytes()
	if err != nil {
		return err
	}
	if free < need+reserve {
		return &NoSpaceError{Need: need + reserve, Free: free}
	}
	return nil
}

// explainFull makes an error of a full disk say what to do.
func (m *Machine) explainFull(err error) error {
	var have *NoSpaceError
	if err == nil || !cas.IsFull(err) || errors.As(err, &have) {
		return err
	}
	free, ferr := m.FreeBytes()
	if ferr != nil {
		return err
	}
	return &NoSpaceError{Need: max(reserve, free+1), Free: free, Err: err}
}
