package sandbox

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"slices"
	"sort"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"tool/core/execution/exec"
	"tool/core/model/digest"
	"tool/core/model/merkle"
)

// staging is what of a sandbox is on disk: a directory in the CAS's temporary
// space with the writable places. Everything else is bound from the CAS itself
// by the worker.
//
//	<n>/  the writable directories, which hold the outputs
//	tmp/  /tmp
type staging struct {
	dir   string
	rel   string // dir, as the workers know it
	req   request
	areas []string // exec paths of the writable directories; <n> is areas[n]
	made  map[string]bool
	tops  []string // the directories of dir itself
}

// inputsDir is where inputs are that would otherwise lie below a writable
// directory; they are symbolic links there.
const inputsDir = ".inputs"

func (r *Runner) stage(ctx context.Context, s *exec.Spawn) (_ *staging, err error) {
	if len(s.Argv) == 0 || s.Argv[0] == "" {
		return nil, fmt.Errorf("no command")
	}
	dir, err := r.cas.TempDir("sandbox-")
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = r.cas.RemoveAll(dir)
		}
	}()
	st := &staging{dir: dir, made: map[string]bool{}}
	if st.rel, err = r.rel(dir); err != nil {
		return nil, err
	}
	st.req = request{Argv: s.Argv, Env: s.Env, Timeout: s.Timeout, Tmpfs: s.Tmpfs}
	if len(s.Inputs) > maxInputs {
		return nil, fmt.Errorf("%d inputs are more than %d; use directories", len(s.Inputs), maxInputs)
	}
	if err := st.rootEntries(ctx, r, s.Root); err != nil {
		return nil, err
	}
	if err := st.outputs(s); err != nil {
		return nil, err
	}
	for _, in := range s.Inputs {
		if err := st.input(ctx, r, in); err != nil {
			return nil, fmt.Errorf("input %s: %w", in.Path, err)
		}
	}
	for _, o := range s.Objects {
		if err := merkle.CheckName(o.Ref); err != nil {
			return nil, fmt.Errorf("object: %w", err)
		}
		if err := st.place(ctx, r, o.Node, "/tool/store/"+o.Ref); err != nil {
			return nil, fmt.Errorf("object %s: %w", o.Ref, err)
		}
	}
	if s.Tmpfs {
		return st, nil
	}
	if err := st.mkdir("tmp"); err != nil {
		return nil, err
	}
	st.writable("tmp", "/tmp")
	return st, os.Chmod(filepath.Join(dir, "tmp"), 0o777|os.ModeSticky)
}

// maxInputs bounds the inputs of one command: each is a mount, and the kernel
// has a limit for them (fs.mount-max, 100,000).
const maxInputs = 80_000

// rootEntries lists what of the root tree is seen at /.
func (st *staging) rootEntries(ctx context.Context, r *Runner, root digest.Digest) error {
	if root.IsZero() {
		return nil
	}
	host, err := r.cas.Materialise(ctx, root)
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	rel, err := r.rel(host)
	if err != nil {
		return err
	}
	d, err := r.cas.GetDirectory(root)
	if err != nil {
		return fmt.Errorf("root file system: %w", err)
	}
	return d.Entries(func(name string, n merkle.Node) error {
		if !ownName(name) {
			st.req.Root = append(st.req.Root, mount{Target: "/" + name, Source: rel + "/" + name, File: n.Kind == merkle.File, Link: n.Target})
		}
		return nil
	})
}

// outputs makes the writable directories: one for each directory output, and
// the parent directory of each file output. Those inside another are just made
// there.
func (st *staging) outputs(s *exec.Spawn) error {
	var areas []string
	for _, o := range s.Outputs {
		if err := checkPath(o.Path); err != nil {
			return fmt.Errorf("output: %w", err)
		}
		area := o.Path
		if !o.Tree {
			area = path.Dir(o.Path)
		}
		if area == "." {
			return fmt.Errorf("output %s is not in a directory", o.Path)
		}
		areas = append(areas, area)
	}
	slices.Sort(areas)
	for _, a := range slices.Compact(areas) {
		if _, _, ok := st.area(a); ok {
			continue
		}
		st.areas = append(st.areas, a)
	}
	sort.Strings(st.areas)
	for i, a := range st.areas {
		n := strconv.Itoa(i)
		if err := st.mkdir(n); err != nil {
			return err
		}
		st.writable(n, buildDir+"/"+a)
	}
	for _, o := range s.Outputs {
		d := o.Path
		if !o.Tree {
			d = path.Dir(d)
		}
		i, rel, _ := st.area(d)
		if err := st.mkdir(path.Join(strconv.Itoa(i), rel)); err != nil {
			return err
		}
	}
	return nil
}

