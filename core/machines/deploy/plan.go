package deploy

import (
	"encoding/json"
	"fmt"
	"time"

	"tool/core/machines/system"
	"tool/core/model/digest"
	"tool/core/storage/store"
)

// Plan is all that a deploy will do, decided before anything is touched. It is
// plain data: printed, saved, compared. Resources come first, then machines,
// packages and units.
type Plan struct {
	Version    int       `json:"version"`
	Deployment string    `json:"deployment"` // UUID
	Name       string    `json:"name"`
	Label      string    `json:"label"`
	Object     store.Ref `json:"object"`
	Generation int       `json:"generation"` // that the machines are brought to
	Mode       string    `json:"mode"`       // switch, boot or test
	Backend    string    `json:"backend"`
	Note       string    `json:"note,omitempty"` // why that backend
	Network    Network   `json:"network"`
	On         []string  `json:"on,omitempty"`
	Parallel   int       `json:"parallel,omitempty"`

	Machines []MachinePlan `json:"machines"`
	Waves    [][]string    `json:"waves"` // machines that switch, in order
	// Refusals say why the plan may not be executed, each with the flag that
	// allows it.
	Refusals []Refusal `json:"refusals,omitempty"`
}

// Refusal is a reason not to execute a plan.
type Refusal struct {
	Machine string `json:"machine"`
	Text    string `json:"text"`
	Flag    string `json:"flag"` // that allows it
}

// What happens to a machine's resources.
const (
	ResourceKeep    = "keep"
	ResourceCreate  = "create"
	ResourceStart   = "start"
	ResourceChange  = "change"
	ResourceReplace = "replace"
	ResourceDestroy = "destroy"
	ResourceMend    = "mend" // what is missing is made again
)

// What happens to a machine's system.
const (
	SystemKeep   = "keep"
	SystemBoot   = "boot"   // it is made and boots it
	SystemSwitch = "switch" // as the mode says
	SystemResume = "resume" // it is there, and not confirmed yet
	SystemNone   = "none"   // there will be no machine
	SystemUnseen = "unseen" // the machine cannot be asked yet
)

// MachinePlan is what happens to one machine.
type MachinePlan struct {
	Name     string   `json:"name"`
	Label    string   `json:"label,omitempty"`
	Backend  string   `json:"backend,omitempty"`
	Adopted  bool     `json:"adopted,omitempty"` // it was there before
	Resource string   `json:"resource"`
	Steps    []Step   `json:"steps,omitempty"` // of the backend
	Address  string   `json:"address,omitempty"`
	HostAddr string   `json:"host_address,omitempty"`
	SSHPort  int      `json:"ssh_port,omitempty"`
	MACs     []string `json:"macs,omitempty"`
	Hardware Hardware `json:"hardware"`

	System       string                 `json:"system"`
	From         store.Ref              `json:"from,omitempty"`
	To           store.Ref              `json:"to,omitempty"`
	Why          string                 `json:"why,omitempty"`
	Facts        bool                   `json:"facts,omitempty"` // names, addresses or keys are written anew
	Packages     []system.PackageChange `json:"packages,omitempty"`
	ClosureBytes int64                  `json:"closure_bytes"`
	SendBytes    int64                  `json:"send_bytes"`
	SendBlobs    int                    `json:"send_blobs"`
	Units        []system.UnitChange    `json:"units,omitempty"`
	Crosses      []string               `json:"crosses,omitempty"`  // units whose data older programs cannot read afterwards
	Snapshot     string                 `json:"snapshot,omitempty"` // taken before it switches, because of that
	Again        bool                   `json:"again,omitempty"`    // it has crossed before and went back: another snapshot is taken, under the next free name
	Reboot       string                 `json:"reboot,omitempty"`   // why a reboot is needed for all of it to take effect
}

const planVersion = 1

// Empty reports whether the plan does nothing.
func (p *Plan) Empty() bool {
	for i := range p.Machines {
		if !p.Machines[i].Empty() {
			return false
		}
	}
	return true
}

// Empty reports whether nothing happens to the machine.
func (m *MachinePlan) Empty() bool {
	return m.Resource == ResourceKeep && (m.System == SystemKeep || m.System == SystemNone) && !m.Facts
}

