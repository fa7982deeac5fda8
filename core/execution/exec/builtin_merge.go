package exec

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"tool/core/model/digest"
	"tool/core/model/merkle"
	"tool/core/storage/store"
)

// mergeParams are the parameters of merge@1.
type mergeParams struct {
	Mounts []struct {
		Input string `json:"input"` // exec path of an input
		At    string `json:"at"`    // where it is put; "" for the root
	} `json:"mounts"` // empty: every input tree at the root
	Files []struct {
		Path       string `json:"path"`
		Content    string `json:"content"`
		Executable bool   `json:"executable"`
		Mode       string `json:"mode"`  // octal; "" for the default
		Owner      string `json:"owner"` // "uid:gid"
	} `json:"files"`
	Symlinks []struct {
		Path   string `json:"path"`
		Target string `json:"target"`
	} `json:"symlinks"`
	Dirs []struct {
		Path  string `json:"path"`
		Mode  string `json:"mode"`
		Owner string `json:"owner"`
	} `json:"dirs"`
	Modes []struct { // changes what the union holds at Path
		Path  string `json:"path"`
		Mode  string `json:"mode"`
		Owner string `json:"owner"`
	} `json:"modes"`
}

// merge makes the union of trees and files. Two different things at one path
// are an error that names where both come from.
func merge(ctx context.Context, c *BuiltinCall) ([]merkle.Node, error) {
	var p mergeParams
	if err := c.decode(&p); err != nil {
		return nil, err
	}
	mounts, refs, err := p.mounts(c)
	if err != nil {
		return nil, err
	}
	own, err := p.own(c)
	if err != nil {
		return nil, err
	}
	if own != nil {
		found, err := c.Store.Scan(ctx, merkle.Node{Kind: merkle.Dir, Digest: *own}, c.Visible)
		if err != nil {
			return nil, err
		}
		refs = append(refs, found...)
		name := "the rule itself"
		if len(c.Outputs) > 0 {
			name = c.Outputs[0].Owner
		}
		mounts = append(mounts, merkle.Mount{Name: name, Tree: *own})
	}
	root, err := merkle.Merge(c.CAS, mounts)
	if err != nil {
		return nil, err
	}
	for _, m := range p.Modes {
		props, err := parseProps(m.Mode, m.Owner)
		if err != nil {
			return nil, fmt.Errorf("mode of %s: %w", m.Path, err)
		}
		if root, err = setProps(c.CAS, root, m.Path, props); err != nil {
			return nil, fmt.Errorf("mode of %s: %w", m.Path, err)
		}
	}
	// A union needs what its parts need: no gigabyte is read to find that out.
	slices.Sort(refs)
	c.Refs = [][]store.Ref{slices.Compact(refs)}
	return []merkle.Node{{Kind: merkle.Dir, Digest: root}}, nil
}

// mounts returns what is merged, and what that refers to.
func (p *mergeParams) mounts(c *BuiltinCall) (mounts []merkle.Mount, refs []store.Ref, err error) {
	add := func(in NamedInput, at string) error {
		t, err := merkle.At(c.CAS, at, in.Node)
		if err != nil {
			return fmt.Errorf("%s (%s) at %q: %w", in.Artifact.Path, in.Artifact.Owner, at, err)
		}
		name := in.Artifact.Owner
		if name == "" {
			name = in.Artifact.Path
		}
		mounts = append(mounts, merkle.Mount{Name: name, Tree: t})
		refs = append(refs, in.Refs...)
		return nil
	}
	if len(p.Mounts) == 0 {
		for _, in := range c.Inputs {
			if err := add(in, ""); err != nil {
				return nil, nil, err
			}
		}
		return mounts, refs, nil
	}
	byPath := map[string]NamedInput{}
	for _, in := range c.Inputs {
		byPath[in.Artifact.Path] = in
	}
	for _, m := range p.Mounts {
		in, ok := byPath[m.Input]
		if !ok {
			return nil, nil, fmt.Errorf("merge: %s is not among the inputs", m.Input)
		}
		if err := add(in, m.At); err != nil {
			return nil, nil, err
		}
	}
	return mounts, refs, nil
}

// own makes the tree of what the parameters themselves hold; nil for nothing.
func (p *mergeParams) own(c *BuiltinCall) (*digest.Digest, error) {
	if len(p.Files)+len(p.Symlinks)+len(p.Dirs) == 0 {
		return nil, nil
	}
	var t merkle.Builder
	for _, d := range p.Dirs {
		b, err := t.Mkdir(d.Path)
		if err != nil {
			return nil, err
		}
		if b.Props, err = parseProps(d.Mode, d.Owner); err != nil {
			return nil, fmt.Errorf("directory %s: %w", d.Path, err)
		}
	}
	for _, f := range p.Files {
		props, err := parseProps(f.Mode, f.Owner)
		if err != nil {
			return nil, fmt.Errorf("file %s: %w", f.Path, err)
		}
		d, err := c.CAS.PutBytes([]byte(f.Content))
		if err != nil {
			return nil, err
		}
		if err := t.Add(f.Path, merkle.Node{Kind: merkle.File, Digest: d, Executable: f.Executable, Props: props}); err != nil {
			return nil, err
		}
	}
	for _, s := range p.Symlinks {
		if err := t.Add(s.Path, merkle.Node{Kind: merkle.Symlink, Target: s.Target}); err != nil {
			return nil, err
		}
	}
	d, err := t.Write(c.CAS)
	return &d, err
}

func parseProps(mode, owner string) (merkle.Props, error) {
	p := merkle.Props{Owner: owner}
	if mode != "" {
		m, err := strconv.ParseUint(mode, 8, 12)
		if err != nil {
			return p, fmt.Errorf("mode %q is not octal, or too large", mode)
		}
		p.Mode = uint32(m)
	}
	if owner == "0:0" {
		p.Owner = "" // the default has one form only
	}
	return p, (&merkle.Directory{Props: p}).Validate()
}

// setProps returns the tree with the properties at path p replaced.
func setProps(gp merkle.GetPutter, root digest.Digest, p string, props merkle.Props) (digest.Digest, error) {
	d, err := gp.GetDirectory(root)
	if err != nil {
		return root, err
	}
	if p == "" || p == "." {
		d2 := *d
		d2.Props = props
		return gp.PutDirectory(&d2)
	}
	name, rest, more := strings.Cut(p, "/")
	d2 := merkle.Directory{
		Files:       append([]merkle.FileNode(nil), d.Files...),
		Directories: append([]merkle.DirectoryNode(nil), d.Directories...),
		Symlinks:    d.Symlinks, Props: d.Props,
	}
	for i := range d2.Directories {
		if d2.Directories[i].Name == name {
			sub, err := setProps(gp, d2.Directories[i].Digest, rest, props)
			if err != nil {
				return root, err
			}
			d2.Directories[i].Digest = sub
			return gp.PutDirectory(&d2)
		}
	}
	for i := range d2.Files {
		if d2.Files[i].Name == name && !more {
			d2.Files[i].Props = props
			return gp.PutDirectory(&d2)
		}
	}
	return root, fmt.Errorf("there is no file or directory %s", p)
}
