// Package link is one SSH connection to a machine: commands, shells and ports
// go through it side by side. The host key is known beforehand; there is no
// trust on first use.
package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"
)

// Link is a connection. Its methods are safe for concurrent use.
type Link struct {
	client *ssh.Client
}

// Config says who is connected to whom.
type Config struct {
	User    string
	Key     string        // OpenSSH private key, PEM
	HostKey string        // what the machine must present, as in authorized_keys
	Timeout time.Duration // of the handshake; 0: 30 seconds
}

// HostKeyError says that the machine is not the one that was made.
type HostKeyError struct{ Want, Got string }

func (e *HostKeyError) Error() string {
	return fmt.Sprintf("it presents the host key %s and should have %s: it is another machine, or somebody is in between", e.Got, e.Want)
}

// Connect speaks SSH over conn, which it closes on failure.
func Connect(ctx context.Context, conn net.Conn, c Config) (*Link, error) {
	l, err := connect(ctx, conn, c)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("connect over SSH: %w", err)
	}
	return l, nil
}

func connect(ctx context.Context, conn net.Conn, c Config) (*Link, error) {
	signer, err := ssh.ParsePrivateKey([]byte(c.Key))
	if err != nil {
		return nil, fmt.Errorf("the private key: %w", err)
	}
	want, _, _, _, err := ssh.ParseAuthorizedKey([]byte(c.HostKey))
	if err != nil {
		return nil, fmt.Errorf("the host key: %w", err)
	}
	timeout := c.Timeout
	if timeout == 0 {
		timeout = 30 * time.Second
	}
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	cc, chans, reqs, err := ssh.NewClientConn(conn, "machine", &ssh.ClientConfig{
		User: c.User,
		Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)},
		// The first is what processors without AES instructions do fastest.
		Config:            ssh.Config{Ciphers: []string{"chacha20-poly1305@openssh.com", "aes128-gcm@openssh.com", "aes128-ctr"}},
		HostKeyAlgorithms: []string{want.Type()},
		HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
			if !bytes.Equal(key.Marshal(), want.Marshal()) {
				return &HostKeyError{ssh.FingerprintSHA256(want), ssh.FingerprintSHA256(key)}
			}
			return nil
		},
	})
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, err
	}
	if err := conn.SetDeadline(time.Time{}); err != nil {
		return nil, err
	}
	return &Link{client: ssh.NewClient(cc, chans, reqs)}, nil
}

// Close ends the connection and all that runs over it.
func (l *Link) Close() error { return l.client.Close() }

