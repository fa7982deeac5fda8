package link

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// servers are what each test runs against.
var servers = []struct {
	name string
	make func(*testing.T) *server
}{{"go", newServer}, {"openssh", newSSHD}}

func eachServer(t *testing.T, f func(*testing.T, *server)) {
	for _, s := range servers {
		t.Run(s.name, func(t *testing.T) { f(t, s.make(t)) })
	}
}

func TestConnect(t *testing.T) {
	eachServer(t, func(t *testing.T, s *server) {
		other := newKeys(t)
		good := Config{User: "root", Key: s.user.private, HostKey: s.host.public}
		for _, c := range []struct {
			name   string
			change func(*Config)
			want   string
		}{
			{"another host", func(c *Config) { c.HostKey = other.public }, "it is another machine, or somebody is in between"},
			{"a key that it does not know", func(c *Config) { c.Key = other.private }, "unable to authenticate"},
			{"no private key", func(c *Config) { c.Key = "x" }, "the private key"},
			{"no host key", func(c *Config) { c.HostKey = "" }, "the host key"},
		} {
			config := good
			c.change(&config)
			l, err := Connect(t.Context(), s.dial(t), config)
			if l != nil || err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v", c.name, err)
			}
			var key *HostKeyError
			if got := errors.As(err, &key); got != (c.name == "another host") {
				t.Errorf("%s: is a *HostKeyError: %t", c.name, got)
			}
		}
		l := s.connect(t)
		if err := l.Alive(t.Context()); err != nil {
			t.Error(err)
		}
		l.Close()
		if err := l.Run(t.Context(), "true", nil, nil, nil); err == nil {
			t.Error("ran a command over a closed connection")
		}
	})
}

// TestSilent: a machine that accepts and says nothing does not hold the
// controller up.
func TestSilent(t *testing.T) {
	s := newServer(t)
	silent := newSilent(t)
	config := Config{User: "root", Key: s.user.private, HostKey: s.host.public, Timeout: 50 * time.Millisecond}
	if _, err := Connect(t.Context(), silent(), config); err == nil {
		t.Error("connected to nobody")
	}
	config.Timeout = time.Hour
	ctx, cancel := context.WithCancel(t.Context())
	conn := silent()
	go cancel()
	if _, err := Connect(ctx, conn, config); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if _, err := conn.Write([]byte("x")); err == nil {
		t.Error("the connection is still open")
	}
}

func TestRun(t *testing.T) {
	eachServer(t, func(t *testing.T, s *server) {
		l := s.connect(t)
		for _, c := range []struct {
			command string
			code    int
			signal  string
			stderr  string
		}{
			{"true", 0, "", ""},
			{"echo why >&2; exit 3", 3, "", "why\n"},
			{"exit 127", 127, "", ""},
			{"kill -KILL $$", 255, "KILL", ""},
		} {
			err := l.Run(t.Context(), c.command, nil, nil, nil)
			var exit *ExitError
			switch {
			case c.code == 0 && err != nil:
				t.Errorf("%s: %v", c.command, err)
			case c.code != 0 && (!errors.As(err, &exit) || exit.Code != c.code || exit.Signal != c.signal || exit.Stderr != c.stderr):
				t.Errorf("%s: %#v", c.command, err)
			case c.code != 0 && !strings.Contains(err.Error(), c.command):
				t.Errorf("%q does not name the command", err)
			}
		}
		var out, errs bytes.Buffer
		err := l.Run(t.Context(), "cat; echo b >&2; exit 1", strings.NewReader("a"), &out, &errs)
		var exit *ExitError
		if !errors.As(err, &exit) || out.String() != "a" || errs.String() != "b\n" || exit.Stderr != "" {
			t.Errorf("%v; %q, %q", err, &out, &errs)
		}
		// Of much on stderr the end is told.
		err = l.Run(t.Context(), "i=0; while [ $i -lt 3000 ]; do echo line $i >&2; i=$((i+1)); done; exit 1", nil, nil, nil)
		if !errors.As(err, &exit) || len(exit.Stderr) > 2*tailLen || !strings.HasSuffix(exit.Stderr, "line 2999\n") {
			t.Errorf("%v", err)
		}
	})
}

