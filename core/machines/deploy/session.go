package deploy

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"tool/core/model/event"
	"tool/core/storage/store"
)

// Session is one command's work on one deployment.
type Session struct {
	D         *Deployment
	Store     *store.Store // nil for commands that need none
	Backends  map[string]Backend
	Binary    *Binary
	Events    event.Sink
	Deadlines Deadlines

	pace     pace
	consoles sync.Map // by machine: how long its console's log was when it was started, an int64
}

func (s *Session) backend(ms *MachineState) (Backend, error) {
	b := s.Backends[ms.Backend]
	if b == nil {
		return nil, fmt.Errorf("machine %s is of backend %q, which this program does not have", ms.Name, ms.Backend)
	}
	return b, nil
}

func (s *Session) said(machine, format string, args ...any) {
	s.Events.Send(event.MachineSaid{Machine: machine, Text: fmt.Sprintf(format, args...), At: time.Now()})
}

func (s *Session) doing(machine, format string, args ...any) {
	s.Events.Send(event.MachineDoing{Machine: machine, Text: fmt.Sprintf(format, args...), At: time.Now()})
}

func (s *Session) idle(machine string) {
	s.Events.Send(event.MachineDoing{Machine: machine, At: time.Now()})
}

// each runs f for all names at once and returns the results and errors by name.
func each[T any](names []string, f func(name string) (T, error)) (map[string]T, map[string]error) {
	out, errs := map[string]T{}, map[string]error{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, n := range names {
		wg.Go(func() {
			v, err := f(n)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs[n] = err
				return
			}
			out[n] = v
		})
	}
	wg.Wait()
	return out, errs
}

// Look observes machines: their backends' resources, and what their agents
// say. Machines that cannot be asked are seen so, not an error. The machines'
// connections are kept in conns.
func (s *Session) Look(ctx context.Context, machines map[string]*MachineState, conns *Connections) (map[string]*Sight, error) {
	names := make([]string, 0, len(machines))
	for n := range machines {
		names = append(names, n)
	}
	slices.Sort(names)
	seen, errs := each(names, func(name string) (*Sight, error) { return s.look(ctx, machines[name], conns) })
	for _, n := range names {
		if errs[n] != nil {
			return nil, fmt.Errorf("look at machine %s: %w", n, errs[n])
		}
	}
	return seen, ctx.Err()
}

func (s *Session) look(ctx context.Context, ms *MachineState, conns *Connections) (*Sight, error) {
	b, err := s.backend(ms)
	if err != nil {
		return nil, err
	}
	sight := &Sight{}
	if sight.Backend, err = s.observe(ctx, b, s.D.machine(ms)); err != nil {
		return nil, err
	}
	if sight.Backend.State != StateRunning || ms.HostKeyPub == "" {
		return sight, nil
	}
	s.doing(ms.Name, "connecting")
	defer s.idle(ms.Name)
	// One that was never made may still be on its first way up.
	deadline := s.patient(ms.Name, s.Deadlines.Connect)
	if !ms.Made {
		deadline = 0
	}
	c, err := conns.refresh(ctx, s, ms, deadline)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		sight.Err = err
		return sight, nil
	}
	sight.Hello = c.Hello
	if a := sight.active(); a != "" {
		// An imported deployment's generations are not in this store; then the
		// plan has no units for it.
		sight.Active, _ = LoadManifest(s.Store, a)
	}
	return sight, nil
}

// Measure finds what sending each machine its system would take, by asking the
// machine. One that is made gets it with its seed.
func (s *Session) Measure(ctx context.Context, o *Object, seen map[string]*Sight, conns *Connections) error {
	names := machineNames(o)
	_, errs := each(names, func(name string) (struct{}, error) {
		err := s.measure(ctx, o.Machine(name), seen[name], conns.have(name))
		if err == nil || ctx.Err() != nil || seen[name].Hello == nil || !lost(err) {
			return struct{}{}, err
		}
		c, err := conns.refresh(ctx, s, s.D.Machines[name], s.patient(name, s.Deadlines.Connect))
		if err == nil {
			err = s.measure(ctx, o.Machine(name), seen[name], c)
		}
		return struct{}{}, err
	})
	for _, n := range names {
		if errs[n] != nil {
			return fmt.Errorf("machine %s: what is missing there: %w", n, errs[n])
		}
	}
	return nil
}

func (s *Session) measure(ctx context.Context, om *ObjectMachine, sight *Sight, c *Connection) error {
	if sight.Hello != nil && sight.confirmed() == om.ref && sight.active() == om.ref {
		return nil // nobody asks how large it is
	}
	var err error
	if sight.ClosureBytes, err = s.Store.ClosureSize(om.ref); err != nil || sight.Hello == nil || c == nil {
		return err
	}
	missing, err := c.Agent.Missing(ctx, s.Store, []store.Ref{om.ref}, s.assumed(c))
	if err != nil {
		return err
	}
	sight.SendBytes, sight.SendBlobs = missing.Bytes, missing.Blobs
	return nil
}

// assumed names what the machine has for certain and this store too: only what
// differs from it is asked about.
func (s *Session) assumed(c *Connection) []store.Ref {
	if r := refOf(c.Hello, c.Hello.Active); r != "" {
		if _, err := s.Store.Get(r); err == nil {
			return []store.Ref{r}
		}
	}
	return nil
}

// Connections keeps a connection to each machine for the length of a command.
type Connections struct {
	mu sync.Mutex
	by map[string]*Connection
}

// get returns the kept connection, or makes one.
func (c *Connections) get(ctx context.Context, s *Session, ms *MachineState, deadline time.Duration) (*Connection, error) {
	if have := c.have(ms.Name); have != nil {
		return have, nil
	}
	n, err := s.connect(ctx, ms, deadline)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.by == nil {
		c.by = map[string]*Connection{}
	}
	c.by[ms.Name] = n
	return n, nil
}

// refresh is get with a Hello of now.
func (c *Connections) refresh(ctx context.Context, s *Session, ms *MachineState, deadline time.Duration) (*Connection, error) {
	c.drop(ms.Name)
	return c.get(ctx, s, ms, deadline)
}

func (c *Connections) have(name string) *Connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.by[name]
}

// drop closes a machine's connection: the next get makes a fresh one.
func (c *Connections) drop(name string) {
	c.mu.Lock()
	have := c.by[name]
	delete(c.by, name)
	c.mu.Unlock()
	if have != nil {
		have.Close()
	}
}

// Close closes all.
func (c *Connections) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range c.by {
		n.Close()
	}
	c.by = nil
}