// Alive asks the machine for a sign of life.
func (l *Link) Alive(ctx context.Context) error {
	done := make(chan error, 1)
	go func() { _, _, err := l.client.SendRequest("keepalive@openssh.com", true, nil); done <- err }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ExitError says that a command ended with a code other than 0, or was killed.
type ExitError struct {
	Command string
	Code    int    // 255 where a signal killed it
	Signal  string // its name, without SIG
	Stderr  string // the tail of it, where it was not asked for
}

func (e *ExitError) Error() string {
	s := fmt.Sprintf("`%s` ended with code %d", clip(e.Command, 120), e.Code)
	if e.Signal != "" {
		s = fmt.Sprintf("`%s` was killed by SIG%s", clip(e.Command, 120), e.Signal)
	}
	if e.Stderr != "" {
		s += ": " + strings.TrimSpace(e.Stderr)
	}
	return s
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

// tail keeps the last bytes written to it.
type tail struct{ b []byte }

const tailLen = 4 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if len(t.b) > 2*tailLen {
		t.b = append(t.b[:0], t.b[len(t.b)-tailLen:]...)
	}
	return len(p), nil
}

// closeTime is how long a machine may take to agree to a command's end.
const closeTime = 2 * time.Second

// Run runs a command of the machine's shell to its end. Streams may be nil. A
// command that fails gives an *ExitError.
func (l *Link) Run(ctx context.Context, command string, stdin io.Reader, stdout, stderr io.Writer) error {
	s, err := l.client.NewSession()
	if err != nil {
		return fmt.Errorf("run `%s`: %w", clip(command, 120), err)
	}
	defer s.Close()
	var kept tail
	s.Stdin, s.Stdout, s.Stderr = stdin, stdout, stderr
	if stderr == nil {
		s.Stderr = &kept
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(command) }()
	select {
	case err = <-done:
	case <-ctx.Done():
		s.Close()
		select {
		case <-done:
		case <-time.After(closeTime): // it does not even answer that: all that runs over the connection ends
			l.client.Close()
			<-done
		}
		return ctx.Err()
	}
	return exitError(command, err, string(kept.b))
}

func exitError(command string, err error, stderr string) error {
	var exit *ssh.ExitError
	if errors.As(err, &exit) {
		e := &ExitError{Command: command, Code: exit.ExitStatus(), Signal: exit.Signal(), Stderr: stderr}
		if e.Signal != "" {
			e.Code = 255
		}
		return e
	}
	if err != nil {
		return fmt.Errorf("run `%s`: %w", clip(command, 120), err)
	}
	return nil
}

// Output runs a command and returns what it wrote, at most max bytes.
func (l *Link) Output(ctx context.Context, command string, max int) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// A command that goes on writing would wait for a reader for ever.
	b := limited{max: max, full: cancel}
	err := l.Run(ctx, command, nil, &b, nil)
	if b.err != nil {
		err = b.err
	}
	return b.b, err
}

type limited struct {
	b    []byte
	max  int
	full func()
	err  error
}

func (l *limited) Write(p []byte) (int, error) {
	if len(l.b)+len(p) > l.max {
		l.err = fmt.Errorf("the machine answers with more than %d bytes", l.max)
		l.full()
		return 0, l.err
	}
	l.b = append(l.b, p...)
	return len(p), nil
}

// Pipe starts a command and returns its standard input and output as one
// stream. Closing it ends the command. What the command writes to its standard
// error is in the error of a Read at the end.
func (l *Link) Pipe(command string) (io.ReadWriteCloser, error) {
	s, err := l.client.NewSession()
	if err != nil {
		return nil, fmt.Errorf("start `%s`: %w", clip(command, 120), err)
	}
	p := &pipe{s: s, command: command, done: make(chan struct{})}
	s.Stderr = &p.stderr
	if p.in, err = s.StdinPipe(); err == nil {
		if p.out, err = s.StdoutPipe(); err == nil {
			err = s.Start(command)
		}
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("start `%s`: %w", clip(command, 120), err)
	}
	go func() { p.err = s.Wait(); close(p.done) }()
	return p, nil
}

type pipe struct {
	s       *ssh.Session
	command string
	in      io.WriteCloser
	out     io.Reader
	stderr  tail
	done    chan struct{}
	err     error // after done
}

func (p *pipe) Read(b []byte) (int, error) {
	n, err := p.out.Read(b)
	if n == 0 && errors.Is(err, io.EOF) {
		<-p.done // the code comes after the last byte
		if e := exitError(p.command, p.err, string(p.stderr.b)); e != nil {
			return 0, e
		}
	}
	return n, err
}

func (p *pipe) Write(b []byte) (int, error) { return p.in.Write(b) }

// Close may be called while another goroutine writes, which an end of the input
// alone (in.Close) may not be.
func (p *pipe) Close() error { return p.s.Close() }

// Dial connects to an address as the machine sees it, through the machine.
func (l *Link) Dial(network, address string) (net.Conn, error) {
	return l.client.Dial(network, address)
}

// CheckHostKey reports why a line cannot be the host key of a Config.
func CheckHostKey(line string) error {
	k, _, _, _, err := ssh.ParseAuthorizedKey([]byte(line))
	if err != nil || k.Type() != ssh.KeyAlgoED25519 {
		return fmt.Errorf("%q is not a public key like `ssh-ed25519 AAAA…`", clip(line, 40))
	}
	return nil
}
