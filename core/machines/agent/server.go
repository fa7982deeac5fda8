package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"tool/core/machines/activate"
	"tool/core/machines/facts"
	"tool/core/machines/pack"
	"tool/core/storage/store"
)

// staleError says that a connection was there before what it wants to confirm.
type staleError struct{}

func (*staleError) Error() string {
	return "this connection is older than the switch, so it proves nothing: confirm over a new one"
}

// Serve answers a controller until it hangs up.
func Serve(ctx context.Context, m *activate.Machine, rw io.ReadWriter) error {
	s := &server{m: m, c: newWire(rw, maxRequest), began: m.Uptime()}
	defer func() {
		if s.lease != nil {
			s.lease.Release()
		}
	}()
	if _, err := s.c.w.WriteString(magic); err != nil {
		return err
	}
	if err := s.c.writeJSON(s.hello(ctx)); err != nil {
		return err
	}
	for {
		var r request
		err := s.c.readJSON(&r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("the controller's request: %w", err)
		}
		result, err := s.handle(ctx, r)
		var broken *brokenError
		if errors.As(err, &broken) {
			return broken.err
		}
		a := answer{}
		if err == nil {
			a.Result, err = json.Marshal(result)
		}
		if err != nil {
			a = answer{Error: remoteError(err)}
		}
		if err := s.c.writeJSON(a); err != nil {
			return err
		}
	}
}

// brokenError says that the stream is out of step and the connection of no more use.
type brokenError struct{ err error }

func (e *brokenError) Error() string { return e.err.Error() }

type server struct {
	m     *activate.Machine
	c     *wire
	lease *store.Lease // keeps what arrives until a generation names it
	began time.Duration
}

