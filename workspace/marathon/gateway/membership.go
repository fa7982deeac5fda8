package gateway

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"slices"
	"sync"
	"time"

	"marathon-gateway/docker"
)

const (
	memberInterval = 5 * time.Second
	memberTimeout  = 8 * time.Second  // of one request; joining takes its time
	joinTimeout    = 30 * time.Second // Docker itself gives up waiting after 20 s
	// A node or a swarm that looks wrong gets that long to come right by
	// itself: it may be joining, electing or booting.
	nodePatience   = 75 * time.Second
	swarmPatience  = 90 * time.Second
	rebootPatience = 15 * time.Minute // of managers that may bring an old swarm back

	// Twice Docker's: emulated machines that are busy booting are late.
	heartbeat = 10 * time.Second

	swarmPort = "2377"
)

// membership makes the swarm and keeps its members in it, round by round.
type membership struct {
	settings *settings
	hosts    *hosts
	kick     func() // a manager was found: there may be work

	mu      sync.Mutex
	current *docker.Client // a manager of the swarm
	trouble error
	engines map[string]*docker.Client // that answered last time
	since   map[string]time.Time      // when something began to look wrong
}

func newMembership(s *settings, h *hosts, kick func()) *membership {
	return &membership{settings: s, hosts: h, kick: kick, since: map[string]time.Time{}, engines: map[string]*docker.Client{}, trouble: errors.New("looking for the swarm")}
}

// manager is an engine that the swarm can be asked and told through, or nil.
func (m *membership) manager() *docker.Client {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.current
}

// problem says why there is no manager.
func (m *membership) problem() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.trouble
}

func (m *membership) set(c *docker.Client, err error) {
	m.mu.Lock()
	found := m.current == nil && c != nil
	if text := fmt.Sprint(err); err != nil && (m.trouble == nil || text != m.trouble.Error()) {
		log.Printf("swarm: %v", err)
	}
	m.current, m.trouble = c, err
	m.mu.Unlock()
	if found {
		log.Printf("swarm: managed through %s", c)
		m.kick()
	}
}

func (m *membership) run(ctx context.Context) {
	for ctx.Err() == nil {
		c, err := m.round(ctx)
		if ctx.Err() != nil {
			return
		}
		m.set(c, err)
		select {
		case <-ctx.Done():
		case <-time.After(m.hosts.options.pace(memberInterval)):
		}
	}
}

// persists tells whether something has looked wrong for long enough.
func (m *membership) persists(key string, wrong bool, patience time.Duration) bool {
	if !wrong {
		delete(m.since, key)
		return false
	}
	began, ok := m.since[key]
	if !ok {
		m.since[key] = time.Now()
		return false
	}
	return time.Since(began) >= m.hosts.options.pace(patience)
}

// member is a host as this round found it.
type member struct {
	host   string
	role   string
	engine *docker.Client
	info   *docker.Info // nil: it does not answer
	err    error
}

// survey asks all hosts' engines about themselves, at once.
func (m *membership) survey(ctx context.Context) ([]*member, error) {
	var all []*member
	for _, h := range m.settings.managers {
		all = append(all, &member{host: h, role: docker.RoleManager})
	}
	for _, h := range m.settings.workers {
		all = append(all, &member{host: h, role: docker.RoleWorker})
	}
	var wg sync.WaitGroup
	for _, x := range all {
		var err error
		if x.engine, err = m.hosts.engine(x.host); err != nil {
			return nil, err
		}
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, memberTimeout)
			defer cancel()
			x.info, x.err = x.engine.Info(ctx)
		})
	}
	wg.Wait()
	engines := map[string]*docker.Client{}
	for _, x := range all {
		m.persists("absent "+x.host, x.info == nil, 0)
		if x.info != nil {
			engines[x.host] = x.engine
		}
	}
	m.mu.Lock()
	m.engines = engines
	m.mu.Unlock()
	return all, nil
}

// swarm is a working swarm as its manager tells.
type swarm struct {
	manager *docker.Client
	info    *docker.Swarm
	nodes   []docker.Node
}

