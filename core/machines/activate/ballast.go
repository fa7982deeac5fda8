package activate

import (
	"os"

	"golang.org/x/sys/unix"

	"tool/core/storage/cas"
)

// ballastSize is the size of a file that is there to be removed when the disk
// is full: what it leaves is enough to go back, to start, or to collect garbage.
const ballastSize = 4 << 20

func (m *Machine) ballast() string { return m.state("ballast") }

// keepBallast makes the file where it is missing and there is room. It is a
// precaution: that it cannot be made is no error.
func (m *Machine) keepBallast() {
	if fi, err := os.Stat(m.ballast()); err == nil && fi.Size() == ballastSize {
		return
	}
	if m.CheckSpace(ballastSize) != nil {
		return
	}
	f, err := os.OpenFile(m.ballast(), os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return
	}
	err = unix.Fallocate(int(f.Fd()), 0, 0, ballastSize)
	if cerr := f.Close(); err != nil || cerr != nil {
		os.Remove(m.ballast())
	}
}

// dropBallast gives the room back. It reports whether there was any.
func (m *Machine) dropBallast() bool { return os.Remove(m.ballast()) == nil }

// withBallast runs f, and once more without the ballast if the disk was full.
func (m *Machine) withBallast(f func() error) error {
	err := f()
	if err != nil && cas.IsFull(err) && m.dropBallast() {
		m.log("the disk is full: using the reserve")
		err = f()
	}
	return err
}
