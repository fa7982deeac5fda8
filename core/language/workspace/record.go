package workspace

import (
	"io/fs"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Fingerprint is what stat says of a path. Two equal fingerprints mean an
// unchanged file, save for writes within one tick of the clock; see Racy.
type Fingerprint struct {
	Mode  fs.FileMode // type and permission bits; meaningless if !Exists()
	Size  int64
	Mtime int64 // nanoseconds since 1970
	Ctime int64
	Ino   uint64
}

// Stat takes the fingerprint of a host path, following links; an absent or
// unreadable path has the zero Fingerprint.
func Stat(host string) Fingerprint {
	var st unix.Stat_t
	if err := unix.Stat(host, &st); err != nil {
		return Fingerprint{}
	}
	return fingerprintOf(&st)
}

func fingerprintOf(st *unix.Stat_t) Fingerprint {
	fp := Fingerprint{Size: st.Size, Mtime: st.Mtim.Nano(), Ctime: st.Ctim.Nano(), Ino: st.Ino}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		fp.Mode = fs.ModeDir
	case unix.S_IFREG:
	default:
		fp.Mode = fs.ModeIrregular
	}
	fp.Mode |= fs.FileMode(st.Mode & 0o777)
	return fp
}

// Exists reports whether there was something.
func (f Fingerprint) Exists() bool { return f.Ctime != 0 }

// racyWindow covers the coarsest timestamp granularity of the file systems we
// meet (a jiffy on ext4, two seconds never) with a margin.
const racyWindow = 50 * time.Millisecond

// Racy reports whether the path was changed so shortly before now that another
// write could leave the same fingerprint.
func (f Fingerprint) Racy(now time.Time) bool {
	return f.Exists() && now.UnixNano()-max(f.Mtime, f.Ctime) < int64(racyWindow)
}

// Recorder remembers each path that an evaluation asked about, with the
// fingerprint it had at first sight. It is safe for concurrent use.
type Recorder struct {
	root string
	mu   sync.Mutex
	seen map[string]Fingerprint
	racy bool
}

// NewRecorder returns an empty Recorder for paths relative to root.
func NewRecorder(root string) *Recorder {
	return &Recorder{root: root, seen: map[string]Fingerprint{}}
}

// Note records rel and returns its fingerprint.
func (r *Recorder) Note(rel string) Fingerprint {
	rel = filepath.ToSlash(filepath.Clean(rel))
	r.mu.Lock()
	fp, ok := r.seen[rel]
	r.mu.Unlock()
	if ok {
		return fp
	}
	fp = Stat(filepath.Join(r.root, rel))
	r.mu.Lock()
	defer r.mu.Unlock()
	if old, ok := r.seen[rel]; ok {
		return old
	}
	r.seen[rel] = fp
	r.racy = r.racy || fp.Racy(time.Now())
	return fp
}

// Racy reports whether some path had changed just before it was noted: then
// what was read of it may differ from what the fingerprint stands for.
func (r *Recorder) Racy() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.racy
}

// NoteDir records a folder's listing: its fingerprint changes when an entry
// is added, removed or renamed.
func (r *Recorder) NoteDir(rel string) { r.Note(rel) }

// All returns a copy of what was recorded.
func (r *Recorder) All() map[string]Fingerprint {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := make(map[string]Fingerprint, len(r.seen))
	for k, v := range r.seen {
		m[k] = v
	}
	return m
}

// Executable reports whether any execute bit is set.
func (f Fingerprint) Executable() bool { return f.Mode&0o111 != 0 }