// round looks at all hosts and does what can be done now. It returns a manager.
func (m *membership) round(ctx context.Context) (*docker.Client, error) {
	all, err := m.survey(ctx)
	if err != nil {
		return nil, err
	}
	s, err := m.find(ctx, all)
	if err != nil {
		if s, err = m.start(ctx, all, err); err != nil {
			return nil, err
		}
	}
	m.set(s.manager, nil) // work can begin while hosts still join
	m.tidy(ctx, s, all)
	for _, x := range all {
		if x.info == nil {
			continue
		}
		if err := m.bring(ctx, s, x); err != nil {
			log.Printf("swarm: %s: %v", x.host, err)
		}
	}
	return s.manager, nil
}

// find looks for a swarm with a leader: the one with the most members, if by
// some accident there are several.
func (m *membership) find(ctx context.Context, all []*member) (*swarm, error) {
	// This host's engine first: it is nearest.
	byNearness := slices.Clone(all)
	slices.SortStableFunc(byNearness, func(a, b *member) int {
		return order(b.host == m.settings.hostname) - order(a.host == m.settings.hostname)
	})
	var best *swarm
	why := errors.New("no manager's engine answers")
	for _, x := range byNearness {
		if x.role == docker.RoleManager && x.err != nil {
			why = x.err
		}
		if x.info == nil || !x.info.Swarm.ControlAvailable {
			continue
		}
		s := &swarm{manager: x.engine}
		ask, cancel := context.WithTimeout(ctx, memberTimeout)
		var err error
		if s.info, err = x.engine.Swarm(ask); err == nil {
			s.nodes, err = x.engine.Nodes(ask)
		}
		cancel()
		if err != nil {
			why = err
			continue
		}
		if best == nil || s.info.ID != best.info.ID && len(s.nodes) > len(best.nodes) {
			best = s
		}
	}
	if best == nil {
		return nil, why
	}
	delete(m.since, "swarm")
	return best, nil
}

// start makes a swarm when there is none and none can come back: every
// manager's engine answers, and either none is in a swarm, or it stayed without
// a leader for long. Tasks of such a swarm are lost; the apps are not, they are
// in ZooKeeper. why is why no swarm was found.
func (m *membership) start(ctx context.Context, all []*member, why error) (*swarm, error) {
	var stale []*member
	var own *member
	for _, x := range all {
		if x.host == m.settings.hostname && x.role == docker.RoleManager {
			own = x
		}
		if x.role == docker.RoleManager && x.info != nil && x.info.Swarm.LocalNodeState != docker.StateInactive {
			stale = append(stale, x)
		}
	}
	if own == nil || own.info == nil {
		return nil, fmt.Errorf("there is no swarm, and this host's engine, that would make one, does not answer: %w", why)
	}
	patience := swarmPatience
	if len(stale) > 0 {
		patience = rebootPatience
	}
	for _, x := range all {
		if x.role != docker.RoleManager || x.info != nil {
			continue
		}
		// An engine that does not answer may be a manager of a swarm that has
		// a leader again when it is back. Two swarms would be worse than none.
		if !m.persists("absent "+x.host, true, patience) {
			return nil, fmt.Errorf("there is no swarm yet, and %s may know one: %w", x.host, x.err)
		}
	}
	if len(stale) > 0 {
		if !m.persists("swarm", true, swarmPatience) {
			return nil, fmt.Errorf("the swarm has no leader: %w", why)
		}
		for _, x := range stale {
			log.Printf("swarm: %s leaves a swarm that has had no leader for %s", x.host, swarmPatience)
			if err := m.leave(ctx, x); err != nil {
				return nil, err
			}
		}
	}
	address, err := m.hosts.address(ctx, own.host)
	if err != nil {
		return nil, err
	}
	join, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	log.Printf("swarm: made by %s at %s", own.host, address)
	request := &docker.InitRequest{ListenAddr: "0.0.0.0:" + swarmPort, AdvertiseAddr: address}
	request.Spec.Dispatcher.HeartbeatPeriod = heartbeat
	if err := own.engine.Init(join, request); err != nil {
		return nil, err
	}
	if own.info, err = own.engine.Info(join); err != nil {
		return nil, err
	}
	return m.find(ctx, []*member{own})
}

func (m *membership) leave(ctx context.Context, x *member) error {
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	if err := x.engine.Leave(ctx); err != nil {
		return err
	}
	info, err := x.engine.Info(ctx)
	if err == nil {
		x.info = info
	}
	return err
}

