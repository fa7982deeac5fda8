package deploy

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/crypto/ssh"

	"tool/core/machines/activate"
	"tool/core/machines/agent"
	"tool/core/machines/seed"
)

// fakeMachine is a machine of which all is real but the processor, the kernel
// and systemd: a disk, the agent on it, an SSH server.
type fakeMachine struct {
	name string
	dir  string // where its disk and seed are
	sd   *fakeSystemd
	hook func(point string) // called at each message to its agent

	mu       sync.Mutex
	hardware Hardware
	state    State
	power    context.Context
	off      context.CancelFunc
	running  sync.WaitGroup // everything that lives as long as the power is on
	conns    map[*fakeConn]bool
	deaf     bool // its network is gone
	boots    int
	install  string // the script that installed the agent last
}

// setDeaf takes the machine's network away, or gives it back. Connections that there
// are stay.
func (m *fakeMachine) setDeaf(v bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deaf = v
}

func (m *fakeMachine) root() string { return filepath.Join(m.dir, "disk") }
func (m *fakeMachine) seed() string { return filepath.Join(m.dir, "seed") }

func (m *fakeMachine) open() (*activate.Machine, error) { return activate.Open(m.root(), m.sd) }

// start turns the power on and does what the initrd does.
func (m *fakeMachine) start() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state == StateRunning {
		return nil
	}
	m.power, m.off = context.WithCancel(context.Background())
	m.conns = map[*fakeConn]bool{}
	m.boots++
	m.sd = &fakeSystemd{root: m.root(), run: m.transient, state: map[string]string{}}
	if err := m.boot(m.power); err != nil {
		m.off()
		m.state = StateCrashed
		return fmt.Errorf("machine %s cannot start: %w", m.name, err)
	}
	m.state = StateRunning
	return nil
}

func (m *fakeMachine) boot(ctx context.Context) error {
	if err := os.RemoveAll(filepath.Join(m.root(), "run")); err != nil {
		return err
	}
	a, err := m.open()
	if err != nil {
		return err
	}
	defer a.Close()
	f, err := os.Open(m.seed())
	if err != nil {
		return err
	}
	defer f.Close()
	s, err := seed.Open(f)
	if err != nil {
		return err
	}
	if a.AgentSHA256() == "" {
		if _, err := a.PutAgent(s.Agent(), s.Header.Agent.SHA256); err != nil {
			return err
		}
	}
	if err := a.Boot(ctx, m.seed()); err != nil {
		return err
	}
	return m.startUnits(ctx, a)
}

func (m *fakeMachine) startUnits(ctx context.Context, a *activate.Machine) error {
	n, err := a.Pointer(activate.Active)
	if err != nil {
		return err
	}
	g, err := a.Generation(n)
	if err != nil {
		return err
	}
	man, err := a.Manifest(g.Ref)
	if err != nil {
		return err
	}
	for _, s := range man.Services {
		_ = m.sd.Do(ctx, "start", s.Unit) // one that fails is found so
	}
	m.sd.restarted()
	// The unit that the agent leaves for a start on trial.
	m.running.Go(func() { m.switchTo(ctx, -1) })
	return nil
}

// stop turns the power off: in the middle of whatever is being done.
func (m *fakeMachine) stop(as State) {
	m.mu.Lock()
	if m.state != StateRunning {
		m.mu.Unlock()
		return
	}
	m.state = as
	m.off()
	m.cutLocked()
	m.mu.Unlock()
	m.running.Wait()
	m.sd.off()
}

// cut breaks all connections.
func (m *fakeMachine) cut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.cutLocked()
}

func (m *fakeMachine) cutLocked() {
	for c := range m.conns {
		c.Close()
	}
}

func (m *fakeMachine) transient(t activate.Transient) {
	n, err := strconv.Atoi(t.Command[len(t.Command)-1])
	if err != nil {
		panic(t)
	}
	ctx := m.power
	m.running.Go(func() { m.switchTo(ctx, n) })
}

