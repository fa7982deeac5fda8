package loader

import (
	"fmt"
	"io/fs"
	"os"
	"path"
	"sort"
	"strings"

	"go.starlark.net/starlark"

	"tool/core/language/workspace"
)

func nativeGlob(ev *eval, thread *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var include, exclude starlark.Iterable
	excludeDirs := starlark.Value(starlark.MakeInt(1))
	allowEmpty := false
	if err := starlark.UnpackArgs("glob", args, kwargs, "include?", &include, "exclude?", &exclude, "exclude_directories?", &excludeDirs, "allow_empty?", &allowEmpty); err != nil {
		return nil, err
	}
	inc, err := globPatterns(include)
	if err != nil {
		return nil, err
	}
	exc, err := globPatterns(exclude)
	if err != nil {
		return nil, err
	}
	names, err := ev.loader.Glob(ev.pkg, inc, exc, !bool(excludeDirs.Truth()))
	if err != nil {
		return nil, fmt.Errorf("glob: %w", err)
	}
	if len(names) == 0 && !allowEmpty {
		return nil, fmt.Errorf("glob: nothing matches %q; if that is fine, say allow_empty = True", inc)
	}
	out := make([]starlark.Value, len(names))
	for i, n := range names {
		out[i] = starlark.String(n)
	}
	return starlark.NewList(out), nil
}

func globPatterns(it starlark.Iterable) ([]string, error) {
	if it == nil {
		return nil, nil
	}
	ps, err := stringList("glob", it)
	if err != nil {
		return nil, err
	}
	for _, p := range ps {
		if p == "" || strings.HasPrefix(p, "/") || strings.HasSuffix(p, "/") {
			return nil, fmt.Errorf("glob: invalid pattern %q: it may not be empty nor start or end with /", p)
		}
		for seg := range strings.SplitSeq(p, "/") {
			switch {
			case seg == "" || seg == "." || seg == "..":
				return nil, fmt.Errorf("glob: invalid pattern %q: the segment %q", p, seg)
			case strings.Contains(seg, "**") && seg != "**":
				return nil, fmt.Errorf("glob: invalid pattern %q: ** must be a whole segment", p)
			case strings.Contains(seg, "?"):
				return nil, fmt.Errorf("glob: invalid pattern %q: ? is not a wildcard", p)
			}
		}
	}
	return ps, nil
}

// Glob lists the source files of the package that match an include pattern
// and no exclude pattern, sorted. It does not descend into other packages.
func (l *Loader) Glob(p *Package, include, exclude []string, dirs bool) ([]string, error) {
	found := map[string]bool{}
	incs, excs := splitAll(include), splitAll(exclude)
	for _, segs := range incs {
		if err := l.globWalk(p, "", segs, dirs, found); err != nil {
			return nil, err
		}
	}
	out := make([]string, 0, len(found))
	for n := range found {
		parts := strings.Split(n, "/")
		dropped := false
		for _, ex := range excs {
			dropped = dropped || matchSegments(ex, parts)
		}
		if t := p.Targets[n]; !dropped && (t == nil || t.Kind == SourceFile) && n != workspace.BuildFile {
			out = append(out, n)
		}
	}
	sort.Strings(out)
	return out, nil
}

func splitAll(ps []string) [][]string {
	out := make([][]string, len(ps))
	for i, p := range ps {
		out[i] = strings.Split(p, "/")
	}
	return out
}

// globWalk matches segs below the folder dir (relative to the package).
func (l *Loader) globWalk(p *Package, dir string, segs []string, dirs bool, found map[string]bool) error {
	rest := segs[1:]
	if segs[0] == "**" {
		if len(rest) > 0 { // zero folders
			if err := l.globWalk(p, dir, rest, dirs, found); err != nil {
				return err
			}
		}
	} else if !strings.Contains(segs[0], "*") { // a plain name needs no listing
		name := path.Join(dir, segs[0])
		file := path.Join(p.Dir, name)
		if len(rest) == 0 {
			if fp := l.note(p, file); fp.Mode.IsRegular() && fp.Exists() || dirs && fp.Mode.IsDir() && !l.isPackage(p, file) {
				found[name] = true
			}
			return nil
		}
		if l.note(p, file).Mode.IsDir() && !l.isPackage(p, file) {
			return l.globWalk(p, name, rest, dirs, found)
		}
		return nil
	}
	es, err := l.list(p, path.Join(p.Dir, dir))
	if err != nil {
		return nil // an absent folder matches nothing; the listing was recorded
	}
	for _, e := range es {
		name := path.Join(dir, e.Name())
		file := path.Join(p.Dir, name)
		isDir := e.IsDir()
		if e.Type()&fs.ModeSymlink != 0 {
			fp := l.note(p, file)
			isDir = fp.Mode.IsDir()
			if !fp.Exists() || isDir && l.surrounds(p, file) {
				continue // it leads nowhere, or round in a circle
			}
		}
		if isDir && (e.Name() == workspace.StateDir || l.isPackage(p, file)) {
			continue
		}
		if segs[0] == "**" {
			if isDir {
				if dirs && len(rest) == 0 {
					found[name] = true
				}
				if err := l.globWalk(p, name, segs, dirs, found); err != nil {
					return err
				}
			} else if len(rest) == 0 {
				found[name] = true
			}
			continue
		}
		if !matchSegment(segs[0], e.Name()) {
			continue
		}
		switch {
		case len(rest) == 0 && (!isDir || dirs):
			found[name] = true
		case len(rest) > 0 && isDir:
			if err := l.globWalk(p, name, rest, dirs, found); err != nil {
				return err
			}
		}
	}
	return nil
}

