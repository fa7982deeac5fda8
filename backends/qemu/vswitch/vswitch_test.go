package vswitch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// network is a switch in a folder of its own, which is also the current one:
// machines bind their sockets by names as short as the switch's.
type network struct {
	t    *testing.T
	dir  string
	stop context.CancelFunc
	done chan error
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	n := &network{t: t, dir: t.TempDir()}
	t.Chdir(n.dir)
	if err := os.Symlink(n.dir, "net"); err != nil {
		t.Fatal(err)
	}
	n.start()
	t.Cleanup(n.end)
	return n
}

func (n *network) start() {
	n.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	n.stop, n.done = cancel, make(chan error, 1)
	s := &Switch{Dir: n.dir, Idle: time.Minute}
	go func() { n.done <- s.serve(ctx, ".") }()
	for range 500 {
		if pid, err := Running(n.dir); err == nil && pid == os.Getpid() {
			if c, err := net.Dial("unixgram", "switch"); err == nil {
				_ = c.Close()
				return
			}
		}
		time.Sleep(2 * time.Millisecond)
	}
	n.t.Fatal("the switch does not start")
}

func (n *network) end() {
	n.stop()
	if err := <-n.done; err != nil {
		n.t.Error(err)
	}
	n.done <- nil
}

// host is a machine with one address.
type host struct {
	t    *testing.T
	conn *net.UnixConn
	to   *net.UnixAddr
	addr mac
}

func (n *network) host(name string, last byte) *host {
	n.t.Helper()
	local, remote := Port(name)
	if err := os.Remove(local); err != nil && !errors.Is(err, os.ErrNotExist) {
		n.t.Fatal(err)
	}
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: local})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = c.Close() })
	time.Sleep(2 * scanEvery) // or the switch may not look for it again yet
	return &host{n.t, c, &net.UnixAddr{Net: "unixgram", Name: remote}, mac{0x52, 0x54, 0, 0, 2, last}}
}

func (h *host) send(to mac, text string) {
	h.t.Helper()
	frame := append(append(append([]byte{}, to[:]...), h.addr[:]...), 0x88, 0xb5)
	h.raw(append(frame, text...))
}

func (h *host) raw(frame []byte) {
	h.t.Helper()
	if _, err := h.conn.WriteToUnix(frame, h.to); err != nil {
		h.t.Fatal(err)
	}
}

// next returns the text of the next frame, or "" if none comes.
func (h *host) next(wait time.Duration) string {
	h.t.Helper()
	buf := make([]byte, maxFrame)
	if err := h.conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		h.t.Fatal(err)
	}
	k, err := h.conn.Read(buf)
	if err != nil {
		return ""
	}
	return string(buf[minFrame:k])
}

func (h *host) want(text string) {
	h.t.Helper()
	if got := h.next(5 * time.Second); got != text {
		h.t.Fatalf("got %q, want %q", got, text)
	}
}

func (h *host) silence() {
	h.t.Helper()
	if got := h.next(100 * time.Millisecond); got != "" {
		h.t.Fatalf("got %q, want nothing", got)
	}
}

