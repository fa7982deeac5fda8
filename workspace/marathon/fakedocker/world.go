// Package fakedocker is Docker engines that are not there: they answer API 1.41
// as Debian's 20.10 does, make swarms and place tasks, in memory. A task's
// container is a listener on its node's address that serves a page.
package fakedocker

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"marathon-gateway/docker"
)

// Page is what every container serves.
const Page = "<h1> Hello brave new world! </h1>\n"

// World is all engines and swarms of a test.
type World struct {
	mu      sync.Mutex
	engines map[string]*Engine
	serial  int
	done    chan struct{}
	stopped sync.WaitGroup
}

// Engine is the Docker engine of one host.
type Engine struct {
	world   *World
	name    string
	address string // of the host, in the cluster's network
	api     net.Listener
	server  *http.Server

	down    bool
	images  map[string]string // name to id
	swarm   *swarm
	node    *docker.Node
	lost    bool                    // it was removed from the swarm and does not know it
	running map[string]net.Listener // by task
}

// swarm is what its managers agree on.
type swarm struct {
	id       string
	nodes    []*docker.Node
	services []*docker.Service
	tasks    []*task
}

type task struct {
	docker.Task
	spec *docker.ServiceSpec
}

// New makes a world without engines.
func New() *World {
	w := &World{engines: map[string]*Engine{}, done: make(chan struct{})}
	w.stopped.Go(w.run)
	return w
}

// Close ends everything.
func (w *World) Close() {
	close(w.done)
	w.stopped.Wait()
	for _, e := range w.engines {
		_ = e.server.Close()
		e.stopTasks()
	}
}

// Add starts an engine for a host. The address must be a loopback one: tasks
// really listen there.
func (w *World) Add(name, address string) (*Engine, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	e := &Engine{world: w, name: name, address: address, api: l, images: map[string]string{}, running: map[string]net.Listener{}}
	e.server = &http.Server{Handler: e, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = e.server.Serve(l) }()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.engines[name] = e
	return e, nil
}

// Address is where the engine's API is: tcp://host:port.
func (e *Engine) Address() string { return "tcp://" + e.api.Addr().String() }

// Load gives the engine an image.
func (e *Engine) Load(image, id string) {
	e.world.mu.Lock()
	defer e.world.mu.Unlock()
	e.images[image] = id
}

// SetDown makes the host fail, or come back with what it had on its disk.
func (e *Engine) SetDown(down bool) {
	e.world.mu.Lock()
	defer e.world.mu.Unlock()
	e.down = down
	if down {
		e.stopTasks()
	}
}

// Recreate makes the host a new one, of the same name, that is in no swarm.
func (e *Engine) Recreate() {
	e.world.mu.Lock()
	defer e.world.mu.Unlock()
	e.stopTasks()
	if e.node != nil {
		e.node.Status.State = docker.NodeDown
		if e.node.ManagerStatus != nil {
			e.node.ManagerStatus.Reachability = "unreachable"
		}
	}
	e.swarm, e.node, e.lost = nil, nil, false
}

// Break ends all containers on the host, as if their programs had failed.
func (e *Engine) Break() {
	e.world.mu.Lock()
	defer e.world.mu.Unlock()
	for id := range e.running {
		for _, t := range e.swarm.tasks {
			if t.ID == id {
				t.finish("failed", "task: non-zero exit (1)")
			}
		}
	}
	e.stopTasks()
}

// Member tells whether the engine is in a swarm.
func (e *Engine) Member() bool {
	e.world.mu.Lock()
	defer e.world.mu.Unlock()
	return e.swarm != nil && !e.lost
}

// Running counts the host's containers.
func (e *Engine) Running() int {
	e.world.mu.Lock()
	defer e.world.mu.Unlock()
	return len(e.running)
}

func (e *Engine) stopTasks() {
	for id, l := range e.running {
		_ = l.Close()
		delete(e.running, id)
	}
}

func (w *World) id() string {
	w.serial++
	return fmt.Sprintf("fake%021d", w.serial)
}

// engineOf is the engine that is a node, if it still is.
func (w *World) engineOf(s *swarm, nodeID string) *Engine {
	for _, e := range w.engines {
		if e.swarm == s && e.node != nil && e.node.ID == nodeID && !e.down && !e.lost {
			return e
		}
	}
	return nil
}

// led tells whether most of a swarm's managers are there.
func (w *World) led(s *swarm) bool {
	managers, there := 0, 0
	for _, n := range s.nodes {
		if n.ManagerStatus != nil {
			managers++
			if w.engineOf(s, n.ID) != nil {
				there++
			}
		}
	}
	return there > managers/2
}

func (t *task) finish(state, message string) {
	t.Status.State, t.Status.Err, t.Status.Timestamp = state, message, time.Now()
	t.DesiredState = "shutdown"
}

// listen starts a task's container.
func (e *Engine) listen(t *task) error {
	if t.spec.EndpointSpec == nil || len(t.spec.EndpointSpec.Ports) == 0 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err == nil {
			e.running[t.ID] = l
		}
		return err
	}
	p := t.spec.EndpointSpec.Ports[0]
	l, err := net.Listen("tcp", net.JoinHostPort(e.address, strconv.Itoa(p.PublishedPort)))
	if err != nil {
		return err
	}
	e.running[t.ID] = l
	go func() {
		s := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, Page) })}
		_ = s.Serve(l)
	}()
	return nil
}
