package analysis

import (
	"fmt"
	"strings"

	"go.starlark.net/starlark"

	"tool/core/language/action"
	"tool/core/model/label"
)

// expandLocation replaces $(location //x), $(locations …), $(execpath …),
// $(rootpath …) and their plurals.
func (c *ruleContext) expandLocation(_ *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var input string
	var targets starlark.Iterable
	if err := starlark.UnpackArgs("expand_location", args, kwargs, "input", &input, "targets?", &targets); err != nil {
		return nil, err
	}
	known := map[label.Label]*Target{}
	for l, t := range c.deps {
		known[l] = t
	}
	if targets != nil {
		it := targets.Iterate()
		defer it.Done()
		var v starlark.Value
		for it.Next(&v) {
			if t, ok := v.(*Target); ok {
				known[t.Label] = t
			}
		}
	}
	var out strings.Builder
	for rest := input; ; {
		i := strings.IndexByte(rest, '$')
		if i < 0 || i == len(rest)-1 {
			out.WriteString(rest)
			return starlark.String(out.String()), nil
		}
		out.WriteString(rest[:i])
		rest = rest[i:]
		if rest[1] != '(' { // $@, or $$ for the shell's own $, whose ( is none of ours
			out.WriteString(rest[:2])
			rest = rest[2:]
			continue
		}
		fn, arg, ok := strings.Cut(rest[2:], " ")
		single := strings.TrimSuffix(fn, "s")
		if !ok || single != "location" && single != "execpath" && single != "rootpath" && single != "storepath" {
			out.WriteString("$(")
			rest = rest[2:]
			continue
		}
		arg, after, ok := strings.Cut(arg, ")")
		if !ok {
			return nil, fmt.Errorf("expand_location: unclosed $(%s in %q", fn, input)
		}
		s, err := c.location(known, single, fn != single, strings.TrimSpace(arg))
		if err != nil {
			return nil, err
		}
		out.WriteString(s)
		rest = after
	}
}

func (c *ruleContext) location(known map[label.Label]*Target, fn string, many bool, arg string) (string, error) {
	l, err := label.Parse(arg, c.loaded.Label)
	if err != nil {
		return "", err
	}
	var fs []*File
	if t := known[l]; t != nil {
		fs = t.Files()
		if t.executable != nil && !many {
			fs = []*File{t.executable}
		}
	} else if f := c.analyzer.files[pathOf(l, true)]; f != nil && f.owner == c.loaded.Label {
		fs = []*File{f}
	} else {
		return "", fmt.Errorf("$(%s %s): %s is not among the attributes of %s", fn, arg, l, c.loaded.Label)
	}
	if !many && len(fs) != 1 {
		return "", fmt.Errorf("$(%s %s): %s has %d files; use $(%ss …)", fn, arg, l, len(fs), fn)
	}
	var paths []string
	for _, f := range fs {
		p := f.Artifact.Path
		switch fn {
		case "rootpath":
			p = strings.TrimPrefix(p, action.OutPrefix)
		case "storepath":
			p = f.Artifact.Placeholder()
		}
		paths = append(paths, p)
	}
	return strings.Join(paths, " "), nil
}
