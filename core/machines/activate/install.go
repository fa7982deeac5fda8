package activate

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// MaxAgent bounds an agent's program, in bytes.
const MaxAgent = 1 << 30

// InstallAgent makes the program at path the machine's agent.
func (m *Machine) InstallAgent(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = m.PutAgent(f, "")
	return err
}

// PutAgent makes what r holds the machine's agent and returns its SHA-256. If
// want is not empty it must be that.
func (m *Machine) PutAgent(r io.Reader, want string) (string, error) {
	sum, err := m.putAgent(r, want)
	if err != nil {
		return "", fmt.Errorf("install the agent: %w", m.explainFull(err))
	}
	return sum, nil
}

func (m *Machine) putAgent(r io.Reader, want string) (string, error) {
	dir := m.path("tool/agent")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	f, err := os.CreateTemp(dir, ".tool-")
	if err != nil {
		return "", err
	}
	defer os.Remove(f.Name())
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(f, h), io.LimitReader(r, MaxAgent+1))
	if err == nil {
		err = errors.Join(f.Chmod(0o755), f.Sync())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	sum := hex.EncodeToString(h.Sum(nil))
	switch {
	case n > MaxAgent:
		return "", fmt.Errorf("it is larger than %d bytes", MaxAgent)
	case want != "" && sum != want:
		return "", fmt.Errorf("its SHA-256 is %s and should be %s", sum, want)
	}
	to := filepath.Join(dir, sum)
	if err := os.MkdirAll(to, 0o755); err != nil {
		return "", err
	}
	// One that runs cannot be written to, but it can be replaced.
	if err := unix.Rename(f.Name(), filepath.Join(to, "tool")); err != nil {
		return "", &os.PathError{Op: "rename", Path: f.Name(), Err: err}
	}
	if err := syncDir(to); err != nil {
		return "", err
	}
	if err := linkTo(sum, filepath.Join(dir, "current")); err != nil {
		return "", err
	}
	return sum, syncDir(dir)
}

// AgentSHA256 returns that of the agent in use, or "" where there is none.
func (m *Machine) AgentSHA256() string {
	target, err := os.Readlink(m.path("tool/agent/current"))
	if err != nil {
		return ""
	}
	return filepath.Base(target)
}
