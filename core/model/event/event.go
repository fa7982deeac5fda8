// Package event carries what happens inside the engine to whoever shows it.
// Nothing below cmd/ prints: it sends events.
package event

import "time"

// Sink receives events. Implementations are safe for concurrent use and
// return quickly.
type Sink interface {
	Send(Event)
}

// Event is one of the types of this package.
type Event interface{ event() }

// Discard is a Sink that drops everything.
var Discard Sink = discard{}

type discard struct{}

func (discard) Send(Event) {}

// Printed is the output of Starlark's print.
type Printed struct{ Position, Text string }

// Warning is something a user should know that did not stop the command.
type Warning struct{ Position, Text string }

// PhaseStarted tells which phase the command is in: "loading", "analysis",
// "execution".
type PhaseStarted struct{ Name string }

// Counts is a snapshot of the scheduler: every action is in exactly one state.
type Counts struct {
	Total, Waiting, Ready, Running, Done, Cached, Failed int
}

// ActionStarted is sent when a worker begins an action that was not cached.
type ActionStarted struct {
	ID       int
	Owner    string // label
	Mnemonic string
	Progress string // one line for people
	At       time.Time
	Counts   Counts
}

// ActionPostponed is sent when a started action has to wait after all, for
// inputs that must be brought again.
type ActionPostponed struct {
	ID     int
	Counts Counts
}

// ActionProgress reports bytes of a running action, for example a download.
type ActionProgress struct {
	ID          int
	Done, Total int64 // bytes; Total is 0 where it is not known
}

// ActionFinished is sent once for each action that ran or was found cached.
type ActionFinished struct {
	ID       int
	Owner    string
	Mnemonic string
	Cached   bool
	Err      error
	Stdout   []byte // the kept tail of what the command wrote
	Stderr   []byte
	Took     time.Duration
	Counts   Counts
}

func (Printed) event()         {}
func (Warning) event()         {}
func (PhaseStarted) event()    {}
func (ActionStarted) event()   {}
func (ActionPostponed) event() {}
func (ActionProgress) event()  {}
func (ActionFinished) event()  {}
