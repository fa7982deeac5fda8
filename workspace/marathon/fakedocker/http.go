package fakedocker

import (
	"encoding/json"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"marathon-gateway/docker"
)

const (
	noManager = `This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.`
	noLeader  = "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online."
	inSwarm   = `This node is already part of a swarm. Use "docker swarm leave" to leave this swarm and join another one.`
)

var serviceName = regexp.MustCompile(`^[a-zA-Z0-9]+(?:[a-zA-Z0-9-_]*[a-zA-Z0-9])?$`)

// ServeHTTP is the engine's API.
func (e *Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	e.world.mu.Lock()
	defer e.world.mu.Unlock()
	if e.down {
		panic(http.ErrAbortHandler) // the connection breaks
	}
	path, ok := strings.CutPrefix(r.URL.Path, "/v1.41")
	if !ok {
		fail(w, 400, "client version is too old or too new")
		return
	}
	words := strings.Split(strings.Trim(path, "/"), "/")
	switch {
	case path == "/_ping":
		_, _ = w.Write([]byte("OK"))
	case path == "/info":
		send(w, 200, e.info())
	case words[0] == "images" && len(words) > 2:
		name := strings.TrimSuffix(strings.TrimPrefix(path, "/images/"), "/json")
		if id := e.images[name]; id != "" {
			send(w, 200, map[string]string{"Id": id})
		} else {
			fail(w, 404, "No such image: "+name)
		}
	case path == "/swarm/init" && r.Method == http.MethodPost:
		e.init(w, r)
	case path == "/swarm/join" && r.Method == http.MethodPost:
		e.join(w, r)
	case path == "/swarm/leave" && r.Method == http.MethodPost:
		if e.swarm == nil {
			fail(w, 503, "This node is not part of a swarm")
			return
		}
		if e.node != nil {
			e.node.Status.State = docker.NodeDown
		}
		e.stopTasks()
		e.swarm, e.node, e.lost = nil, nil, false
		w.WriteHeader(200)
	case e.swarm == nil || e.node.ManagerStatus == nil || e.lost:
		fail(w, 503, noManager)
	case !e.world.led(e.swarm):
		fail(w, 503, noLeader)
	default:
		e.manage(w, r, words)
	}
}

func (e *Engine) info() docker.Info {
	i := docker.Info{Name: e.name, Swarm: docker.SwarmInfo{LocalNodeState: docker.StateInactive}}
	if e.swarm != nil {
		i.Swarm = docker.SwarmInfo{NodeID: e.node.ID, NodeAddr: e.address, LocalNodeState: docker.StateActive}
		if e.node.ManagerStatus != nil && !e.lost {
			i.Swarm.ControlAvailable = true
			i.Swarm.Cluster = &docker.ClusterInfo{ID: e.swarm.id}
		}
	}
	return i
}

func (e *Engine) enter(s *swarm, role, address string) {
	n := &docker.Node{ID: e.world.id(), Spec: docker.NodeSpec{Role: role, Availability: "active"}}
	n.Version.Index = 1
	n.Description.Hostname, n.Status.State, n.Status.Addr = e.name, docker.NodeReady, e.address
	e.swarm, e.node, e.lost = s, n, false
	s.nodes = append(s.nodes, n)
	setRole(n, role, address)
}

func setRole(n *docker.Node, role, address string) {
	n.Spec.Role, n.ManagerStatus = role, nil
	if role != docker.RoleManager {
		return
	}
	n.ManagerStatus = &struct {
		Leader       bool
		Reachability string
		Addr         string
	}{Reachability: "reachable", Addr: address + ":2377"}
}

func (e *Engine) init(w http.ResponseWriter, r *http.Request) {
	var in docker.InitRequest
	switch {
	case !read(w, r, &in):
	case e.swarm != nil:
		fail(w, 503, inSwarm)
	default:
		e.enter(&swarm{id: e.world.id()}, docker.RoleManager, in.AdvertiseAddr)
		send(w, 200, e.node.ID)
	}
}

