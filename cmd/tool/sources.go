package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"

	"tool/core/language/action"
	"tool/core/language/workspace"
	"tool/core/model/digest"
	"tool/core/model/merkle"
	"tool/core/storage/cas"
	"tool/rules"
)

// sources gives source artifacts their content: a file of the workspace is
// hashed only if its fingerprint is new, a file of the rule library always.
type sources struct {
	ws    *workspace.Workspace
	cas   *cas.Store
	index *workspace.SourceIndex
}

func newSources(ws *workspace.Workspace, c *cas.Store) *sources {
	return &sources{ws: ws, cas: c, index: workspace.OpenSourceIndex(ws.Root)}
}

// Digest implements exec.SourceDigester.
func (s *sources) Digest(a *action.Artifact) (merkle.Node, error) {
	if a.Embedded {
		b, err := fs.ReadFile(rules.FS, a.Source)
		if err != nil {
			return merkle.Node{}, err
		}
		d := digest.Of(b)
		return merkle.Node{Kind: merkle.File, Digest: d, Executable: bytes.HasPrefix(b, []byte("#!"))}, nil
	}
	fp := s.ws.Record.Note(a.Source)
	n := merkle.Node{Kind: merkle.File, Executable: fp.Executable()}
	var ok bool
	if n.Digest, ok = s.index.Lookup(a.Source, fp); ok {
		return n, nil
	}
	f, err := os.Open(s.ws.Abs(a.Source))
	if err != nil {
		return merkle.Node{}, fmt.Errorf("source file of %s: %w", a.Owner, err)
	}
	defer f.Close()
	if n.Digest, err = digest.FromReader(f); err != nil {
		return merkle.Node{}, fmt.Errorf("source file %s: %w", a.Source, err)
	}
	s.index.Learn(a.Source, fp, n.Digest)
	return n, nil
}

// Import implements exec.SourceImporter: it puts the bytes into the CAS.
func (s *sources) Import(a *action.Artifact) (merkle.Node, error) {
	n, err := s.Digest(a)
	if err != nil || s.cas.Has(n.Digest) {
		return n, err
	}
	if a.Embedded {
		b, err := fs.ReadFile(rules.FS, a.Source)
		if err != nil {
			return n, err
		}
		_, err = s.cas.PutBytes(b)
		return n, err
	}
	f, err := os.Open(s.ws.Abs(a.Source))
	if err != nil {
		return n, fmt.Errorf("source file of %s: %w", a.Owner, err)
	}
	defer f.Close()
	if _, err := s.cas.Put(context.Background(), n.Digest, f); err != nil {
		return n, fmt.Errorf("source file %s changed while the build ran; run the command again: %w", a.Source, err)
	}
	return n, nil
}

// Changed implements exec.SourceChecker.
func (s *sources) Changed(a *action.Artifact) bool {
	return !a.Embedded && workspace.Stat(s.ws.Abs(a.Source)) != s.ws.Record.Note(a.Source)
}
