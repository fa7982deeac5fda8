package exec

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"tool/core/model/merkle"
	"tool/core/storage/store"
)

// write makes a file of the content in its parameters.
//
//	{"content": "…", "executable": false}
func write(_ context.Context, c *BuiltinCall) ([]merkle.Node, error) {
	var p struct {
		Content    string `json:"content"`
		Executable bool   `json:"executable"`
	}
	if err := c.decode(&p); err != nil {
		return nil, err
	}
	d, err := c.CAS.PutBytes([]byte(p.Content))
	return []merkle.Node{{Kind: merkle.File, Digest: d, Executable: p.Executable}}, err
}

// symlink makes a symbolic link.
//
//	{"target": "…"}
func symlink(_ context.Context, c *BuiltinCall) ([]merkle.Node, error) {
	var p struct {
		Target string `json:"target"`
	}
	if err := c.decode(&p); err != nil {
		return nil, err
	}
	if p.Target == "" || len(p.Target) > merkle.MaxTargetLen || strings.Contains(p.Target, "\x00") {
		return nil, fmt.Errorf("bad target %.100q of a symbolic link", p.Target)
	}
	return []merkle.Node{{Kind: merkle.Symlink, Target: p.Target}}, nil
}

// maxTemplate bounds a template in bytes.
const maxTemplate = 16 << 20

// template copies a file with strings replaced. At each place the longest key
// that fits is replaced; what was put in is not looked at again. Template is
// the exec path of the file among the inputs; the others are those whose store
// paths the substitutions hold. It may be left out where there is one input.
//
//	{"template": "path/of/input", "substitutions": {"from": "to", …}, "executable": false}
func template(_ context.Context, c *BuiltinCall) ([]merkle.Node, error) {
	var p struct {
		Template      string            `json:"template"`
		Substitutions map[string]string `json:"substitutions"`
		Executable    bool              `json:"executable"`
	}
	if err := c.decode(&p); err != nil {
		return nil, err
	}
	in, err := c.input(p.Template)
	if err != nil {
		return nil, err
	}
	if in.Node.Kind != merkle.File {
		return nil, fmt.Errorf("the template %s is a %s", in.Artifact.Path, in.Node.Kind)
	}
	text, err := c.CAS.ReadAll(in.Node.Digest, maxTemplate)
	if err != nil {
		return nil, err
	}
	var keys []string
	for k := range p.Substitutions {
		if k == "" {
			return nil, errors.New("a template cannot replace the empty string")
		}
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		if len(a) != len(b) {
			return len(b) - len(a)
		}
		return strings.Compare(a, b)
	})
	var pairs []string
	for _, k := range keys {
		pairs = append(pairs, k, p.Substitutions[k])
	}
	d, err := c.CAS.PutBytes([]byte(strings.NewReplacer(pairs...).Replace(string(text))))
	return []merkle.Node{{Kind: merkle.File, Digest: d, Executable: p.Executable}}, err
}

// copyPart takes a file or directory out of its input; no bytes are moved.
//
//	{"from": "path/in/input"}   "" for the input itself
func copyPart(_ context.Context, c *BuiltinCall) ([]merkle.Node, error) {
	var p struct {
		From string `json:"from"`
	}
	if err := c.decode(&p); err != nil {
		return nil, err
	}
	in, err := c.only()
	if err != nil {
		return nil, err
	}
	if p.From == "" || p.From == "." {
		c.Refs = [][]store.Ref{in.Refs}
		return []merkle.Node{in.Node}, nil
	}
	if in.Node.Kind != merkle.Dir {
		return nil, fmt.Errorf("%s is a %s, it holds no %s", in.Artifact.Path, in.Node.Kind, p.From)
	}
	n, ok, err := merkle.Find(c.CAS, in.Node.Digest, p.From)
	if err == nil && !ok {
		err = fmt.Errorf("%s (%s) holds no %s", in.Artifact.Path, in.Artifact.Owner, p.From)
	}
	return []merkle.Node{n}, err
}
