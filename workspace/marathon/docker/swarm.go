package docker

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Values of SwarmInfo.LocalNodeState.
const (
	StateInactive = "inactive"
	StatePending  = "pending"
	StateActive   = "active"
	StateError    = "error"
	StateLocked   = "locked"
)

// Info is what an engine says of itself.
type Info struct {
	Name  string
	Swarm SwarmInfo
}

// SwarmInfo is what an engine says of the swarm it is in.
type SwarmInfo struct {
	NodeID           string
	NodeAddr         string
	LocalNodeState   string
	ControlAvailable bool // it is a manager
	Error            string
	RemoteManagers   []Peer
	Cluster          *ClusterInfo // managers know it
}

// Peer is a manager that an engine knows.
type Peer struct {
	NodeID string
	Addr   string // host:port
}

// ClusterInfo names a swarm.
type ClusterInfo struct{ ID string }

// Swarm is what a manager says of its swarm.
type Swarm struct {
	ID         string
	JoinTokens struct{ Worker, Manager string }
	Spec       SwarmSpec
}

// InitRequest makes a swarm.
type InitRequest struct {
	ListenAddr    string
	AdvertiseAddr string
	Spec          SwarmSpec
}

// SwarmSpec is what is decided about a swarm; the rest is as Docker has it.
type SwarmSpec struct{ Dispatcher Dispatcher }

// Dispatcher says how often nodes tell managers that they are there. One that
// is silent for three periods is down.
type Dispatcher struct{ HeartbeatPeriod time.Duration }

// JoinRequest brings an engine into a swarm.
type JoinRequest struct {
	ListenAddr    string
	AdvertiseAddr string
	RemoteAddrs   []string
	JoinToken     string
}

// Info asks the engine about itself.
func (c *Client) Info(ctx context.Context) (*Info, error) {
	var out Info
	if err := c.do(ctx, http.MethodGet, "/info", nil, nil, &out); err != nil {
		return nil, err
	}
	return &out, nil
}

// Swarm asks a manager about its swarm; a swarm without a leader is an error.
func (c *Client) Swarm(ctx context.Context) (*Swarm, error) {
	var out Swarm
	if err := c.do(ctx, http.MethodGet, "/swarm", nil, nil, &out); err != nil {
		return nil, err
	}
	return &out, nil
}

// Init makes a swarm with this engine as its only manager.
func (c *Client) Init(ctx context.Context, r *InitRequest) error {
	return c.do(ctx, http.MethodPost, "/swarm/init", nil, r, nil)
}

// Join brings this engine into a swarm.
func (c *Client) Join(ctx context.Context, r *JoinRequest) error {
	return c.do(ctx, http.MethodPost, "/swarm/join", nil, r, nil)
}

// Leave takes this engine out of its swarm, whatever that costs the swarm.
func (c *Client) Leave(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/swarm/leave", url.Values{"force": {"1"}}, nil, nil)
}
