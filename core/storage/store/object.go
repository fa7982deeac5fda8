package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"tool/core/model/digest"
	"tool/core/model/merkle"
	"tool/core/storage/cas"
)

// Object is a named node with references. Ref and Size are computed by Add.
type Object struct {
	Ref     Ref
	Name    string
	Node    merkle.Node // a File or Dir
	Refs    []Ref       // what it refers to, sorted, not itself
	Deriver string      // label of the target that first made it; not part of its identity
	Size    int64       // bytes of the unique blobs of Node
}

// NotRegisteredError says that the store has no such object.
type NotRegisteredError struct {
	Ref Ref
	Err error // why its metadata cannot be read, where there is some
}

func (e *NotRegisteredError) Error() string {
	if e.Err != nil {
		return fmt.Sprintf("object %s is not usable: %v", e.Ref, e.Err)
	}
	return fmt.Sprintf("object %s is not in the store", e.Ref)
}

// Unwrap returns the reason, where there is one.
func (e *NotRegisteredError) Unwrap() error { return e.Err }

// Is makes errors.Is(err, os.ErrNotExist) true.
func (e *NotRegisteredError) Is(target error) bool { return target == os.ErrNotExist }

const objectVersion = 1

// maxObjectFile bounds what is read of an object's metadata, in bytes. It is
// room for a million references.
const maxObjectFile = 256 << 20

type objectFile struct {
	Version    int           `json:"version"`
	Name       string        `json:"name"`
	Kind       string        `json:"kind"` // merkle.Kind's String
	Digest     digest.Digest `json:"digest"`
	Executable bool          `json:"executable,omitempty"`
	Refs       []Ref         `json:"refs,omitempty"`
	Deriver    string        `json:"deriver,omitempty"`
	Size       int64         `json:"size"`
}

func encodeObject(o *Object) ([]byte, error) {
	b, err := json.Marshal(objectFile{objectVersion, o.Name, o.Node.Kind.String(), o.Node.Digest, o.Node.Executable, o.Refs, o.Deriver, o.Size})
	return append(b, '\n'), err
}

// decodeObject refuses metadata that does not hash to ref, so a file that was
// cut short or changed is never believed.
func decodeObject(ref Ref, b []byte) (*Object, error) {
	var f objectFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("metadata: %w", err)
	}
	if f.Version != objectVersion {
		return nil, fmt.Errorf("metadata has version %d, this program knows %d", f.Version, objectVersion)
	}
	o := &Object{Ref: ref, Name: f.Name, Refs: f.Refs, Deriver: f.Deriver, Size: f.Size}
	o.Node = merkle.Node{Digest: f.Digest, Executable: f.Executable}
	switch f.Kind {
	case merkle.File.String():
		o.Node.Kind = merkle.File
	case merkle.Dir.String():
		o.Node.Kind = merkle.Dir
	default:
		return nil, fmt.Errorf("metadata: kind %q", f.Kind)
	}
	for _, r := range o.Refs {
		if _, err := ParseRef(string(r)); err != nil {
			return nil, fmt.Errorf("metadata: %w", err)
		}
	}
	if MakeRef(o.Name, o.Node, o.Refs) != ref {
		return nil, errors.New("metadata is damaged: it is that of another object")
	}
	return o, nil
}

func (s *Store) objectPath(r Ref) string { return filepath.Join(s.dir, "objects", string(r)) }

// Get returns a registered object, or a *NotRegisteredError.
func (s *Store) Get(r Ref) (*Object, error) {
	if _, err := ParseRef(string(r)); err != nil {
		return nil, err
	}
	b, err := cas.ReadSmall(s.objectPath(r), maxObjectFile)
	if errors.Is(err, os.ErrNotExist) {
		return nil, &NotRegisteredError{Ref: r}
	}
	if err != nil {
		return nil, fmt.Errorf("read object %s: %w", r, err)
	}
	o, err := decodeObject(r, b)
	if err != nil {
		return nil, &NotRegisteredError{Ref: r, Err: err}
	}
	return o, nil
}

// Add registers an object and returns its Ref. Everything in o.Refs must be
// registered and o.Node complete in the cas. Adding an object again renews it,
// as a put renews a blob. Hold a lease, or a root, or a collection may take it.
func (s *Store) Add(ctx context.Context, o Object) (Ref, error) {
	ref, err := s.add(ctx, o, nil)
	if err != nil {
		return "", fmt.Errorf("add object %s: %w", o.Name, err)
	}
	return ref, nil
}

// AddAll is Add for each of several objects, in order, but asks for each blob
// only once: objects of one system share most. It returns what was added, also
// with an error.
func (s *Store) AddAll(ctx context.Context, objects []Object) ([]Ref, error) {
	there := map[digest.Digest]bool{}
	refs := make([]Ref, 0, len(objects))
	for _, o := range objects {
		ref, err := s.add(ctx, o, there)
		if err != nil {
			return refs, fmt.Errorf("add object %s: %w", o.Name, err)
		}
		refs = append(refs, ref)
	}
	return refs, nil
}

