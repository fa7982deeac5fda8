package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"strings"

	"tool/core/execution/exec"
	"tool/core/storage/cas"
)

// collect moves the outputs into the CAS. The command is dead by now, so what
// is checked here stays as it is.
func (r *Runner) collect(st *staging, s *exec.Spawn, res *exec.Result) error {
	for i, o := range s.Outputs {
		host, err := st.output(o)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			res.Problems = append(res.Problems, err.Error())
			continue
		}
		n, err := r.cas.Adopt(host)
		if cas.IsFull(err) {
			return fmt.Errorf("output %s: %w", o.Path, err)
		}
		if err != nil {
			res.Problems = append(res.Problems, fmt.Sprintf("output %s: %v", o.Path, err))
			continue
		}
		res.Outputs[i] = &n
	}
	return nil
}

// output returns where an output is on the host, if it is of the declared kind.
// No symbolic link is followed: one that the command made could point anywhere.
func (st *staging) output(o exec.Output) (string, error) {
	i, rel, ok := st.area(o.Path)
	if !ok {
		return "", fmt.Errorf("output %s has no directory", o.Path)
	}
	p := filepath.Join(st.dir, strconv.Itoa(i))
	var info fs.FileInfo
	var err error
	for part := range strings.SplitSeq(path.Join(".", rel), "/") {
		if info != nil && !info.IsDir() {
			return "", fmt.Errorf("output %s: its directory was replaced by something else", o.Path)
		}
		p = filepath.Join(p, part)
		if info, err = os.Lstat(p); err != nil {
			return "", err
		}
	}
	switch mode := info.Mode(); {
	case mode&fs.ModeSymlink != 0:
		return "", fmt.Errorf("output %s is a symbolic link; declare a directory or copy the file", o.Path)
	case o.Tree && !mode.IsDir():
		return "", fmt.Errorf("output %s was declared as a directory and is none", o.Path)
	case !o.Tree && mode.IsDir():
		return "", fmt.Errorf("output %s is a directory; declare it as one", o.Path)
	case !o.Tree && !mode.IsRegular():
		return "", fmt.Errorf("output %s is not a regular file", o.Path)
	}
	return p, nil
}
