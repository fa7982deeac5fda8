package exec

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"tool/core/language/action"
	"tool/core/model/digest"
	"tool/core/model/merkle"
	"tool/core/storage/store"
)

// plan is an action whose inputs are known: all that its key is made of.
type plan struct {
	id      int
	a       *action.Action
	key     digest.Digest
	command command
	params  string       // a builtin's
	inputs  []NamedInput // sorted by path
	spilled []paramFile
	root    digest.Digest // zero for none
	objects []*object     // what is visible at /tool/store, each after what it needs

	byPath map[string]int // index into inputs
}

// paramFile is a part of a command line that was moved to a file.
type paramFile struct {
	path    string
	content []byte
	digest  digest.Digest
}

// needError says that bytes must be there before a key can be computed.
type needError struct{ artifact int }

func (e *needError) Error() string { return "bytes of an input are needed" }

// plan computes an action's key. It needs no bytes of inputs, except for the
// directories of a tree whose files are listed in the arguments.
func (b *build) plan(id int) (*plan, error) {
	a := b.g.Actions[id]
	p := &plan{id: id, a: a, inputs: make([]NamedInput, 0, len(a.Inputs))}
	var carried []store.Ref
	for _, in := range a.Inputs {
		v, err := b.input(in)
		if err != nil {
			return nil, err
		}
		p.inputs = append(p.inputs, NamedInput{b.g.Artifacts[in], v.Node, v.Refs})
		carried = append(carried, v.Refs...)
	}
	slices.SortFunc(p.inputs, func(x, y NamedInput) int { return strings.Compare(x.Artifact.Path, y.Artifact.Path) })
	p.byPath = make(map[string]int, len(p.inputs))
	for i := range p.inputs {
		p.byPath[p.inputs[i].Artifact.Path] = i
	}
	var root *merkle.Directory
	if a.Root >= 0 && a.Builtin == "" {
		v, err := b.input(a.Root)
		if err != nil {
			return nil, err
		}
		if v.Node.Kind != merkle.Dir {
			return nil, fmt.Errorf("its root %s is a %s", b.g.Artifacts[a.Root].Path, v.Node.Kind)
		}
		p.root = v.Node.Digest
		if root, err = b.directory(p.root); err != nil {
			return nil, b.lacking(err, a.Root)
		}
		carried = append(carried, v.Refs...)
	}
	named, err := p.expand(b)
	if err != nil {
		return nil, err
	}
	if p.objects, err = b.objects.closure(append(carried, named...)); err != nil {
		return nil, err
	}
	for _, out := range a.Outputs {
		art := b.g.Artifacts[out]
		p.command.outputs = append(p.command.outputs, art.Path)
		if art.Kind == action.Tree {
			p.command.trees = append(p.command.trees, art.Path)
		}
		if !art.Fixed.IsZero() {
			p.command.pins = append(p.command.pins, art.Path+" "+art.Fixed.String())
		}
	}
	p.command.tmpfs = a.Tmpfs
	tree, err := p.tree(root)
	if err != nil {
		return nil, err
	}
	p.key = actionKey(digest.Of(p.command.encode()), tree, a.Timeout)
	return p, nil
}

// input returns the content of an input artifact.
func (b *build) input(id int) (Realised, error) {
	a := b.g.Artifacts[id]
	if a.Producer < 0 && a.Fixed.IsZero() {
		n, err := b.source(id)
		return Realised{Node: n}, err
	}
	return b.values[id], nil
}

// lacking turns the error of reading an input's tree into a needError if its
// bytes are just not there.
func (b *build) lacking(err error, artifact int) error {
	if errors.Is(err, os.ErrNotExist) && b.g.Artifacts[artifact].Producer >= 0 {
		return &needError{artifact}
	}
	return err
}

// tree returns the digest of the whole root that the command will see.
func (p *plan) tree(root *merkle.Directory) (digest.Digest, error) {
	var t merkle.Builder
	build, err := t.Mkdir("build")
	if err != nil {
		return digest.Digest{}, err
	}
	for _, in := range p.inputs {
		if err := build.Add(in.Artifact.Path, in.Node); err != nil {
			return digest.Digest{}, fmt.Errorf("inputs: %w", err)
		}
	}
	for _, f := range p.spilled {
		if err := build.Add(f.path, merkle.Node{Kind: merkle.File, Digest: f.digest}); err != nil {
			return digest.Digest{}, fmt.Errorf("inputs: %w", err)
		}
	}
	for _, o := range p.objects {
		if err := t.Add(action.StorePrefix[1:]+string(o.ref), o.node); err != nil {
			return digest.Digest{}, fmt.Errorf("objects: %w", err)
		}
	}
	if root != nil {
		err := root.Entries(func(name string, n merkle.Node) error {
			switch name {
			case "build", "tool", "proc", "dev", "tmp":
				return nil // the sandbox's own
			}
			return t.Add(name, n)
		})
		if err != nil {
			return digest.Digest{}, fmt.Errorf("root: %w", err)
		}
	}
	return t.Write(hashOnly{})
}

// subst replaces placeholders by store paths, and remembers the objects.
type subst struct {
	p     *plan
	b     *build
	named []store.Ref
}

const placeholder = action.StorePrefix + "@{"

func (s *subst) replace(text string) (string, error) {
	i := strings.Index(text, placeholder)
	if i < 0 {
		return text, nil
	}
	var out strings.Builder
	for ; i >= 0; i = strings.Index(text, placeholder) {
		out.WriteString(text[:i])
		name, rest, ok := strings.Cut(text[i+len(placeholder):], "}")
		if !ok {
			return "", fmt.Errorf("placeholder without an end: %.200q", text[i:])
		}
		ref, err := s.object(name)
		if err != nil {
			return "", err
		}
		out.WriteString(action.StorePrefix)
		out.WriteString(string(ref))
		text = rest
	}
	out.WriteString(text)
	return out.String(), nil
}

func (s *subst) object(name string) (store.Ref, error) {
	i, ok := s.p.byPath[name]
	if !ok {
		return "", fmt.Errorf("a placeholder names %s, which is not among the action's inputs", name)
	}
	in := s.p.inputs[i]
	ob, err := s.b.objects.add(path.Base(name), in.Artifact.Owner, in.Artifact.ID, Realised{in.Node, in.Refs})
	if err != nil {
		return "", fmt.Errorf("store object of %s: %w", name, err)
	}
	s.named = append(s.named, ob.ref)
	return ob.ref, nil
}

// expand fills in the command line, environment and parameters. It returns the
// objects that placeholders name.
func (p *plan) expand(b *build) ([]store.Ref, error) {
	s := &subst{p: p, b: b}
	if p.a.Builtin != "" {
		var err error
		if p.params, err = s.replace(p.a.Params); err != nil {
			return nil, err
		}
		p.command.argv = []string{"builtin:" + p.a.Builtin, p.params}
		return s.named, nil
	}
	for _, kv := range p.a.Env {
		kv, err := s.replace(kv)
		if err != nil {
			return nil, err
		}
		if k, _, ok := strings.Cut(kv, "="); !ok || k == "" || strings.Contains(kv, "\x00") {
			return nil, fmt.Errorf("environment entry %q is not KEY=VALUE", kv)
		}
		p.command.env = append(p.command.env, kv)
	}
	var err error
	p.command.argv, err = s.commandLine(p.a.Args)
	if err == nil && (len(p.command.argv) == 0 || p.command.argv[0] == "") {
		err = errors.New("its command line is empty")
	}
	return s.named, err
}
