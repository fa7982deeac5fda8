package activate

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Release undoes Adopt: the machine has its own /usr again, as a folder, and
// nothing of ours is started any more. Generation 0 must be active. What lies
// below /tool is of no more use then, and for the caller to remove. To release
// what is released does nothing.
func (m *Machine) Release(ctx context.Context) error {
	if err := m.release(ctx); err != nil {
		return fmt.Errorf("give this machine back: %w", err)
	}
	return nil
}

func (m *Machine) release(ctx context.Context) error {
	if !m.Adopted() {
		return errors.New("it was made by tool: there is nothing that it was before")
	}
	s, err := m.Status()
	if err != nil {
		return err
	}
	if !s.Over() {
		return &BusyError{s}
	}
	for _, p := range []Pointer{Active, Confirmed} {
		n, err := m.Pointer(p)
		if err != nil {
			return err
		}
		if n != 0 {
			return fmt.Errorf("generation %d is %s: go back with `tool agent rollback 0` first", n, p)
		}
	}
	// The same exchange that made the link makes it a folder again.
	if _, err := os.Readlink(m.path("usr")); err == nil {
		if err := unix.Renameat2(unix.AT_FDCWD, m.path("usr"), unix.AT_FDCWD, m.path(originDir, "usr"), unix.RENAME_EXCHANGE); err != nil {
			return fmt.Errorf("exchange the link /usr for the folder: %w", err)
		}
		if err := errors.Join(syncDir(m.Root), syncDir(m.path(originDir))); err != nil {
			return err
		}
	}
	for _, p := range []string{
		adoptWants, adoptService, modulesWants, modulesService,
		sshDir + "/ssh_host_ed25519_key", sshDir + "/ssh_host_ed25519_key.pub", sshDir + "/authorized_keys/root",
	} {
		if err := removeIfThere(m.path(p)); err != nil {
			return err
		}
	}
	for _, p := range []string{sshDir + "/authorized_keys", sshDir, filepath.Dir(modulesWants)} {
		// Somebody else may keep files there. The folder of wants may be new.
		if err := os.Remove(m.path(p)); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
	}
	return m.Systemd.DaemonReload(ctx)
}
