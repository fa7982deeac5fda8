package deploy

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"tool/core/machines/agent"
	"tool/core/machines/link"
)

// Connection is one SSH connection to a machine with its agent at the end.
type Connection struct {
	Link  *link.Link
	Agent *agent.Client
	Hello *agent.Hello
}

// Close ends it.
func (c *Connection) Close() {
	c.Agent.Close()
	c.Link.Close()
}

// Binary is the program that is put on machines as their agent: this one.
type Binary struct {
	// Find returns its path. It is called once, when the program is needed.
	Find func() (string, error)

	once   sync.Once
	path   string
	sha256 string
	err    error
}

// Program returns the path of the program and its SHA-256, in hexadecimal.
func (b *Binary) Program() (path, sum string, err error) {
	b.once.Do(func() { b.err = b.read() })
	if b.err != nil {
		return "", "", fmt.Errorf("the program that machines get as their agent: %w", b.err)
	}
	return b.path, b.sha256, nil
}

func (b *Binary) read() error {
	var err error
	if b.path, err = b.Find(); err != nil {
		return err
	}
	f, err := os.Open(b.path)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	b.sha256 = hex.EncodeToString(h.Sum(nil))
	return err
}

// UnreachableError says that a machine did not answer in time.
type UnreachableError struct {
	Machine string
	After   time.Duration
	Last    error  // of the last attempt
	State   State  // of the machine, as its backend sees it
	Console string // the tail of the serial console's log
}

func (e *UnreachableError) Error() string {
	s := fmt.Sprintf("machine %s (%s) did not answer over SSH within %s: %v", e.Machine, e.State, e.After.Round(time.Second), e.Last)
	if e.Console != "" {
		s += "\nthe end of its console:\n    " + strings.ReplaceAll(e.Console, "\n", "\n    ")
	}
	return s
}

// Unwrap returns the last attempt's error.
func (e *UnreachableError) Unwrap() error { return e.Last }

// Link connects to a machine's SSH server once.
func (s *Session) Link(ctx context.Context, ms *MachineState) (*link.Link, error) {
	b, err := s.backend(ms)
	if err != nil {
		return nil, err
	}
	m := s.D.machine(ms)
	s.knowPace(ctx, b, m)
	conn, err := b.Dial(ctx, m)
	if err != nil {
		return nil, err
	}
	return link.Connect(ctx, conn, link.Config{User: "root", Key: s.D.KeyPrivate, HostKey: ms.HostKeyPub, Timeout: s.patient(ms.Name, handshake)})
}

