// Package deploy takes a fleet from a deployment object to running machines:
// state, plan, rollout. It never sees Starlark, and decides before it acts.
package deploy

import (
	"context"
	"errors"
	"net"
	"net/netip"
)

// Backend makes machines of one kind. Deciding (Plan) is pure; doing is
// idempotent, in an order that may be interrupted anywhere and begun again.
// Methods may be called for different machines at once, and each may be called
// by another process than the one before. Errors need not name the machine: the
// caller does.
type Backend interface {
	// Name is what a deployment's backend attribute and state call it.
	Name() string
	// Usable reports why machines cannot be made on this host, or nil.
	Usable(ctx context.Context) error
	// Observe looks at the machine and changes nothing.
	Observe(ctx context.Context, m *Machine) (*Observed, error)
	// Plan returns the steps from what was observed to the goal; none if it is
	// reached. It does no I/O.
	Plan(m *Machine, o *Observed, g Goal) ([]Step, error)
	// Do performs one step, or finds it done. Each wait has a deadline and on
	// expiry an error that tells the machine's state and its console's tail.
	Do(ctx context.Context, m *Machine, s Step) error
	// Dial connects to the machine's SSH server. It makes one attempt.
	Dial(ctx context.Context, m *Machine) (net.Conn, error)
	// Console returns the path of the serial console's log, or "".
	Console(m *Machine) string
}

// Machine is all that a backend is told: decided in the plan, kept in the
// state. Paths are absolute.
type Machine struct {
	Deployment string // UUID
	Name       string // unique in the deployment
	Dir        string // the backend's folder for this machine; made by the caller, mode 0700
	NetDir     string // the backend's folder for the deployment's network, likewise
	Hardware   Hardware
	Settings   map[string]string // the deployment's own settings for this backend, such as the host of an adopted machine

	Made          bool   // it was complete once
	Key           string // the deployment's private key, OpenSSH PEM
	AuthorizedKey string // and its public line

	ControlMAC string       // of the interface the controller uses
	ClusterMAC string       // of the private network's interface
	Address    netip.Prefix // in the private network
	HostAddr   netip.Addr   // loopback address of the controller that stands for this machine
	SSHPort    int          // TCP port at 127.0.0.1 that leads to the machine's port 22
	Forwards   []Forward    // further ports that the host reaches at HostAddr

	// What to make it from. Empty where the machine exists already and is only
	// observed, stopped or destroyed.
	Root     string // raw image of the root file system: a base for copy-on-write
	ESP      string // raw image of the EFI system partition's disk, with UEFI
	Seed     string // the seed disk: identity, agent, what the base image lacks
	Kernel   string // direct boot
	Initrd   string
	Cmdline  string
	Emulator string // tree of an environment with the emulator and its firmware
}

// Forward leads from Port of the host (at Machine.HostAddr) to Guest of the machine.
type Forward struct {
	Port  int `json:"port"`
	Guest int `json:"guest"`
}

// Goal is what a plan leads to.
type Goal string

// The goals.
const (
	Running Goal = "running"
	Stopped Goal = "stopped"
	Absent  Goal = "absent"
)

// Observed is what a backend found.
type Observed struct {
	Exists   bool     // any resource of the machine is there
	Complete bool     // all of them are: it could be started
	State    State    // of its process
	ID       string   // the backend's own name for it, for people
	Hardware Hardware // as it was made; zero where unknown
	Problems []string // what is not as it should be, for people
	Patience int      // how many times longer than on hardware things take there; 0: no longer

	Missing []string // parts that are not there, in the backend's own words; Plan makes them
	Drift   []string // what is other than the machine is wanted and takes a restart to change, for people
}

// State tells whether a machine runs.
type State string

// The states.
const (
	StateMissing State = "missing"
	StateStopped State = "stopped"
	StateRunning State = "running"
	StatePaused  State = "paused"
	StateCrashed State = "crashed" // it ended without being told to
	StateUnknown State = "unknown"
)

// StepStart is the kind of the step that starts a machine, in every backend.
const StepStart = "start"

// Step is one idempotent step of a backend. Kind is the backend's own word but
// for StepStart; Text tells people.
type Step struct {
	Kind        string `json:"kind"`
	Text        string `json:"text"`
	Destructive bool   `json:"destructive,omitempty"` // data on the machine's disk is lost
}

// Adopter is a Backend of machines that were there before: it takes no images,
// and who they are is not allocated but theirs.
type Adopter interface {
	// Identity reads who a machine is from its settings. It does no I/O.
	Identity(settings map[string]string) (Identity, error)
}

// Identity is what an adopted machine brings along.
type Identity struct {
	Host    string     // name or address at which this host reaches it
	Address netip.Addr // at which the deployment's other machines do
	HostKey string     // public, as known_hosts has it; "" where it is not said
}

// AwayError says that a machine which is not ours to start cannot be reached.
type AwayError struct{ At, Why string }

func (e *AwayError) Error() string { return e.At + " cannot be reached: " + e.Why }

// Cutter is a Backend that can cut a machine's power, for tests of what happens
// then.
type Cutter interface {
	Cut(ctx context.Context, m *Machine) error
}

// Shaper is a Backend that cannot make all hardware. Shape returns what it makes
// where h is wanted; the same again for what it returned.
type Shaper interface {
	Shape(h Hardware) Hardware
}

// Snapshot is a state of a machine's disks, and of its memory where it ran, that
// can be gone back to.
type Snapshot struct {
	Name        string `json:"name"` // unique on the machine
	Description string `json:"description,omitempty"`
	Current     bool   `json:"current,omitempty"` // what the machine has is this and what changed since
}

// Snapshotter is a Backend that takes snapshots of machines. RestoreSnapshot
// takes a machine that does not run; the others do not care.
type Snapshotter interface {
	Snapshots(ctx context.Context, m *Machine) ([]Snapshot, error) // oldest first
	TakeSnapshot(ctx context.Context, m *Machine, s Snapshot) error
	RestoreSnapshot(ctx context.Context, m *Machine, name string) error
	DeleteSnapshot(ctx context.Context, m *Machine, name string) error
}

// Errors of a Snapshotter, for errors.Is.
var (
	ErrSnapshotExists = errors.New("there is a snapshot of that name already")
	ErrNoSnapshot     = errors.New("there is no snapshot of that name")
)
