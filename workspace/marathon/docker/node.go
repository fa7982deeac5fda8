package docker

import (
	"context"
	"net/http"
	"net/url"
	"strconv"
)

// Roles and states of nodes.
const (
	RoleWorker  = "worker"
	RoleManager = "manager"

	NodeReady = "ready"
	NodeDown  = "down"
)

// Version is what an update must name, or it is refused.
type Version struct{ Index uint64 }

// Node is a member of a swarm.
type Node struct {
	ID            string
	Version       Version
	Spec          NodeSpec
	Description   struct{ Hostname string }
	Status        struct{ State, Message, Addr string }
	ManagerStatus *struct {
		Leader       bool
		Reachability string
		Addr         string
	} `json:",omitempty"`
}

// NodeSpec is what an administrator decides about a node.
type NodeSpec struct {
	Name         string            `json:",omitempty"`
	Labels       map[string]string `json:",omitempty"`
	Role         string
	Availability string
}

// Nodes lists a swarm's members.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	var out []Node
	err := c.do(ctx, http.MethodGet, "/nodes", nil, nil, &out)
	return out, err
}

// UpdateNode changes what is decided about a node.
func (c *Client) UpdateNode(ctx context.Context, n *Node, spec NodeSpec) error {
	q := url.Values{"version": {strconv.FormatUint(n.Version.Index, 10)}}
	return c.do(ctx, http.MethodPost, "/nodes/"+url.PathEscape(n.ID)+"/update", q, spec, nil)
}

// RemoveNode forgets a node, whatever it runs.
func (c *Client) RemoveNode(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, "/nodes/"+url.PathEscape(id), url.Values{"force": {"1"}}, nil, nil)
}

// ImageID asks for the id of an image that the engine has.
func (c *Client) ImageID(ctx context.Context, name string) (string, error) {
	var out struct{ ID string }
	if err := c.do(ctx, http.MethodGet, "/images/"+url.PathEscape(name)+"/json", nil, nil, &out); err != nil {
		return "", err
	}
	return out.ID, nil
}
