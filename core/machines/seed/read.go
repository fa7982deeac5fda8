package seed

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"

	"tool/core/machines/facts"
)

// ErrNoSeed says that a disk is no seed: it does not begin with Magic.
var ErrNoSeed = errors.New("it is not a seed disk")

// Seed is an open seed disk.
type Seed struct {
	Header  *Header
	r       io.ReaderAt
	agentAt int64
}

// Open reads the header of a seed disk. Everything that follows is checked
// where it is read: the pack by itself, the agent by whoever takes it.
func Open(r io.ReaderAt) (*Seed, error) {
	var pre [preamble]byte
	if n, err := r.ReadAt(pre[:], 0); n < len(pre) {
		if err == io.EOF {
			err = ErrNoSeed
		}
		return nil, err
	}
	if string(pre[:len(Magic)]) != Magic || pre[preamble-1] != '\n' {
		return nil, ErrNoSeed
	}
	size, err := strconv.ParseUint(string(pre[len(Magic):preamble-1]), 16, 63)
	if err != nil || size > maxHeader {
		return nil, fmt.Errorf("seed: a header of %q bytes", pre[len(Magic):preamble-1])
	}
	b := make([]byte, size)
	if n, err := r.ReadAt(b, int64(preamble)); n < len(b) {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fmt.Errorf("seed: its header: %w", err)
	}
	var h Header
	if err := json.Unmarshal(b, &h); err != nil {
		return nil, fmt.Errorf("seed: its header: %w", err)
	}
	if err := h.check(); err != nil {
		return nil, fmt.Errorf("seed: its header: %w", err)
	}
	return &Seed{Header: &h, r: r, agentAt: align(int64(preamble) + int64(size))}, nil
}

// Agent returns the agent's bytes, not yet compared with its SHA-256.
func (s *Seed) Agent() io.Reader { return io.NewSectionReader(s.r, s.agentAt, s.Header.Agent.Size) }

// Pack returns the pack, for pack.Read.
func (s *Seed) Pack() io.Reader {
	return io.NewSectionReader(s.r, s.agentAt+align(s.Header.Agent.Size), s.Header.Pack.Size)
}

// Facts returns what the seed tells the machine of itself.
func (s *Seed) Facts() *facts.Facts { return s.Header.Facts }
