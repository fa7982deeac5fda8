package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"

	"tool/core/machines/facts"
	"tool/core/machines/pack"
	"tool/core/model/digest"
	"tool/core/storage/store"
)

// Client is a controller's end of a connection to an agent. Its methods may be
// called from several goroutines and take turns. When a context ends during a
// call, the connection is closed: the answer could not be told from the next.
type Client struct {
	mu     sync.Mutex
	rw     io.ReadWriteCloser
	c      *wire
	broken error // why the connection is of no more use
}

// maxNoise is how much of what is not the protocol's beginning is shown.
const maxNoise = 400

// NewClient begins a conversation over the standard streams of `tool agent
// serve`. On error it closes rw.
func NewClient(ctx context.Context, rw io.ReadWriteCloser) (*Client, *Hello, error) {
	c := &Client{rw: rw, c: newWire(rw, maxAnswer)}
	var h Hello
	err := c.guard(ctx, func() error {
		if err := c.expectMagic(); err != nil {
			return err
		}
		return c.c.readJSON(&h)
	})
	if err == nil && h.Protocol != Protocol {
		err = fmt.Errorf("it speaks protocol %d and this program %d: deploy with the version of tool that the machine has, or update its agent", h.Protocol, Protocol)
	}
	if err != nil {
		rw.Close()
		return nil, nil, fmt.Errorf("talk to the machine's agent: %w", err)
	}
	return c, &h, nil
}

// expectMagic reads the protocol's first line. Anything else is what a shell or
// a message of the day says, and tells more than any guess.
func (c *Client) expectMagic() error {
	got := make([]byte, 0, maxNoise)
	for len(got) < maxNoise && !strings.HasPrefix(string(got), magic) {
		b, err := c.c.r.ReadByte()
		if err != nil {
			if len(got) > 0 {
				return fmt.Errorf("it says %q instead of greeting", got)
			}
			return unexpected(err)
		}
		got = append(got, b)
		if len(got) <= len(magic) && !strings.HasPrefix(magic, string(got)) {
			for c.c.r.Buffered() > 0 && len(got) < maxNoise {
				b, _ := c.c.r.ReadByte()
				got = append(got, b)
			}
			return fmt.Errorf("it says %q instead of greeting", got)
		}
	}
	return nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.rw.Close() }

