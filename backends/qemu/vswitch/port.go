package vswitch

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// A port is a socket of a virtual machine, NAME.vm in the switch's folder.
const portSuffix = ".vm"

// maxPorts bounds how many machines a switch serves.
const maxPorts = 1024

// portName tells names that are ports' from whatever else a datagram could
// claim to come from.
var portName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9-]{0,62}$`)

// port delivers frames to one machine. Its queue takes bursts: the kernel keeps
// few datagrams for a receiver that is slow, and an emulated one is.
type port struct {
	name  string
	path  string
	queue chan []byte
	cut   bool
}

const queueLength = 512

func newPort(dir, name string) *port {
	p := &port{name: name, path: filepath.Join(dir, name+portSuffix), queue: make(chan []byte, queueLength)}
	go p.deliver()
	return p
}

// send queues a frame, or drops it as a full switch does.
func (p *port) send(frame []byte) {
	select {
	case p.queue <- frame:
	default:
	}
}

// deliver writes to the machine's socket. A connected socket blocks while the
// receiver's queue is full; a machine that was started again has a new socket
// at the same path, so a failure connects anew.
func (p *port) deliver() {
	var conn *net.UnixConn
	for frame := range p.queue {
		for try := 0; try < 2; try++ {
			if conn == nil {
				c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: p.path})
				if err != nil {
					break // it is down: what is sent to it is lost, as on a wire
				}
				conn = c
			}
			// One that reads nothing at all must not hold its queue for ever.
			_ = conn.SetWriteDeadline(time.Now().Add(2 * time.Second))
			_, err := conn.Write(frame)
			if err == nil {
				break
			}
			_ = conn.Close()
			conn = nil
			if os.IsTimeout(err) {
				break
			}
		}
	}
	if conn != nil {
		_ = conn.Close()
	}
}

// alive reports whether a machine has the socket open.
func (p *port) alive() bool {
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Net: "unixgram", Name: p.path})
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}
