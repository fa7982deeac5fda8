package exec

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"encoding/binary"

	"golang.org/x/sys/unix"

	"tool/core/model/digest"
	"tool/core/model/merkle"
	"tool/core/storage/cas"
	"tool/core/storage/store"
)

// DiskCache is a Cache in a directory, one small file for each key:
//
//	ab/<hex>-<size>   a line with the format and the body's SHA-256, then JSON
//	locks             byte-range locks, one byte for each key
//
// Files are written under another name and renamed, so a reader sees a whole
// one or none; whatever else it finds is a miss. It is safe for any number of
// processes.
type DiskCache struct {
	dir   string
	locks *os.File
}

// OpenCache opens the cache in dir and makes it if needed.
func OpenCache(dir string) (*DiskCache, error) {
	// The last shard is made last, so it tells that all are there.
	if _, err := os.Lstat(filepath.Join(dir, "ff")); err != nil {
		for i := range 256 {
			if err := os.MkdirAll(filepath.Join(dir, hex.EncodeToString([]byte{byte(i)})), 0o755); err != nil {
				return nil, fmt.Errorf("open action cache: %w", err)
			}
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, "locks"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open action cache: %w", err)
	}
	return &DiskCache{dir, f}, nil
}

// Close releases the file descriptors. Locks that are held stay.
func (c *DiskCache) Close() error { return c.locks.Close() }

const cacheMagic = "tool-result-1 "

// maxEntry bounds what is read of a file, in bytes.
const maxEntry = 64 << 20

// touchAfter is the age at which using an entry renews its time.
const touchAfter = time.Hour

// wireEntry is the JSON form of an Entry.
type wireEntry struct {
	Outputs  []wireOutput   `json:"outputs"`
	Owner    string         `json:"owner,omitempty"`
	Mnemonic string         `json:"mnemonic,omitempty"`
	Took     time.Duration  `json:"took,omitempty"`
	Stdout   *digest.Digest `json:"stdout,omitempty"`
	Stderr   *digest.Digest `json:"stderr,omitempty"`
	Local    bool           `json:"local,omitempty"`
}

type wireOutput struct {
	Path       string         `json:"path"`
	Kind       string         `json:"kind"`
	Digest     *digest.Digest `json:"digest,omitempty"`
	Executable bool           `json:"executable,omitempty"`
	Target     string         `json:"target,omitempty"`
	Mode       uint32         `json:"mode,omitempty"`
	Owner      string         `json:"owner,omitempty"`
	Refs       []store.Ref    `json:"refs,omitempty"`
}

func (c *DiskCache) path(key digest.Digest) string {
	h := key.Hex()
	return c.dir + "/" + h[:2] + "/" + h + "-" + strconv.FormatInt(key.Size, 10)
}

// Get implements Cache. A file that is damaged or of another version is a miss.
func (c *DiskCache) Get(key digest.Digest) *Entry {
	p := c.path(key)
	b, err := cas.ReadSmall(p, maxEntry)
	if err != nil {
		return nil
	}
	e, err := decodeEntry(b)
	if err != nil {
		return nil
	}
	var st unix.Stat_t
	if now := time.Now(); unix.Stat(p, &st) == nil && now.Sub(time.Unix(st.Mtim.Unix())) > touchAfter {
		_ = os.Chtimes(p, now, now) // a collection spares what is in use
	}
	return e
}

// Put implements Cache. It does not sync: the CAS's Flush does, and an entry
// that a power loss damages is a miss.
func (c *DiskCache) Put(key digest.Digest, e *Entry) error {
	b, err := encodeEntry(e)
	if err != nil {
		return fmt.Errorf("action cache: %w", err)
	}
	p := c.path(key)
	tmp := p + ".tmp" + strconv.FormatUint(rand.Uint64(), 36)
	if err := cas.WriteSmall(tmp, b, false); err != nil {
		os.Remove(tmp)
		return fmt.Errorf("action cache: %w", err)
	}
	if err := os.Rename(tmp, p); err != nil {
		os.Remove(tmp)
		return fmt.Errorf("action cache: %w", err)
	}
	return nil
}

func encodeEntry(e *Entry) ([]byte, error) {
	w := wireEntry{Owner: e.Owner, Mnemonic: e.Mnemonic, Took: e.Took, Local: e.Local}
	if !e.Stdout.IsZero() {
		w.Stdout = &e.Stdout
	}
	if !e.Stderr.IsZero() {
		w.Stderr = &e.Stderr
	}
	for i := range e.Outputs {
		o := &e.Outputs[i]
		v := wireOutput{Path: o.Path, Kind: o.Node.Kind.String(), Executable: o.Node.Executable, Target: o.Node.Target,
			Mode: o.Node.Props.Mode, Owner: o.Node.Props.Owner, Refs: o.Refs}
		if o.Node.Kind != merkle.Symlink {
			v.Digest = &o.Node.Digest
		}
		w.Outputs = append(w.Outputs, v)
	}
	body, err := json.Marshal(&w)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256(body)
	return append(fmt.Appendf(nil, "%s%x\n", cacheMagic, sum), body...), nil
}

func decodeEntry(b []byte) (*Entry, error) {
	head, body, ok := bytes.Cut(b, []byte("\n"))
	sum, isOurs := bytes.CutPrefix(head, []byte(cacheMagic))
	want := sha256.Sum256(body)
	if !ok || !isOurs || string(sum) != hex.EncodeToString(want[:]) {
		return nil, errors.New("damaged or of another version")
	}
	var w wireEntry
	if err := json.Unmarshal(body, &w); err != nil {
		return nil, err
	}
	e := &Entry{Owner: w.Owner, Mnemonic: w.Mnemonic, Took: w.Took, Local: w.Local}
	if w.Stdout != nil {
		e.Stdout = *w.Stdout
	}
	if w.Stderr != nil {
		e.Stderr = *w.Stderr
	}
	for i, v := range w.Outputs {
		n := merkle.Node{Executable: v.Executable, Target: v.Target, Props: merkle.Props{Mode: v.Mode, Owner: v.Owner}}
		switch v.Kind {
		case "file":
			n.Kind = merkle.File
		case "directory":
			n.Kind = merkle.Dir
		case "symlink":
			n.Kind = merkle.Symlink
		default:
			return nil, fmt.Errorf("kind %q", v.Kind)
		}
		if v.Digest != nil {
			n.Digest = *v.Digest
		}
		if n.Digest.IsZero() != (n.Kind == merkle.Symlink) || i > 0 && v.Path <= w.Outputs[i-1].Path {
			return nil, errors.New("bad output")
		}
		for _, r := range v.Refs {
			if _, err := store.ParseRef(string(r)); err != nil {
				return nil, err
			}
		}
		e.Outputs = append(e.Outputs, EntryOutput{v.Path, n, v.Refs})
	}
	return e, nil
}

// Outputs implements store.ResultIndex: the nodes that a result keeps alive,
// its logs among them.
func (c *DiskCache) Outputs(key digest.Digest) ([]merkle.Node, bool) {
	b, err := os.ReadFile(c.path(key))
	if err != nil {
		return nil, false
	}
	e, err := decodeEntry(b)
	if err != nil {
		return nil, false
	}
	var nodes []merkle.Node
	for _, o := range e.Outputs {
		nodes = append(nodes, o.Node)
	}
	for _, d := range []digest.Digest{e.Stdout, e.Stderr} {
		if !d.IsZero() {
			nodes = append(nodes, merkle.Node{Kind: merkle.File, Digest: d})
		}
	}
	return nodes, true
}

// Each implements store.ResultIndex. Temporary files that a killed process
// left are removed on the way, once they are an hour old.
func (c *DiskCache) Each(f func(key digest.Digest, modified time.Time) error) error {
	return filepath.WalkDir(c.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Dir(p) == c.dir {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if strings.Contains(d.Name(), ".tmp") {
			if time.Since(info.ModTime()) > time.Hour {
				return os.Remove(p)
			}
			return nil
		}
		key, err := digest.Parse(strings.Replace(d.Name(), "-", "/", 1))
		if err != nil {
			return nil
		}
		return f(key, info.ModTime())
	})
}

// Remove implements store.ResultIndex.
func (c *DiskCache) Remove(key digest.Digest) error {
	err := os.Remove(c.path(key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Lock implements Locker. A lock ends with its process.
func (c *DiskCache) Lock(ctx context.Context, key digest.Digest) (func(), error) {
	// Locks belong to an open file, so each needs one of its own.
	fd, err := unix.Open(c.locks.Name(), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("lock action: open %s: %w", c.locks.Name(), err)
	}
	// A byte of its own for each key: no two keys wait for each other.
	l := unix.Flock_t{Type: unix.F_WRLCK, Start: int64(binary.BigEndian.Uint64(key.Hash[:]) >> 2), Len: 1}
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &l)
		if err == nil {
			return func() { unix.Close(fd) }, nil
		}
		if err != unix.EAGAIN && err != unix.EACCES && err != unix.EINTR {
			unix.Close(fd)
			return nil, fmt.Errorf("lock action: %w", err)
		}
		select {
		case <-ctx.Done():
			unix.Close(fd)
			return nil, context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}
