package store

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tool/core/model/digest"
	"tool/core/storage/cas"
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
	file := escape(name)
	if len(file) > maxRootFile {
		file = fmt.Sprintf("%s%%%x", file[:rootFileHead], sha256.Sum256([]byte(name)))
	}
	return filepath.Join(s.dir, "roots", file+".json")
}

// A longer escaped name than maxRootFile is cut to rootFileHead bytes, and its
// hash follows.
const (
	maxRootFile  = 200
	rootFileHead = 120
)

func escape(name string) string {
	var b strings.Builder
	for i := range len(name) {
		c := name[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '.' && i > 0 {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}

// AddRoot makes or replaces a root. Like what it keeps it is durable after
// Flush: a loss of power before leaves the old state, never half a root. Its
// objects must be registered. Nothing is written where the root exists and
// differs in Created only.
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
	path := s.rootPath(r.Name)
	if old, err := readRoot(path); err == nil && sameRoot(old, r) {
		return nil // it keeps them already
	}
	for _, ref := range r.Refs {
		if err := s.registered(ref); err != nil {
			return err
		}
	}
	b, err := json.Marshal(rootFile{rootVersion, r})
	if err != nil {
		return err
	}
	return s.writeFile(path, append(b, '\n'), true)
}

// registered is Get without reading: what else is wrong with an object is for
// Verify, and a root may name thousands.
func (s *Store) registered(r Ref) error {
	if _, err := ParseRef(string(r)); err != nil {
		return err
	}
	var st unix.Stat_t
	err := unix.Lstat(s.objectPath(r), &st)
	if err == nil && st.Size > 0 {
		return nil
	}
	_, err = s.Get(r)
	return err
}

// sameRoot compares all but Created.
func sameRoot(old *Root, r Root) bool {
	return old.Name == r.Name && old.Kind == r.Kind && old.Label == r.Label && old.Workspace == r.Workspace &&
		slices.Equal(old.Refs, r.Refs) && slices.Equal(old.Keep, r.Keep) && slices.Equal(old.Actions, r.Actions)
}

// maxRoot bounds what is read of a root, in bytes.
const maxRoot = 1 << 30

func readRoot(path string) (*Root, error) {
	b, err := cas.ReadSmall(path, maxRoot)
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
func (s *Store) Roots() ([]Root, error) { return s.rootsAt("") }

// rootsAt returns the roots whose files' names begin with head, sorted by name.
func (s *Store) rootsAt(head string) ([]Root, error) {
	entries, err := os.ReadDir(filepath.Join(s.dir, "roots"))
	if err != nil {
		return nil, fmt.Errorf("list roots: %w", err)
	}
	var out []Root
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".json") || !strings.HasPrefix(e.Name(), head) {
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
