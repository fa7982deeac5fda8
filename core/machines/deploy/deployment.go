package deploy

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"tool/core/machines/facts"
	"tool/core/storage/cas"
	"tool/core/storage/store"
)

// Deployment is what is remembered of a deployment: all that was decided for it,
// before it was done. It is one file, replaced by rename. It holds private keys.
type Deployment struct {
	Version     int                      `json:"version"`
	UUID        string                   `json:"uuid"`
	Name        string                   `json:"name"`
	Label       string                   `json:"label"`     // the target that it is built from
	Workspace   string                   `json:"workspace"` // and where that is
	Description string                   `json:"description"`
	Network     Network                  `json:"network"`
	CIDR        string                   `json:"cidr,omitempty"`     // asked for, instead of the target's
	Emulator    store.Ref                `json:"emulator,omitempty"` // what machines run in
	Backend     string                   `json:"backend"`            // as chosen, never auto
	Created     time.Time                `json:"created"`
	KeyPrivate  string                   `json:"key_private"` // OpenSSH PEM: the controller's
	KeyPublic   string                   `json:"key_public"`
	Machines    map[string]*MachineState `json:"machines"`
	Generations []Generation             `json:"generations"`
	Next        int                      `json:"next_generation"`  // numbers are never used twice
	Active      int                      `json:"active,omitempty"` // the generation that all machines have confirmed
	Target      int                      `json:"target,omitempty"` // the one that the last command led to

	dir string
}

// MachineState is one machine's. What is in it was allocated once and stays
// until the machine is destroyed.
type MachineState struct {
	Name       string            `json:"name"`
	Backend    string            `json:"backend"`
	ID         string            `json:"id"`                // the backend's name for it
	Made       bool              `json:"made"`              // it was complete once; its disk may hold data
	Adopted    bool              `json:"adopted,omitempty"` // it was there before
	Host       string            `json:"host,omitempty"`    // at which this host reaches it, where it is not HostAddr
	Hardware   Hardware          `json:"hardware"`
	Settings   map[string]string `json:"settings,omitempty"`
	MachineID  string            `json:"machine_id"`
	ControlMAC string            `json:"control_mac"`
	ClusterMAC string            `json:"cluster_mac"`
	Address    netip.Prefix      `json:"address"`
	HostAddr   netip.Addr        `json:"host_address"`
	SSHPort    int               `json:"ssh_port"`
	Forwards   []Forward         `json:"forwards,omitempty"`
	HostKey    string            `json:"host_key_private"` // OpenSSH PEM
	HostKeyPub string            `json:"host_key_public"`
	Boot       store.Ref         `json:"boot,omitempty"`      // the system whose kernel the backend loads
	Confirmed  store.Ref         `json:"confirmed,omitempty"` // as last seen
	Generation int               `json:"generation,omitempty"`
	Failure    string            `json:"failure,omitempty"` // of the last attempt; empty: none
}

// Generation is what all machines were brought to at once.
type Generation struct {
	Number   int                  `json:"number"`
	Object   store.Ref            `json:"object"`
	Label    string               `json:"label"`
	Created  time.Time            `json:"created"`
	Machines map[string]store.Ref `json:"machines"`
	State    string               `json:"state"` // begun, confirmed or failed
	Note     string               `json:"note,omitempty"`
}

const stateVersion = 1

// maxState bounds the file, in bytes.
const maxState = 64 << 20

// Book is the folder that holds all deployments of a user.
type Book struct{ dir string }

// OpenBook opens the folder of deployments and makes it where there is none.
func OpenBook(dir string) (*Book, error) {
	abs, err := filepath.Abs(dir)
	if err == nil {
		err = os.MkdirAll(filepath.Join(abs, "deployments"), 0o700)
	}
	if err != nil {
		return nil, fmt.Errorf("open the deployments' folder: %w", err)
	}
	return &Book{filepath.Join(abs, "deployments")}, nil
}

// NotFoundError says that there is no such deployment.
type NotFoundError struct {
	Name string
	Have []string
}