// connect connects to a machine and its agent, which it brings up to date. It
// tries until the deadline; deadline 0 means one attempt.
func (s *Session) connect(ctx context.Context, ms *MachineState, deadline time.Duration) (*Connection, error) {
	start := time.Now()
	looked := start
	for {
		c, err := s.connectOnce(ctx, ms)
		if err == nil {
			return c, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.As(err, new(*link.HostKeyError)) { // trying again cannot help
			return nil, fmt.Errorf("machine %s: %w", ms.Name, err)
		}
		if time.Since(start) >= deadline {
			return nil, s.unreachable(ctx, ms, time.Since(start), err)
		}
		// An attempt may take half a minute where nobody answers.
		if time.Since(looked) >= 5*time.Second {
			looked = time.Now()
			if err := s.stillRuns(ctx, ms); err != nil {
				return nil, s.unreachable(ctx, ms, time.Since(start), err)
			}
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// cannotStart is what rules/initrd's init says when it gives up.
const cannotStart = "tool: cannot start this machine"

// panicked is what a kernel says before it starts the machine again.
const panicked = "Rebooting in "

// stillRuns finds that there is nothing to wait for.
func (s *Session) stillRuns(ctx context.Context, ms *MachineState) error {
	b, err := s.backend(ms)
	if err != nil {
		return err
	}
	o, err := s.observe(ctx, b, s.D.machine(ms))
	if err == nil && (o.State == StateStopped || o.State == StateCrashed || o.State == StateMissing) {
		return errors.New("its process has ended")
	}
	// The initrd says so and starts again, for ever.
	// What it said before it was started last is not about this start.
	began, _ := s.consoles.Load(ms.Name)
	from, _ := began.(int64)
	tail := Tail(b.Console(s.D.machine(ms)), from, 5)
	if strings.Contains(tail, cannotStart) {
		return errors.New("it cannot start")
	}
	// With UEFI another kernel comes next.
	if strings.Contains(tail, panicked) && ms.Hardware.Firmware != FirmwareUEFI {
		return errors.New("its kernel panicked")
	}
	return nil
}

func (s *Session) unreachable(ctx context.Context, ms *MachineState, after time.Duration, err error) error {
	e := &UnreachableError{Machine: ms.Name, After: after, Last: err, State: StateUnknown}
	b, berr := s.backend(ms)
	if berr != nil {
		return e
	}
	if o, err := s.observe(ctx, b, s.D.machine(ms)); err == nil {
		e.State = o.State
	}
	if log := b.Console(s.D.machine(ms)); log != "" {
		e.Console = Tail(log, 0, 15)
	}
	return e
}

func (s *Session) connectOnce(ctx context.Context, ms *MachineState) (*Connection, error) {
	l, err := s.Link(ctx, ms)
	if err != nil {
		return nil, err
	}
	_, sum, err := s.Binary.Program()
	if err != nil {
		l.Close()
		return nil, err
	}
	c, err := agentOver(ctx, l, sum)
	var exit *link.ExitError
	if errors.As(err, &exit) && exit.Code == noAgent {
		s.said(ms.Name, "sending the agent")
		if err = InstallAgent(ctx, l, s.Binary); err == nil {
			c, err = agentOver(ctx, l, sum)
		}
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return c, nil
}

// noAgent is the code of the command that starts the agent where it is not
// there.
const noAgent = 127

func agentOver(ctx context.Context, l *link.Link, sum string) (*Connection, error) {
	rw, err := l.Pipe(fmt.Sprintf("p=/tool/agent/%s/tool; test -x $p || exit %d; exec $p agent serve", sum, noAgent))
	if err != nil {
		return nil, err
	}
	c, h, err := agent.NewClient(ctx, rw)
	if err != nil {
		rw.Close()
		return nil, err
	}
	return &Connection{l, c, h}, nil
}

// InstallAgent sends a program, compressed, and makes it the machine's agent.
func InstallAgent(ctx context.Context, l *link.Link, b *Binary) error {
	path, sum, err := b.Program()
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("install the agent: %w", err)
	}
	defer f.Close()
	r, w := io.Pipe()
	go func() {
		// gzip writes 240 bytes at a time, and each would be an SSH packet.
		b := bufio.NewWriterSize(w, 256<<10)
		z, _ := gzip.NewWriterLevel(b, gzip.BestSpeed) // the level is a valid one
		_, err := io.Copy(z, f)
		w.CloseWithError(errors.Join(err, z.Close(), b.Flush()))
	}()
	defer r.Close()
	err = l.Run(ctx, fmt.Sprintf(`set -e
d=/tool/agent/%[1]s; t=$d/tool.$$
mkdir -p -m 0755 /tool /tool/agent $d
trap 'rm -f $t' EXIT
gzip -dc > $t
echo "%[1]s  $t" | sha256sum -c --status || { echo "the agent arrived damaged" >&2; exit 1; }
chmod 0755 $t
sync $t
mv -f $t $d/tool
ln -sfn %[1]s /tool/agent/.current.$$
mv -fT /tool/agent/.current.$$ /tool/agent/current`, sum), r, io.Discard, nil)
	if err != nil {
		return fmt.Errorf("install the agent: %w", err)
	}
	return nil
}
