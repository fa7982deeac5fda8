// Package system knows what a machine's system is: the manifest that stands at
// the root of its tree, and what changes between two of them.
//
// Everything here is a pure function of manifests. The controller uses it to
// plan and the machine to switch, so both come to the same result.
package system

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"tool/core/storage/store"
)

// File is the manifest's path within a system's tree.
const File = "system.json"

// MaxFile bounds a manifest, in bytes.
const MaxFile = 16 << 20

const manifestVersion = 1

// Manifest is system.json: what a system is made of. docs/format.md describes it.
type Manifest struct {
	Version     int         `json:"version"`
	Name        string      `json:"name"`
	Packages    []Package   `json:"packages"`
	Services    []Service   `json:"services"`
	Users       []User      `json:"users"`
	Groups      []Group     `json:"groups"`
	Directories []Directory `json:"directories"`
	Modules     []string    `json:"modules"`
	Enabled     []string    `json:"enabled"`
	Boot        *Boot       `json:"boot,omitempty"` // nil: the system has no kernel of its own
}

// Package is one package of a system. Ref is the store path of its tree.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Purl    string `json:"purl"`
	Label   string `json:"label"`
	Ref     string `json:"ref"`
}

// Service is one unit with what it needs. Two services with equal content are
// the same service, wherever they were built.
type Service struct {
	Name       string         `json:"name"`
	Label      string         `json:"label"`
	Unit       string         `json:"unit"`
	UnitFile   PlacedFile     `json:"unit_file"`
	Files      []PlacedFile   `json:"files"`
	Packages   []string       `json:"packages"` // names, each of Manifest.Packages
	OnChange   string         `json:"on_change"`
	Ports      map[string]int `json:"ports"`
	Health     []Check        `json:"health"`
	StateEpoch int            `json:"state_epoch"`
}

// PlacedFile is a file of the system: Path relative to /, Ref a store path.
type PlacedFile struct {
	Path string `json:"path"`
	Ref  string `json:"ref"`
}

// Check tells whether a service works. Kind is unit, tcp, http or command;
// Target a unit, a port of the machine, a URL or a command; Expect the unit's
// state or the HTTP status; Seconds how long it may take to come true.
type Check struct {
	Kind    string `json:"kind"`
	Target  string `json:"target"`
	Expect  string `json:"expect"`
	Seconds int    `json:"seconds"`
}

// User is an account with its own group; ids are given at build time.
type User struct {
	Name   string   `json:"name"`
	UID    int      `json:"uid"`
	GID    int      `json:"gid"`
	Home   string   `json:"home"`
	Groups []string `json:"groups"`
}

// Group is a group of a service.
type Group struct {
	Name string `json:"name"`
	GID  int    `json:"gid"`
}

// Directory is made when the machine starts. Mode is octal.
type Directory struct {
	Path string `json:"path"`
	Mode string `json:"mode"`
	User string `json:"user"`
}

// Boot names what starts the system: paths relative to the system's tree, and
// the kernel's command line without what each boot adds.
type Boot struct {
	Kernel  string `json:"kernel"`
	Initrd  string `json:"initrd"`
	Cmdline string `json:"cmdline"`
	Release string `json:"release"` // uname -r
}

// Parse reads a manifest and checks what later code relies on.
func Parse(b []byte) (*Manifest, error) {
	if len(b) > MaxFile {
		return nil, fmt.Errorf("%s of %d bytes is larger than %d", File, len(b), MaxFile)
	}
	var m Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("%s: %w", File, err)
	}
	if m.Version != manifestVersion {
		return nil, fmt.Errorf("%s has version %d, this program knows %d", File, m.Version, manifestVersion)
	}
	if err := m.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", File, err)
	}
	return &m, nil
}

func (m *Manifest) check() error {
	if m.Name == "" {
		return fmt.Errorf("it has no name")
	}
	packages := map[string]bool{}
	for _, p := range m.Packages {
		if packages[p.Name] {
			return fmt.Errorf("package %s stands there twice", p.Name)
		}
		packages[p.Name] = true
	}
	units := map[string]bool{}
	for _, s := range m.Services {
		if err := checkUnit(s.Unit); err != nil {
			return fmt.Errorf("service %s: %w", s.Label, err)
		}
		if units[s.Unit] {
			return fmt.Errorf("unit %s stands there twice", s.Unit)
		}
		units[s.Unit] = true
		for _, p := range s.Packages {
			if !packages[p] {
				return fmt.Errorf("service %s needs package %s, which is not there", s.Label, p)
			}
		}
		for _, f := range append([]PlacedFile{s.UnitFile}, s.Files...) {
			if err := CheckPath(f.Path); err != nil {
				return fmt.Errorf("service %s: %w", s.Label, err)
			}
		}
	}
	for _, u := range m.Enabled {
		if err := checkUnit(u); err != nil {
			return err
		}
	}
	if err := m.checkAccounts(); err != nil {
		return err
	}
	if b := m.Boot; b != nil {
		for _, p := range []string{b.Kernel, b.Initrd} {
			if err := CheckPath(p); err != nil {
				return fmt.Errorf("boot: %w", err)
			}
		}
		if strings.ContainsAny(b.Cmdline, "\n\x00") {
			return fmt.Errorf("boot: the command line holds a line break")
		}
	}
	return nil
}

// checkUnit keeps names from being taken for options or paths by systemctl.
func checkUnit(name string) error {
	ok := name != "" && len(name) < 256 && name[0] != '-' && name[0] != '.' && strings.Contains(name, ".")
	for i := range len(name) {
		c := name[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(":-_.\\@", c) >= 0)
	}
	if !ok {
		return fmt.Errorf("%q is not a unit's name", name)
	}
	return nil
}

// CheckPath reports why p cannot be a path within a tree: it must be relative
// and stay below.
func CheckPath(p string) error {
	for part := range strings.SplitSeq(p, "/") {
		if part == "" || part == "." || part == ".." || strings.Contains(part, "\x00") {
			return fmt.Errorf("path %q does not stay within the system", p)
		}
	}
	return nil
}

// Package returns the package called name, or nil.
func (m *Manifest) Package(name string) *Package {
	if i := slices.IndexFunc(m.Packages, func(p Package) bool { return p.Name == name }); i >= 0 {
		return &m.Packages[i]
	}
	return nil
}

// Service returns the service with the unit, or nil.
func (m *Manifest) Service(unit string) *Service {
	if m == nil {
		return nil
	}
	if i := slices.IndexFunc(m.Services, func(s Service) bool { return s.Unit == unit }); i >= 0 {
		return &m.Services[i]
	}
	return nil
}

// StorePrefix is where a machine's store is, and what store paths begin with.
const StorePrefix = "/tool/store/"

// RefOf returns the object that a store path names.
func RefOf(path string) (store.Ref, error) {
	name, ok := strings.CutPrefix(path, StorePrefix)
	if !ok {
		return "", fmt.Errorf("%q is not a path of the store", path)
	}
	return store.ParseRef(name)
}
