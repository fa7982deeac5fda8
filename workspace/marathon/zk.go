package main

import (
	"fmt"
	"net"
	"strings"
)

// zkURL is zk://host:port,host:port/path.
type zkURL struct {
	hosts []string // with ports
	path  string
}

func (z zkURL) String() string { return "zk://" + strings.Join(z.hosts, ",") + z.path }

func parseZK(s string) (zkURL, error) {
	rest, ok := strings.CutPrefix(s, "zk://")
	if !ok {
		return zkURL{}, fmt.Errorf("%q does not start with zk://", s)
	}
	hosts, path, _ := strings.Cut(rest, "/")
	z := zkURL{path: "/" + strings.Trim(path, "/")}
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