// Machine returns the plan of a machine, or nil.
func (p *Plan) Machine(name string) *MachinePlan {
	for i := range p.Machines {
		if p.Machines[i].Name == name {
			return &p.Machines[i]
		}
	}
	return nil
}

// Creates reports whether machines are made, for which images are needed.
func (p *Plan) Creates() bool {
	for i := range p.Machines {
		switch p.Machines[i].Resource {
		case ResourceCreate, ResourceReplace, ResourceMend:
			if !p.Machines[i].Adopted { // those are there already
				return true
			}
		}
	}
	return false
}

// Digest names the plan: two plans that do the same have the same.
func (p *Plan) Digest() (digest.Digest, error) {
	b, err := json.Marshal(p)
	if err != nil {
		return digest.Digest{}, err
	}
	return digest.Of(b), nil
}

// Encode returns the plan as a file.
func (p *Plan) Encode() ([]byte, error) {
	b, err := json.MarshalIndent(p, "", "  ")
	return append(b, '\n'), err
}

// maxPlan bounds a plan's file, in bytes.
const maxPlan = 64 << 20

// ParsePlan reads a saved plan.
func ParsePlan(b []byte) (*Plan, error) {
	if len(b) > maxPlan {
		return nil, fmt.Errorf("plan of %d bytes is larger than %d", len(b), maxPlan)
	}
	var p Plan
	if err := json.Unmarshal(b, &p); err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	if p.Version != planVersion {
		return nil, fmt.Errorf("plan: version %d, this program knows %d", p.Version, planVersion)
	}
	if _, err := store.ParseRef(string(p.Object)); err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}
	return &p, nil
}

// StaleError says that a saved plan is not what would be done now.
type StaleError struct {
	Machine string // the first that differs; "": something else
	Saved   string
	Now     string
}

func (e *StaleError) Error() string {
	if e.Machine == "" {
		return "the plan is stale: since it was made, " + e.Now + "; make a new one with `tool plan -o`"
	}
	return fmt.Sprintf("the plan is stale: for %s it says %q, and now it would be %q; make a new one with `tool plan -o`", e.Machine, e.Saved, e.Now)
}

// same returns a *StaleError where now differs from the saved plan p.
func (p *Plan) same(now *Plan) error {
	a, err := p.Digest()
	if err != nil {
		return err
	}
	b, err := now.Digest()
	if err != nil {
		return err
	}
	if a == b {
		return nil
	}
	if p.Object != now.Object || p.Generation != now.Generation {
		return &StaleError{Now: fmt.Sprintf("the deployment has gone on to generation %d", now.Generation-1)}
	}
	for i := range now.Machines {
		n := &now.Machines[i]
		o := p.Machine(n.Name)
		if o == nil {
			return &StaleError{n.Name, "nothing", n.headline()}
		}
		x, err := json.Marshal(o)
		if err != nil {
			return err
		}
		y, err := json.Marshal(n)
		if err != nil {
			return err
		}
		if string(x) != string(y) {
			return &StaleError{n.Name, o.headline(), n.headline()}
		}
	}
	return &StaleError{Now: "the order of the machines, the network or an option has changed"}
}

func (m *MachinePlan) headline() string {
	s := m.Resource + ", " + m.System
	if m.From != "" {
		s += " from " + string(m.From)
	}
	return fmt.Sprintf("%s, %d units, %d bytes to send", s, len(m.Units), m.SendBytes)
}

// Deadlines of a deploy; zero fields take the defaults.
type Deadlines struct {
	Boot    time.Duration // from starting a machine to its SSH server
	Connect time.Duration // for one that runs
	Confirm time.Duration // how long a machine waits for the controller before it goes back
	Stable  time.Duration // how long units must stay up
	Settle  time.Duration // how long a machine that was switched may take to be well again, before others of its group are
}

func (d Deadlines) withDefaults() Deadlines {
	def := func(v *time.Duration, to time.Duration) {
		if *v == 0 {
			*v = to
		}
	}
	def(&d.Boot, 10*time.Minute)
	def(&d.Connect, 60*time.Second)
	def(&d.Confirm, 120*time.Second)
	def(&d.Stable, 5*time.Second)
	def(&d.Settle, 120*time.Second)
	return d
}