func TestOutput(t *testing.T) {
	eachServer(t, func(t *testing.T, s *server) {
		l := s.connect(t)
		if b, err := l.Output(t.Context(), "printf %05d 7", 5); err != nil || string(b) != "00007" {
			t.Errorf("%q, %v", b, err)
		}
		// A machine cannot fill the controller's memory, nor hold it up.
		if b, err := l.Output(t.Context(), "while :; do echo 0123456789012345678901234567890123456789; done", 1000); err == nil || len(b) > 1000 || !strings.Contains(err.Error(), "more than 1000 bytes") {
			t.Errorf("%d bytes, %v", len(b), err)
		}
		if err := l.Run(t.Context(), "true", nil, nil, nil); err != nil {
			t.Errorf("after too much output the connection is of no more use: %v", err)
		}
	})
}

func TestCancel(t *testing.T) {
	eachServer(t, func(t *testing.T, s *server) {
		l := s.connect(t)
		ctx, cancel := context.WithCancel(t.Context())
		r, w := io.Pipe()
		go func() { io.ReadFull(r, make([]byte, 3)); cancel(); io.Copy(io.Discard, r) }()
		if err := l.Run(ctx, "echo up; sleep 1000", nil, w, nil); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		if err := l.Run(t.Context(), "true", nil, nil, nil); err != nil {
			t.Errorf("after a cancellation: %v", err)
		}
	})
}

// TestCancelDead: a machine that is gone does not keep the controller.
func TestCancelDead(t *testing.T) {
	s := newServer(t)
	conn := &muted{Conn: s.dial(t)}
	l, err := Connect(t.Context(), conn, Config{User: "root", Key: s.user.private, HostKey: s.host.public})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	go func() { io.ReadFull(r, make([]byte, 3)); conn.mute.Store(true); cancel(); io.Copy(io.Discard, r) }()
	if err := l.Run(ctx, "echo up; sleep 1000", nil, w, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// muted is a connection of which nothing arrives any more, as when a cable is
// pulled.
type muted struct {
	net.Conn
	mute atomic.Bool
}

func (m *muted) Write(b []byte) (int, error) {
	if m.mute.Load() {
		return len(b), nil
	}
	return m.Conn.Write(b)
}

func TestPipe(t *testing.T) {
	eachServer(t, func(t *testing.T, s *server) {
		l := s.connect(t)
		p, err := l.Pipe("cat")
		if err != nil {
			t.Fatal(err)
		}
		want := strings.Repeat("0123456789", 100_000)
		go io.WriteString(p, want)
		b := make([]byte, len(want))
		if _, err := io.ReadFull(p, b); err != nil || string(b) != want {
			t.Errorf("%d bytes came back: %v", len(b), err)
		}
		if err := p.Close(); err != nil && !errors.Is(err, io.EOF) {
			t.Error(err)
		}
		// The end of a command that fails is not the end of a stream.
		if p, err = l.Pipe("echo some; echo why >&2; exit 127"); err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(p)
		var exit *ExitError
		if string(got) != "some\n" || !errors.As(err, &exit) || exit.Code != 127 || exit.Stderr != "why\n" {
			t.Errorf("%q, %v", got, err)
		}
		p.Close()
		if p, err = l.Pipe("echo all"); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(p); string(got) != "all\n" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		p.Close()
	})
}

// TestSideBySide: commands share a connection.
func TestSideBySide(t *testing.T) {
	eachServer(t, func(t *testing.T, s *server) {
		l := s.connect(t)
		errs := make(chan error)
		const n = 8 // OpenSSH allows ten
		for i := range n {
			go func() {
				b, err := l.Output(t.Context(), fmt.Sprintf("sleep 0.0%d; echo %d", n-i, i), 100)
				if err == nil && string(b) != fmt.Sprintln(i) {
					err = fmt.Errorf("%d: %q", i, b)
				}
				errs <- err
			}()
		}
		for range n {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
	})
}

func TestShell(t *testing.T) {
	eachServer(t, func(t *testing.T, s *server) {
		l := s.connect(t)
		var out, errs bytes.Buffer
		r, _ := io.Pipe() // a terminal at which nobody types
		err := l.Shell(t.Context(), "echo hello; exit 4", Terminal{In: r, Out: &out, Err: &errs, Type: "dumb", Width: 80, Height: 24})
		var exit *ExitError
		if !errors.As(err, &exit) || exit.Code != 4 || !strings.Contains(out.String(), "hello") {
			t.Errorf("%q, %v", &out, err)
		}
	})
}
