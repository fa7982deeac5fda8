package analysis

import (
	"fmt"

	"go.starlark.net/starlark"

	"tool/core/language/loader"
)

// target makes the Target from what the implementation returned.
func (c *ruleContext) target(result starlark.Value) (*Target, error) {
	t := &Target{Label: c.loaded.Label, Loaded: c.loaded, Actions: c.actions, Providers: map[*loader.Provider]*loader.Struct{}}
	add := func(v starlark.Value) error {
		s, ok := v.(*loader.Struct)
		if !ok || s.Provider == nil {
			return fmt.Errorf("the implementation must return a list of providers, it returned %s", v.Type())
		}
		if _, dup := t.Providers[s.Provider]; dup {
			return fmt.Errorf("the implementation returned %s twice", s.Provider.Name())
		}
		s.Freeze()
		t.Providers[s.Provider] = s
		return nil
	}
	switch r := result.(type) {
	case starlark.NoneType:
	case *loader.Struct:
		if err := add(r); err != nil {
			return nil, err
		}
	case starlark.Iterable:
		it := r.Iterate()
		defer it.Done()
		var v starlark.Value
		for it.Next(&v) {
			if err := add(v); err != nil {
				return nil, err
			}
		}
	default:
		return nil, fmt.Errorf("the implementation must return a list of providers, it returned %s", result.Type())
	}
	for _, p := range c.loaded.Rule.Provides {
		if _, ok := t.Providers[p]; !ok {
			return nil, fmt.Errorf("the rule promises %s, but the implementation did not return it", p.Name())
		}
	}
	return t, c.defaults(t)
}

// defaults reads DefaultInfo, or fills it in.
func (c *ruleContext) defaults(t *Target) error {
	di := t.Providers[loader.DefaultInfo]
	if di == nil {
		di = loader.DefaultInfo.New()
	}
	switch v := di.Get("executable").(type) {
	case nil, starlark.NoneType:
	case *File:
		t.executable = v
	default:
		return fmt.Errorf("DefaultInfo.executable: got %s, want File", v.Type())
	}
	if c.loaded.Rule.Executable && t.executable == nil {
		return fmt.Errorf("an executable rule must return DefaultInfo(executable = …)")
	}
	switch v := di.Get("runfiles").(type) {
	case nil, starlark.NoneType:
	case *Runfiles:
		t.runfiles = v
	default:
		return fmt.Errorf("DefaultInfo.runfiles: got %s, want ctx.runfiles(…)", v.Type())
	}
	switch v := di.Get("files").(type) {
	case nil, starlark.NoneType:
		var direct []starlark.Value
		if t.executable != nil {
			direct = append(direct, t.executable)
		} else if di.Get("files") == nil {
			for _, f := range c.declared {
				if c.predeclared(f) {
					direct = append(direct, f)
				}
			}
		}
		t.files = loader.NewDepset(direct)
	case *loader.Depset:
		t.files = v
		for _, e := range v.List() {
			if _, ok := e.(*File); !ok {
				return fmt.Errorf("DefaultInfo.files: it holds a %s, want Files", e.Type())
			}
		}
	default:
		return fmt.Errorf("DefaultInfo.files: got %s, want depset", v.Type())
	}
	fields := []any{"files", t.files}
	if t.executable != nil {
		fields = append(fields, "executable", t.executable)
	}
	rf := t.runfiles
	if rf == nil {
		rf = &Runfiles{loader.NewDepset(nil)}
	}
	fields = append(fields, "runfiles", rf, "default_runfiles", rf, "data_runfiles", rf)
	t.Providers[loader.DefaultInfo] = loader.DefaultInfo.New(fields...)
	return nil
}

func (c *ruleContext) predeclared(f *File) bool {
	for _, n := range c.outputs.AttrNames() {
		fs, err := filesOf("outputs", c.outputs.Get(n))
		if err != nil {
			continue
		}
		for _, o := range fs {
			if o == f {
				return true
			}
		}
	}
	return false
}
