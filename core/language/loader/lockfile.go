package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"path"

	"go.starlark.net/starlark"

	"tool/core/packages/lock"
)

// nativeReadLock gives macros the pins of a lock file of the package, so that
// each pinned package can become a target. An absent file is an empty lock:
// `tool lock` is what makes it.
func nativeReadLock(ev *eval, _ *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var name string
	if err := starlark.UnpackArgs("read_lock", args, kwargs, "file", &name); err != nil {
		return nil, err
	}
	if ev.pkg.Label.Repo != "" {
		return nil, fmt.Errorf("read_lock: only packages of the workspace have locks")
	}
	if err := lock.CheckPath(name); err != nil {
		return nil, fmt.Errorf("read_lock: %w", err)
	}
	file := path.Join(ev.pkg.Dir, name)
	data, err := ev.loader.Workspace.ReadFile(file)
	lk := &lock.Lock{}
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("read_lock: %w", err)
	default:
		if lk, err = lock.Parse(file, data); err != nil {
			return nil, &Error{Msg: err.Error(), Err: err}
		}
	}
	str := func(s string) starlark.Value { return starlark.String(s) }
	debs := starlark.NewDict(len(lk.Debs))
	for _, d := range lk.Debs {
		_ = debs.SetKey(str(d.Name), NewStruct(map[string]starlark.Value{
			"name": str(d.Name), "version": str(d.Version), "arch": str(d.Arch), "suite": str(d.Suite),
			"path": str(d.Path), "sha256": str(d.Digest.Hex()), "size": starlark.MakeInt64(d.Digest.Size),
		}))
	}
	sets := starlark.NewDict(8)
	for _, s := range lk.Sets() {
		var members []starlark.Value
		for _, d := range lk.Set(s) {
			members = append(members, str(d.Name))
		}
		_ = sets.SetKey(str(s), starlark.NewList(members))
	}
	var modules []starlark.Value
	for _, m := range lk.Modules {
		modules = append(modules, NewStruct(map[string]starlark.Value{
			"path": str(m.Path), "version": str(m.Version), "h1": str(m.Sum),
			"sha256": str(m.Digest.Hex()), "size": starlark.MakeInt64(m.Digest.Size),
		}))
	}
	files := starlark.NewDict(len(lk.Files))
	for _, f := range lk.Files {
		var urls []starlark.Value
		for _, u := range f.URLs {
			urls = append(urls, str(u))
		}
		_ = files.SetKey(str(f.Name), NewStruct(map[string]starlark.Value{
			"name": str(f.Name), "urls": starlark.NewList(urls), "sha256": str(f.Digest.Hex()), "size": starlark.MakeInt64(f.Digest.Size),
		}))
	}
	return NewStruct(map[string]starlark.Value{
		"file": str(name), "debs": debs, "sets": sets, "modules": starlark.NewList(modules), "files": files,
	}), nil
}
