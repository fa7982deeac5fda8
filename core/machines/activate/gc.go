package activate

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tool/core/model/digest"
	"tool/core/storage/store"
)

// Collected tells what a collection took away.
type Collected struct {
	Generations []int       `json:"generations,omitempty"`
	Agents      int         `json:"agents"`
	Freed       store.Freed `json:"freed"`
}

// liveRoot names what running processes use.
const liveRoot = "live processes"

// GC removes generations but the newest keep of them, and what only they
// needed. What is staged, active, confirmed, booted, part of a switch that is
// under way, or used by a running process stays.
func (m *Machine) GC(ctx context.Context, keep int) (*Collected, error) {
	var c *Collected
	err := m.withBallast(func() (err error) {
		c, err = m.gc(ctx, keep)
		return err
	})
	m.keepBallast()
	if err != nil {
		return c, fmt.Errorf("collect garbage on the machine: %w", err)
	}
	return c, nil
}

func (m *Machine) gc(ctx context.Context, keep int) (*Collected, error) {
	if keep < 1 {
		return nil, fmt.Errorf("keep %d generations: at least one must stay", keep)
	}
	out := &Collected{}
	if err := m.dropGenerations(keep, out); err != nil {
		return out, err
	}
	if err := m.dropAgents(out); err != nil {
		return out, err
	}
	if err := m.protectLive(); err != nil {
		return out, err
	}
	plan, err := m.Store.PlanGC(ctx, store.GCOptions{})
	if err != nil {
		return out, err
	}
	out.Freed, err = plan.Execute(ctx, nil)
	return out, err
}

// dropGenerations removes records and roots. The record goes first: whatever is
// listed is there.
func (m *Machine) dropGenerations(keep int, out *Collected) error {
	unlock, err := m.lock()
	if err != nil {
		return err
	}
	defer unlock()
	all, err := m.Generations()
	if err != nil {
		return err
	}
	needed, err := m.neededGenerations()
	if err != nil {
		return err
	}
	listed := map[string]bool{}
	for i, g := range all {
		if i >= len(all)-keep || slices.Contains(needed, g.Number) {
			listed[rootName(g.Number)] = true
			continue
		}
		if err := removeIfThere(m.generationFile(g.Number)); err != nil {
			return err
		}
		out.Generations = append(out.Generations, g.Number)
	}
	roots, err := m.Store.Roots()
	if err != nil {
		return err
	}
	for _, r := range roots {
		if r.Kind == "generation" && !listed[r.Name] {
			if err := m.Store.RemoveRoot(r.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

func (m *Machine) neededGenerations() ([]int, error) {
	needed := []int{m.Booted()}
	for _, p := range []Pointer{Staged, Active, Confirmed} {
		n, err := m.Pointer(p)
		if err != nil {
			return nil, err
		}
		needed = append(needed, n)
	}
	s, err := m.Status()
	if err != nil {
		return nil, err
	}
	if !s.Over() {
		needed = append(needed, s.Generation, s.From)
	}
	return needed, nil
}

// dropAgents removes the programs of agents that neither are in use nor run.
func (m *Machine) dropAgents(out *Collected) error {
	dir := m.path("tool/agent")
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	current, err := os.Readlink(filepath.Join(dir, "current"))
	if err != nil {
		return nil // without knowing which it is, none goes
	}
	running := map[string]bool{}
	for p := range m.livePaths() {
		if rest, ok := strings.CutPrefix(p, "/tool/agent/"); ok {
			name, _, _ := strings.Cut(rest, "/")
			running[name] = true
		}
	}
	for _, e := range entries {
		name := e.Name()
		if !e.IsDir() || name == filepath.Base(current) || running[name] {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return err
		}
		out.Agents++
	}
	return nil
}

// livePaths returns the files below /tool that processes run or have mapped.
func (m *Machine) livePaths() map[string]bool {
	paths := map[string]bool{}
	add := func(p string) {
		if strings.HasPrefix(p, "/tool/") {
			paths[strings.TrimSuffix(p, " (deleted)")] = true
		}
	}
	processes, _ := filepath.Glob(m.path("proc/[0-9]*"))
	for _, p := range processes {
		for _, link := range []string{"exe", "cwd", "root"} {
			if target, err := os.Readlink(filepath.Join(p, link)); err == nil {
				add(target)
			}
		}
		b, err := os.ReadFile(filepath.Join(p, "maps"))
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(b)) {
			if i := strings.Index(line, " /tool/"); i >= 0 {
				add(strings.TrimSpace(line[i:]))
			}
		}
	}
	return paths
}

// protectLive makes a root of the trees that processes use: they may open more
// files of theirs at any time. It stays until the next collection makes it anew.
func (m *Machine) protectLive() error {
	used := map[string]bool{}
	var refs []store.Ref
	for p := range m.livePaths() {
		if rest, ok := strings.CutPrefix(p, "/tool/trees/"); ok {
			name, _, _ := strings.Cut(rest, "/")
			used[name] = true
		}
		if rest, ok := strings.CutPrefix(p, "/tool/store/"); ok {
			name, _, _ := strings.Cut(rest, "/")
			if ref, err := store.ParseRef(name); err == nil {
				if _, err := m.Store.Get(ref); err == nil {
					refs = append(refs, ref)
				}
			}
		}
	}
	var keep []digest.Digest
	err := m.Store.CAS().EachTree(func(d digest.Digest, _ time.Time) error {
		if used[hex.EncodeToString(d.Hash[:])] && d.Size >= 0 {
			keep = append(keep, d)
		}
		return nil
	})
	if err != nil {
		return err
	}
	slices.Sort(refs)
	if len(keep)+len(refs) == 0 {
		if err := m.Store.RemoveRoot(liveRoot); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	return m.Store.AddRoot(store.Root{Name: liveRoot, Kind: "processes", Keep: keep, Refs: slices.Compact(refs), Created: time.Now().UTC()})
}
