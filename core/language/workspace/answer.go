package workspace

import (
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/cespare/xxhash/v2"
)

// An Answer is the whole result of a command, kept with the fingerprint of
// every path that it depended on. It is the first level of memory: while all
// fingerprints stay, the same question has the same answer and nothing needs
// to be read. Losing it loses time, never truth.
type Answer struct {
	Paths        map[string]Fingerprint // relative to the workspace; absolute ones outside of it
	Payload      []byte
	Question     []byte // all that the answer depends on besides files
	fingerprints []pathPrint
}

type pathPrint struct {
	path string
	fp   Fingerprint
}

const answerMagic = "tool answer 1\n"

var errAnswer = errors.New("not an answer of this version")

func answerFile(root string, question []byte) string {
	var h [8]byte
	binary.BigEndian.PutUint64(h[:], xxhash.Sum64(question))
	const digits = "0123456789abcdef"
	name := make([]byte, 0, 16)
	for _, b := range h {
		name = append(name, digits[b>>4], digits[b&15])
	}
	return filepath.Join(root, StateDir, "answers", string(name))
}

// SaveAnswer keeps a. Paths changed within the clock's granularity before now
// are not trusted: then nothing is saved, and the next run evaluates again.
func SaveAnswer(root string, a *Answer) error {
	now := time.Now()
	b := []byte(answerMagic)
	b = appendBytes(b, a.Question)
	b = appendBytes(b, a.Payload)
	b = binary.AppendUvarint(b, uint64(len(a.Paths)))
	names := make([]string, 0, len(a.Paths))
	for p := range a.Paths {
		names = append(names, p)
	}
	slices.Sort(names)
	for _, p := range names {
		fp := a.Paths[p]
		if fp.Racy(now) {
			return nil
		}
		b = appendBytes(b, []byte(p))
		b = binary.AppendUvarint(b, uint64(fp.Mode))
		b = binary.AppendVarint(b, fp.Size)
		b = binary.AppendVarint(b, fp.Mtime)
		b = binary.AppendVarint(b, fp.Ctime)
		b = binary.AppendUvarint(b, fp.Ino)
	}
	b = binary.BigEndian.AppendUint64(b, xxhash.Sum64(b))
	return WriteFileAtomic(answerFile(root, a.Question), b, 0o644)
}

// LoadAnswer returns the kept payload for the question if every path is as it
// was; ok is false in every other case, damage included.
func LoadAnswer(root string, question []byte) (payload []byte, ok bool) {
	b, err := os.ReadFile(answerFile(root, question))
	if err != nil {
		return nil, false
	}
	a, err := decodeAnswer(b)
	if err != nil || string(a.Question) != string(question) {
		return nil, false
	}
	buf := append([]byte(root), '/')
	for _, p := range a.fingerprints {
		host := p.path
		if !filepath.IsAbs(host) {
			buf = append(buf[:len(root)+1], p.path...)
			host = string(buf)
		}
		if Stat(host) != p.fp {
			return nil, false
		}
	}
	return a.Payload, true
}

func decodeAnswer(b []byte) (*Answer, error) {
	if len(b) < len(answerMagic)+8 || string(b[:len(answerMagic)]) != answerMagic {
		return nil, errAnswer
	}
	body, sum := b[:len(b)-8], binary.BigEndian.Uint64(b[len(b)-8:])
	if xxhash.Sum64(body) != sum {
		return nil, errAnswer
	}
	d := answerDecoder{b: body[len(answerMagic):]}
	a := &Answer{Question: d.bytes(), Payload: d.bytes()}
	n := d.uvarint()
	if d.bad || n > uint64(len(d.b)) {
		return nil, errAnswer
	}
	a.fingerprints = make([]pathPrint, n)
	for i := range a.fingerprints {
		p := &a.fingerprints[i]
		p.path = string(d.bytes())
		p.fp = Fingerprint{Mode: fs.FileMode(d.uvarint()), Size: d.varint(), Mtime: d.varint(), Ctime: d.varint(), Ino: d.uvarint()}
	}
	if d.bad {
		return nil, errAnswer
	}
	return a, nil
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
