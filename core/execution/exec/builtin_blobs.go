package exec

import (
	"context"
	"fmt"
	"slices"

	"tool/core/model/digest"
	"tool/core/model/merkle"
	"tool/core/storage/store"
)

// blobs makes the tree that a store's folder of blobs would be if it held the
// inputs and nothing else: ab/<64 hex>, with .x where a file is executable. Each
// content stands there once for each of the two, and each folder's encoding as
// the blob that it is. Modes and owners of files are not kept, as in a store. So
// an image of the tree is a store to begin with, for any system made of these.
//
//	{"inputs": ["path/of/input", …]}   left out: all
func blobs(ctx context.Context, c *BuiltinCall) ([]merkle.Node, error) {
	var p struct {
		Inputs []string `json:"inputs"`
	}
	if err := c.decode(&p); err != nil {
		return nil, err
	}
	inputs := c.Inputs
	if p.Inputs != nil {
		inputs = nil
		for _, path := range p.Inputs {
			in, err := c.input(path)
			if err != nil {
				return nil, err
			}
			inputs = append(inputs, in)
		}
	}
	s := blobSet{cas: c.CAS, dirs: map[digest.Digest]bool{}, files: map[blobFile]bool{}}
	for _, in := range inputs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := s.add(in.Node); err != nil {
			return nil, fmt.Errorf("blobs of %s: %w", in.Artifact.Path, err)
		}
	}
	var t merkle.Builder
	for f := range s.files {
		name := f.digest.Hex()
		path := name[:2] + "/" + name
		if f.executable {
			path += ".x"
		}
		if err := t.Add(path, merkle.Node{Kind: merkle.File, Digest: f.digest, Executable: f.executable}); err != nil {
			return nil, err
		}
	}
	d, err := t.Write(c.CAS)
	// The files are those of the inputs: what those refer to is all there can
	// be. Reading them to find less would take longer than the merge.
	var refs []store.Ref
	for _, in := range inputs {
		refs = append(refs, in.Refs...)
	}
	slices.Sort(refs)
	c.Refs = [][]store.Ref{slices.Compact(refs)}
	return []merkle.Node{{Kind: merkle.Dir, Digest: d}}, err
}

type blobFile struct {
	digest     digest.Digest
	executable bool
}

type blobSet struct {
	cas   merkle.Getter
	dirs  map[digest.Digest]bool // seen
	files map[blobFile]bool
}

func (s *blobSet) add(n merkle.Node) error {
	switch n.Kind {
	case merkle.File:
		s.files[blobFile{n.Digest, n.Executable}] = true
	case merkle.Dir:
		if s.dirs[n.Digest] {
			return nil
		}
		s.dirs[n.Digest] = true
		s.files[blobFile{n.Digest, false}] = true
		d, err := s.cas.GetDirectory(n.Digest)
		if err != nil {
			return err
		}
		return d.Entries(func(_ string, n merkle.Node) error { return s.add(n) })
	}
	return nil
}
