package loader

import (
	"sort"

	"go.starlark.net/starlark"

	"tool/core/model/label"
)

// TargetKind tells what a label names.
type TargetKind uint8

// The kinds of targets.
const (
	RuleTarget TargetKind = iota + 1
	SourceFile
	GeneratedFile
	PackageGroup
)

// Target is something a label names, as the loading phase leaves it: labels
// are parsed, selects are not yet resolved.
type Target struct {
	Label      label.Label
	Kind       TargetKind
	Package    *Package
	Rule       *RuleClass
	Attrs      map[string]starlark.Value // every attribute, defaults included
	Explicit   map[string]bool           // those the BUILD file gave
	Pos        string                    // where it was made, in the BUILD file
	Generator  string                    // the macro that made it, or ""
	Visibility []Visibility
	Tags       []string
	TestOnly   bool
	Deprecated string
	Made       *Target // GeneratedFile: the rule that makes it
	File       string  // SourceFile: path relative to the workspace (or rule library)
	Group      *Group  // PackageGroup
}

// KindString is what query's kind() and label_kind print: "genrule rule",
// "source file", "generated file", "package group".
func (t *Target) KindString() string {
	switch t.Kind {
	case RuleTarget:
		return t.Rule.Name() + " rule"
	case SourceFile:
		return "source file"
	case GeneratedFile:
		return "generated file"
	}
	return "package group"
}

// String returns an attribute's string value, or "".
func (t *Target) String(attr string) string {
	s, _ := starlark.AsString(t.Attrs[attr])
	return s
}

// Visibility is one entry of a visibility list.
type Visibility struct {
	Public  bool
	Private bool
	Package label.Label // of __pkg__ and __subpackages__
	Tree    bool        // __subpackages__
	Group   label.Label // a package_group
}

// Group is a package_group.
type Group struct {
	Packages []PackageSpec
	Includes []label.Label
}

// PackageSpec is one entry of package_group(packages).
type PackageSpec struct {
	Negative, Public, Private, Tree bool
	Package                         label.Label
}

// Package is a loaded BUILD file.
type Package struct {
	Label             label.Label // Name is empty
	Dir               string      // relative to the workspace root, or within the rule library
	File              string      // the BUILD file, as errors show it
	Targets           map[string]*Target
	Loads             []label.Label // the .star files it loaded, directly and not, sorted
	defaultVisibility []Visibility
	defaultTestOnly   bool
	defaultDeprecated string
	exports           map[string][]Visibility
	called            bool // package() was
}

// Exports returns the names of the files that exports_files names, sorted.
func (p *Package) Exports() []string {
	names := make([]string, 0, len(p.exports))
	for n := range p.exports {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}

// Names returns the names of all targets that the BUILD file declares, sorted.
func (p *Package) Names() []string {
	names := make([]string, 0, len(p.Targets))
	for n := range p.Targets {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}
