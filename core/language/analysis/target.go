package analysis

import (
	"fmt"
	"sort"
	"strings"

	"go.starlark.net/starlark"

	"tool/core/language/loader"
	"tool/core/model/label"
)

// Target is an analysed target: what its rule's implementation returned. In
// Starlark it is what ctx.attr holds for a label.
type Target struct {
	Label     label.Label
	Loaded    *loader.Target
	Providers map[*loader.Provider]*loader.Struct
	Actions   []int // ids of the actions its implementation declared

	files      *loader.Depset
	executable *File
	runfiles   *Runfiles
}

var (
	_ starlark.HasAttrs = (*Target)(nil)
	_ starlark.Mapping  = (*Target)(nil)
)

// String, Type, Freeze, Truth and Hash implement starlark.Value.
func (t *Target) String() string        { return "<target " + t.Label.String() + ">" }
func (t *Target) Type() string          { return "Target" }
func (t *Target) Freeze()               {}
func (t *Target) Truth() starlark.Bool  { return true }
func (t *Target) Hash() (uint32, error) { return starlark.String(t.Label.String()).Hash() }

// AttrNames implements starlark.HasAttrs.
func (t *Target) AttrNames() []string { return []string{"files", "files_to_run", "label"} }

// Attr implements starlark.HasAttrs.
func (t *Target) Attr(name string) (starlark.Value, error) {
	switch name {
	case "label":
		return loader.Label{Label: t.Label}, nil
	case "files":
		return t.files, nil
	case "files_to_run":
		return &filesToRun{t}, nil
	}
	return nil, starlark.NoSuchAttrError(fmt.Sprintf("Target has no field %q; providers are read as target[Provider]", name))
}

// Get implements target[Provider] and Provider in target.
func (t *Target) Get(k starlark.Value) (starlark.Value, bool, error) {
	p, ok := k.(*loader.Provider)
	if !ok {
		return nil, false, fmt.Errorf("%s: a Target is indexed by a provider, got %s", t.Label, k.Type())
	}
	v, ok := t.Providers[p]
	if !ok {
		return nil, false, fmt.Errorf("%s does not provide %s; it provides %s", t.Label, p.Name(), strings.Join(t.providerNames(), ", "))
	}
	return v, true, nil
}

func (t *Target) providerNames() []string {
	var names []string
	for p := range t.Providers {
		names = append(names, p.Name())
	}
	sort.Strings(names)
	return names
}

// Files returns the target's default outputs, in order.
func (t *Target) Files() []*File {
	vs := t.files.List()
	out := make([]*File, len(vs))
	for i, v := range vs {
		out[i] = v.(*File)
	}
	return out
}

// Executable returns what run starts, or nil.
func (t *Target) Executable() *File { return t.executable }

// Group returns the files of an output group, or nil.
func (t *Target) Group(name string) ([]*File, bool) {
	if name == "default" {
		return t.Files(), true
	}
	og := t.Providers[loader.OutputGroupInfo]
	if og == nil {
		return nil, false
	}
	v := og.Get(name)
	if v == nil {
		return nil, false
	}
	fs, err := filesOf("OutputGroupInfo", v)
	return fs, err == nil
}

// satisfies reports whether the target has one of the sets of providers.
func (t *Target) satisfies(sets [][]*loader.Provider) bool {
	if len(sets) == 0 {
		return true
	}
	for _, set := range sets {
		all := true
		for _, p := range set {
			if _, ok := t.Providers[p]; !ok {
				all = false
			}
		}
		if all {
			return true
		}
	}
	return false
}

// filesToRun is target.files_to_run: an executable with what it needs.
type filesToRun struct{ t *Target }

func (f *filesToRun) String() string        { return "<files_to_run " + f.t.Label.String() + ">" }
func (f *filesToRun) Type() string          { return "FilesToRunProvider" }
func (f *filesToRun) Freeze()               {}
func (f *filesToRun) Truth() starlark.Bool  { return true }
func (f *filesToRun) Hash() (uint32, error) { return starlark.String(f.t.Label.String()).Hash() }
func (f *filesToRun) AttrNames() []string   { return []string{"executable"} }
func (f *filesToRun) Attr(name string) (starlark.Value, error) {
	if name == "executable" {
		return orNone(f.t.executable), nil
	}
	return nil, nil
}
func (f *filesToRun) all() []*File {
	var out []*File
	if f.t.executable != nil {
		out = append(out, f.t.executable)
	}
	if f.t.runfiles != nil {
		fs, _ := filesOf("runfiles", f.t.runfiles.files)
		out = append(out, fs...)
	}
	return out
}

func orNone(f *File) starlark.Value {
	if f == nil {
		return starlark.None
	}
	return f
}

// Runfiles are the files a program needs when it runs.
type Runfiles struct{ files *loader.Depset }

var _ starlark.HasAttrs = (*Runfiles)(nil)

// String, Type, Freeze, Truth and Hash implement starlark.Value.
func (r *Runfiles) String() string        { return "<runfiles>" }
func (r *Runfiles) Type() string          { return "runfiles" }
func (r *Runfiles) Freeze()               {}
func (r *Runfiles) Truth() starlark.Bool  { return true }
func (r *Runfiles) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable type: runfiles") }

// AttrNames implements starlark.HasAttrs.
func (r *Runfiles) AttrNames() []string { return []string{"files", "merge", "merge_all"} }

// Attr implements starlark.HasAttrs.
func (r *Runfiles) Attr(name string) (starlark.Value, error) {
	switch name {
	case "files":
		return r.files, nil
	case "merge":
		return starlark.NewBuiltin("merge", func(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			var o *Runfiles
			if err := starlark.UnpackArgs("merge", args, kwargs, "other", &o); err != nil {
				return nil, err
			}
			return &Runfiles{loader.NewDepset(nil, r.files, o.files)}, nil
		}), nil
	case "merge_all":
		return starlark.NewBuiltin("merge_all", func(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			var l *starlark.List
			if err := starlark.UnpackArgs("merge_all", args, kwargs, "other", &l); err != nil {
				return nil, err
			}
			sets := []*loader.Depset{r.files}
			for i := range l.Len() {
				o, ok := l.Index(i).(*Runfiles)
				if !ok {
					return nil, fmt.Errorf("merge_all: got %s, want runfiles", l.Index(i).Type())
				}
				sets = append(sets, o.files)
			}
			return &Runfiles{loader.NewDepset(nil, sets...)}, nil
		}), nil
	}
	return nil, nil
}
