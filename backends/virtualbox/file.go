package virtualbox

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"

	"tool/backends/local"
	"tool/core/machines/deploy"
)

// lockNet lets one command at a time work on what machines of a deployment share.
func lockNet(ctx context.Context, m *deploy.Machine) (unlock func(), err error) {
	return local.Lock(ctx, filepath.Join(m.NetDir, baseLock))
}

// readHead returns the first bytes of a file.
func readHead(path string, limit int64) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit))
	return string(b), err
}

// syncFile makes what is in a file last.
func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
