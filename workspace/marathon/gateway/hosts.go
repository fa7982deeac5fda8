package gateway

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	"marathon-gateway/docker"
)

// Options are for tests: where hosts and their engines are, if not where the
// names and the command line say.
type Options struct {
	Resolve func(host string) (string, error) // address in the cluster's network
	Engine  func(host string) string          // unix:///path or tcp://host:port
	Hurry   int                               // how many times shorter the swarm's care takes; 0: once
}

func (o Options) pace(d time.Duration) time.Duration { return d / time.Duration(max(1, o.Hurry)) }

// hosts finds machines and their engines.
type hosts struct {
	settings *settings
	options  Options
	clients  map[string]*docker.Client
}

func newHosts(s *settings, o Options) *hosts {
	return &hosts{settings: s, options: o, clients: map[string]*docker.Client{}}
}

// engine is the client of a host's engine.
func (h *hosts) engine(host string) (*docker.Client, error) {
	if c := h.clients[host]; c != nil {
		return c, nil
	}
	address := "tcp://" + net.JoinHostPort(host, strconv.Itoa(h.settings.swarmPort))
	if h.options.Engine != nil {
		address = h.options.Engine(host)
	} else if host == h.settings.hostname {
		address = h.settings.docker
	}
	c, err := docker.New(address)
	if err != nil {
		return nil, err
	}
	h.clients[host] = c
	return c, nil
}

// address is where the other hosts reach a host. Never a loopback address:
// Debian has the machine's own name there, and the swarm would believe it.
func (h *hosts) address(ctx context.Context, host string) (string, error) {
	if h.options.Resolve != nil {
		return h.options.Resolve(host)
	}
	found, err := net.DefaultResolver.LookupIP(ctx, "ip4", host)
	if err != nil {
		return "", err
	}
	for _, ip := range found {
		if !ip.IsLoopback() && !ip.IsUnspecified() {
			return ip.String(), nil
		}
	}
	if host != h.settings.hostname {
		return "", fmt.Errorf("the host %s has no address but loopback ones", host)
	}
	// The address that this machine would use towards another one.
	for _, other := range append(append([]string{}, h.settings.managers...), h.settings.workers...) {
		if other == host {
			continue
		}
		c, err := (&net.Dialer{}).DialContext(ctx, "udp4", net.JoinHostPort(other, "9")) // sends nothing
		if err != nil {
			continue
		}
		local, _, err := net.SplitHostPort(c.LocalAddr().String())
		_ = c.Close()
		if ip := net.ParseIP(local); err == nil && ip != nil && !ip.IsLoopback() {
			return local, nil
		}
	}
	return "", fmt.Errorf("this host's name %s has only loopback addresses, and no other host tells another", host)
}