func (e *NotFoundError) Error() string {
	if len(e.Have) == 0 {
		return fmt.Sprintf("there is no deployment %q; there are none yet: `tool deploy //package:target` makes one", e.Name)
	}
	return fmt.Sprintf("there is no deployment %q; there is %s", e.Name, strings.Join(e.Have, ", "))
}

// List returns all deployments, sorted by name.
func (b *Book) List() ([]*Deployment, error) {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return nil, fmt.Errorf("list deployments: %w", err)
	}
	var out []*Deployment
	for _, e := range entries {
		s, err := readState(filepath.Join(b.dir, e.Name()))
		if errors.Is(err, os.ErrNotExist) {
			continue // being made, or deleted
		}
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b *Deployment) int { return strings.Compare(a.Name+a.UUID, b.Name+b.UUID) })
	return out, nil
}

// Find returns the deployment with that name or UUID (or its beginning, of
// eight characters at least).
func (b *Book) Find(name string) (*Deployment, error) {
	all, err := b.List()
	if err != nil {
		return nil, err
	}
	var have []string
	for _, s := range all {
		if s.Name == name || s.UUID == name || len(name) >= 8 && strings.HasPrefix(s.UUID, name) {
			return s, nil
		}
		have = append(have, s.Name)
	}
	return nil, &NotFoundError{name, have}
}

// Create makes a deployment without machines.
func (b *Book) Create(name, label, workspace string) (*Deployment, error) {
	if err := CheckDeploymentName(name); err != nil {
		return nil, err
	}
	// Two processes must not make the same name.
	unlock, err := b.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if s, err := b.Find(name); err == nil {
		return nil, fmt.Errorf("there is a deployment %s already (%s, of %s); `tool deploy -d %s` deploys it", s.Name, s.UUID, s.Label, s.Name)
	} else if !errors.As(err, new(*NotFoundError)) {
		return nil, err
	}
	s, err := b.Provisional(name, label, workspace)
	if err != nil {
		return nil, err
	}
	return s, s.keep()
}

// Provisional returns a deployment that is only in memory: what a plan for one
// that is not there yet is made with.
func (b *Book) Provisional(name, label, workspace string) (*Deployment, error) {
	if err := CheckDeploymentName(name); err != nil {
		return nil, err
	}
	s := &Deployment{
		Version: stateVersion, UUID: newUUID(), Name: name, Label: label, Workspace: workspace,
		Created: time.Now().UTC().Truncate(time.Second), Machines: map[string]*MachineState{}, Next: 1,
	}
	var err error
	if s.KeyPrivate, s.KeyPublic, err = newKey("tool@" + name); err != nil {
		return nil, err
	}
	s.dir = filepath.Join(b.dir, s.UUID)
	return s, nil
}

// CreateAs is Create with the UUID that a plan was made with.
func (b *Book) CreateAs(name, label, workspace, uuid string) (*Deployment, error) {
	s, err := b.Provisional(name, label, workspace)
	if err != nil {
		return nil, err
	}
	s.UUID, s.dir = uuid, filepath.Join(b.dir, uuid)
	if err := s.check(); err != nil {
		return nil, err
	}
	unlock, err := b.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	return s, s.keep()
}

func (s *Deployment) keep() error {
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		return fmt.Errorf("create deployment %s: %w", s.Name, err)
	}
	return s.Save()
}

// Import adds a deployment that ParseDeployment reads, with its keys.
func (b *Book) Import(s *Deployment) (*Deployment, error) {
	if err := s.check(); err != nil {
		return nil, fmt.Errorf("import: %w", err)
	}
	if s.KeyPrivate == "" {
		return nil, fmt.Errorf("import: deployment %s has no private key in it: export it with --include-keys", s.Name)
	}
	unlock, err := b.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	all, err := b.List()
	if err != nil {
		return nil, err
	}
	for _, o := range all {
		if o.UUID == s.UUID || o.Name == s.Name {
			return nil, fmt.Errorf("import: there is a deployment %s already (%s); delete it first", o.Name, o.UUID)
		}
	}
	s.dir = filepath.Join(b.dir, s.UUID)
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return nil, fmt.Errorf("import deployment %s: %w", s.Name, err)
	}
	return s, s.Save()
}

