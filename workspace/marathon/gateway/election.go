package gateway

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-zookeeper/zk"
)

// election finds out who leads, as Marathon does: every gateway makes an
// ephemeral, sequential node that holds its address, and the lowest leads.
type election struct {
	settings *settings
	address  string // host:port of this gateway's API
	lead     func(ctx context.Context, docs documents) error

	mu       sync.Mutex
	leader   string // host:port; empty: none is known
	mine     bool   // this gateway leads
	stepDown context.CancelFunc
}

const memberPrefix = "member_"

// who tells the leader's address, and whether it is this gateway.
func (e *election) who() (string, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.leader, e.mine
}

func (e *election) set(leader string, mine bool, stepDown context.CancelFunc) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if leader != e.leader {
		switch {
		case leader == "":
			log.Printf("no leader is known")
		case mine:
			log.Printf("leading")
		default:
			log.Printf("%s leads", leader)
		}
	}
	e.leader, e.mine, e.stepDown = leader, mine, stepDown
}

// abdicate makes another gateway lead, if there is another.
func (e *election) abdicate() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stepDown != nil {
		e.stepDown()
	}
}

// run takes part in elections until ctx ends.
func (e *election) run(ctx context.Context) {
	for ctx.Err() == nil {
		if err := e.session(ctx); err != nil && ctx.Err() == nil {
			log.Printf("election: %v", err)
		}
		e.set("", false, nil)
		select {
		case <-ctx.Done():
		case <-time.After(time.Second):
		}
	}
}

// session takes part with one session of ZooKeeper: it ends when that does,
// when leading failed, or after abdicating.
func (e *election) session(parent context.Context) error {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	conn, events, err := zk.Connect(e.settings.zk.hosts, e.settings.zkTimeout, zk.WithLogger(quiet{}), zk.WithLogInfo(false), zk.WithDialer(e.dial), zk.WithMaxBufferSize(16<<20))
	if err != nil {
		return err
	}
	defer conn.Close() // removes this gateway's node at once
	connected := make(chan struct{})
	go e.watch(ctx, cancel, events, connected)
	select {
	case <-connected:
	case <-ctx.Done():
		return ctx.Err()
	}
	dir := path.Join("/", e.settings.zk.path, "leader")
	if err := makePath(conn, dir); err != nil {
		return err
	}
	node, err := conn.CreateProtectedEphemeralSequential(dir+"/"+memberPrefix, []byte(e.address), zk.WorldACL(zk.PermAll))
	if err != nil {
		return fmt.Errorf("ZooKeeper: %s: %w", dir, err)
	}
	var leading chan error
	leadCtx, stopLeading := context.WithCancel(ctx)
	defer func() {
		stopLeading()
		if leading != nil {
			<-leading
		}
	}()
	for {
		members, _, changed, err := conn.ChildrenW(dir)
		if err != nil {
			return fmt.Errorf("ZooKeeper: %s: %w", dir, err)
		}
		slices.SortFunc(members, func(a, b string) int { return strings.Compare(sequence(a), sequence(b)) })
		if !slices.Contains(members, path.Base(node)) {
			return errors.New("this gateway's node in ZooKeeper is gone")
		}
		if members[0] == path.Base(node) {
			if leading == nil {
				leading = make(chan error, 1)
				docs := &zkDocuments{conn: conn, base: e.settings.zk.path, fence: node}
				e.set(e.address, true, stopLeading)
				go func() { leading <- e.lead(leadCtx, docs) }()
			}
		} else if data, _, err := conn.Get(dir + "/" + members[0]); err == nil {
			leader := string(data)
			if leader == e.address { // left by this gateway before it was killed
				leader = ""
			}
			e.set(leader, false, nil)
		} else if errors.Is(err, zk.ErrNoNode) {
			continue
		} else {
			return fmt.Errorf("ZooKeeper: %s: %w", members[0], err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-leading:
			leading = nil
			return err
		case <-changed:
		}
	}
}

// sequence is the number at the end of a node's name; what is before it was
// made up to find the node again.
func sequence(name string) string { return name[strings.LastIndexByte(name, '_')+1:] }

// watch ends the session when ZooKeeper says that it is over, and when it has
// been silent for so long that another gateway may soon lead.
func (e *election) watch(ctx context.Context, cancel context.CancelFunc, events <-chan zk.Event, connected chan<- struct{}) {
	defer cancel()
	patience := e.settings.zkTimeout / 2
	var silent <-chan time.Time
	had := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-silent:
			log.Printf("election: ZooKeeper has been silent for %s", patience)
			return
		case ev, ok := <-events:
			switch {
			case !ok || ev.State == zk.StateExpired || ev.State == zk.StateAuthFailed:
				return
			case ev.State == zk.StateHasSession:
				silent = nil
				if !had {
					had = true
					close(connected)
				}
			case ev.State == zk.StateDisconnected && had && silent == nil:
				silent = time.After(patience)
			}
		}
	}
}

// dial connects to ZooKeeper. The client would wait for the answer to its first
// request for ten times as long as for others, which a server that has just
// begun to listen may never give.
func (e *election) dial(network, address string, timeout time.Duration) (net.Conn, error) {
	c, err := net.DialTimeout(network, address, timeout)
	if err != nil {
		return nil, err
	}
	return &impatient{c, e.settings.zkTimeout}, nil
}

// impatient is a connection on which no answer is waited for longer than that.
type impatient struct {
	net.Conn
	longest time.Duration
}

func (c *impatient) SetReadDeadline(t time.Time) error {
	if most := time.Now().Add(c.longest); t.After(most) {
		t = most
	}
	return c.Conn.SetReadDeadline(t)
}

// quiet drops what the ZooKeeper client has to say of each attempt to connect.
type quiet struct{}

func (quiet) Printf(string, ...any) {}
