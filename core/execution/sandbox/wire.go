package sandbox

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"tool/core/execution/exec"
)

// setup is the first message to a worker.
type setup struct {
	Store string // the CAS's directory on the host; the worker sees it as /store
}

// request describes one sandbox. All Source paths are relative to the CAS's
// directory, all Targets are below the sandbox's root: a worker knows no other
// part of the host.
type request struct {
	Root     []mount // what is seen at /
	Inputs   []mount // read-only; each is made in a directory that is not one of them
	Writable []mount // outputs and /tmp
	Tmpfs    bool    // /tmp in memory instead of on disk
	Argv     []string
	Env      []string
	Timeout  time.Duration
	Shell    bool // interactive: on the worker's own standard streams
}

// mount is something of the CAS that is seen at Target.
type mount struct {
	Target string // absolute, in the sandbox
	Source string // bound from here
	File   bool   // Source is a file
	Link   string // instead of Source: a symbolic link to there
}

// reply is what a worker answers. Err means that the sandbox could not be
// made; then the rest is empty.
type reply struct {
	Err            string
	ExitCode       int
	TimedOut       bool
	Stdout, Stderr []byte
	Took           time.Duration
}

// Messages are JSON after a length of four bytes. A message is at most this
// long: two logs in base64, and a large command line.
const maxMessage = 2*exec.MaxLog*4/3 + 64<<20

func send(w io.Writer, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	if len(body) > maxMessage {
		return fmt.Errorf("sandbox message of %d bytes is longer than %d", len(body), maxMessage)
	}
	msg := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	_, err = w.Write(append(msg, body...))
	return err
}

func receive(r io.Reader, v any) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > maxMessage {
		return fmt.Errorf("sandbox message of %d bytes is longer than %d", n, maxMessage)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return err
	}
	return json.Unmarshal(body, v)
}
