package exec

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"tool/core/storage/cas"
)

// Logs keeps what the last run of each action wrote, in a directory: one file
// for each owner, mnemonic and first output, named <owner>-<the rest> (both
// hashed) in one of 256 folders. A folder for each owner would be as many as
// there are targets, and a folder is the dearest thing to make.
type Logs struct{ dir string }

// Log is what an action's last run wrote.
type Log struct {
	Owner    string // label
	Mnemonic string
	Output   string // exec path of the first output
	Position string
	Argv     []string // nil for a builtin
	At       time.Time
	Took     time.Duration
	Error    string // "" if it succeeded
	Stdout   []byte // the last MaxKeptLog bytes
	Stderr   []byte // likewise
}

// MaxKeptLog bounds what Logs keeps of a stream, in bytes.
const MaxKeptLog = 1 << 20

// OpenLogs opens the logs in dir and makes it if needed.
func OpenLogs(dir string) (*Logs, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open logs: %w", err)
	}
	return &Logs{dir}, nil
}

func short(s string) string {
	h := sha256.Sum256([]byte(s))
	return hex.EncodeToString(h[:12])
}

func (l *Logs) file(owner, mnemonic, output string) string {
	o := short(owner)
	return filepath.Join(l.dir, o[:2], o+"-"+short(mnemonic+"\x00"+output))
}

// put keeps a log; with quiet, that there is nothing to say.
func (l *Logs) put(g *Log, quiet bool) error {
	p := l.file(g.Owner, g.Mnemonic, g.Output)
	if quiet {
		if err := os.Remove(p); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	c := *g
	c.Stdout, c.Stderr = lastBytes(c.Stdout, MaxKeptLog), lastBytes(c.Stderr, MaxKeptLog)
	c.Argv = []string{shorten(c.Argv, 64<<10)}
	if g.Argv == nil {
		c.Argv = nil
	}
	b, err := json.Marshal(&c)
	if err != nil {
		return err
	}
	tmp := p + ".tmp" + strconv.FormatUint(rand.Uint64(), 36)
	err = cas.WriteSmall(tmp, b, false)
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		err = cas.WriteSmall(tmp, b, false)
	}
	if err == nil {
		err = os.Rename(tmp, p)
	}
	if err != nil {
		os.Remove(tmp)
	}
	return err
}

func lastBytes(b []byte, n int) []byte { return b[max(0, len(b)-n):] }

// Logs returns the logs of an owner's actions, oldest first. Argv is one word
// then: the command, quoted for a shell.
func (l *Logs) Logs(owner string) ([]Log, error) {
	o := short(owner)
	dir := filepath.Join(l.dir, o[:2])
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("logs of %s: %w", owner, err)
	}
	var logs []Log
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), o+"-") || strings.Contains(e.Name(), ".tmp") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("logs of %s: %w", owner, err)
		}
		var g Log
		if json.Unmarshal(b, &g) == nil && g.Owner == owner {
			logs = append(logs, g)
		}
	}
	slices.SortFunc(logs, func(a, b Log) int { return a.At.Compare(b.At) })
	return logs, nil
}
