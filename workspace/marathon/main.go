// Command marathon-gateway offers Marathon's REST API over Docker Swarm. Its
// state is to live in ZooKeeper, as Marathon's does.
//
// This version serves /ping, /metrics and /v2/info, and answers every other
// path of the API with 501 and a message that says so.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// version is what /v2/info tells; go_binary sets it.
var version = "0.1.0"

func main() {
	log.SetFlags(0) // the journal has the time
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}

// settings are the command line, named as Marathon's own flags are.
type settings struct {
	port     int
	hostname string
	zk       zkURL
	docker   string
}

func parse(args []string) (*settings, error) {
	var s settings
	fs := flag.NewFlagSet("marathon-gateway", flag.ContinueOnError)
	fs.IntVar(&s.port, "http_port", 8080, "TCP `port` of the API")
	fs.StringVar(&s.hostname, "hostname", "", "`name` that others are told; default: the machine's")
	zk := fs.String("zk", "", "where the state is: `zk://host:port,host:port/path`")
	fs.StringVar(&s.docker, "docker", "unix:///run/docker.sock", "`address` of the local Docker engine")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	if fs.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if s.port < 1 || s.port > 65535 {
		return nil, fmt.Errorf("--http_port=%d is not a port", s.port)
	}
	var err error
	if s.zk, err = parseZK(*zk); err != nil {
		return nil, fmt.Errorf("--zk: %w", err)
	}
	if s.hostname == "" {
		if s.hostname, err = os.Hostname(); err != nil {
			return nil, err
		}
	}
	return &s, nil
}

func run(ctx context.Context, args []string) error {
	s, err := parse(args)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf(":%d", s.port))
	if err != nil {
		return err
	}
	return serve(ctx, l, s)
}

// serve answers until ctx ends, then finishes what is under way.
func serve(ctx context.Context, l net.Listener, s *settings) error {
	srv := &http.Server{Handler: newAPI(s, time.Now()), ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	log.Printf("listening on %s", l.Addr())
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	grace, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return srv.Shutdown(grace)
}
