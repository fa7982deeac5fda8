// Package vswitch is the private network of a deployment's virtual machines:
// a learning Ethernet switch over datagram sockets in one folder.
//
// The switch has the socket "switch", each machine has NAME.vm and sends to the
// switch's. Datagrams need no connection, so each side may end and start again
// at any time without the other noticing more than lost frames. The sender's
// address, which the kernel tells, says from which port a frame comes. Machines
// run in folders of their own, where "net" leads here, since socket paths may
// have 108 bytes only and keep the form in which they were bound: "net/NAME.vm".
//
// A switch runs as a process of its own, one to a folder: a lock sees to that.
// It ends by itself when no machine has been there for a while.
package vswitch

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Names in a switch's folder.
const (
	socketName = "switch"
	lockName   = "switch.lock"
	cutSuffix  = ".cut"
	prefix     = "net/" // of machines' addresses: see the package comment
)

// Idle is after how long without a machine a switch ends.
const Idle = 2 * time.Minute

// How often the folder is looked at while frames pass: for machines that have
// not sent anything yet whenever a frame is for all, and for cut ones.
const (
	scanEvery = 50 * time.Millisecond
	cutEvery  = time.Second
)

// Switch forwards frames between the machines whose sockets are in Dir.
type Switch struct {
	Dir  string
	Idle time.Duration // Idle, if zero

	ports   map[string]*port
	table   table
	scanned time.Time
}

// errRunning says that another process serves the folder already.
var errRunning = errors.New("a switch runs already")

// Run serves the machines of dir until none has been there for Idle, or ctx is
// done. If another switch serves dir, it returns at once without an error.
func Run(ctx context.Context, dir string) error {
	s := &Switch{Dir: dir}
	err := s.Run(ctx)
	if errors.Is(err, errRunning) {
		return nil
	}
	return err
}

// Run is Run for s.
func (s *Switch) Run(ctx context.Context) error {
	if s.Idle == 0 {
		s.Idle = Idle
	}
	dir, err := filepath.Abs(s.Dir)
	if err != nil {
		return err
	}
	// Addresses here must be as short as machines' are.
	if err := os.Chdir(dir); err != nil {
		return fmt.Errorf("serve the switch: %w", err)
	}
	return s.serve(ctx, ".")
}

// serve is Run where paths below dir are short enough.
func (s *Switch) serve(ctx context.Context, dir string) error {
	lock, err := takeLock(filepath.Join(dir, lockName))
	if err != nil {
		return err
	}
	defer lock.Close()
	path := filepath.Join(dir, socketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: path})
	if err != nil {
		return fmt.Errorf("serve the switch: %w", err)
	}
	defer conn.Close()
	_ = conn.SetReadBuffer(4 << 20)
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	s.ports = map[string]*port{}
	defer func() {
		for _, p := range s.ports {
			close(p.queue)
		}
	}()
	s.scan(dir, time.Now())
	busy := time.Now()
	buf := make([]byte, maxFrame+1)
	for ctx.Err() == nil {
		_ = conn.SetReadDeadline(time.Now().Add(min(s.Idle/4, 10*time.Second)))
		n, from, err := conn.ReadFromUnix(buf)
		now := time.Now()
		switch {
		case err == nil:
			busy = now
			s.frame(dir, from, buf[:n], now)
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return fmt.Errorf("serve the switch: %w", err)
		default:
			if s.scan(dir, now) {
				busy = now
			}
			if now.Sub(busy) > s.Idle {
				return nil
			}
		}
	}
	return nil
}

// takeLock makes this process the one that serves, and leaves its id in the
// file for those who look for it.
func takeLock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	// Who only looks whether a switch runs holds it for a moment, too.
	for try := 0; errors.Is(err, unix.EWOULDBLOCK) && try < 10; try++ {
		time.Sleep(20 * time.Millisecond)
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		_ = f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errRunning
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	if err = f.Truncate(0); err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// scan finds machines that have not sent anything yet, since they, too, must
// hear who asks for them. It reports whether any machine is there.
func (s *Switch) scan(dir string, now time.Time) bool {
	s.scanned = now
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	there, cut := map[string]bool{}, map[string]bool{}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), portSuffix); ok && portName.MatchString(name) {
			there[name] = true
			s.port(dir, name)
		}
		if name, ok := strings.CutSuffix(e.Name(), cutSuffix); ok {
			cut[name] = true
		}
	}
	alive := false
	for name, p := range s.ports {
		p.cut = cut[name]
		if !there[name] {
			close(p.queue)
			delete(s.ports, name)
			s.table.drop(name)
			continue
		}
		alive = alive || p.alive()
	}
	return alive
}

// port returns the port called name; nil if there are too many.
func (s *Switch) port(dir, name string) *port {
	p := s.ports[name]
	if p == nil && len(s.ports) < maxPorts {
		p = newPort(dir, name)
		s.ports[name] = p
	}
	return p
}

// frame forwards what came from a machine. buf is copied.
func (s *Switch) frame(dir string, from *net.UnixAddr, buf []byte, now time.Time) {
	if from == nil {
		return
	}
	name, ok := strings.CutPrefix(from.Name, prefix)
	if ok {
		name, ok = strings.CutSuffix(name, portSuffix)
	}
	to, source, good := header(buf)
	if !ok || !good || !portName.MatchString(name) {
		return
	}
	p := s.port(dir, name)
	if now.Sub(s.scanned) > cutEvery {
		s.scan(dir, now)
	}
	if p == nil || p.cut {
		return
	}
	s.table.learn(source, name, now)
	frame := append([]byte(nil), buf...)
	if !to.group() {
		if at := s.table.find(to, now); at != "" {
			if q := s.ports[at]; q != nil && at != name && !q.cut {
				q.send(frame)
			}
			return
		}
	}
	if now.Sub(s.scanned) > scanEvery {
		s.scan(dir, now)
	}
	for other, q := range s.ports {
		if other != name && !q.cut {
			q.send(frame)
		}
	}
}
