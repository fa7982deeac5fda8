package agent

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"tool/core/machines/activate"
	"tool/core/machines/facts"
	"tool/core/machines/pack"
	"tool/core/model/digest"
	"tool/core/storage/store"
)

// What the machine's side knows, under the names that a controller uses.
type (
	Generation   = activate.Generation
	Switch       = activate.SwitchRequest
	SwitchStatus = activate.SwitchStatus
	Failure      = activate.Failure
	Drift        = activate.Drift
	Collected    = activate.Collected
)

// Hello is what a machine says of itself when a connection begins.
type Hello struct {
	Protocol         int           `json:"protocol"`
	AgentSHA256      string        `json:"agent_sha256"`
	BootID           string        `json:"boot_id"`          // differs after each start of the machine
	Booted           store.Ref     `json:"booted,omitempty"` // the system that it started with
	BootedGeneration int           `json:"booted_generation"`
	Staged           int           `json:"staged"`
	Active           int           `json:"active"`
	Confirmed        int           `json:"confirmed"`
	Generations      []Generation  `json:"generations"`
	FactsDigest      string        `json:"facts_digest"` // of facts.Facts.Digest
	Switch           *SwitchStatus `json:"switch,omitempty"`
	FailedUnits      []string      `json:"failed_units,omitempty"`
	FreeBytes        int64         `json:"free_bytes"` // on the root file system
	Kernel           string        `json:"kernel"`     // uname -r
	Adopted          bool          `json:"adopted,omitempty"`
	Problem          string        `json:"problem,omitempty"` // what the machine could not find out
}

// Generation returns the system of generation n, or "".
func (h *Hello) Generation(n int) store.Ref {
	for _, g := range h.Generations {
		if g.Number == n {
			return g.Ref
		}
	}
	return ""
}

// Stage makes a generation of a system that was sent.
type Stage struct {
	Generation int          `json:"generation"`
	Ref        store.Ref    `json:"ref"`
	Label      string       `json:"label"`           // of the machine's target
	Facts      *facts.Facts `json:"facts,omitempty"` // nil: they stay
}

// Code tells errors of the machine apart.
type Code string

// The codes.
const (
	CodeFailed       Code = "failed"
	CodeBusy         Code = "busy"          // another switch is under way
	CodeNoSpace      Code = "no-space"      // the disk is full
	CodeNoGeneration Code = "no-generation" // there is none of that number
	CodeNotWaiting   Code = "not-waiting"   // there is nothing to confirm
	CodeStale        Code = "stale"         // the connection is older than what it would confirm
)

// RemoteError is an error that the machine answered with.
type RemoteError struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

func (e *RemoteError) Error() string { return e.Message }

// HasCode reports whether err is a machine's, with that code.
func HasCode(err error, code Code) bool {
	var e *RemoteError
	return errors.As(err, &e) && e.Code == code
}

func remoteError(err error) *RemoteError {
	e := &RemoteError{CodeFailed, err.Error()}
	var busy *activate.BusyError
	var space *activate.NoSpaceError
	var none *activate.NoGenerationError
	var waiting *activate.NotWaitingError
	var stale *staleError
	switch {
	case errors.As(err, &busy):
		e.Code = CodeBusy
	case errors.As(err, &space):
		e.Code = CodeNoSpace
	case errors.As(err, &none):
		e.Code = CodeNoGeneration
	case errors.As(err, &waiting):
		e.Code = CodeNotWaiting
	case errors.As(err, &stale):
		e.Code = CodeStale
	}
	return e
}

type request struct {
	Method string          `json:"method"`
	Params json.RawMessage `json:"params,omitempty"`
}

type answer struct {
	Result json.RawMessage `json:"result,omitempty"`
	Error  *RemoteError    `json:"error,omitempty"`
}

// missingRequest asks which blobs and objects the machine lacks, given that it
// has the closure of Assume.
type missingRequest struct {
	Assume  []store.Ref `json:"assume,omitempty"`
	Objects []store.Ref `json:"objects"`
	Blobs   []byte      `json:"blobs"` // of packDigests
}

// missingAnswer has a bit for each object and blob, lowest first: 1 is missing.
type missingAnswer struct {
	Lacking []store.Ref `json:"lacking,omitempty"` // of Assume: then the rest says nothing
	Objects []byte      `json:"objects,omitempty"`
	Blobs   []byte      `json:"blobs,omitempty"`
	Free    int64       `json:"free"`
}

type receiveRequest struct {
	Bytes int64 `json:"bytes"` // of the blobs
}

type agentRequest struct {
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}

type waitRequest struct {
	Seq     int `json:"seq"`     // answer when the status is another
	Seconds int `json:"seconds"` // or after that time
}

type abandonRequest struct {
	N   int    `json:"n"`
	Why string `json:"why"`
}

type numberRequest struct {
	N int `json:"n"`
}

// packDigests encodes digests: each 32 bytes and the size as a varint.
func packDigests(blobs []pack.Blob) []byte {
	b := make([]byte, 0, 36*len(blobs))
	for _, blob := range blobs {
		b = append(b, blob.Digest.Hash[:]...)
		b = binary.AppendUvarint(b, uint64(blob.Digest.Size))
	}
	return b
}

func unpackDigests(b []byte) ([]digest.Digest, error) {
	out := make([]digest.Digest, 0, len(b)/36)
	for len(b) > 0 {
		var d digest.Digest
		if len(b) < len(d.Hash)+1 {
			return nil, fmt.Errorf("a list of digests breaks off")
		}
		copy(d.Hash[:], b)
		size, n := binary.Uvarint(b[len(d.Hash):])
		if n <= 0 || size > 1<<62 {
			return nil, fmt.Errorf("a digest's size is none")
		}
		d.Size = int64(size)
		out = append(out, d)
		b = b[len(d.Hash)+n:]
	}
	return out, nil
}

func bitmap(n int, set func(i int) bool) []byte {
	b := make([]byte, (n+7)/8)
	for i := range n {
		if set(i) {
			b[i/8] |= 1 << (i % 8)
		}
	}
	return b
}

func bit(b []byte, i int) bool { return i/8 < len(b) && b[i/8]>>(i%8)&1 == 1 }
