package virtualbox

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"tool/backends/local"
	"tool/core/machines/deploy"
)

// lockNet lets one command at a time work on what machines of a deployment share.
// One of them makes a base image while the others wait.
func lockNet(ctx context.Context, m *deploy.Machine) (unlock func(), err error) {
	return local.LockFor(ctx, filepath.Join(m.NetDir, baseLock), 2*longTimeout)
}

// files returns the paths of the files in a folder whose names begin and end so; a
// folder that is not there has none. (filepath.Glob would take some characters of
// the folder's own path for a pattern.)
func files(dir, prefix, suffix string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var out []string
	for _, e := range entries {
		if n := e.Name(); len(n) >= len(prefix)+len(suffix) && strings.HasPrefix(n, prefix) && strings.HasSuffix(n, suffix) {
			out = append(out, filepath.Join(dir, n))
		}
	}
	return out, nil
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
