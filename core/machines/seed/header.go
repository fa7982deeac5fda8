// Package seed writes and reads seed disks: what a new machine is told before
// it can be reached. docs/machine.md has the format.
package seed

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"tool/core/machines/facts"
	"tool/core/storage/store"
)

// Magic is a seed disk's first line. It is followed by 16 hexadecimal digits, a
// line break and the header.
const Magic = "TOOLSEED1\n"

// Align is what the agent, the pack and the whole disk begin and end at, in bytes.
const Align = 4096

const (
	lenDigits = 16
	preamble  = len(Magic) + lenDigits + 1
	maxHeader = facts.MaxFile + 1<<20
	maxAgent  = 1 << 30
	maxPack   = 1 << 40
)

// Header says what is on a seed disk. A machine takes in each ID once.
type Header struct {
	ID         string       `json:"id"`
	Agent      Agent        `json:"agent"`
	Facts      *facts.Facts `json:"facts"`
	Generation int          `json:"generation"` // number of the first generation
	Label      string       `json:"label"`      // of the machine
	Ref        store.Ref    `json:"ref"`        // its system
	Pack       Pack         `json:"pack"`
}

// Agent is the program that the machine runs.
type Agent struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Pack is what the base image lacks of the system's closure.
type Pack struct {
	Size int64 `json:"size"`
}

// identify gives h the ID that its content has, so that the same seed written
// again is the same.
func (h *Header) identify() error {
	c := *h
	c.ID, c.Pack = "", Pack{}
	b, err := json.Marshal(&c)
	if err != nil {
		return err
	}
	sum := sha256.Sum256(b)
	h.ID = hex.EncodeToString(sum[:16])
	return nil
}

func (h *Header) check() error {
	switch {
	case h.ID == "" || len(h.ID) > 64 || !printable(h.ID):
		return fmt.Errorf("id %.80q", h.ID)
	case h.Agent.Size < 0 || h.Agent.Size > maxAgent:
		return fmt.Errorf("an agent of %d bytes", h.Agent.Size)
	case h.Pack.Size < 0 || h.Pack.Size > maxPack:
		return fmt.Errorf("a pack of %d bytes", h.Pack.Size)
	case h.Generation < 1:
		return fmt.Errorf("generation %d", h.Generation)
	case h.Facts == nil:
		return fmt.Errorf("no facts")
	case len(h.Label) > 4096 || !printable(h.Label):
		return fmt.Errorf("label %.80q", h.Label)
	}
	if b, err := hex.DecodeString(h.Agent.SHA256); err != nil || len(b) != sha256.Size {
		return fmt.Errorf("agent's sha256 %.80q", h.Agent.SHA256)
	}
	if _, err := store.ParseRef(string(h.Ref)); err != nil {
		return err
	}
	return h.Facts.Check()
}

func printable(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return false
		}
	}
	return true
}

func align(n int64) int64 { return (n + Align - 1) / Align * Align }
