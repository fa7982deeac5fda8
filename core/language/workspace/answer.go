package workspace

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/sys/unix"
)

// An Answer is the whole result of a command, kept with the fingerprint of
// every path that it depended on. It is the first level of memory: while all
// fingerprints stay, the same question has the same answer and nothing needs
// to be read. Losing it loses time, never truth.
type Answer struct {
	Question []byte                 // all that the answer depends on besides files
	Payload  []byte                 //
	Paths    map[string]Fingerprint // relative to the workspace
	Base     string                 // a folder outside of it, such as the store; "" for none
	Outside  map[string]Fingerprint // relative to Base; files that are replaced, never rewritten
}

// The file: magic, question, payload, base, then blocks of at most blockPaths
// paths, each with its length, so that blocks can be checked side by side;
// last an xxhash64 of all before it.
const (
	answerMagic = "tool answer 2\n"
	blockPaths  = 1024
)

func answerFile(root string, question []byte) string {
	return filepath.Join(root, StateDir, "answers", fmt.Sprintf("%016x", xxhash.Sum64(question)))
}

// SaveAnswer keeps a. Its fingerprints must have been taken when the paths had
// not just changed (see Recorder.Racy). A path of the workspace that changed
// shortly before now is not trusted either: then nothing is saved, and the next
// run evaluates again.
func SaveAnswer(root string, a *Answer) error {
	now := time.Now()
	b := []byte(answerMagic)
	b = appendBytes(b, a.Question)
	b = appendBytes(b, a.Payload)
	b = appendBytes(b, []byte(a.Base))
	for base, paths := range []map[string]Fingerprint{a.Paths, a.Outside} {
		names := slices.Sorted(maps.Keys(paths))
		for chunk := range slices.Chunk(names, blockPaths) {
			block := []byte{byte(base)}
			for _, p := range chunk {
				fp := paths[p]
				// What lies outside is never rewritten in place.
				if base == 0 && fp.Racy(now) {
					return nil
				}
				block = fp.append(appendBytes(block, []byte(p)))
			}
			b = appendBytes(b, block)
		}
	}
	b = binary.BigEndian.AppendUint64(b, xxhash.Sum64(b))
	return WriteFileAtomic(answerFile(root, a.Question), b, 0o644)
}

func (f Fingerprint) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(f.Mode))
	b = binary.AppendVarint(b, f.Size)
	b = binary.AppendVarint(b, f.Mtime)
	b = binary.AppendVarint(b, f.Ctime)
	return binary.AppendUvarint(b, f.Ino)
}

func (d *answerDecoder) fingerprint() Fingerprint {
	return Fingerprint{Mode: fs.FileMode(d.uvarint()), Size: d.varint(), Mtime: d.varint(), Ctime: d.varint(), Ino: d.uvarint()}
}

// LoadAnswer returns the kept payload for the question if every path is as it
// was; ok is false in every other case, damage included.
func LoadAnswer(root string, question []byte) (payload []byte, ok bool) {
	b, err := os.ReadFile(answerFile(root, question))
	if err != nil || len(b) < len(answerMagic)+8 || string(b[:len(answerMagic)]) != answerMagic {
		return nil, false
	}
	body, sum := b[:len(b)-8], binary.BigEndian.Uint64(b[len(b)-8:])
	if xxhash.Sum64(body) != sum {
		return nil, false
	}
	d := answerDecoder{b: body[len(answerMagic):]}
	if q := d.bytes(); string(q) != string(question) {
		return nil, false
	}
	payload = d.bytes()
	bases := []string{root, string(d.bytes())}
	var blocks [][]byte
	for len(d.b) > 0 && !d.bad {
		blocks = append(blocks, d.bytes())
	}
	if d.bad {
		return nil, false
	}
	var changed atomic.Bool
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(len(blocks), runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for !changed.Load() {
				i := int(next.Add(1)) - 1
				if i >= len(blocks) {
					return
				}
				if !unchanged(blocks[i], bases) {
					changed.Store(true)
				}
			}
		})
	}
	wg.Wait()
	return payload, !changed.Load()
}

// unchanged compares each path of a block with what it was. Paths are looked
// up from their base's folder: most of a long path is walked once.
func unchanged(block []byte, bases []string) bool {
	if len(block) == 0 || int(block[0]) >= len(bases) {
		return false
	}
	dir, err := unix.Open(bases[block[0]], unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(dir)
	d := answerDecoder{b: block[1:]}
	for len(d.b) > 0 {
		name := d.bytes()
		want := d.fingerprint()
		if d.bad || statAt(dir, name) != want {
			return false
		}
	}
	return true
}

// statAt is Stat for a name relative to an open folder; name is not kept.
func statAt(dir int, name []byte) Fingerprint {
	var buf [256]byte
	path := append(append(buf[:0], name...), 0)
	var st unix.Stat_t
	_, _, errno := unix.Syscall6(unix.SYS_NEWFSTATAT, uintptr(dir), uintptr(unsafe.Pointer(&path[0])), uintptr(unsafe.Pointer(&st)), 0, 0, 0)
	runtime.KeepAlive(path)
	if errno != 0 {
		return Fingerprint{}
	}
	return fingerprintOf(&st)
}

type answerDecoder struct {
	b   []byte
	bad bool
}

func (d *answerDecoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *answerDecoder) varint() int64 {
	v, n := binary.Varint(d.b)
	if n <= 0 {
		d.bad, d.b = true, nil
		return 0
	}
	d.b = d.b[n:]
	return v
}

func (d *answerDecoder) bytes() []byte {
	n := d.uvarint()
	if n > uint64(len(d.b)) {
		d.bad, d.b = true, nil
		return nil
	}
	p := d.b[:n]
	d.b = d.b[n:]
	return p
}

func appendBytes(b, p []byte) []byte {
	return append(binary.AppendUvarint(b, uint64(len(p))), p...)
}

// WriteFileAtomic writes data to a temporary name beside file, then renames
// it, making parent folders as needed.
func WriteFileAtomic(file string, data []byte, perm fs.FileMode) error {
	dir := filepath.Dir(file)
	f, err := os.CreateTemp(dir, ".tmp-*")
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		f, err = os.CreateTemp(dir, ".tmp-*")
	}
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	if _, err = f.Write(data); err == nil {
		err = f.Chmod(perm)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}
