package seed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"tool/core/machines/facts"
	"tool/core/machines/pack"
	"tool/core/model/digest"
	"tool/core/storage/store"
)

// Content is what a seed tells a machine.
type Content struct {
	Facts      *facts.Facts
	Generation int
	Label      string
	Ref        store.Ref // the system; its closure is in the store
	Agent      string    // path of the agent's program: os.Executable's
	// Skip reports which blobs the machine's base image has; nil: none.
	Skip func(digest.Digest) bool
}

// Write makes a seed disk at path, by rename, and returns its header.
func Write(ctx context.Context, path string, s *store.Store, c Content) (*Header, error) {
	h, err := write(ctx, path, s, c)
	if err != nil {
		return nil, fmt.Errorf("write seed %s: %w", path, err)
	}
	return h, nil
}

func write(ctx context.Context, path string, s *store.Store, c Content) (*Header, error) {
	agent, err := os.Open(c.Agent)
	if err != nil {
		return nil, err
	}
	defer agent.Close()
	h := &Header{Facts: c.Facts, Generation: c.Generation, Label: c.Label, Ref: c.Ref}
	if h.Agent, err = measure(agent); err != nil {
		return nil, err
	}
	if _, err := c.Facts.Encode(); err != nil { // gives them their version
		return nil, err
	}
	if err := h.identify(); err != nil {
		return nil, err
	}
	if err := h.check(); err != nil {
		return nil, err
	}
	// The machine's private key is in it.
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return nil, err
	}
	defer func() {
		if f != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := fill(ctx, f, agent, s, h, c.Skip); err != nil {
		return nil, err
	}
	if err := f.Sync(); err != nil {
		return nil, err
	}
	if err := errors.Join(f.Close(), os.Rename(f.Name(), path)); err != nil {
		os.Remove(f.Name())
		f = nil
		return nil, err
	}
	f = nil
	return h, nil
}

func measure(f *os.File) (Agent, error) {
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil {
		return Agent{}, err
	}
	_, err = f.Seek(0, io.SeekStart)
	return Agent{n, hex.EncodeToString(h.Sum(nil))}, err
}

// fill writes everything. The pack's size is known last and stands in the
// header, so there is room for its largest value, and what is not needed of
// that is blanks.
func fill(ctx context.Context, f, agent *os.File, s *store.Store, h *Header, skip func(digest.Digest) bool) error {
	h.Pack.Size = maxPack
	widest, err := json.Marshal(h)
	if err != nil {
		return err
	}
	if len(widest) > maxHeader {
		return fmt.Errorf("its header of %d bytes is larger than %d", len(widest), maxHeader)
	}
	agentAt := align(int64(preamble + len(widest)))
	packAt := agentAt + align(h.Agent.Size)
	if _, err := f.Seek(agentAt, io.SeekStart); err != nil {
		return err
	}
	if n, err := io.Copy(f, agent); err != nil {
		return err
	} else if n != h.Agent.Size {
		return fmt.Errorf("%s changed while it was read", agent.Name())
	}
	if _, err := f.Seek(packAt, io.SeekStart); err != nil {
		return err
	}
	if err := pack.Write(ctx, f, s, []store.Ref{h.Ref}, skip); err != nil {
		return err
	}
	end, err := f.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	h.Pack.Size = end - packAt
	if err := f.Truncate(align(end)); err != nil {
		return err
	}
	b, err := json.Marshal(h)
	if err != nil {
		return err
	}
	head := fmt.Appendf(nil, "%s%0*x\n%-*s", Magic, lenDigits, len(widest), len(widest), b)
	_, err = f.WriteAt(head, 0)
	return err
}
