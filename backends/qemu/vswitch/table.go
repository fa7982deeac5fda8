package vswitch

import "time"

// A table of addresses is bounded, in all and for each port, so that a guest
// that makes up addresses can neither fill memory nor push out the others'.
const (
	maxPerPort = 64
	maxAge     = 5 * time.Minute
)

// table says behind which port a station is.
type table struct {
	entries map[mac]station
	count   map[string]int
}

type station struct {
	port string
	seen time.Time
}

// learn notes that from was seen at port.
func (t *table) learn(from mac, port string, now time.Time) {
	if t.entries == nil {
		t.entries, t.count = map[mac]station{}, map[string]int{}
	}
	if old, ok := t.entries[from]; ok {
		if old.port == port && now.Sub(old.seen) < time.Second {
			return
		}
		t.forget(from)
	}
	if t.count[port] >= maxPerPort {
		t.expire(now)
	}
	if t.count[port] >= maxPerPort {
		return // its frames are flooded instead
	}
	t.entries[from] = station{port, now}
	t.count[port]++
}

// find returns the port behind which to is, or "".
func (t *table) find(to mac, now time.Time) string {
	s, ok := t.entries[to]
	if !ok || now.Sub(s.seen) > maxAge {
		return ""
	}
	return s.port
}

// drop forgets the stations of a port.
func (t *table) drop(port string) {
	for m, s := range t.entries {
		if s.port == port {
			t.forget(m)
		}
	}
}

func (t *table) expire(now time.Time) {
	for m, s := range t.entries {
		if now.Sub(s.seen) > maxAge {
			t.forget(m)
		}
	}
}

func (t *table) forget(m mac) {
	if s, ok := t.entries[m]; ok {
		delete(t.entries, m)
		if t.count[s.port]--; t.count[s.port] <= 0 {
			delete(t.count, s.port)
		}
	}
}
