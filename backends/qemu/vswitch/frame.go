package vswitch

import "net"

// The bounds of an Ethernet frame here: without checksum, with room for the
// largest segment that a guest's offloading makes.
const (
	minFrame = 14
	maxFrame = 64 << 10
)

// mac is an Ethernet address.
type mac [6]byte

func (m mac) String() string { return net.HardwareAddr(m[:]).String() }

// group reports whether m addresses more than one station.
func (m mac) group() bool { return m[0]&1 != 0 }

// header reads whom a frame is for and whom it is from. What no honest station
// sends is not forwarded: frames too short or too long, and a source that is a
// group or empty.
func header(frame []byte) (to, from mac, ok bool) {
	if len(frame) < minFrame || len(frame) > maxFrame {
		return to, from, false
	}
	to, from = mac(frame[:6]), mac(frame[6:12])
	return to, from, !from.group() && from != mac{}
}
