package analysis

import (
	"fmt"
	"path"
	"strings"

	"go.starlark.net/starlark"

	"tool/core/language/action"
	"tool/core/language/loader"
	"tool/core/model/label"
)

// File is an artifact as a Starlark value. There is one File to an artifact,
// so files compare by identity.
type File struct {
	Artifact *action.Artifact
	owner    label.Label
}

var _ starlark.HasAttrs = (*File)(nil)

// String, Type, Freeze, Truth and Hash implement starlark.Value.
func (f *File) String() string {
	kind := "File"
	if f.Artifact.Kind == action.Tree {
		kind = "TreeFile"
	}
	return fmt.Sprintf("<%s %s>", kind, f.Artifact.Path)
}
func (f *File) Type() string          { return "File" }
func (f *File) Freeze()               {}
func (f *File) Truth() starlark.Bool  { return true }
func (f *File) Hash() (uint32, error) { return starlark.String(f.Artifact.Path).Hash() }

var fileAttrs = []string{"basename", "dirname", "extension", "is_directory", "is_source", "owner", "path", "root", "short_path", "store_path", "tree_relative_path"}

// AttrNames implements starlark.HasAttrs.
func (f *File) AttrNames() []string { return fileAttrs }

// Attr implements starlark.HasAttrs.
func (f *File) Attr(name string) (starlark.Value, error) {
	p := f.Artifact.Path
	switch name {
	case "path":
		return starlark.String(p), nil
	case "short_path":
		return starlark.String(strings.TrimPrefix(p, action.OutPrefix)), nil
	case "basename":
		return starlark.String(path.Base(p)), nil
	case "dirname":
		return starlark.String(path.Dir(p)), nil
	case "extension":
		return starlark.String(strings.TrimPrefix(path.Ext(p), ".")), nil
	case "is_directory":
		return starlark.Bool(f.Artifact.Kind == action.Tree), nil
	case "is_source":
		return starlark.Bool(f.Artifact.Producer < 0 && !strings.HasPrefix(p, action.OutPrefix)), nil
	case "owner":
		return loader.Label{Label: f.owner}, nil
	case "root":
		root := ""
		if strings.HasPrefix(p, action.OutPrefix) {
			root = strings.TrimSuffix(action.OutPrefix, "/")
		}
		return loader.NewStruct(map[string]starlark.Value{"path": starlark.String(root)}), nil
	case "store_path":
		// Stands for the path below /tool/store until the file exists.
		return starlark.String(f.Artifact.Placeholder()), nil
	}
	return nil, nil
}

// pathOf is the exec path of an output or source of a package.
func pathOf(l label.Label, out bool) string {
	p := path.Join(l.Pkg, l.Name)
	if l.Repo != "" {
		p = path.Join("external", l.Repo, p)
	}
	if out {
		p = action.OutPrefix + p
	}
	return p
}

// filesOf collects the files of a list, depset, Target or File.
func filesOf(what string, v starlark.Value) ([]*File, error) {
	var out []*File
	var add func(v starlark.Value) error
	add = func(v starlark.Value) error {
		switch x := v.(type) {
		case nil, starlark.NoneType:
		case *File:
			out = append(out, x)
		case *Target:
			out = append(out, x.Files()...)
		case *filesToRun:
			out = append(out, x.all()...)
		case *Runfiles:
			return add(x.files)
		case *loader.Depset:
			for _, e := range x.List() {
				if err := add(e); err != nil {
					return err
				}
			}
		case *starlark.List, starlark.Tuple, *starlark.Set:
			it := x.(starlark.Iterable).Iterate()
			defer it.Done()
			var e starlark.Value
			for it.Next(&e) {
				if err := add(e); err != nil {
					return err
				}
			}
		default:
			return fmt.Errorf("%s: got %s, want File", what, v.Type())
		}
		return nil
	}
	return out, add(v)
}

func fileValues(fs []*File) []starlark.Value {
	out := make([]starlark.Value, len(fs))
	for i, f := range fs {
		out[i] = f
	}
	return out
}
