package activate

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"tool/core/machines/facts"
	"tool/core/storage/cas"
	"tool/core/storage/store"
)

// Generation is one system that the machine was told to be.
type Generation struct {
	Number    int       `json:"number"`
	Ref       store.Ref `json:"ref"`
	Label     string    `json:"label"` // of the machine's target
	Created   time.Time `json:"created"`
	Confirmed time.Time `json:"confirmed,omitzero"` // when it was last confirmed
}

// Pointer is one of the machine's three.
type Pointer string

// The pointers.
const (
	Staged    Pointer = "staged"
	Active    Pointer = "active"
	Confirmed Pointer = "confirmed"
)

// Pointer returns the number of the generation that p names; 0 where it names
// none.
func (m *Machine) Pointer(p Pointer) (int, error) {
	b, err := cas.ReadSmall(m.state(string(p)), 64)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the pointer %s: %w", p, err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || n < 0 {
		return 0, fmt.Errorf("read the pointer %s: %q is no generation", p, b)
	}
	return n, nil
}

func (m *Machine) setPointer(p Pointer, n int) error {
	if err := writeFile(m.state(string(p)), fmt.Appendf(nil, "%d\n", n), owned{mode: 0o600}); err != nil {
		return fmt.Errorf("set the pointer %s to %d: %w", p, n, err)
	}
	return nil
}

// lock keeps other processes from changing state while several files of it
// change together. Hold it briefly.
func (m *Machine) lock() (unlock func(), err error) {
	f, err := flock(m.state("lock"), true)
	if err != nil {
		return nil, fmt.Errorf("lock the machine's state: %w", err)
	}
	return func() { f.Close() }, nil
}

func (m *Machine) generationFile(n int) string {
	return m.state("generations", strconv.Itoa(n)+".json")
}

// NoGenerationError says that the machine has no such generation.
type NoGenerationError struct{ Number int }

func (e *NoGenerationError) Error() string {
	return fmt.Sprintf("this machine has no generation %d; `tool agent generations` lists them", e.Number)
}

// Generation returns the record of generation n, or a *NoGenerationError.
func (m *Machine) Generation(n int) (*Generation, error) {
	var g Generation
	ok, err := readJSON(m.generationFile(n), &g)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, &NoGenerationError{n}
	}
	if _, err := store.ParseRef(string(g.Ref)); err != nil || g.Number != n {
		return nil, fmt.Errorf("the record of generation %d is damaged: number %d, %v", n, g.Number, err)
	}
	return &g, nil
}

// Generations returns all generations, oldest first. Damaged records are left out.
func (m *Machine) Generations() ([]Generation, error) {
	entries, err := os.ReadDir(m.state("generations"))
	if err != nil {
		return nil, fmt.Errorf("list the generations: %w", err)
	}
	var out []Generation
	for _, e := range entries {
		n, err := strconv.Atoi(strings.TrimSuffix(e.Name(), ".json"))
		if err != nil {
			continue
		}
		if g, err := m.Generation(n); err == nil {
			out = append(out, *g)
		}
	}
	slices.SortFunc(out, func(a, b Generation) int { return cmp.Compare(a.Number, b.Number) })
	return out, nil
}

func rootName(n int) string { return "generation#" + strconv.Itoa(n) }

// Stage makes generation n of the system ref, which must be in the store: it is
// kept from collections, laid out on disk, and durable when Stage returns.
// Nothing else changes. To stage what is staged already does nothing; another
// system under a number that is taken is an error.
func (m *Machine) Stage(ctx context.Context, n int, ref store.Ref, label string, f *facts.Facts) error {
	if err := m.stage(ctx, n, ref, label, f); err != nil {
		return fmt.Errorf("stage generation %d: %w", n, m.explainFull(err))
	}
	m.keepBallast()
	return nil
}

func (m *Machine) stage(ctx context.Context, n int, ref store.Ref, label string, f *facts.Facts) error {
	if n < 1 {
		return errors.New("generations are numbered from 1")
	}
	unlock, err := m.lock()
	if err != nil {
		return err
	}
	defer unlock()
	old, err := m.Generation(n)
	var none *NoGenerationError
	if err != nil && !errors.As(err, &none) {
		old = nil // a damaged record is written anew
	}
	if old != nil && old.Ref != ref {
		return fmt.Errorf("it is there already, with another system (%s): take another number", old.Ref)
	}
	if _, err := m.Manifest(ref); err != nil {
		return err
	}
	lease, err := m.Store.Lease(ctx)
	if err != nil {
		return err
	}
	defer lease.Release()
	if err := lease.AdoptRefs(ref); err != nil {
		return err
	}
	if _, err := m.Store.Realise(ctx, ref); err != nil {
		return err
	}
	if err := m.Store.AddRoot(store.Root{Name: rootName(n), Kind: "generation", Refs: []store.Ref{ref}, Label: label, Created: time.Now().UTC()}); err != nil {
		return err
	}
	if err := m.Store.CAS().Flush(); err != nil {
		return err
	}
	if f != nil {
		if err := m.setFacts(f); err != nil {
			return err
		}
	}
	if old == nil {
		if err := writeJSON(m.generationFile(n), Generation{Number: n, Ref: ref, Label: label, Created: time.Now().UTC()}); err != nil {
			return err
		}
	}
	return m.setPointer(Staged, n)
}

// flip makes generation n the active one: the link first, for that is what counts.
func (m *Machine) flip(n int, ref store.Ref) error {
	if err := linkTo(filepath.Join("store", string(ref)), m.path("tool/current")); err != nil {
		return fmt.Errorf("switch /tool/current to generation %d: %w", n, err)
	}
	if err := syncDir(m.path("tool")); err != nil {
		return fmt.Errorf("switch /tool/current to generation %d: %w", n, err)
	}
	return m.setPointer(Active, n)
}
