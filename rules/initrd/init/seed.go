package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
)

// The seed's format: docs/machine.md.
const (
	seedMagic   = "TOOLSEED1\n"
	seedAlign   = 4096
	seedPrefix  = len(seedMagic) + 17 // magic, 16 hexadecimal digits, line break
	maxHeader   = 16 << 20
	maxAgent    = 512 << 20
	maxSeedName = 128
)

// Where the agent is on the machine's disk.
const (
	agentDir  = "tool/agent"
	agentLink = agentDir + "/current"
	seedNote  = agentDir + "/seed" // the seed that the agent was last taken from
)

// seedHeader is as much of a seed's header as concerns the agent's binary.
type seedHeader struct {
	ID    string `json:"id"`
	Agent struct {
		Size   int64  `json:"size"`
		SHA256 string `json:"sha256"`
	} `json:"agent"`
}

func isSeed(r io.ReaderAt) bool {
	b := make([]byte, len(seedMagic))
	_, err := r.ReadAt(b, 0)
	return err == nil && string(b) == seedMagic
}

// readSeed reads the header and tells where the agent's binary begins.
func readSeed(r io.ReaderAt) (*seedHeader, int64, error) {
	b := make([]byte, seedPrefix)
	if _, err := r.ReadAt(b, 0); err != nil {
		return nil, 0, err
	}
	if string(b[:len(seedMagic)]) != seedMagic || b[seedPrefix-1] != '\n' {
		return nil, 0, errors.New("it does not begin as a seed does")
	}
	size, err := strconv.ParseUint(string(b[len(seedMagic):seedPrefix-1]), 16, 63)
	if err != nil || size > maxHeader {
		return nil, 0, fmt.Errorf("its header has the size %q", b[len(seedMagic):seedPrefix-1])
	}
	text := make([]byte, size)
	if _, err := r.ReadAt(text, int64(seedPrefix)); err != nil {
		return nil, 0, fmt.Errorf("header: %w", err)
	}
	h := &seedHeader{}
	if err := json.Unmarshal(text, h); err != nil {
		return nil, 0, fmt.Errorf("header: %w", err)
	}
	sum, err := hex.DecodeString(h.Agent.SHA256)
	switch {
	case h.ID == "" || len(h.ID) > maxSeedName:
		return nil, 0, fmt.Errorf("header: the id %.200q is empty or too long", h.ID)
	case h.Agent.Size <= 0 || h.Agent.Size > maxAgent:
		return nil, 0, fmt.Errorf("header: the agent has %d bytes", h.Agent.Size)
	case err != nil || len(sum) != sha256.Size || hex.EncodeToString(sum) != h.Agent.SHA256:
		return nil, 0, fmt.Errorf("header: %.100q is not a SHA-256", h.Agent.SHA256)
	}
	start := (int64(seedPrefix) + int64(size) + seedAlign - 1) / seedAlign * seedAlign
	return h, start, nil
}

// takeAgent puts the seed's agent on the disk mounted at root, and makes it the
// one in use. A seed is taken once: later the machine may have got a newer
// agent, which the seed's must not replace at every boot.
func takeAgent(c *console, seed io.ReaderAt, root string) error {
	h, start, err := readSeed(seed)
	if err != nil {
		return err
	}
	note := filepath.Join(root, seedNote)
	if old, err := os.ReadFile(note); err == nil && string(old) == h.ID && exists(filepath.Join(root, agentLink, "tool")) {
		return nil
	}
	dir := filepath.Join(root, agentDir, h.Agent.SHA256)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	file := filepath.Join(dir, "tool")
	if st, err := os.Stat(file); err != nil || st.Size() != h.Agent.Size {
		c.printf("taking the agent from the seed")
		if err := install(file, io.NewSectionReader(seed, start, h.Agent.Size), h.Agent.SHA256); err != nil {
			return fmt.Errorf("agent: %w", err)
		}
	}
	link := filepath.Join(root, agentLink)
	if err := replaceLink(link, h.Agent.SHA256); err != nil {
		return err
	}
	return install(note, bytes.NewReader([]byte(h.ID)), "")
}

// install writes a program under another name first; want is its SHA-256, or
// empty. Power may be lost at any moment: a file under its name is whole.
func install(path string, r io.Reader, want string) (err error) {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp))
		}
	}()
	sum := sha256.New()
	if _, err = io.Copy(f, io.TeeReader(r, sum)); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); want != "" && got != want {
		return fmt.Errorf("its SHA-256 is %s, not %s", got, want)
	}
	return os.Rename(tmp, path)
}

func replaceLink(path, target string) error {
	if old, err := os.Readlink(path); err == nil && old == target {
		return nil
	}
	tmp := path + ".tmp"
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := os.Symlink(target, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