// guard runs f, which talks, and closes the connection when ctx ends before.
func (c *Client) guard(ctx context.Context, f func() error) error {
	if c.broken != nil {
		return fmt.Errorf("the connection is of no more use: %w", c.broken)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { c.rw.Close() })
	defer stop()
	err := f()
	if err == nil {
		return nil
	}
	var remote *RemoteError
	if errors.As(err, &remote) {
		return err
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	c.broken = err
	c.rw.Close()
	return err
}

// call makes a request. stream, which may be nil, writes what follows it.
func (c *Client) call(ctx context.Context, method string, params, result any, stream func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.guard(ctx, func() error {
		b, err := json.Marshal(params)
		if err != nil {
			return err
		}
		if err := c.c.writeJSON(request{method, b}); err != nil {
			return err
		}
		if stream != nil {
			if err := stream(); err != nil {
				return err
			}
			if err := c.c.write(kindEnd, nil); err != nil {
				return err
			}
			if err := c.c.w.Flush(); err != nil {
				return err
			}
		}
		var a answer
		if err := c.c.readJSON(&a); err != nil {
			return unexpected(err)
		}
		if a.Error != nil {
			return a.Error
		}
		if result == nil || len(a.Result) == 0 {
			return nil
		}
		if err := json.Unmarshal(a.Result, result); err != nil {
			return fmt.Errorf("the machine's answer: %w", err)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("ask the machine's agent (%s): %w", method, err)
	}
	return nil
}

// Hello asks again what NewClient was told.
func (c *Client) Hello(ctx context.Context) (*Hello, error) {
	var h Hello
	err := c.call(ctx, "hello", nil, &h, nil)
	return &h, err
}

// Lack is what a machine lacks of some closure.
type Lack struct {
	Blobs   int   // to send
	Bytes   int64 // of them, uncompressed
	Objects int
	Free    int64 // bytes on the machine's root file system

	list *pack.List
}

// Missing tells what Send would send. It changes nothing on the machine.
func (c *Client) Missing(ctx context.Context, s *store.Store, refs, assume []store.Ref) (*Lack, error) {
	for {
		list, err := pack.Need(ctx, s, refs, assume)
		if err != nil {
			return nil, err
		}
		if len(list.Blobs)+len(list.Objects) == 0 && len(assume) == 0 {
			return &Lack{list: list}, nil
		}
		var a missingAnswer
		if err := c.call(ctx, "missing", missingRequest{assume, list.Objects, packDigests(list.Blobs)}, &a, nil); err != nil {
			return nil, err
		}
		if len(a.Lacking) > 0 { // it has less than we thought: everything is asked for
			if len(assume) == 0 {
				return nil, fmt.Errorf("ask the machine's agent: it lacks what it was not said to have")
			}
			assume = nil
			continue
		}
		// Digests are unique in a list, so an index tells a blob.
		i, j := -1, -1
		list = list.Filter(func(digest.Digest) bool { i++; return bit(a.Blobs, i) }, func(store.Ref) bool { j++; return bit(a.Objects, j) })
		return &Lack{Blobs: len(list.Blobs), Bytes: list.Bytes(), Objects: len(list.Objects), Free: a.Free, list: list}, nil
	}
}

// Sent counts what was sent.
type Sent struct {
	Bytes int64 // over the connection, compressed
	Blobs int
}

// Send makes the machine have the closure of refs. assume names objects that it
// is believed to have; where it lacks one, the whole closure is compared. It
// takes two round trips. What arrived before a lost connection stays, and
// another Send brings the rest. progress is told bytes before compression and
// may be nil.
func (c *Client) Send(ctx context.Context, s *store.Store, refs, assume []store.Ref, progress func(sent, total int64)) (Sent, error) {
	lack, err := c.Missing(ctx, s, refs, assume)
	if err != nil || len(lack.list.Blobs)+len(lack.list.Objects) == 0 {
		return Sent{}, err
	}
	w := &pieceWriter{c: c.c}
	err = c.call(ctx, "receive", receiveRequest{lack.Bytes}, nil, func() error { return pack.WriteList(ctx, w, s, lack.list, progress) })
	return Sent{w.bytes, lack.Blobs}, err
}

// PutAgent makes the program at path the machine's agent; the next connection
// speaks with it. It returns the program's SHA-256.
func (c *Client) PutAgent(ctx context.Context, path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	size, err := io.Copy(h, f)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return "", err
	}
	sum := hex.EncodeToString(h.Sum(nil))
	w := &pieceWriter{c: c.c}
	return sum, c.call(ctx, "agent", agentRequest{sum, size}, nil, func() error {
		_, err := io.Copy(w, f)
		return err
	})
}

// Stage makes a generation of a system that was sent, without switching to it.
func (c *Client) Stage(ctx context.Context, s Stage) error { return c.call(ctx, "stage", s, nil, nil) }

// Switch begins a switch; Wait tells how it goes on. While it is under way the
// same request changes nothing, and another is an error with CodeBusy.
func (c *Client) Switch(ctx context.Context, s Switch) (*SwitchStatus, error) {
	var status SwitchStatus
	if err := c.call(ctx, "switch", s, &status, nil); err != nil {
		return nil, err
	}
	return &status, nil
}

// Status returns the switch that is under way or ended last; nil where there
// has been none.
func (c *Client) Status(ctx context.Context) (*SwitchStatus, error) {
	var status *SwitchStatus
	err := c.call(ctx, "status", nil, &status, nil)
	return status, err
}

// Wait returns the status once it is another than the one with that Seq, or at
// the latest after some seconds, up to 60. It returns nil where there is none.
func (c *Client) Wait(ctx context.Context, seq, seconds int) (*SwitchStatus, error) {
	var status *SwitchStatus
	err := c.call(ctx, "wait", waitRequest{seq, seconds}, &status, nil)
	return status, err
}

// Confirm makes the generation that waits for it the one that the machine
// starts into. The connection must have begun after the switch had started its
// units (the phase is waiting): an older one proves nothing, which is CodeStale.
func (c *Client) Confirm(ctx context.Context, generation int) error {
	return c.call(ctx, "confirm", numberRequest{generation}, nil, nil)
}

// Abandon has a generation that waits to be confirmed go back instead.
func (c *Client) Abandon(ctx context.Context, generation int, why string) error {
	return c.call(ctx, "abandon", abandonRequest{generation, why}, nil, nil)
}

// Rollback begins a switch that the machine confirms by itself; -1 means the
// generation that was confirmed before the active one.
func (c *Client) Rollback(ctx context.Context, generation int) (*SwitchStatus, error) {
	var status SwitchStatus
	if err := c.call(ctx, "rollback", numberRequest{generation}, &status, nil); err != nil {
		return nil, err
	}
	return &status, nil
}

// GC removes all but the newest keep generations, and those in use.
func (c *Client) GC(ctx context.Context, keep int) (*Collected, error) {
	var got Collected
	err := c.call(ctx, "gc", numberRequest{keep}, &got, nil)
	return &got, err
}

// Drift tells in what the machine is not as its generation says.
func (c *Client) Drift(ctx context.Context) ([]Drift, error) {
	var d []Drift
	err := c.call(ctx, "drift", nil, &d, nil)
	return d, err
}

// Unwell tells which checks of the active generation's services do not hold now.
func (c *Client) Unwell(ctx context.Context, patience int) ([]string, error) {
	var out []string
	err := c.call(ctx, "unwell", numberRequest{patience}, &out, nil)
	return out, err
}

// Facts replaces what the machine knows of itself, and the files made of it.
func (c *Client) Facts(ctx context.Context, f *facts.Facts) error {
	if _, err := f.Encode(); err != nil { // gives them their version
		return err
	}
	return c.call(ctx, "facts", f, nil, nil)
}

// Reboot starts the machine again. The connection breaks soon after.
func (c *Client) Reboot(ctx context.Context) error { return c.call(ctx, "reboot", nil, nil, nil) }
