package merkle

import (
	"fmt"
	"path"
	"sort"
	"strings"

	"tool/core/model/digest"
)

// Getter reads directories; cas.Store's trees implement it.
type Getter interface {
	GetDirectory(digest.Digest) (*Directory, error)
}

// Putter keeps directories and returns their digests.
type Putter interface {
	PutDirectory(*Directory) (digest.Digest, error)
}

// GetPutter is both.
type GetPutter interface {
	Getter
	Putter
}

// Node is anything a tree may hold under a name. Exactly one of its forms is
// used, told by Kind.
type Node struct {
	Kind       Kind
	Digest     digest.Digest // File, Dir
	Executable bool          // File
	Target     string        // Symlink
	Props      Props         // File
}

// Kind tells the forms of a Node apart.
type Kind uint8

// The kinds of nodes.
const (
	File Kind = iota + 1
	Dir
	Symlink
)

func (k Kind) String() string {
	switch k {
	case File:
		return "file"
	case Dir:
		return "directory"
	case Symlink:
		return "symlink"
	}
	return "nothing"
}

// Builder collects nodes by path and writes the tree they form. The zero
// Builder is empty and ready. A path may be set once; a directory digest may
// be placed where no explicit child is placed below it.
type Builder struct {
	nodes    map[string]Node
	children map[string]*Builder
	Props    Props
}

// Add places n at the slash-separated relative path p. Names are checked: an
// absolute path, "..", or a name twice is an error.
func (b *Builder) Add(p string, n Node) error {
	dir, name, err := b.parent(p)
	if err != nil {
		return err
	}
	if n.Kind != File && n.Kind != Dir && n.Kind != Symlink {
		return fmt.Errorf("path %q: a node of kind %d cannot be placed", p, n.Kind)
	}
	if old, dup := dir.nodes[name]; dup {
		return fmt.Errorf("%s: there is a %s already", p, old.Kind)
	}
	if _, dup := dir.children[name]; dup {
		return fmt.Errorf("%s: there is a directory already", p)
	}
	if dir.nodes == nil {
		dir.nodes = map[string]Node{}
	}
	dir.nodes[name] = n
	return nil
}

// Mkdir makes an (empty) directory at p and its parents; one that exists stays.
func (b *Builder) Mkdir(p string) (*Builder, error) {
	if p == "" || p == "." {
		return b, nil
	}
	dir, name, err := b.parent(p)
	if err != nil {
		return nil, err
	}
	return dir.child(p, name)
}

func (b *Builder) parent(p string) (*Builder, string, error) {
	dir := b
	rest := p
	for {
		name, tail, more := strings.Cut(rest, "/")
		if err := CheckName(name); err != nil {
			return nil, "", fmt.Errorf("path %q: %w", p, err)
		}
		if !more {
			return dir, name, nil
		}
		next, err := dir.child(p, name)
		if err != nil {
			return nil, "", err
		}
		dir, rest = next, tail
	}
}

func (b *Builder) child(p, name string) (*Builder, error) {
	if c := b.children[name]; c != nil {
		return c, nil
	}
	if old, dup := b.nodes[name]; dup {
		return nil, fmt.Errorf("path %q: %s is a %s already, not a directory to fill", p, name, old.Kind)
	}
	if b.children == nil {
		b.children = map[string]*Builder{}
	}
	c := &Builder{}
	b.children[name] = c
	return c, nil
}

// Write puts the directories into to, leaves first, and returns the root.
func (b *Builder) Write(to Putter) (digest.Digest, error) {
	d := &Directory{Props: b.Props}
	for name, c := range b.children {
		sub, err := c.Write(to)
		if err != nil {
			return digest.Digest{}, err
		}
		d.Directories = append(d.Directories, DirectoryNode{name, sub})
	}
	for name, n := range b.nodes {
		d.add(name, n)
	}
	d.Sort()
	return to.PutDirectory(d)
}

func (d *Directory) add(name string, n Node) {
	switch n.Kind {
	case File:
		d.Files = append(d.Files, FileNode{name, n.Digest, n.Executable, n.Props})
	case Dir:
		d.Directories = append(d.Directories, DirectoryNode{name, n.Digest})
	case Symlink:
		d.Symlinks = append(d.Symlinks, SymlinkNode{name, n.Target})
	}
}

// Lookup finds name in d.
func (d *Directory) Lookup(name string) (Node, bool) {
	if i := sort.Search(len(d.Files), func(i int) bool { return d.Files[i].Name >= name }); i < len(d.Files) && d.Files[i].Name == name {
		f := d.Files[i]
		return Node{Kind: File, Digest: f.Digest, Executable: f.Executable, Props: f.Props}, true
	}
	if i := sort.Search(len(d.Directories), func(i int) bool { return d.Directories[i].Name >= name }); i < len(d.Directories) && d.Directories[i].Name == name {
		return Node{Kind: Dir, Digest: d.Directories[i].Digest}, true
	}
	if i := sort.Search(len(d.Symlinks), func(i int) bool { return d.Symlinks[i].Name >= name }); i < len(d.Symlinks) && d.Symlinks[i].Name == name {
		return Node{Kind: Symlink, Target: d.Symlinks[i].Target}, true
	}
	return Node{}, false
}

// Entries calls f for every entry of d, in name order within each kind.
func (d *Directory) Entries(f func(name string, n Node) error) error {
	for _, n := range d.Directories {
		if err := f(n.Name, Node{Kind: Dir, Digest: n.Digest}); err != nil {
			return err
		}
	}
	for _, n := range d.Files {
		if err := f(n.Name, Node{Kind: File, Digest: n.Digest, Executable: n.Executable, Props: n.Props}); err != nil {
			return err
		}
	}
	for _, n := range d.Symlinks {
		if err := f(n.Name, Node{Kind: Symlink, Target: n.Target}); err != nil {
			return err
		}
	}
	return nil
}

// Walk calls f for every node below root, parents first, with its path. The
// root itself is not visited.
func Walk(g Getter, root digest.Digest, f func(p string, n Node) error) error {
	return walk(g, root, "", f)
}

func walk(g Getter, root digest.Digest, prefix string, f func(string, Node) error) error {
	d, err := g.GetDirectory(root)
	if err != nil {
		return err
	}
	return d.Entries(func(name string, n Node) error {
		p := path.Join(prefix, name)
		if err := f(p, n); err != nil {
			return err
		}
		if n.Kind == Dir {
			return walk(g, n.Digest, p, f)
		}
		return nil
	})
}

// Find returns the node at the relative path p below root. It follows no
// symbolic link.
func Find(g Getter, root digest.Digest, p string) (Node, bool, error) {
	n := Node{Kind: Dir, Digest: root}
	if p == "" || p == "." {
		return n, true, nil
	}
	for name := range strings.SplitSeq(p, "/") {
		if n.Kind != Dir {
			return Node{}, false, nil
		}
		d, err := g.GetDirectory(n.Digest)
		if err != nil {
			return Node{}, false, err
		}
		var ok bool
		if n, ok = d.Lookup(name); !ok {
			return Node{}, false, nil
		}
	}
	return n, true, nil
}