// add registers an object. there, which may be nil, holds blobs that are known
// to be there, and gets those that are found.
func (s *Store) add(ctx context.Context, o Object, there map[digest.Digest]bool) (Ref, error) {
	o, err := normal(o)
	if err != nil {
		return "", err
	}
	_, err = s.Get(o.Ref)
	known := err == nil
	if !known {
		u := unique{s: s, ctx: ctx, check: true, there: there}
		if err := u.node(o.Node); err != nil {
			return "", err
		}
		o.Size = u.size
	}
	// A collection must not take a referent between the look and the write.
	unlock, err := s.cas.Shared()
	if err != nil {
		return "", err
	}
	defer unlock()
	if !s.cas.Has(o.Node.Digest) {
		return "", &cas.NotFoundError{Digest: o.Node.Digest}
	}
	for _, r := range o.Refs {
		if _, err := s.Get(r); err != nil {
			return "", fmt.Errorf("it refers to %s: %w", r, err)
		}
	}
	if known { // what came meanwhile is written again: the same
		if _, err := s.Get(o.Ref); err == nil {
			now := time.Now()
			return o.Ref, os.Chtimes(s.objectPath(o.Ref), now, now)
		}
		u := unique{s: s, ctx: ctx, check: true}
		if err := u.node(o.Node); err != nil {
			return "", err
		}
		o.Size = u.size
	}
	b, err := encodeObject(&o)
	if err != nil {
		return "", err
	}
	return o.Ref, s.writeFile(s.objectPath(o.Ref), b, false)
}

// Path returns where the object is once it is realised.
func (s *Store) Path(r Ref) string { return filepath.Join(s.dir, "store", string(r)) }

// Realise makes store/<ref> and returns its path. Files in it share their
// inodes with the blobs: nobody may write to them.
func (s *Store) Realise(ctx context.Context, r Ref) (string, error) {
	o, err := s.Get(r)
	if err != nil {
		return "", err
	}
	for range 3 { // a collection may take the tree between the two steps
		var done bool
		if done, err = s.realise(ctx, o); done || err != nil {
			break
		}
	}
	if err != nil {
		return "", fmt.Errorf("realise %s: %w", r, err)
	}
	return s.Path(r), nil
}

func (s *Store) realise(ctx context.Context, o *Object) (bool, error) {
	target := ""
	if o.Node.Kind == merkle.Dir {
		tree, err := s.cas.Materialise(ctx, o.Node.Digest)
		if err != nil {
			return false, err
		}
		target = filepath.Join("..", "trees", filepath.Base(tree))
	}
	unlock, err := s.cas.Shared()
	if err != nil {
		return false, err
	}
	defer unlock()
	if _, err := s.Get(o.Ref); err != nil {
		return false, err
	}
	if s.checkLink(o) == nil {
		return true, nil
	}
	tmp, err := s.tmpName()
	if err != nil {
		return false, err
	}
	// Renaming a hard link onto another of the same file leaves both.
	defer os.Remove(tmp)
	if target == "" {
		err = s.cas.Link(o.Node.Digest, o.Node.Executable, tmp)
	} else {
		err = os.Symlink(target, tmp)
	}
	if err == nil {
		err = s.cas.Unflushed(func() error { return os.Rename(tmp, s.Path(o.Ref)) })
	}
	if err != nil {
		return false, err
	}
	return s.checkLink(o) == nil, nil
}

// checkLink reports what is wrong with store/<ref>.
func (s *Store) checkLink(o *Object) error {
	path := s.Path(o.Ref)
	if o.Node.Kind == merkle.Dir {
		target, err := os.Readlink(path)
		if err != nil {
			return err
		}
		if want := filepath.Join("..", "trees", o.Node.Digest.Hex()); target != want {
			return fmt.Errorf("it links to %s and should link to %s", target, want)
		}
		_, err = os.Stat(path)
		return err
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return &os.PathError{Op: "lstat", Path: path, Err: err}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size != o.Node.Digest.Size || (st.Mode&0o111 != 0) != o.Node.Executable {
		return errors.New("it is not the object's file")
	}
	return nil
}

// Objects returns all usable objects, sorted by Ref.
func (s *Store) Objects() ([]*Object, error) {
	var out []*Object
	names, err := s.objectNames()
	if err != nil {
		return nil, err
	}
	for _, r := range names {
		o, err := s.Get(r)
		var gone *NotRegisteredError
		if errors.As(err, &gone) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}

// objectNames lists the files of objects/, usable or not.
func (s *Store) objectNames() ([]Ref, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "objects"))
	if err != nil {
		return nil, fmt.Errorf("list objects: %w", err)
	}
	refs := make([]Ref, 0, len(entries))
	for _, e := range entries {
		if r, err := ParseRef(e.Name()); err == nil {
			refs = append(refs, r)
		}
	}
	slices.Sort(refs)
	return refs, nil
}
