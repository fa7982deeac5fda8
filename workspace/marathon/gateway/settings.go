package gateway

import (
	"flag"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"marathon-gateway/docker"
)

// settings are the command line, named as Marathon's own flags are where
// Marathon has them.
type settings struct {
	port      int
	hostname  string
	zk        zkURL
	zkTimeout time.Duration
	docker    string
	managers  []string
	workers   []string
	swarmPort int
	ports     portRange
}

func parse(args []string) (*settings, error) {
	var s settings
	fs := flag.NewFlagSet("marathon-gateway", flag.ContinueOnError)
	fs.IntVar(&s.port, "http_port", 8080, "TCP `port` of the API")
	fs.StringVar(&s.hostname, "hostname", "", "`name` of this machine, by which others reach it; default: its host name")
	zk := fs.String("zk", "", "where the state is: `zk://host:port,host:port/path`")
	fs.DurationVar(&s.zkTimeout, "zk_session_timeout", 10*time.Second, "`time` after which a silent leader is replaced")
	fs.StringVar(&s.docker, "docker", "unix:///run/docker.sock", "`address` of the local Docker engine")
	managers := fs.String("managers", "", "`hosts` that are the swarm's managers, separated by commas; default: this one")
	workers := fs.String("workers", "", "`hosts` that run tasks, separated by commas; default: the managers do")
	fs.IntVar(&s.swarmPort, "docker_port", 2375, "TCP `port` of the other hosts' Docker engines")
	ports := fs.String("task_ports", "31000-32000", "`first-last` of the ports that tasks get")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	for name, p := range map[string]int{"http_port": s.port, "docker_port": s.swarmPort} {
		if p < 1 || p > 65535 {
			return nil, fmt.Errorf("--%s=%d is not a port", name, p)
		}
	}
	if s.zkTimeout < time.Second || s.zkTimeout > 5*time.Minute {
		return nil, fmt.Errorf("--zk_session_timeout=%s is not between 1s and 5m", s.zkTimeout)
	}
	if _, err := docker.New(s.docker); err != nil {
		return nil, fmt.Errorf("--docker: %w", err)
	}
	var err error
	if s.zk, err = parseZK(*zk); err != nil {
		return nil, fmt.Errorf("--zk: %w", err)
	}
	if s.ports, err = parsePorts(*ports); err != nil {
		return nil, fmt.Errorf("--task_ports: %w", err)
	}
	if s.hostname == "" {
		if s.hostname, err = os.Hostname(); err != nil {
			return nil, err
		}
	}
	s.managers, s.workers = split(*managers), split(*workers)
	if len(s.managers) == 0 {
		s.managers = []string{s.hostname}
	}
	seen := map[string]bool{}
	for _, h := range append(append([]string{}, s.managers...), s.workers...) {
		if seen[h] {
			return nil, fmt.Errorf("the host %s is there twice among --managers and --workers", h)
		}
		seen[h] = true
	}
	return &s, nil
}

func split(s string) []string {
	var out []string
	for p := range strings.SplitSeq(s, ",") {
		if p = strings.TrimSpace(p); p != "" {
			out = append(out, p)
		}
	}
	return out
}

// zkURL is zk://host:port,host:port/path.
type zkURL struct {
	hosts []string // with ports
	path  string   // "" or /a/b
}

func (z zkURL) String() string { return "zk://" + strings.Join(z.hosts, ",") + z.path }

func parseZK(s string) (zkURL, error) {
	rest, ok := strings.CutPrefix(s, "zk://")
	if !ok {
		return zkURL{}, fmt.Errorf("%q does not start with zk://", s)
	}
	hosts, path, _ := strings.Cut(rest, "/")
	z := zkURL{}
	if path = strings.Trim(path, "/"); path != "" {
		z.path = "/" + path
	}
	for h := range strings.SplitSeq(hosts, ",") {
		if h == "" {
			return zkURL{}, fmt.Errorf("%q names an empty host", s)
		}
		if _, _, err := net.SplitHostPort(h); err != nil {
			h = net.JoinHostPort(h, "2181")
		}
		z.hosts = append(z.hosts, h)
	}
	return z, nil
}

// portRange is what tasks' ports are taken from.
type portRange struct{ first, last int }

func (r portRange) size() int { return r.last - r.first + 1 }

func parsePorts(s string) (portRange, error) {
	a, b, ok := strings.Cut(s, "-")
	first, err1 := strconv.Atoi(a)
	last, err2 := strconv.Atoi(b)
	if !ok || err1 != nil || err2 != nil || first < 1 || last > 65535 || last < first {
		return portRange{}, fmt.Errorf("%q is not a range of ports such as 31000-31019", s)
	}
	return portRange{first, last}, nil
}