// hello tells as much as can be found out: a damaged machine must be reachable.
func (s *server) hello(ctx context.Context) *Hello {
	m := s.m
	var problems []string
	note := func(err error) {
		if err != nil {
			problems = append(problems, err.Error())
		}
	}
	h := &Hello{Protocol: Protocol, AgentSHA256: m.AgentSHA256(), BootID: m.BootID(), FactsDigest: m.FactsDigest(), BootedGeneration: m.Booted(), Adopted: m.Adopted()}
	note(m.Resume(ctx))
	var err error
	for p, n := range map[activate.Pointer]*int{activate.Staged: &h.Staged, activate.Active: &h.Active, activate.Confirmed: &h.Confirmed} {
		*n, err = m.Pointer(p)
		note(err)
	}
	h.Generations, err = m.Generations()
	note(err)
	h.Booted = h.Generation(h.BootedGeneration)
	h.Switch, err = m.Status()
	note(err)
	h.FailedUnits, err = m.Systemd.List(ctx, "failed")
	note(err)
	h.FreeBytes, err = m.FreeBytes()
	note(err)
	var u unix.Utsname
	if err := unix.Uname(&u); err == nil {
		h.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	h.Problem = strings.Join(problems, "; ")
	return h
}

func (s *server) handle(ctx context.Context, r request) (any, error) {
	switch r.Method {
	case "hello":
		return s.hello(ctx), nil
	case "missing":
		return with(r, func(q missingRequest) (any, error) { return s.missing(ctx, q) })
	case "receive":
		return with(r, func(q receiveRequest) (any, error) { return s.receive(ctx, q) })
	case "agent":
		return with(r, s.putAgent)
	case "stage":
		return with(r, func(q Stage) (any, error) {
			return nil, s.m.Stage(ctx, q.Generation, q.Ref, q.Label, q.Facts)
		})
	case "switch":
		return with(r, func(q Switch) (any, error) { return s.m.StartSwitch(ctx, q) })
	case "status":
		if err := s.m.Resume(ctx); err != nil {
			return nil, err
		}
		return s.m.Status()
	case "wait":
		return with(r, func(q waitRequest) (any, error) { return s.wait(ctx, q) })
	case "confirm":
		return with(r, func(q numberRequest) (any, error) { return nil, s.confirm(q.N) })
	case "abandon":
		return with(r, func(q abandonRequest) (any, error) { return nil, s.m.Abandon(q.N, q.Why) })
	case "rollback":
		return with(r, func(q numberRequest) (any, error) { return s.m.Rollback(ctx, q.N) })
	case "gc":
		return with(r, func(q numberRequest) (any, error) { return s.m.GC(ctx, q.N) })
	case "drift":
		return s.m.FindDrift(ctx)
	case "unwell":
		return with(r, func(q numberRequest) (any, error) { return s.m.Unwell(ctx, q.N) })
	case "facts":
		return with(r, func(q facts.Facts) (any, error) {
			if err := q.Check(); err != nil {
				return nil, fmt.Errorf("facts: %w", err)
			}
			return nil, s.m.SetFacts(ctx, &q)
		})
	case "reboot":
		return nil, s.m.Systemd.Reboot(ctx)
	}
	return nil, fmt.Errorf("this agent does not know the request %.40q: it is older than the controller", r.Method)
}

func with[T any](r request, f func(T) (any, error)) (any, error) {
	var q T
	if err := json.Unmarshal(r.Params, &q); err != nil {
		return nil, fmt.Errorf("the request %s: %w", r.Method, err)
	}
	return f(q)
}

// missing leases what is there before it looks, so that no collection takes it
// before a generation names it.
func (s *server) missing(ctx context.Context, q missingRequest) (*missingAnswer, error) {
	digests, err := unpackDigests(q.Blobs)
	if err != nil {
		return nil, err
	}
	if s.lease == nil {
		if s.lease, err = s.m.Store.Lease(ctx); err != nil {
			return nil, err
		}
	}
	a := &missingAnswer{}
	for _, r := range q.Assume {
		if err := s.lease.AdoptRefs(r); err != nil {
			if !errors.Is(err, os.ErrNotExist) {
				return nil, err
			}
			a.Lacking = append(a.Lacking, r)
		}
	}
	if a.Free, err = s.m.FreeBytes(); err != nil {
		return nil, err
	}
	if len(a.Lacking) > 0 {
		return a, nil
	}
	if err := s.lease.Adopt(digests...); err != nil {
		return nil, err
	}
	cas := s.m.Store.CAS()
	a.Blobs = bitmap(len(digests), func(i int) bool { return !cas.Has(digests[i]) })
	a.Objects = bitmap(len(q.Objects), func(i int) bool {
		err := s.lease.AdoptRefs(q.Objects[i])
		return err != nil
	})
	return a, nil
}

func (s *server) receive(ctx context.Context, q receiveRequest) (any, error) {
	p := &pieces{c: s.c}
	got, err := s.take(ctx, q, p)
	if drainErr := p.drain(); drainErr != nil {
		return nil, &brokenError{fmt.Errorf("the pack that is being sent: %w", drainErr)}
	}
	if err != nil {
		return nil, err
	}
	got.Objects = nil // the controller knows them
	return got, nil
}

func (s *server) take(ctx context.Context, q receiveRequest, r io.Reader) (pack.Received, error) {
	if err := s.m.CheckSpace(q.Bytes); err != nil {
		return pack.Received{}, err
	}
	if s.lease == nil {
		var err error
		if s.lease, err = s.m.Store.Lease(ctx); err != nil {
			return pack.Received{}, err
		}
	}
	return pack.Read(ctx, r, s.m.Store)
}

func (s *server) putAgent(q agentRequest) (any, error) {
	p := &pieces{c: s.c}
	err := s.m.CheckSpace(q.Size)
	if err == nil && len(q.SHA256) != 64 {
		err = fmt.Errorf("sha256 %.80q", q.SHA256)
	}
	if err == nil {
		_, err = s.m.PutAgent(p, q.SHA256)
	}
	if drainErr := p.drain(); drainErr != nil {
		return nil, &brokenError{fmt.Errorf("the agent that is being sent: %w", drainErr)}
	}
	return nil, err
}

// confirm takes a connection that began after the switch as the proof that the
// controller can reach the machine as it is now.
func (s *server) confirm(n int) error {
	status, err := s.m.Status()
	if err != nil {
		return err
	}
	if !status.Over() && status.Generation == n && s.began < status.SwitchedUptime {
		return &staleError{}
	}
	return s.m.Confirm(n)
}

// wait answers when the status changes.
func (s *server) wait(ctx context.Context, q waitRequest) (any, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(min(max(q.Seconds, 0), 60))*time.Second)
	defer cancel()
	for {
		status, err := s.m.Status()
		if err != nil {
			return nil, err
		}
		if status == nil || status.Seq != q.Seq {
			return status, nil
		}
		if status.Over() {
			return status, nil
		}
		select {
		case <-ctx.Done():
			if err := s.m.Resume(context.WithoutCancel(ctx)); err != nil {
				return nil, err
			}
			return status, nil
		case <-time.After(150 * time.Millisecond):
		}
	}
}