// tidy removes what recreated hosts left behind: nodes that are down and bear
// the name of a host that is not that node any more.
func (m *membership) tidy(ctx context.Context, s *swarm, all []*member) {
	for i := range s.nodes {
		n := &s.nodes[i]
		at := slices.IndexFunc(all, func(x *member) bool { return x.host == n.Description.Hostname })
		if at < 0 || all[at].info == nil || all[at].info.Swarm.NodeID == n.ID || n.Status.State != docker.NodeDown {
			continue
		}
		ask, cancel := context.WithTimeout(ctx, memberTimeout)
		err := m.remove(ask, s, n)
		cancel()
		if err != nil {
			log.Printf("swarm: the old node of %s: %v", n.Description.Hostname, err)
			continue
		}
		log.Printf("swarm: the old node %s of %s is removed", n.ID, n.Description.Hostname)
	}
}

func (m *membership) remove(ctx context.Context, s *swarm, n *docker.Node) error {
	if n.Spec.Role == docker.RoleManager {
		spec := n.Spec
		spec.Role = docker.RoleWorker
		if err := s.manager.UpdateNode(ctx, n, spec); err != nil {
			return err
		}
	}
	return s.manager.RemoveNode(ctx, n.ID) // refused until the demotion is through: the next round asks again
}

// bring makes one host a member with the right role.
func (m *membership) bring(ctx context.Context, s *swarm, x *member) error {
	own := x.info.Swarm
	at := slices.IndexFunc(s.nodes, func(n docker.Node) bool { return n.ID == own.NodeID })
	if own.NodeID != "" && at >= 0 && own.LocalNodeState != docker.StateInactive {
		n := s.nodes[at]
		m.persists("foreign "+x.host, false, 0)
		// A node that is in the swarm and cannot reach it is made to join afresh.
		if m.persists("down "+x.host, n.Status.State == docker.NodeDown && own.LocalNodeState == docker.StateError, swarmPatience) {
			return m.leave(ctx, x)
		}
		if n.Spec.Role == x.role {
			return nil
		}
		ask, cancel := context.WithTimeout(ctx, memberTimeout)
		defer cancel()
		spec := n.Spec
		spec.Role = x.role
		log.Printf("swarm: %s becomes a %s", x.host, x.role)
		return s.manager.UpdateNode(ask, &n, spec)
	}
	if own.LocalNodeState != docker.StateInactive {
		if !m.persists("foreign "+x.host, true, nodePatience) {
			return nil
		}
		log.Printf("swarm: %s leaves another swarm (%s)", x.host, own.LocalNodeState)
		if err := m.leave(ctx, x); err != nil {
			return err
		}
		delete(m.since, "foreign "+x.host)
	}
	// While the old node is there as a manager, a new one would change how many
	// a majority is.
	for _, n := range s.nodes {
		if n.Description.Hostname == x.host && n.Spec.Role == docker.RoleManager && n.Status.State != docker.NodeDown && n.ID != own.NodeID && !m.persists("old "+x.host, true, swarmPatience) {
			return nil // the swarm has not noticed yet that it is gone
		}
	}
	delete(m.since, "old "+x.host)
	return m.join(ctx, s, x)
}

func (m *membership) join(ctx context.Context, s *swarm, x *member) error {
	address, err := m.hosts.address(ctx, x.host)
	if err != nil {
		return err
	}
	r := &docker.JoinRequest{ListenAddr: "0.0.0.0:" + swarmPort, AdvertiseAddr: address, JoinToken: s.info.JoinTokens.Worker}
	if x.role == docker.RoleManager {
		r.JoinToken = s.info.JoinTokens.Manager
	}
	for _, n := range s.nodes {
		if n.ManagerStatus != nil && n.ManagerStatus.Reachability == "reachable" {
			r.RemoteAddrs = append(r.RemoteAddrs, n.ManagerStatus.Addr)
		}
	}
	if len(r.RemoteAddrs) == 0 {
		return errors.New("no manager of the swarm is reachable")
	}
	ctx, cancel := context.WithTimeout(ctx, joinTimeout)
	defer cancel()
	log.Printf("swarm: %s joins as a %s at %s", x.host, x.role, net.JoinHostPort(address, swarmPort))
	return x.engine.Join(ctx, r)
}
