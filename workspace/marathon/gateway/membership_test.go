package gateway

import (
	"context"
	"net"
	"slices"
	"testing"

	"marathon-gateway/docker"
	"marathon-gateway/fakedocker"
)

// nodes lists the swarm's nodes as a manager tells them.
func (r *rig) nodes(through string) map[string]docker.Node {
	c, err := docker.New(r.engines[through].Address())
	if err != nil {
		r.t.Fatal(err)
	}
	all, err := c.Nodes(context.Background())
	if err != nil {
		return nil
	}
	out := map[string]docker.Node{}
	for _, n := range all {
		if _, twice := out[n.Description.Hostname]; twice {
			return nil
		}
		out[n.Description.Hostname] = n
	}
	return out
}

// whole tells whether every host is in the swarm, once, ready, in its role.
func (r *rig) whole(through string) bool {
	all := r.nodes(through)
	for name := range r.engines {
		n, there := all[name]
		role := docker.RoleManager
		if name[0] == 's' {
			role = docker.RoleWorker
		}
		if !there || n.Status.State != docker.NodeReady || n.Spec.Role != role {
			return false
		}
	}
	return len(all) == len(r.engines)
}

func TestSwarmIsMadeAndHealed(t *testing.T) {
	r := newRig(t, 21, 3, 2)
	r.eventually("the swarm is whole", func() bool { return r.whole("m0") })
	for _, host := range []string{"m2", "s1", "m1"} {
		old := r.nodes("m0")[host].ID
		r.engines[host].Recreate()
		r.eventually(host+" is back", func() bool { return r.whole("m0") && r.nodes("m0")[host].ID != old })
	}
	// The gateway's own host is a new one: the swarm is the others'.
	r.engines["m0"].Recreate()
	r.eventually("m0 is back", func() bool { return r.whole("m1") && r.whole("m0") })
	// Most managers are new ones: the old swarm cannot come back.
	r.engines["m0"].Recreate()
	r.engines["m1"].Recreate()
	r.eventually("there is a new swarm", func() bool { return r.whole("m0") && r.whole("m2") })
	// Tasks are there again as if nothing had been.
	r.want(201, "POST", "/v2/apps", appJSON("a", 2, ""))
	r.settle("/a", 2)
}

func TestForeignWorkerJoins(t *testing.T) {
	r := newRig(t, 22, 1, 1)
	r.eventually("the swarm is whole", func() bool { return r.whole("m0") })
	r.stop()
	other := fakedocker.New()
	t.Cleanup(other.Close)
	r.engines["s0"].Recreate()
	c, err := docker.New(r.engines["s0"].Address())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Init(context.Background(), &docker.InitRequest{AdvertiseAddr: "127.0.22.2"}); err != nil {
		t.Fatal(err)
	}
	r.lead()
	r.eventually("s0 left its own swarm", func() bool { return r.whole("m0") })
}

func TestAddressIsNeverLoopback(t *testing.T) {
	s, err := parse([]string{"--zk=zk://z", "--hostname=localhost"})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := newHosts(s, Options{}).address(context.Background(), "localhost"); err == nil {
		t.Errorf("localhost: %s", a)
	}
	s.workers = []string{"192.0.2.1"} // this host's address towards another, if it has a network
	if a, err := newHosts(s, Options{}).address(context.Background(), "localhost"); err == nil && net.ParseIP(a).IsLoopback() {
		t.Errorf("localhost: %s", a)
	}
}

func TestImages(t *testing.T) {
	r := newRig(t, 23, 1, 3)
	r.eventually("the swarm is whole", func() bool { return r.whole("m0") })
	m := r.gateway.leads().members
	a := appJSONDocker(t, "some:1")
	if ref, lacking := m.image(context.Background(), a); ref != "some:1" || len(lacking) != 0 && len(lacking) != 3 {
		t.Errorf("nobody has it: %s %v", ref, lacking)
	}
	r.engines["s1"].Load("some:1", "sha256:9")
	if ref, lacking := m.image(context.Background(), a); ref != "sha256:9" || !slices.Equal(lacking, []string{"s0", "s2"}) {
		t.Errorf("one has it: %s %v", ref, lacking)
	}
	r.engines["s0"].Load("some:1", "sha256:8")
	if ref, lacking := m.image(context.Background(), a); ref != "some:1" || lacking != nil {
		t.Errorf("they differ: %s %v", ref, lacking)
	}
}
