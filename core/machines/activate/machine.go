// Package activate makes a machine be what a system says: it keeps generations
// in the machine's store, boots and switches between them, goes back by itself
// where a switch is not confirmed, and tells what happened. It is the machine's
// side; docs/machine.md is the contract.
//
// # Three pointers
//
// staged is the generation that was brought last, active the one that
// /tool/current leads to, confirmed the one whose health was checked and whose
// controller could still reach it. The machine starts into confirmed.
//
// # Crashes
//
// Every file of state is written under another name, synced and renamed. A
// switch writes each step down before it takes it, and each step may be taken
// twice; so a runner that died is continued by the next, and a machine that
// went down in the middle of a switch starts into the confirmed generation.
package activate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tool/core/machines/facts"
	"tool/core/machines/system"
	"tool/core/model/merkle"
	"tool/core/storage/cas"
	"tool/core/storage/store"
)

// Machine is a machine's root file system with the store in it. Its methods may
// be called from several processes at once.
type Machine struct {
	Root    string // "/" on a machine
	Store   *store.Store
	Systemd Systemd
	// Log is told what is being done, for the console; it may be nil.
	Log func(format string, args ...any)

	bootID     string
	journalled func(*SwitchStatus)                               // called before each write of the journal; for tests
	openESP    func() (dir string, done func() error, err error) // instead of mountESP, for tests
	times      timing
}

// timing holds how often and how long things are waited for; tests make it short.
type timing struct {
	poll      time.Duration // between looks at units, checks and the journal
	stability time.Duration // how long units must stay well, where the request does not say
	confirm   time.Duration // how long the controller may take, likewise
	recover   time.Duration // how long units may take to come back in a revert
	// How long units that failed are left alone before they are started again, each
	// time, where there is nothing to go back to.
	retries []time.Duration
}

// IsManaged reports whether the machine whose root file system is at root has a
// state of ours.
func IsManaged(root string) bool {
	_, err := os.Stat(filepath.Join(root, "tool/state"))
	return err == nil
}

// Open opens the store of the machine whose root file system is at root. It is
// created where there is none.
func Open(root string, sd Systemd) (*Machine, error) {
	s, err := store.Open(filepath.Join(root, "tool"))
	if cas.IsFull(err) && os.Remove(filepath.Join(root, "tool/state/ballast")) == nil {
		s, err = store.Open(filepath.Join(root, "tool"))
	}
	if err != nil {
		return nil, err
	}
	if os.Geteuid() == 0 {
		s.CAS().ApplyProps()
	}
	m := &Machine{Root: root, Store: s, Systemd: sd, bootID: readBootID(),
		times: timing{poll: 500 * time.Millisecond, stability: 5 * time.Second, confirm: 60 * time.Second, recover: 60 * time.Second,
			retries: []time.Duration{10 * time.Second}}}
	if err := os.MkdirAll(m.state("generations"), 0o755); err != nil {
		s.Close()
		return nil, fmt.Errorf("open the machine's state: %w", err)
	}
	// The facts hold the machine's private key.
	if err := os.Chmod(m.state(""), 0o700); err != nil {
		s.Close()
		return nil, fmt.Errorf("open the machine's state: %w", err)
	}
	return m, nil
}

// Close makes what was put into the store durable, so that the machine's next
// start need not check it, and closes the store.
func (m *Machine) Close() error {
	return errors.Join(m.Store.CAS().Flush(), m.Store.Close())
}

func (m *Machine) log(format string, args ...any) {
	if m.Log != nil {
		m.Log(format, args...)
	}
}

// path returns where p, relative to the machine's root, is for this process.
func (m *Machine) path(p ...string) string {
	return filepath.Join(append([]string{m.Root}, p...)...)
}

func (m *Machine) state(p ...string) string {
	return filepath.Join(append([]string{m.Root, "tool/state"}, p...)...)
}

func readBootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(b))
}

// BootID tells this start of the machine from others.
func (m *Machine) BootID() string { return m.bootID }

// Uptime returns the time since the machine started, sleep included. Unlike the
// clock nobody sets it.
func (m *Machine) Uptime() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// Facts returns what the machine knows of itself.
func (m *Machine) Facts() (*facts.Facts, error) {
	b, err := cas.ReadSmall(m.state("facts.json"), facts.MaxFile)
	if err != nil {
		return nil, fmt.Errorf("read the machine's facts: %w", err)
	}
	return facts.Parse(b)
}

// FactsDigest returns the SHA-256 of the facts' encoding as hexadecimal digits,
// or "" where there are none.
func (m *Machine) FactsDigest() string {
	f, err := m.Facts()
	if err != nil {
		return ""
	}
	d, err := f.Digest()
	if err != nil {
		return ""
	}
	return d
}

func (m *Machine) setFacts(f *facts.Facts) error {
	b, err := f.Encode()
	if err != nil {
		return err
	}
	if err := writeFile(m.state("facts.json"), b, owned{mode: 0o600}); err != nil {
		return fmt.Errorf("keep the machine's facts: %w", err)
	}
	return nil
}

// Manifest returns the manifest of a system in the store.
func (m *Machine) Manifest(ref store.Ref) (*system.Manifest, error) {
	o, err := m.Store.Get(ref)
	if err != nil {
		return nil, err
	}
	n, ok, err := merkle.Find(m.Store.CAS(), o.Node.Digest, system.File)
	if err == nil && (!ok || n.Kind != merkle.File) {
		err = fmt.Errorf("it has no %s: it is not a system", system.File)
	}
	if err != nil {
		return nil, fmt.Errorf("system %s: %w", ref, err)
	}
	b, err := m.Store.CAS().ReadAll(n.Digest, system.MaxFile)
	if err != nil {
		return nil, fmt.Errorf("system %s: %w", ref, err)
	}
	manifest, err := system.Parse(b)
	if err != nil {
		return nil, fmt.Errorf("system %s: %w", ref, err)
	}
	return manifest, nil
}

// manifestOf returns the manifest of a generation; nil for generation 0, which
// is nothing, or what an adopted machine was before.
func (m *Machine) manifestOf(n int) (*system.Manifest, error) {
	if n == 0 {
		return nil, nil
	}
	g, err := m.Generation(n)
	if err != nil {
		return nil, err
	}
	return m.Manifest(g.Ref)
}

// readJSON reads a file of state. ok is false where there is none.
func readJSON(path string, v any) (ok bool, err error) {
	b, err := cas.ReadSmall(path, 64<<20)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return false, fmt.Errorf("read %s: %w", path, err)
	}
	return true, nil
}

// sleep waits, unless ctx ends before.
func sleep(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
