package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"syscall"
	"time"

	"tool/core/machines/deploy"
)

// Dial connects to the port of this host that leads to a machine's SSH server.
func Dial(ctx context.Context, m *deploy.Machine) (net.Conn, error) {
	var d net.Dialer
	return d.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(m.SSHPort)))
}

// portGrace is how long a port may still be taken: of a process that was just
// killed, the kernel closes what it listened at a moment after it has gone.
const portGrace = 3 * time.Second

// CheckPorts reports that a machine could not listen at one of the addresses,
// which are HOST:PORT: hypervisors say so late and badly, or not at all.
func CheckPorts(ctx context.Context, addrs []string) error {
	end := time.Now().Add(portGrace)
	for _, a := range addrs {
		err := checkPort(a)
		for errors.Is(err, syscall.EADDRINUSE) && time.Now().Before(end) {
			if err := Pause(ctx, 20*time.Millisecond); err != nil {
				return err
			}
			err = checkPort(a)
		}
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			return fmt.Errorf("the port %s of this host is taken by another program: end that, or choose another port", a)
		case errors.Is(err, syscall.EACCES):
			return fmt.Errorf("the port %s of this host needs privileges: choose one from 1024 on", a)
		case err != nil:
			return fmt.Errorf("the port %s of this host: %w", a, err)
		}
	}
	return nil
}

func checkPort(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return l.Close()
}
