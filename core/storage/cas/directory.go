package cas

import (
	"fmt"
	"slices"
	"sync"

	"tool/core/model/digest"
	"tool/core/model/merkle"
)

// dirCacheBytes bounds one generation of the cache, in bytes of encodings. A
// decoded Directory takes about as much as its encoding.
const dirCacheBytes = 32 << 20

// dirCache keeps decoded directories in two generations: when the young one is
// full it becomes the old one and the old one is dropped. What is used moves
// back to the young one. That is nearly LRU without a list.
type dirCache struct {
	mu         sync.Mutex
	young, old map[digest.Digest]*merkle.Directory
	size       int64
}

func (c *dirCache) get(d digest.Digest) *merkle.Directory {
	c.mu.Lock()
	defer c.mu.Unlock()
	if dir := c.young[d]; dir != nil {
		return dir
	}
	dir := c.old[d]
	if dir != nil {
		c.put(d, dir)
	}
	return dir
}

func (c *dirCache) add(d digest.Digest, dir *merkle.Directory) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.put(d, dir)
}

func (c *dirCache) put(d digest.Digest, dir *merkle.Directory) {
	if c.young == nil || c.size > dirCacheBytes {
		c.young, c.old, c.size = map[digest.Digest]*merkle.Directory{}, c.young, 0
	}
	if c.young[d] == nil {
		c.young[d] = dir
		c.size += d.Size + 128
	}
}

func (c *dirCache) drop(d digest.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.young, d)
	delete(c.old, d)
}

// GetDirectory reads and decodes a Directory blob. The bytes are hashed, so
// that a damaged blob is an error and not another tree. Directories are kept
// in memory: a directory may be returned although its blob is gone by now. The
// result is shared and must not be changed.
func (s *Store) GetDirectory(d digest.Digest) (*merkle.Directory, error) {
	if dir := s.dirs.get(d); dir != nil {
		return dir, nil
	}
	b, err := s.ReadAll(d, merkle.MaxEncoded)
	if err != nil {
		return nil, fmt.Errorf("read directory: %w", err)
	}
	if got := digest.Of(b); got != d {
		return nil, fmt.Errorf("read directory: %w", &CorruptError{Digest: d, Path: s.Path(d, false), Got: got})
	}
	dir, err := merkle.Decode(b)
	if err != nil {
		return nil, fmt.Errorf("read directory %s: %w", d, err)
	}
	s.dirs.add(d, dir)
	return dir, nil
}

// PutDirectory stores dir, which must be sorted and valid, and returns its
// digest. It does not check that what dir names is there.
func (s *Store) PutDirectory(dir *merkle.Directory) (digest.Digest, error) {
	if err := dir.Validate(); err != nil {
		return digest.Digest{}, fmt.Errorf("store a directory: %w", err)
	}
	b := dir.Encode()
	if len(b) > merkle.MaxEncoded {
		return digest.Digest{}, fmt.Errorf("store a directory: its encoding of %d bytes is larger than %d", len(b), merkle.MaxEncoded)
	}
	d, err := s.PutBytes(b)
	if err != nil {
		return digest.Digest{}, err
	}
	if s.dirs.get(d) == nil {
		s.dirs.add(d, &merkle.Directory{ // the caller may go on changing its own
			Files:       slices.Clone(dir.Files),
			Directories: slices.Clone(dir.Directories),
			Symlinks:    slices.Clone(dir.Symlinks),
			Props:       dir.Props,
		})
	}
	return d, nil
}