// Delete forgets a deployment without machines.
func (b *Book) Delete(s *Deployment) error {
	// The state goes first: what is left without it is nothing.
	if err := os.Remove(s.file()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("delete deployment %s: %w", s.Name, err)
	}
	return os.RemoveAll(s.dir)
}

// CheckDeploymentName reports why name cannot be a deployment's.
func CheckDeploymentName(name string) error {
	if name == "" || len(name) > 100 || strings.Trim(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") != "" || name[0] == '-' || name[0] == '.' {
		return fmt.Errorf("%q cannot be a deployment's name: letters, digits, -, _ and . are allowed", name)
	}
	return nil
}

func newUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (s *Deployment) file() string { return filepath.Join(s.dir, "state.json") }

// Dir returns the deployment's folder.
func (s *Deployment) Dir() string { return s.dir }

func readState(dir string) (*Deployment, error) {
	b, err := cas.ReadSmall(filepath.Join(dir, "state.json"), maxState)
	if err != nil {
		return nil, err
	}
	s, err := ParseDeployment(b)
	if err != nil {
		return nil, fmt.Errorf("deployment's state %s: %w", filepath.Join(dir, "state.json"), err)
	}
	s.dir = dir
	return s, nil
}

// ParseDeployment reads a state's JSON.
func ParseDeployment(b []byte) (*Deployment, error) {
	var s Deployment
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, err
	}
	return &s, s.check()
}

func (s *Deployment) check() error {
	if s.Version != stateVersion {
		return fmt.Errorf("version %d, this program knows %d", s.Version, stateVersion)
	}
	if err := CheckDeploymentName(s.Name); err != nil {
		return err
	}
	if len(s.UUID) != 36 || strings.Trim(s.UUID, "0123456789abcdef-") != "" {
		return fmt.Errorf("%q is not a UUID", s.UUID)
	}
	if s.Machines == nil {
		s.Machines = map[string]*MachineState{}
	}
	for name, m := range s.Machines {
		if m == nil || m.Name != name {
			return fmt.Errorf("machine %q is damaged", name)
		}
		// It becomes a folder's name, and an import may be anybody's.
		if err := facts.CheckHost(name); err != nil {
			return err
		}
	}
	s.Next = max(s.Next, 1)
	for _, g := range s.Generations {
		s.Next = max(s.Next, g.Number+1)
	}
	return nil
}

// reload reads the file again, for whoever just got the lease.
func (s *Deployment) reload() error {
	fresh, err := readState(s.dir)
	if err != nil {
		return err
	}
	*s = *fresh
	return nil
}

// Save replaces the file; it is durable when Save returns.
func (s *Deployment) Save() error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err == nil {
		err = replaceFile(s.file(), append(b, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("save the state of deployment %s: %w", s.Name, err)
	}
	return nil
}

// replaceFile writes path by rename, durably.
func replaceFile(path string, b []byte, mode os.FileMode) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".tmp-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(b)
	err = errors.Join(err, f.Chmod(mode), f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// generation returns the generation with that number, or nil.
func (s *Deployment) generation(n int) *Generation {
	if i := slices.IndexFunc(s.Generations, func(g Generation) bool { return g.Number == n }); i >= 0 {
		return &s.Generations[i]
	}
	return nil
}

// Current returns the generation that all machines have confirmed, or nil.
func (s *Deployment) Current() *Generation { return s.generation(s.Active) }

// What became of a generation.
const (
	GenerationBegun     = "begun"
	GenerationConfirmed = "confirmed"
	GenerationFailed    = "failed"
)

// MachineNames returns the machines' names, sorted.
func (s *Deployment) MachineNames() []string {
	names := make([]string, 0, len(s.Machines))
	for n := range s.Machines {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// MachineDir returns the backend's folder of a machine, NetDir that of the network.
func (s *Deployment) MachineDir(name string) string { return filepath.Join(s.dir, "machines", name) }

// NetDir returns the backend's folder for the deployment's network.
func (s *Deployment) NetDir() string { return filepath.Join(s.dir, "net") }
