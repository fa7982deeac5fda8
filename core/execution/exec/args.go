package exec

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"tool/core/language/action"
	"tool/core/model/digest"
	"tool/core/model/merkle"
)

// maxCommandLine is the length in bytes above which arguments are moved to
// parameter files. The kernel takes more, but programs pass arguments on.
const maxCommandLine = 100 << 10

// commandLine expands arguments. Whether parameter files are used depends on
// the expanded length alone, so it is the same on every machine.
func (s *subst) commandLine(args []action.Arg) ([]string, error) {
	words := make([][]string, len(args))
	size := 0
	for i := range args {
		var err error
		if args[i].ParamFile {
			words[i], err = s.expandAll(args[i].Params)
		} else {
			words[i], err = s.expandOne(&args[i])
		}
		if err != nil {
			return nil, err
		}
		for _, w := range words[i] {
			if strings.Contains(w, "\x00") {
				return nil, fmt.Errorf("argument %.100q holds a NUL", w)
			}
			size += len(w) + 1
		}
	}
	var argv []string
	for i := range args {
		if a := &args[i]; a.ParamFile && (a.Always || size > maxCommandLine) {
			p, err := s.spill(words[i], a.Multiline)
			if err != nil {
				return nil, err
			}
			w, err := s.replace(a.Text)
			if err != nil {
				return nil, err
			}
			argv = append(argv, strings.Replace(w, "%s", p, 1))
			continue
		}
		argv = append(argv, words[i]...)
	}
	return argv, nil
}

func (s *subst) expandAll(args []action.Arg) ([]string, error) {
	var words []string
	for i := range args {
		if args[i].ParamFile {
			return nil, errors.New("a parameter file within a parameter file")
		}
		w, err := s.expandOne(&args[i])
		if err != nil {
			return nil, err
		}
		words = append(words, w...)
	}
	return words, nil
}

func (s *subst) expandOne(a *action.Arg) ([]string, error) {
	if !a.Expand {
		w, err := s.replace(a.Text)
		return []string{w}, err
	}
	files, err := s.files(a.Tree)
	if err != nil {
		return nil, err
	}
	format := a.Format
	if format == "" {
		format = "%s"
	}
	if format, err = s.replace(format); err != nil {
		return nil, err
	}
	var words []string
	for _, f := range files {
		w := strings.Replace(format, "%s", f, 1)
		if a.Before != "" {
			words = append(words, a.Before)
		}
		words = append(words, w)
	}
	if a.Joined {
		if len(words) == 0 {
			return nil, nil
		}
		return []string{strings.Join(words, a.Join)}, nil
	}
	return words, nil
}

// files returns the exec paths of what is below a tree artifact, sorted:
// regular files and symbolic links. A file artifact stands for itself.
func (s *subst) files(artifact int) ([]string, error) {
	if artifact < 0 || artifact >= len(s.b.g.Artifacts) {
		return nil, fmt.Errorf("argument: there is no artifact %d", artifact)
	}
	at := s.b.g.Artifacts[artifact].Path
	i, ok := s.p.byPath[at]
	if !ok {
		return nil, fmt.Errorf("an argument lists the files of %s, which is not among the action's inputs", at)
	}
	n := s.p.inputs[i].Node
	if n.Kind != merkle.Dir {
		return []string{at}, nil
	}
	var files []string
	err := merkle.Walk(s.b.cas, n.Digest, func(p string, n merkle.Node) error {
		if n.Kind != merkle.Dir {
			files = append(files, path.Join(at, p))
		}
		return nil
	})
	if err != nil {
		return nil, s.b.lacking(err, artifact)
	}
	slices.Sort(files)
	return files, nil
}

// spill moves words to a parameter file and returns its path. It is named
// after the first output, and so is unique in the sandbox.
func (s *subst) spill(words []string, multiline bool) (string, error) {
	if len(s.p.a.Outputs) == 0 {
		return "", errors.New("an action with a parameter file needs an output")
	}
	var b []byte
	for _, w := range words {
		if multiline {
			if strings.Contains(w, "\n") {
				return "", fmt.Errorf("argument %.100q holds a newline; it cannot be in a parameter file of lines", w)
			}
			b = append(b, w...)
		} else {
			b = append(b, quote(w)...)
		}
		b = append(b, '\n')
	}
	p := s.b.g.Artifacts[s.p.a.Outputs[0]].Path + "-" + strconv.Itoa(len(s.p.spilled)) + ".params"
	s.p.spilled = append(s.p.spilled, paramFile{p, b, digest.Of(b)})
	return p, nil
}