var everybody = mac{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

func TestLearning(t *testing.T) {
	n := newNetwork(t)
	a, b, c := n.host("a", 1), n.host("b", 2), n.host("c", 3)
	a.send(everybody, "hello") // b and c have sent nothing yet, and hear it
	b.want("hello")
	c.want("hello")
	a.silence()
	b.send(a.addr, "answer") // the switch has learnt where a is
	a.want("answer")
	c.silence()
	c.send(b.addr, "to b")
	b.want("to b")
	a.silence()
}

// TestRestart shows that neither side needs the other to stay.
func TestRestart(t *testing.T) {
	n := newNetwork(t)
	a, b := n.host("a", 1), n.host("b", 2)
	a.send(everybody, "1")
	b.want("1")
	n.end()
	n.start()
	// b says nothing after the restart: it must be found all the same.
	a.send(b.addr, "2")
	b.want("2")
	_ = b.conn.Close()
	a.send(b.addr, "lost")
	b = n.host("b", 2)
	for range 100 {
		a.send(b.addr, "3")
		if b.next(50*time.Millisecond) == "3" {
			return
		}
	}
	t.Error("a machine that was started again is not reached")
}

func TestCut(t *testing.T) {
	n := newNetwork(t)
	a, b := n.host("a", 1), n.host("b", 2)
	a.send(everybody, "1")
	b.want("1")
	reaches := func() bool {
		a.send(everybody, "x")
		return b.next(50*time.Millisecond) == "x"
	}
	for _, cut := range []bool{true, false} {
		if err := Cut(n.dir, "b", cut); err != nil {
			t.Fatal(err)
		}
		end := time.Now().Add(10 * time.Second)
		for reaches() == cut {
			if time.Now().After(end) {
				t.Fatalf("cut %v: nothing changes", cut)
			}
		}
	}
}

// TestHostile sends what no honest machine sends. Nothing of it arrives, and
// the switch goes on.
func TestHostile(t *testing.T) {
	n := newNetwork(t)
	a, b := n.host("a", 1), n.host("b", 2)
	a.send(everybody, "1")
	b.want("1")
	a.raw(nil)
	a.raw([]byte("short"))
	a.raw(append(bytes.Repeat([]byte{0xff}, 12), "from a group"...))
	a.raw(append(append(b.addr[:], make([]byte, 6)...), "from nobody"...))
	b.silence()
	// One that makes up addresses neither takes b's place nor fills memory.
	liar := n.host("liar", 9)
	for i := range 3 * maxPerPort {
		liar.addr = mac{2, 0, 0, 0, byte(i >> 8), byte(i)}
		liar.send(liar.addr, "")
	}
	a.send(b.addr, "2")
	for got := ""; got != "2"; {
		if got = b.next(5 * time.Second); got != "" && got != "2" {
			t.Fatalf("got %q", got)
		}
	}
	// A socket that does not say who it is.
	anonymous, err := net.Dial("unixgram", "switch")
	if err != nil {
		t.Fatal(err)
	}
	defer anonymous.Close()
	frame := append(append(append([]byte{}, b.addr[:]...), a.addr[:]...), "88from nowhere"...)
	if _, err := anonymous.Write(frame); err != nil {
		t.Fatal(err)
	}
	b.silence()
}

func TestTable(t *testing.T) {
	var tb table
	now := time.Unix(1000, 0)
	for i := range 3 * maxPerPort {
		tb.learn(mac{2, 0, 0, 0, byte(i >> 8), byte(i)}, "liar", now)
	}
	if len(tb.entries) != maxPerPort {
		t.Errorf("%d entries, want %d", len(tb.entries), maxPerPort)
	}
	tb.learn(mac{2, 1}, "other", now)
	if tb.find(mac{2, 1}, now) != "other" {
		t.Error("another port's station is not learnt")
	}
	tb.learn(mac{2, 1}, "moved", now.Add(time.Second))
	if got := tb.find(mac{2, 1}, now.Add(time.Second)); got != "moved" {
		t.Errorf("a station that moved is at %q", got)
	}
	late := now.Add(2 * maxAge)
	if got := tb.find(mac{2, 1}, late); got != "" {
		t.Errorf("an old entry is still at %q", got)
	}
	tb.learn(mac{2, 2}, "liar", late)
	if len(tb.entries) != 1 || tb.count["liar"] != 1 {
		t.Errorf("old entries stay: %d", len(tb.entries))
	}
	tb.learn(mac{2, 3}, "other", late)
	tb.drop("liar")
	if len(tb.entries) != 1 || tb.count["liar"] != 0 {
		t.Errorf("a dropped port's entries stay: %v", tb.entries)
	}
}

// TestIdle shows that a switch ends when nobody is there, and that there is one
// to a folder.
func TestIdle(t *testing.T) {
	n := newNetwork(t)
	if err := (&Switch{Dir: n.dir}).serve(context.Background(), "."); !errors.Is(err, errRunning) {
		t.Errorf("a second switch: %v", err)
	}
	n.end()
	if pid, err := Running(n.dir); err != nil || pid != 0 {
		t.Errorf("an ended switch runs as %d, %v", pid, err)
	}
	s := &Switch{Dir: n.dir, Idle: 50 * time.Millisecond}
	if err := s.serve(context.Background(), "."); err != nil {
		t.Error(err)
	}
	a := n.host("a", 1)
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	if err := s.serve(ctx, "."); err != nil || ctx.Err() == nil {
		t.Errorf("a switch with a machine ended: %v", err)
	}
	_ = a.conn.Close()
	if others, err := Forget(n.dir, "a"); err != nil || others {
		t.Errorf("forgetting the last machine: %v, %v", others, err)
	}
	if err := Clean(n.dir); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob("*"); err != nil || fmt.Sprint(left) != "[net]" {
		t.Errorf("left: %v, %v", left, err)
	}
	n.start()
}

func FuzzHeader(f *testing.F) {
	f.Add([]byte{})
	f.Add(bytes.Repeat([]byte{1}, minFrame))
	f.Fuzz(func(t *testing.T, frame []byte) {
		to, from, ok := header(frame)
		if ok && (from.group() || from == mac{} || len(frame) < minFrame || !bytes.Equal(frame[:6], to[:])) {
			t.Errorf("%x is taken as from %s", frame, from)
		}
	})
}
