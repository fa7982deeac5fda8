// Package facts holds what a machine must know of itself that no build may
// depend on: its name, addresses and keys. The plan allocates them; activation
// writes them to the machine. So the same closure serves at any address.
package facts

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strings"
)

// MaxFile bounds the encoding, in bytes.
const MaxFile = 4 << 20

const version = 1

// How a machine starts.
const (
	FirmwareDirect = "direct" // its backend loads the kernel
	FirmwareUEFI   = "uefi"   // by boot entries on its EFI system partition
)

// Facts is one machine's, as JSON: docs/machine.md describes it.
type Facts struct {
	Version    int    `json:"version"`
	Deployment string `json:"deployment"` // UUID
	Machine    string `json:"machine"`    // host name
	MachineID  string `json:"machine_id"` // 32 hex digits, for /etc/machine-id

	// Interfaces are matched by permanent MAC address. One without an address
	// uses DHCP.
	Interfaces []Interface `json:"interfaces"`
	Hosts      []Host      `json:"hosts"` // all machines of the deployment, itself included

	// Nameservers are for resolv.conf. Without any, names are looked up in Hosts
	// only, unless the system runs systemd-resolved.
	Nameservers []netip.Addr `json:"nameservers,omitempty"`

	AuthorizedKeys []string `json:"authorized_keys"`    // lines, for root
	HostKey        string   `json:"host_key,omitempty"` // OpenSSH private key, PEM; empty: leave the machine's own
	HostKeyPublic  string   `json:"host_key_public"`    // line of authorized_keys form
	Firmware       string   `json:"firmware,omitempty"` // FirmwareDirect or FirmwareUEFI
	Adopted        bool     `json:"adopted,omitempty"`  // the machine was there before us: leave its name, network and host key alone
}

// Interface is one network interface.
type Interface struct {
	Name    string       `json:"name"` // of the network file: control, cluster
	MAC     string       `json:"mac"`
	Address netip.Prefix `json:"address,omitzero"` // zero: DHCP
}

// Host is a line of /etc/hosts.
type Host struct {
	Name    string     `json:"name"`
	Address netip.Addr `json:"address"`
}

// Parse reads and checks facts.
func Parse(b []byte) (*Facts, error) {
	if len(b) > MaxFile {
		return nil, fmt.Errorf("facts of %d bytes are larger than %d", len(b), MaxFile)
	}
	var f Facts
	if err := json.Unmarshal(b, &f); err != nil {
		return nil, fmt.Errorf("facts: %w", err)
	}
	if err := f.Check(); err != nil {
		return nil, fmt.Errorf("facts: %w", err)
	}
	return &f, nil
}

// Encode returns the canonical encoding: equal facts give equal bytes.
func (f *Facts) Encode() ([]byte, error) {
	f.Version = version
	if err := f.Check(); err != nil {
		return nil, fmt.Errorf("facts: %w", err)
	}
	b, err := json.MarshalIndent(f, "", "  ")
	return append(b, '\n'), err
}

// Check reports what is wrong with f: everything in it ends up in files that
// programs parse by line.
func (f *Facts) Check() error {
	if f.Version != version {
		return fmt.Errorf("version %d, this program knows %d", f.Version, version)
	}
	if err := CheckHost(f.Machine); err != nil {
		return err
	}
	if len(f.MachineID) != 32 || strings.Trim(f.MachineID, "0123456789abcdef") != "" {
		return fmt.Errorf("machine id %q is not 32 hexadecimal digits", f.MachineID)
	}
	for _, i := range f.Interfaces {
		if err := CheckHost(i.Name); err != nil {
			return fmt.Errorf("interface: %w", err)
		}
		if _, err := net.ParseMAC(i.MAC); err != nil {
			return fmt.Errorf("interface %s: %w", i.Name, err)
		}
	}
	for _, h := range f.Hosts {
		if err := CheckHost(h.Name); err != nil {
			return err
		}
		if !h.Address.IsValid() {
			return fmt.Errorf("host %s has no address", h.Name)
		}
	}
	for _, a := range f.Nameservers {
		if !a.IsValid() {
			return fmt.Errorf("a name server has no address")
		}
	}
	if f.HostKey != "" && (!strings.HasPrefix(f.HostKey, "-----BEGIN ") || strings.Contains(f.HostKey, "\x00")) {
		return fmt.Errorf("the host key is not PEM")
	}
	for _, k := range append([]string{f.HostKeyPublic}, f.AuthorizedKeys...) {
		if strings.ContainsAny(k, "\n\r\x00") {
			return fmt.Errorf("a key holds a line break")
		}
	}
	switch f.Firmware {
	case "", FirmwareDirect, FirmwareUEFI:
	default:
		return fmt.Errorf("firmware %q is neither direct nor uefi", f.Firmware)
	}
	return nil
}

// CheckHost reports why name cannot be a host name.
func CheckHost(name string) error {
	if name == "" || len(name) > 63 {
		return fmt.Errorf("host name %q: want 1 to 63 characters", name)
	}
	for i := range len(name) {
		c := name[i]
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' || i == 0 && c == '-' {
			return fmt.Errorf("host name %q: letters, digits and - are allowed, and it begins with no -", name)
		}
	}
	return nil
}

// Digest returns the SHA-256 of the encoding as hexadecimal digits: what tells
// whether a machine's facts are the plan's.
func (f *Facts) Digest() (string, error) {
	b, err := f.Encode()
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}
