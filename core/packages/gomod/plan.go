// Package gomod makes Go modules pinned inputs: which modules a go.mod needs,
// what to pin of them, and trees of which a module cache is made that the go
// command uses offline.
package gomod

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/mod/modfile"
	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
)

// Module is one module of a build list.
type Module struct {
	Path, Version string
	// Sum is the zip's "h1:…" of go.sum. It is "" where go.sum has none: the
	// module takes part in version selection only, and no package of it is
	// built.
	Sum string
	// GoModSum is the "h1:…" of its go.mod, "" where go.sum has none.
	GoModSum string
}

// String returns path@version.
func (m Module) String() string { return m.Path + "@" + m.Version }

// Plan returns the modules that a main module needs, by its go.mod and go.sum:
// everything go.mod requires, directly or not, with replacements applied.
// Replacements by a directory are left out: they are the workspace's own
// sources. The result is sorted.
//
// Since Go 1.17 go.mod lists every module that a build needs; older ones do
// not, and are an error.
func Plan(gomod, gosum []byte) ([]Module, error) {
	f, err := modfile.Parse("go.mod", gomod, nil)
	if err != nil {
		return nil, err
	}
	if f.Module == nil {
		return nil, errors.New("go.mod: no module line")
	}
	if f.Go == nil || semver.Compare("v"+language(f.Go.Version), "v1.17") < 0 {
		return nil, errors.New("go.mod: needs a line `go 1.17` or newer, since when it lists all modules of a build: run `go mod tidy -go=1.17`")
	}
	sums, err := parseSums(gosum)
	if err != nil {
		return nil, err
	}
	seen := map[module.Version]bool{}
	var out []Module
	var missing []string
	for _, r := range f.Require {
		v := replaced(f, r.Mod)
		if v.Version == "" || seen[v] {
			continue
		}
		seen[v] = true
		m := Module{v.Path, v.Version, sums[v], sums[module.Version{Path: v.Path, Version: v.Version + "/go.mod"}]}
		if m.Sum == "" && m.GoModSum == "" {
			missing = append(missing, v.String())
		}
		out = append(out, m)
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("go.sum has no sum for %s: run `go mod tidy`", strings.Join(missing, ", "))
	}
	slices.SortFunc(out, func(a, b Module) int { return strings.Compare(a.String(), b.String()) })
	return out, nil
}

// language cuts "1.26.8" and "1.21rc1" down to major.minor.
func language(v string) string {
	parts := strings.SplitN(v, ".", 3)
	if len(parts) < 2 {
		return v
	}
	minor := parts[1]
	if i := strings.IndexFunc(minor, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		minor = minor[:i]
	}
	return parts[0] + "." + minor
}

func replaced(f *modfile.File, v module.Version) module.Version {
	out := v
	for _, r := range f.Replace {
		if r.Old.Path != v.Path {
			continue
		}
		if r.Old.Version == v.Version { // more specific than one without version
			return r.New
		}
		if r.Old.Version == "" {
			out = r.New
		}
	}
	return out
}

// parseSums reads go.sum: "path version hash" or "path version/go.mod hash".
func parseSums(b []byte) (map[module.Version]string, error) {
	sums := map[module.Version]string{}
	n := 0
	for line := range bytes.Lines(b) {
		n++
		f := strings.Fields(string(line))
		if len(f) == 0 {
			continue
		}
		if len(f) != 3 {
			return nil, fmt.Errorf("go.sum:%d: want three fields", n)
		}
		if !strings.HasPrefix(f[2], "h1:") {
			continue // a hash of a later kind, beside h1
		}
		v := module.Version{Path: f[0], Version: f[1]}
		if old, dup := sums[v]; dup && old != f[2] {
			return nil, fmt.Errorf("go.sum:%d: %s has two different sums", n, v)
		}
		sums[v] = f[2]
	}
	return sums, nil
}
