// Package gateway is Marathon's REST API over Docker Swarm.
package gateway

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Version is what /v2/info tells.
const Version = "0.2.0"

// leader is what only the leading gateway has.
type leader struct {
	state     *state
	scheduler *scheduler
	members   *membership
}

// gateway is one of the gateways.
type gateway struct {
	settings *settings
	options  Options
	started  time.Time
	election *election

	mu      sync.Mutex
	leading *leader // nil while another gateway leads, or none
}

// Run serves the API until ctx ends.
func Run(ctx context.Context, args []string, o Options) error {
	s, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf(":%d", s.port))
	if err != nil {
		return err
	}
	return serve(ctx, l, s, o)
}

// serve answers until ctx ends, then finishes what is under way.
func serve(ctx context.Context, l net.Listener, s *settings, o Options) error {
	g := &gateway{settings: s, options: o, started: time.Now()}
	g.election = &election{settings: s, address: net.JoinHostPort(s.hostname, strconv.Itoa(s.port)), lead: g.lead}
	electing, stop := context.WithCancel(ctx)
	defer stop()
	elected := make(chan struct{})
	go func() { defer close(elected); g.election.run(electing) }()
	srv := &http.Server{
		Handler:           g,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       time.Minute,
		WriteTimeout:      2 * time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	log.Printf("listening on %s", l.Addr())
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	err := srv.Shutdown(grace)
	select {
	case <-elected: // the next leader need not wait for this one's session to end
	case <-grace.Done():
	}
	return err
}

// lead is what the elected gateway does until ctx ends or it has to step down.
func (g *gateway) lead(parent context.Context, docs documents) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	st, err := openState(ctx, docs, func(err error) { cancel(fmt.Errorf("stepping down: %w", err)) })
	if err != nil {
		return err
	}
	le := &leader{state: st}
	le.members = newMembership(g.settings, newHosts(g.settings, g.options), func() { le.scheduler.kick() })
	le.scheduler = newScheduler(g.settings, st, le.members)
	g.setLeading(le)
	defer g.setLeading(nil)
	var wg sync.WaitGroup
	wg.Go(func() { le.members.run(ctx) })
	wg.Go(func() { le.scheduler.run(ctx) })
	wg.Wait()
	if parent.Err() != nil {
		return nil
	}
	return context.Cause(ctx)
}

func (g *gateway) setLeading(l *leader) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.leading = l
}

// leads returns what the leader has, if this gateway leads.
func (g *gateway) leads() *leader {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.leading
}
