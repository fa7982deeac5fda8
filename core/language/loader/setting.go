package loader

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.starlark.net/starlark"

	"tool/core/language/workspace"
	"tool/core/model/label"
)

// setting is what configuration_field returns: the default of an attribute
// that the workspace's settings decide about, not the rule's author.
type setting struct {
	name  string      // build.environment
	label label.Label // zero where the workspace leaves it out
}

// String, Type, Freeze, Truth and Hash implement starlark.Value.
func (s *setting) String() string        { return "<configuration_field " + s.name + ">" }
func (s *setting) Type() string          { return "configuration_field" }
func (s *setting) Freeze()               {}
func (s *setting) Truth() starlark.Bool  { return true }
func (s *setting) Hash() (uint32, error) { return 0, fmt.Errorf("unhashable type: %s", s.Type()) }

// defaultOf makes s the default of a. It returns the value, or nil.
func (s *setting) defaultOf(a *Attr) (starlark.Value, error) {
	if a.Kind != AttrLabel {
		return nil, fmt.Errorf("%s is a label", s)
	}
	a.Setting = s.name
	if s.label.IsZero() {
		return nil, nil
	}
	return Label{s.label}, nil
}

// configurationField is Bazel's function of that name. What it names is known
// when a .star file is loaded, since a workspace has one tool.toml: so the
// default is a label like any other, and queries see it.
func (l *Loader) configurationField(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var fragment, name string
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "fragment", &fragment, "name", &name); err != nil {
		return nil, err
	}
	s := &setting{name: fragment + "." + name}
	c := &l.Workspace.Config
	labels := map[string]string{
		"build.environment": c.Build.Environment,
		"deploy.disk_tools": c.Deploy.DiskTools,
		"deploy.emulator":   c.Deploy.Emulator,
	}
	text, ok := labels[s.name]
	if !ok {
		return nil, fmt.Errorf("%s: %s holds no label %s; there are %s", b.Name(), workspace.ConfigFile, s.name, strings.Join(slices.Sorted(maps.Keys(labels)), ", "))
	}
	if text != "" {
		var err error
		if s.label, err = label.Parse(text, label.Label{}); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", workspace.ConfigFile, s.name, err)
		}
	}
	return s, nil
}
