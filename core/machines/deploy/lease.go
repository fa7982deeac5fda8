package deploy

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tool/core/storage/cas"
)

// A lease is renewed every leaseBeat and ends leaseLife after the last time.
const (
	leaseLife = 60 * time.Second
	leaseBeat = 15 * time.Second
)

// Holder tells who changes a deployment.
type Holder struct {
	Owner   string    `json:"owner"` // user@host
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Started string    `json:"started"` // of the process, in ticks since boot: a pid alone comes again
	Boot    string    `json:"boot"`
	Command string    `json:"command"`
	Since   time.Time `json:"since"`
	Expires time.Time `json:"expires"`
}

// LockedError says that somebody else is changing the deployment.
type LockedError struct {
	Deployment string
	Holder     Holder
}

func (e *LockedError) Error() string {
	return fmt.Sprintf("deployment %s is locked by %s (process %d on %s, `%s`) since %s; the lock ends by itself when that process does, and at the latest %s after it was last heard of (%s)",
		e.Deployment, e.Holder.Owner, e.Holder.PID, e.Holder.Host, e.Holder.Command, e.Holder.Since.Local().Format("15:04:05"), leaseLife, e.Holder.Expires.Add(-leaseLife).Local().Format("15:04:05"))
}

// Lease is the right to change a deployment. It ends with Release, or by
// itself when the process dies.
type Lease struct {
	path   string
	holder Holder
	stop   context.CancelFunc
	done   chan struct{}
}

// Lock takes the deployment's lease and reads the state again. It returns a
// *LockedError where somebody else has it. A lease of a dead process on this
// host is taken over at once.
func (s *Deployment) Lock(command string) (*Lease, error) {
	l := &Lease{path: filepath.Join(s.dir, "lease.json"), holder: self(command), done: make(chan struct{})}
	err := l.exclusive(func() error {
		held, err := readLease(l.path)
		if err != nil {
			return err
		}
		if held != nil && held.alive(&l.holder, time.Now()) {
			return &LockedError{s.Name, *held}
		}
		return l.write()
	})
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	l.stop = stop
	go l.beat(ctx)
	if err := s.reload(); err != nil {
		l.Release()
		return nil, err
	}
	return l, nil
}

func self(command string) Holder {
	host, _ := os.Hostname()
	owner := "somebody"
	if u, err := user.Current(); err == nil {
		owner = u.Username
	}
	return Holder{
		Owner: owner + "@" + host, Host: host, PID: os.Getpid(), Started: startOf(os.Getpid()), Boot: bootID(),
		Command: command, Since: time.Now().UTC().Truncate(time.Second),
	}
}

func bootID() string {
	b, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(b))
}

// startOf returns when a process started, in the kernel's words, or "".
func startOf(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return ""
	}
	// The second field is the command in parentheses and may hold anything.
	_, rest, _ := strings.Cut(string(b[max(0, strings.LastIndexByte(string(b), ')')):]), " ")
	if f := strings.Fields(rest); len(f) > 19 {
		return f[19]
	}
	return ""
}

func (h *Holder) alive(me *Holder, now time.Time) bool {
	if h.Boot == me.Boot { // this host, since this boot: the process itself can be asked
		return h.Started != "" && startOf(h.PID) == h.Started
	}
	return now.Before(h.Expires)
}

func readLease(path string) (*Holder, error) {
	b, err := cas.ReadSmall(path, 1<<20)
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the deployment's lease: %w", err)
	}
	var h Holder
	if json.Unmarshal(b, &h) != nil {
		return nil, nil // it is replaced by rename, so this is nobody's
	}
	return &h, nil
}

// exclusive runs f while no other process looks at the lease.
func (l *Lease) exclusive(f func() error) error {
	lock, err := os.OpenFile(l.path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("lock the deployment: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock the deployment: %w", err)
	}
	return f()
}

func (l *Lease) write() error {
	l.holder.Expires = time.Now().Add(leaseLife).UTC()
	b, err := json.Marshal(l.holder)
	if err != nil {
		return err
	}
	return replaceFile(l.path, append(b, '\n'), 0o600)
}

func (l *Lease) beat(ctx context.Context) {
	defer close(l.done)
	t := time.NewTicker(leaseBeat)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			_ = l.exclusive(l.write) // a full disk now must not end what is under way
		}
	}
}

// Release ends the lease.
func (l *Lease) Release() {
	l.stop()
	<-l.done
	_ = l.exclusive(func() error { return os.Remove(l.path) })
}

func (b *Book) lock() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(filepath.Dir(b.dir), "deployments.lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the deployments: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock the deployments: %w", err)
	}
	return func() { f.Close() }, nil
}
