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

	"tool/core/execution/exec"
	"tool/core/model/digest"
	"tool/core/model/merkle"
)

// staging is a directory in the CAS's temporary space from which a sandbox is
// put together:
//
//	build/    the exec root: hard links to input files, mount points for trees
//	build/.inputs/  inputs that lie below a writable directory
//	w/<n>/    the writable directories, which hold the outputs
//	objects/  what is at /tool/store
//	tmp/      /tmp
type staging struct {
	dir   string
	req   request
	areas []string // exec paths of the writable directories; w/<n> is areas[n]
	made  map[string]bool
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
	st := &staging{dir: dir, made: map[string]bool{}}
	defer func() {
		if err != nil {
			_ = r.cas.RemoveAll(dir)
		}
	}()
	st.req = request{Argv: s.Argv, Env: s.Env, Timeout: s.Timeout, Tmpfs: s.Tmpfs}
	if err := st.mkdir("build"); err != nil {
		return nil, err
	}
	if err := st.rootEntries(ctx, r, s.Root); err != nil {
		return nil, err
	}
	if err := st.bindDir(r, "build", buildDir, false); err != nil {
		return nil, err
	}
	if err := st.outputs(r, s); err != nil {
		return nil, err
	}
	for _, in := range s.Inputs {
		if err := st.input(ctx, r, in); err != nil {
			return nil, fmt.Errorf("input %s: %w", in.Path, err)
		}
	}
	if err := st.objects(ctx, r, s.Objects); err != nil {
		return nil, err
	}
	if !s.Tmpfs {
		if err := st.mkdir("tmp"); err != nil {
			return nil, err
		}
		if err := os.Chmod(filepath.Join(dir, "tmp"), 0o777|os.ModeSticky); err != nil {
			return nil, err
		}
		if err := st.bindDir(r, "tmp", "/tmp", true); err != nil {
			return nil, err
		}
	}
	return st, nil
}

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
		if ownName(name) {
			return nil
		}
		e := entry{Name: name, Source: rel + "/" + name, File: n.Kind == merkle.File}
		if n.Kind == merkle.Symlink {
			e = entry{Name: name, Target: n.Target}
		}
		st.req.Root = append(st.req.Root, e)
		return nil
	})
}

// outputs makes the writable directories: one for each directory output, and
// the parent directory of each file output. Those inside another are just made
// there.
func (st *staging) outputs(r *Runner, s *exec.Spawn) error {
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
		w := "w/" + strconv.Itoa(i)
		if err := st.mkdir(w); err != nil {
			return err
		}
		if err := st.mkdir("build/" + a); err != nil {
			return err
		}
		if err := st.bindDir(r, w, buildDir+"/"+a, true); err != nil {
			return err
		}
	}
	for _, o := range s.Outputs {
		d := o.Path
		if !o.Tree {
			d = path.Dir(d)
		}
		i, rel, _ := st.area(d)
		if err := st.mkdir(path.Join("w", strconv.Itoa(i), rel)); err != nil {
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
		link := path.Join("w", strconv.Itoa(i), rel)
		if err := st.mkdir(path.Dir(link)); err != nil {
			return err
		}
		if err := os.Symlink(buildDir+"/"+at, filepath.Join(st.dir, link)); err != nil {
			return err
		}
	}
	return st.place(ctx, r, in.Node, "build/"+at, buildDir+"/"+at)
}

// place puts a node at the staging path rel, which is seen at target: a file as
// a hard link, a tree as a mount point and a bind.
func (st *staging) place(ctx context.Context, r *Runner, n merkle.Node, rel, target string) error {
	switch n.Kind {
	case merkle.File:
		if err := st.mkdir(path.Dir(rel)); err != nil {
			return err
		}
		return r.cas.Link(n.Digest, n.Executable, filepath.Join(st.dir, rel))
	case merkle.Symlink:
		if err := st.mkdir(path.Dir(rel)); err != nil {
			return err
		}
		return os.Symlink(n.Target, filepath.Join(st.dir, rel))
	case merkle.Dir:
		host, err := r.cas.Materialise(ctx, n.Digest)
		if err != nil {
			return err
		}
		src, err := r.rel(host)
		if err != nil {
			return err
		}
		st.req.Binds = append(st.req.Binds, bind{src, target})
		return st.mkdir(rel)
	}
	return fmt.Errorf("it has no content")
}

func (st *staging) objects(ctx context.Context, r *Runner, objects []exec.Object) error {
	if len(objects) == 0 {
		return nil
	}
	if err := st.mkdir("objects"); err != nil {
		return err
	}
	if err := st.bindDir(r, "objects", "/tool/store", false); err != nil {
		return err
	}
	for _, o := range objects {
		if err := merkle.CheckName(o.Ref); err != nil {
			return fmt.Errorf("object: %w", err)
		}
		if err := st.place(ctx, r, o.Node, "objects/"+o.Ref, "/tool/store/"+o.Ref); err != nil {
			return fmt.Errorf("object %s: %w", o.Ref, err)
		}
	}
	return nil
}

// bindDir shows a directory of the staging at target.
func (st *staging) bindDir(r *Runner, rel, target string, writable bool) error {
	src, err := r.rel(filepath.Join(st.dir, rel))
	if err != nil {
		return err
	}
	if writable {
		st.req.Writable = append(st.req.Writable, bind{src, target})
	} else {
		st.req.Binds = append(st.req.Binds, bind{src, target})
	}
	return nil
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