// area finds the writable directory that p lies in, and p relative to it.
func (st *staging) area(p string) (i int, rel string, ok bool) {
	for i, a := range st.areas {
		if p == a {
			return i, ".", true
		}
		if rel, ok := strings.CutPrefix(p, a+"/"); ok {
			return i, rel, true
		}
	}
	return 0, "", false
}

func (st *staging) input(ctx context.Context, r *Runner, in exec.Input) error {
	if err := checkPath(in.Path); err != nil {
		return err
	}
	at := in.Path
	if i, rel, ok := st.area(in.Path); ok {
		if rel == "." {
			return fmt.Errorf("it is an output directory too")
		}
		at = inputsDir + "/" + in.Path
		link := path.Join(strconv.Itoa(i), rel)
		if err := st.mkdir(path.Dir(link)); err != nil {
			return err
		}
		if err := os.Symlink(buildDir+"/"+at, filepath.Join(st.dir, link)); err != nil {
			return err
		}
	}
	return st.place(ctx, r, in.Node, buildDir+"/"+at)
}

// place lets a node be seen at target.
func (st *staging) place(ctx context.Context, r *Runner, n merkle.Node, target string) error {
	m := mount{Target: target}
	var err error
	switch n.Kind {
	case merkle.File:
		m.File = true
		m.Source, err = st.blob(r, n)
	case merkle.Symlink:
		m.Link = n.Target
	case merkle.Dir:
		var host string
		if host, err = r.cas.Materialise(ctx, n.Digest); err == nil {
			m.Source, err = r.rel(host)
		}
	default:
		err = fmt.Errorf("it has no content")
	}
	st.req.Inputs = append(st.req.Inputs, m)
	return err
}

// blob returns where a file is in the CAS. One that is there with the other
// executable bit only is linked once, which makes the right one.
func (st *staging) blob(r *Runner, n merkle.Node) (string, error) {
	host := r.cas.Path(n.Digest, n.Executable)
	if info, err := os.Lstat(host); err != nil || info.Size() != n.Digest.Size {
		link := filepath.Join(st.dir, "link")
		if err := r.cas.Link(n.Digest, n.Executable, link); err != nil {
			return "", err
		}
		if err := os.Remove(link); err != nil {
			return "", err
		}
	}
	return r.rel(host)
}

// writable shows a directory of the staging at target.
func (st *staging) writable(name, target string) {
	st.req.Writable = append(st.req.Writable, mount{Target: target, Source: st.rel + "/" + name})
}

// remove removes the staging. A command that left nothing behind is the usual
// case, so the directories are tried before they are looked into.
func (st *staging) remove(r *Runner) {
	for _, p := range st.tops {
		if err := unix.Rmdir(p); err != nil && err != unix.ENOENT {
			break
		}
	}
	if unix.Rmdir(st.dir) != nil {
		_ = r.cas.RemoveAll(st.dir) // what stays goes with this process's temporary space
	}
}

// rel returns a path of the CAS as the workers know it.
func (r *Runner) rel(host string) (string, error) {
	rel, err := filepath.Rel(r.cas.Dir(), host)
	if err != nil || !filepath.IsLocal(rel) {
		return "", fmt.Errorf("%s is not in the store %s", host, r.cas.Dir())
	}
	return rel, nil
}

// mkdir makes a directory of the staging and its parents, with the same mode
// whatever the umask is.
func (st *staging) mkdir(rel string) error {
	if rel == "." || st.made[rel] {
		return nil
	}
	if err := st.mkdir(path.Dir(rel)); err != nil {
		return err
	}
	p := filepath.Join(st.dir, rel)
	if err := os.Mkdir(p, 0o755); err != nil {
		return err
	}
	st.made[rel] = true
	if !strings.Contains(rel, "/") {
		st.tops = append(st.tops, p)
	}
	return os.Chmod(p, 0o755)
}

// checkPath refuses what could leave the exec root or name the same file in
// two ways.
func checkPath(p string) error {
	if p == "" || path.Clean(p) != p || !filepath.IsLocal(p) || p == "." || strings.Contains(p, "\x00") ||
		p == inputsDir || strings.HasPrefix(p, inputsDir+"/") {
		return fmt.Errorf("bad path %q", p)
	}
	return nil
}