func (e *Engine) join(w http.ResponseWriter, r *http.Request) {
	var in docker.JoinRequest
	if !read(w, r, &in) {
		return
	}
	if e.swarm != nil {
		fail(w, 503, inSwarm)
		return
	}
	kind, id, _ := strings.Cut(strings.TrimPrefix(in.JoinToken, "SWMTKN-1-"), "-")
	for _, o := range e.world.engines {
		if o.swarm != nil && o.swarm.id == id && !o.down && slices.Contains(in.RemoteAddrs, o.address+":2377") && e.world.led(o.swarm) {
			e.enter(o.swarm, kind, in.AdvertiseAddr)
			w.WriteHeader(200)
			return
		}
	}
	fail(w, 500, "rpc error: code = Unavailable desc = all SubConns are in TransientFailure")
}

// manage answers what only managers can.
func (e *Engine) manage(w http.ResponseWriter, r *http.Request, words []string) {
	s := e.swarm
	switch what := r.Method + " " + words[0]; {
	case what == "GET swarm":
		var out docker.Swarm
		out.ID = s.id
		out.JoinTokens.Worker, out.JoinTokens.Manager = "SWMTKN-1-worker-"+s.id, "SWMTKN-1-manager-"+s.id
		send(w, 200, out)
	case what == "GET nodes":
		send(w, 200, s.nodes)
	case words[0] == "nodes" && len(words) > 1:
		e.oneNode(w, r, words)
	case what == "GET services":
		send(w, 200, s.services)
	case what == "GET tasks":
		out := []docker.Task{}
		for _, t := range s.tasks {
			out = append(out, t.Task)
		}
		send(w, 200, out)
	case what == "POST services" && len(words) == 2 && words[1] == "create":
		e.create(w, r)
	case what == "DELETE services" && len(words) == 2:
		before := len(s.services)
		s.services = slices.DeleteFunc(s.services, func(x *docker.Service) bool { return x.ID == words[1] })
		if len(s.services) == before {
			fail(w, 404, "service "+words[1]+" not found")
			return
		}
		w.WriteHeader(200)
	default:
		fail(w, 404, "page not found")
	}
}

func (e *Engine) create(w http.ResponseWriter, r *http.Request) {
	sv := &docker.Service{ID: e.world.id(), CreatedAt: time.Now()}
	if !read(w, r, &sv.Spec) {
		return
	}
	if len(sv.Spec.Name) > 63 || !serviceName.MatchString(sv.Spec.Name) {
		fail(w, 400, "rpc error: code = InvalidArgument desc = name must be valid as a DNS name component")
		return
	}
	for _, o := range e.swarm.services {
		if o.Spec.Name == sv.Spec.Name {
			fail(w, 409, "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service "+o.Spec.Name+" already exists")
			return
		}
	}
	e.swarm.services = append(e.swarm.services, sv)
	send(w, 201, map[string]string{"ID": sv.ID})
}

func (e *Engine) oneNode(w http.ResponseWriter, r *http.Request, words []string) {
	i := slices.IndexFunc(e.swarm.nodes, func(n *docker.Node) bool { return n.ID == words[1] })
	if i < 0 {
		fail(w, 404, "node "+words[1]+" not found")
		return
	}
	n := e.swarm.nodes[i]
	switch {
	case r.Method == http.MethodPost && len(words) == 3:
		var spec docker.NodeSpec
		if !read(w, r, &spec) {
			return
		}
		setRole(n, spec.Role, n.Status.Addr)
		n.Version.Index++
		n.Spec = spec
		w.WriteHeader(200)
	case r.Method == http.MethodDelete && n.ManagerStatus != nil:
		fail(w, 400, "rpc error: code = FailedPrecondition desc = node "+n.ID+" is a cluster manager and is a member of the raft cluster. It must be demoted to worker before removal")
	case r.Method == http.MethodDelete:
		e.swarm.nodes = slices.Delete(e.swarm.nodes, i, i+1)
		for _, o := range e.world.engines {
			if o.node == n {
				o.lost = true
			}
		}
		w.WriteHeader(200)
	default:
		fail(w, 404, "page not found")
	}
}

func read(w http.ResponseWriter, r *http.Request, out any) bool {
	if err := json.NewDecoder(r.Body).Decode(out); err != nil {
		fail(w, 400, err.Error())
		return false
	}
	return true
}

func send(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

func fail(w http.ResponseWriter, status int, message string) {
	send(w, status, map[string]string{"message": message})
}
