package store

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// generation is a root named "<prefix>#<number>".
type generation struct {
	n    uint64
	root Root
}

// generations returns the numbered roots of prefix, oldest first.
func (s *Store) generations(prefix string) ([]generation, error) {
	// Only these are read: a root may be large, and there may be many others.
	head := escape(prefix + "#")
	roots, err := s.rootsAt(head[:min(len(head), rootFileHead)])
	if err != nil {
		return nil, err
	}
	var gens []generation
	for _, r := range roots {
		tail, ok := strings.CutPrefix(r.Name, prefix+"#")
		if !ok {
			continue
		}
		if n, err := strconv.ParseUint(tail, 10, 64); err == nil {
			gens = append(gens, generation{n, r})
		}
	}
	slices.SortFunc(gens, func(a, b generation) int {
		return cmp.Or(cmp.Compare(a.n, b.n), strings.Compare(a.root.Name, b.root.Name))
	})
	return gens, nil
}

// Rotate removes all but the newest keep of the roots named "<prefix>#<number>",
// newest by number, and returns the names removed, oldest first.
func (s *Store) Rotate(prefix string, keep int) ([]string, error) {
	if keep < 0 {
		return nil, fmt.Errorf("rotate roots %s: cannot keep %d", prefix, keep)
	}
	gens, err := s.generations(strings.TrimSuffix(prefix, "#"))
	if err != nil {
		return nil, err
	}
	return s.rotate(gens, keep)
}

func (s *Store) rotate(gens []generation, keep int) (removed []string, err error) {
	for _, g := range gens[:max(0, len(gens)-keep)] {
		if err := s.RemoveRoot(g.root.Name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return removed, err
		}
		removed = append(removed, g.root.Name)
	}
	return removed, nil
}

// AddNumberedRoot adds r as the next generation of prefix, "<prefix>#<number>",
// and rotates to keep of them, at least one. It returns the root's name. Where
// the newest generation differs from r in its time only, that one stays. r.Name
// is ignored.
func (s *Store) AddNumberedRoot(prefix string, r Root, keep int) (string, error) {
	// Two processes must not take the same number.
	lock, err := os.OpenFile(filepath.Join(s.dir, "roots.lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return "", fmt.Errorf("add root %s: %w", prefix, err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("add root %s: lock %s: %w", prefix, lock.Name(), err)
	}
	prefix = strings.TrimSuffix(prefix, "#")
	gens, err := s.generations(prefix)
	if err != nil {
		return "", err
	}
	next := uint64(1)
	if len(gens) > 0 {
		newest := gens[len(gens)-1]
		if r.Name = newest.root.Name; sameRoot(&newest.root, r) {
			_, err := s.rotate(gens, max(keep, 1))
			return r.Name, err
		}
		if newest.n == math.MaxUint64 {
			return "", fmt.Errorf("add root %s: there is no number after %d", prefix, newest.n)
		}
		next = newest.n + 1
	}
	r.Name = prefix + "#" + strconv.FormatUint(next, 10)
	if err := s.AddRoot(r); err != nil {
		return "", err
	}
	_, err = s.rotate(append(gens, generation{next, r}), max(keep, 1))
	return r.Name, err
}