// surrounds reports whether a symlink leads to a folder that it is in.
func (l *Loader) surrounds(p *Package, link string) bool {
	if p.Label.Repo != "" {
		return false // an embedded file system has no links
	}
	to, err := os.Stat(l.Workspace.Abs(link))
	if err != nil {
		return true
	}
	for d := path.Dir(link); ; d = path.Dir(d) {
		if fi, err := os.Stat(l.Workspace.Abs(d)); err != nil || os.SameFile(fi, to) {
			return true
		}
		if d == "." {
			return false
		}
	}
}

func (l *Loader) note(p *Package, file string) workspace.Fingerprint {
	if p.Label.Repo == "" {
		return l.Workspace.Record.Note(file)
	}
	fi, err := fs.Stat(l.Rules, file)
	if err != nil {
		return workspace.Fingerprint{}
	}
	return workspace.Fingerprint{Mode: fi.Mode(), Ctime: 1}
}

func (l *Loader) list(p *Package, dir string) ([]fs.DirEntry, error) {
	if p.Label.Repo == "" {
		return l.Workspace.List(dir)
	}
	return fs.ReadDir(l.Rules, dir)
}

func (l *Loader) isPackage(p *Package, dir string) bool {
	if p.Label.Repo == "" {
		return l.Workspace.IsFile(path.Join(dir, workspace.BuildFile))
	}
	_, err := fs.Stat(l.Rules, path.Join(dir, workspace.BuildFile))
	return err == nil
}

// matchSegments matches a whole split path.
func matchSegments(pat, parts []string) bool {
	if len(pat) == 0 {
		return len(parts) == 0
	}
	if pat[0] == "**" {
		for i := 0; i <= len(parts); i++ {
			if matchSegments(pat[1:], parts[i:]) {
				return len(pat) > 1 || len(parts) > 0
			}
		}
		return false
	}
	return len(parts) > 0 && matchSegment(pat[0], parts[0]) && matchSegments(pat[1:], parts[1:])
}

// matchSegment matches one name; * stands for any run of characters, but a
// leading dot is matched by * only when that is the whole segment.
func matchSegment(pat, name string) bool {
	if strings.HasPrefix(name, ".") && strings.HasPrefix(pat, "*") && pat != "*" {
		return false
	}
	return wild(pat, name)
}

// wild goes back only to the last *, so its time is bounded by the product of
// the lengths.
func wild(pat, s string) bool {
	star, mark := -1, 0
	p, i := 0, 0
	for i < len(s) {
		switch {
		case p < len(pat) && pat[p] == '*':
			star, mark = p, i
			p++
		case p < len(pat) && pat[p] == s[i]:
			p++
			i++
		case star >= 0:
			mark++
			p, i = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pat[p:], "*") == ""
}

func nativeSubpackages(ev *eval, _ *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var include, exclude starlark.Iterable
	allowEmpty := false
	if err := starlark.UnpackArgs("subpackages", args, kwargs, "include", &include, "exclude?", &exclude, "allow_empty?", &allowEmpty); err != nil {
		return nil, err
	}
	inc, err := globPatterns(include)
	if err != nil {
		return nil, err
	}
	exc, err := globPatterns(exclude)
	if err != nil {
		return nil, err
	}
	all, err := ev.loader.Workspace.Packages(ev.pkg.Label.Pkg)
	if err != nil {
		return nil, err
	}
	var direct []starlark.Value
	found := map[string]bool{}
	for _, pkg := range all {
		rel := strings.TrimPrefix(strings.TrimPrefix(pkg, ev.pkg.Label.Pkg), "/")
		if rel == "" || below(rel, found) {
			continue
		}
		found[rel] = true
		parts := strings.Split(rel, "/")
		ok := false
		for _, p := range splitAll(inc) {
			ok = ok || matchSegments(p, parts)
		}
		for _, p := range splitAll(exc) {
			ok = ok && !matchSegments(p, parts)
		}
		if ok {
			direct = append(direct, starlark.String(rel))
		}
	}
	if len(direct) == 0 && !allowEmpty {
		return nil, fmt.Errorf("subpackages: nothing matches %q; if that is fine, say allow_empty = True", inc)
	}
	return starlark.NewList(direct), nil
}

// below reports whether one of the folders above dir is in found.
func below(dir string, found map[string]bool) bool {
	for d := path.Dir(dir); d != "."; d = path.Dir(d) {
		if found[d] {
			return true
		}
	}
	return false
}
