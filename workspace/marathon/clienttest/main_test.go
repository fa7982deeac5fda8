// Package clienttest runs the gateway as it runs on the machines, three
// processes over a real ZooKeeper, and asks it through a real client of
// Marathon's API. It is a module of its own, for the client not to become a
// dependency of the gateway.
package clienttest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"

	marathon "github.com/gambol99/go-marathon"

	"marathon-gateway/fakedocker"
	"marathon-gateway/gateway"
	"marathon-gateway/zktest"
)

// child says what a gateway's process is to do.
type child struct {
	Args      []string
	Addresses map[string]string // of hosts
	Engines   map[string]string // of hosts
	Hurry     int
}

const childEnv = "MARATHON_GATEWAY_CHILD"

func TestMain(m *testing.M) {
	if text := os.Getenv(childEnv); text != "" {
		var c child
		if err := json.Unmarshal([]byte(text), &c); err != nil {
			log.Fatal(err)
		}
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		err := gateway.Run(ctx, c.Args, gateway.Options{
			Hurry:   c.Hurry,
			Resolve: func(host string) (string, error) { return c.Addresses[host], nil },
			Engine:  func(host string) string { return c.Engines[host] },
		})
		if err != nil {
			log.Fatal(err)
		}
		return
	}
	os.Exit(m.Run())
}

const (
	image   = "demo/nginx:1"
	session = 4 * time.Second // of ZooKeeper, shorter than on the machines
)

// cluster is three masters, each with a gateway, and two slaves.
type cluster struct {
	t        *testing.T
	zk       *zktest.Server
	engines  map[string]*fakedocker.Engine
	gateways []*process
}

type process struct {
	name string
	url  string
	args child
	cmd  *exec.Cmd
	log  *os.File
}

func newCluster(t *testing.T) *cluster {
	t.Helper()
	zk, err := zktest.Start(t.TempDir())
	if errors.Is(err, zktest.ErrMissing) {
		t.Skip("SKIPPED: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	c := &cluster{t: t, zk: zk, engines: map[string]*fakedocker.Engine{}}
	t.Cleanup(func() { _ = zk.Stop() })
	world := fakedocker.New()
	t.Cleanup(world.Close)
	args := child{Addresses: map[string]string{}, Engines: map[string]string{}, Hurry: 20}
	for i, name := range []string{"m0", "m1", "m2", "s0", "s1"} {
		args.Addresses[name] = fmt.Sprintf("127.0.41.%d", i+1)
		e, err := world.Add(name, args.Addresses[name])
		if err != nil {
			t.Fatal(err)
		}
		e.Load(image, "sha256:1")
		c.engines[name], args.Engines[name] = e, e.Address()
	}
	for i := range 3 {
		name := fmt.Sprintf("m%d", i)
		port := freePort(t)
		p := &process{name: name, url: fmt.Sprintf("http://%s:%d", args.Addresses[name], port), args: args}
		p.args.Args = []string{
			"--hostname=" + name, fmt.Sprintf("--http_port=%d", port), "--zk=zk://" + zk.Address + "/marathon", "--zk_session_timeout=" + session.String(),
			"--managers=m0,m1,m2", "--workers=s0,s1", "--task_ports=31000-31019",
		}
		if p.log, err = os.Create(t.TempDir() + "/" + name); err != nil {
			t.Fatal(err)
		}
		c.gateways = append(c.gateways, p)
		c.start(p)
		t.Cleanup(func() {
			p.kill()
			if t.Failed() {
				text, _ := os.ReadFile(p.log.Name())
				t.Logf("%s:\n%s", p.name, text)
			}
		})
	}
	return c
}

// ready waits until every gateway answers: each finds ZooKeeper in its own time.
func (c *cluster) ready() {
	c.t.Helper()
	for _, p := range c.gateways {
		c.eventually(p.name+" answers", func() bool { return ok(p.url + "/v2/apps") })
	}
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (c *cluster) start(p *process) {
	c.t.Helper()
	text, err := json.Marshal(p.args)
	if err != nil {
		c.t.Fatal(err)
	}
	p.cmd = exec.Command(os.Args[0])
	p.cmd.Env = append(os.Environ(), childEnv+"="+string(text))
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
}

func (p *process) kill() {
	if p.cmd != nil {
		_ = p.cmd.Process.Kill()
		_ = p.cmd.Wait()
		p.cmd = nil
	}
}

// leader finds out who leads, by asking a gateway that runs.
func (c *cluster) leader() *process {
	for _, p := range c.gateways {
		if p.cmd == nil {
			continue
		}
		var l struct{ Leader string }
		if _, body := get(p.url + "/v2/leader"); json.Unmarshal([]byte(body), &l) != nil {
			continue
		}
		for _, q := range c.gateways {
			if host, _, _ := strings.Cut(l.Leader, ":"); host == q.name {
				return q
			}
		}
	}
	return nil
}

func (c *cluster) eventually(what string, ok func() bool) {
	c.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if ok() {
			return
		}
	}
	c.t.Fatalf("never: %s", what)
}

func get(url string) (int, string) {
	client := http.Client{Timeout: 5 * time.Second}
	res, err := client.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return 0, err.Error()
	}
	return res.StatusCode, string(b)
}

// client is go-marathon's, of some of the gateways.
func (c *cluster) client(of ...*process) marathon.Marathon {
	c.t.Helper()
	config := marathon.NewDefaultConfig()
	var urls []string
	for _, p := range of {
		urls = append(urls, p.url)
	}
	config.URL = strings.Join(urls, ",")
	config.HTTPClient = &http.Client{Timeout: 10 * time.Second}
	config.PollingWaitTime = 50 * time.Millisecond
	m, err := marathon.NewClient(config)
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}
