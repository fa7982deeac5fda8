package event

import "time"

// MachineDoing tells what is being done with a machine; an empty Text, that
// nothing is.
type MachineDoing struct {
	Machine     string
	Text        string
	Done, Total int64 // bytes, where bytes are moved
	At          time.Time
}

// MachineSaid is something about a machine that stays to be read.
type MachineSaid struct {
	Machine string
	Text    string
	At      time.Time
}

func (MachineDoing) event() {}
func (MachineSaid) event()  {}