// switchTo is `tool agent switch`, which systemd starts again where it fails.
func (m *fakeMachine) switchTo(ctx context.Context, n int) {
	for range 20 {
		a, err := m.open()
		if err == nil {
			err = a.RunSwitch(ctx, n)
			a.Close()
		}
		if err == nil || ctx.Err() != nil {
			return
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return
		}
	}
}

func (m *fakeMachine) dial() (*fakeConn, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.state != StateRunning || m.deaf {
		return nil, fmt.Errorf("machine %s: connection refused", m.name)
	}
	here, there := newFakeConn()
	m.conns[there] = true
	ctx := m.power
	m.running.Go(func() {
		defer func() {
			there.Close()
			m.mu.Lock()
			delete(m.conns, there)
			m.mu.Unlock()
		}()
		if err := m.serve(ctx, there); err != nil && ctx.Err() == nil && !strings.Contains(err.Error(), "EOF") && !strings.Contains(err.Error(), "closed") {
			fmt.Fprintf(os.Stderr, "fake machine %s: %v\n", m.name, err)
		}
	})
	return here, nil
}

// serve is sshd, with the keys that activation has put there.
func (m *fakeMachine) serve(ctx context.Context, conn *fakeConn) error {
	a, err := m.open()
	if err != nil {
		return err
	}
	defer a.Close()
	f, err := a.Facts()
	if err != nil {
		return err
	}
	key, err := ssh.ParsePrivateKey([]byte(f.HostKey))
	if err != nil {
		return err
	}
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		for _, line := range f.AuthorizedKeys {
			if want, err := publicKey(line); err == nil && bytes.Equal(want.Marshal(), k.Marshal()) {
				return nil, nil
			}
		}
		return nil, fmt.Errorf("the key is not known")
	}}
	config.AddHostKey(key)
	sc, chans, reqs, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return err
	}
	defer sc.Close()
	go ssh.DiscardRequests(reqs)
	var sessions sync.WaitGroup
	defer sessions.Wait()
	for n := range chans {
		ch, reqs, err := n.Accept()
		if err != nil {
			return err
		}
		sessions.Go(func() {
			defer ch.Close()
			for r := range reqs {
				var p struct{ Command string }
				if r.Type != "exec" || ssh.Unmarshal(r.Payload, &p) != nil {
					_ = r.Reply(false, nil)
					continue
				}
				_ = r.Reply(true, nil)
				code := m.exec(ctx, a, p.Command, ch)
				_, _ = ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{uint32(code)}))
				return
			}
		})
	}
	return nil
}

var (
	serveCommand   = regexp.MustCompile(`^p=/tool/agent/([0-9a-f]{64})/tool; test -x \$p \|\| exit 127; exec \$p agent serve$`)
	installCommand = regexp.MustCompile(`^d=/tool/agent/([0-9a-f]{64});`)
)

// exec is the machine's shell, which knows what the controller says.
func (m *fakeMachine) exec(ctx context.Context, a *activate.Machine, command string, ch ssh.Channel) int {
	if s := serveCommand.FindStringSubmatch(command); s != nil {
		if _, err := os.Stat(filepath.Join(m.root(), "tool/agent", s[1], "tool")); err != nil {
			return 127
		}
		tap := &tapped{rw: ch,
			asked:  func(method string) { m.hook("ask " + method) },
			answer: func(method string) { m.hook("answer " + method) },
		}
		if err := agent.Serve(ctx, a, tap); err != nil {
			return 1
		}
		return 0
	}
	for line := range strings.Lines(command) {
		if s := installCommand.FindStringSubmatch(line); s != nil {
			m.mu.Lock()
			m.install = command
			m.mu.Unlock()
			z, err := gzip.NewReader(ch)
			if err == nil {
				_, err = a.PutAgent(z, s[1])
			}
			if err != nil {
				fmt.Fprintln(ch.Stderr(), err)
				return 1
			}
			return 0
		}
	}
	_, _ = io.WriteString(ch.Stderr(), "fake machine: what is "+command+"\n")
	return 126
}
