package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tool/core/model/digest"
)

// Root is something that collections keep, with all that it needs. Its name
// may hold any character, for example "build///cluster:marathon#3".
type Root struct {
	Name      string          `json:"name"`
	Kind      string          `json:"kind,omitempty"`      // for people: "build", "generation"
	Refs      []Ref           `json:"refs,omitempty"`      // objects
	Keep      []digest.Digest `json:"keep,omitempty"`      // further blobs and trees
	Actions   []digest.Digest `json:"actions,omitempty"`   // keys of action results, kept with their outputs
	Label     string          `json:"label,omitempty"`     // the target
	Created   time.Time       `json:"created"`             //
	Workspace string          `json:"workspace,omitempty"` // the directory that it was made from
}

const rootVersion = 1

type rootFile struct {
	Version int `json:"version"`
	Root
}

// RootFile returns the path of the file that holds a root, for callers that
// watch whether the root is still there.
func (s *Store) RootFile(name string) string { return s.rootPath(name) }

// rootPath escapes name. Only uniqueness matters: the name is in the file too.
func (s *Store) rootPath(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' && i > 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	file := b.String()
	if len(file) > 200 {
		file = fmt.Sprintf("%s%%%x", file[:120], sha256.Sum256([]byte(name)))
	}
	return filepath.Join(s.dir, "roots", file+".json")
}

// AddRoot makes or replaces a root; it is durable on return, what it keeps is
// after Flush. Its objects must be registered. Nothing is written where the
// root exists and differs in Created only.
func (s *Store) AddRoot(r Root) error {
	if err := s.addRoot(r); err != nil {
		return fmt.Errorf("add root %s: %w", r.Name, err)
	}
	return nil
}

func (s *Store) addRoot(r Root) error {
	if r.Name == "" {
		return errors.New("a root needs a name")
	}
	unlock, err := s.cas.Shared()
	if err != nil {
		return err
	}
	defer unlock()
	for _, ref := range r.Refs {
		if _, err := s.Get(ref); err != nil {
			return err
		}
	}
	path := s.rootPath(r.Name)
	if old, err := readRoot(path); err == nil && sameRoot(old, r) {
		return nil
	}
	b, err := json.Marshal(rootFile{rootVersion, r})
	if err != nil {
		return err
	}
	return s.writeFile(path, append(b, '\n'), true)
}

// sameRoot compares all but Created.
func sameRoot(old *Root, r Root) bool {
	r.Created = old.Created
	a, errA := json.Marshal(old)
	b, errB := json.Marshal(&r)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}

func readRoot(path string) (*Root, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var f rootFile
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("root %s: %w", path, err)
	}
	if f.Version != rootVersion {
		return nil, fmt.Errorf("root %s has version %d, this program knows %d", path, f.Version, rootVersion)
	}
	return &f.Root, nil
}

// Roots returns all roots, sorted by name. A root that cannot be read is an
// error: a collection must not take it for none.
func (s *Store) Roots() ([]Root, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "roots"))
	if err != nil {
		return nil, fmt.Errorf("list roots: %w", err)
	}
	var out []Root
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") {
			continue
		}
		r, err := readRoot(filepath.Join(s.dir, "roots", e.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list roots: %w", err)
		}
		out = append(out, *r)
	}
	slices.SortFunc(out, func(a, b Root) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// RemoveRoot removes a root. What it kept stays until the next collection.
func (s *Store) RemoveRoot(name string) error {
	if err := os.Remove(s.rootPath(name)); err != nil {
		return fmt.Errorf("remove root %s: %w", name, err)
	}
	return nil
}
