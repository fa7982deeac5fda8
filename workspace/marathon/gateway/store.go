package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/go-zookeeper/zk"
)

// documents is where the state lies. Only the leader writes.
type documents interface {
	// load reads everything.
	load(ctx context.Context) (map[string][]byte, error)
	// commit makes all changes, or none: it fails when somebody else leads.
	commit(ctx context.Context, changes []change) error
}

// change is one document written; nil data removes it.
type change struct {
	path string // apps/nginx
	data []byte
}

func put(p string, v any) (change, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return change{}, err
	}
	return change{p, data}, nil
}

// The folders of the state, below the path of --zk.
const (
	stateDir       = "state"
	appsDir        = "apps"
	versionsDir    = "versions"
	deploymentsDir = "deployments"
)

// escape makes one path element of an app's id, which has no colons.
func escape(id string) string { return strings.ReplaceAll(strings.Trim(id, "/"), "/", ":") }

// zkDocuments keeps documents as nodes of ZooKeeper, for as long as this
// gateway's election node exists: every transaction checks that it does, so a
// leader that lost its session cannot write over its successor's state.
type zkDocuments struct {
	conn  *zk.Conn
	base  string // the path of --zk
	fence string // the election node
	known map[string]bool
}

func (d *zkDocuments) node(p string) string { return path.Join("/", d.base, stateDir, p) }

func (d *zkDocuments) load(context.Context) (map[string][]byte, error) {
	d.known = map[string]bool{}
	out := map[string][]byte{}
	for _, p := range []string{"", appsDir, versionsDir, deploymentsDir} {
		if err := makePath(d.conn, d.node(p)); err != nil {
			return nil, err
		}
		d.known[p] = true
	}
	for _, dir := range []string{appsDir, versionsDir, deploymentsDir} {
		if err := d.read(dir, out); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (d *zkDocuments) read(dir string, out map[string][]byte) error {
	names, _, err := d.conn.Children(d.node(dir))
	if err != nil {
		return fmt.Errorf("ZooKeeper: %s: %w", d.node(dir), err)
	}
	for _, name := range names {
		p := dir + "/" + name
		d.known[p] = true
		if dir == versionsDir { // a folder for each app
			if err := d.read(p, out); err != nil {
				return err
			}
			continue
		}
		data, _, err := d.conn.Get(d.node(p))
		if err != nil {
			return fmt.Errorf("ZooKeeper: %s: %w", d.node(p), err)
		}
		out[p] = data
	}
	return nil
}

func (d *zkDocuments) commit(_ context.Context, changes []change) error {
	ops := []any{&zk.CheckVersionRequest{Path: d.fence, Version: -1}}
	after := map[string]bool{}
	exists := func(p string) bool {
		if v, ok := after[p]; ok {
			return v
		}
		return d.known[p]
	}
	for _, c := range changes {
		switch {
		case c.data == nil && exists(c.path):
			ops = append(ops, &zk.DeleteRequest{Path: d.node(c.path), Version: -1})
			after[c.path] = false
		case c.data == nil:
		case exists(c.path):
			ops = append(ops, &zk.SetDataRequest{Path: d.node(c.path), Data: c.data, Version: -1})
		default:
			if dir := path.Dir(c.path); !exists(dir) {
				ops = append(ops, &zk.CreateRequest{Path: d.node(dir), Acl: zk.WorldACL(zk.PermAll)})
				after[dir] = true
			}
			ops = append(ops, &zk.CreateRequest{Path: d.node(c.path), Data: c.data, Acl: zk.WorldACL(zk.PermAll)})
			after[c.path] = true
		}
	}
	if _, err := d.conn.Multi(ops...); err != nil {
		return fmt.Errorf("ZooKeeper: %w", err)
	}
	for p, there := range after {
		d.known[p] = there
	}
	return nil
}

// makePath makes a node and those above it.
func makePath(c *zk.Conn, p string) error {
	at := ""
	for part := range strings.SplitSeq(strings.Trim(p, "/"), "/") {
		at += "/" + part
		if ok, _, err := c.Exists(at); err != nil {
			return fmt.Errorf("ZooKeeper: %s: %w", at, err)
		} else if ok {
			continue
		}
		if _, err := c.Create(at, nil, 0, zk.WorldACL(zk.PermAll)); err != nil && !errors.Is(err, zk.ErrNodeExists) {
			return fmt.Errorf("ZooKeeper: %s: %w", at, err)
		}
	}
	return nil
}
