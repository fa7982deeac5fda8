package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/urfave/cli/v2"
	"golang.org/x/term"

	"tool/core/machines/deploy"
	"tool/core/machines/link"
	"tool/core/model/event"
)

func sshCommand() *cli.Command {
	return &cli.Command{
		Name:      "ssh",
		Usage:     "open a shell on a machine, or run a command there",
		ArgsUsage: "MACHINE [COMMAND...]",
		Flags: []cli.Flag{
			deploymentFlag(),
			&cli.StringSliceFlag{Name: "L", Usage: "`[ADDRESS:]PORT:HOST:PORT`: lead a port of this host through the machine while the command runs"},
		},
		Action: runSSH,
	}
}

func execCommand() *cli.Command {
	return &cli.Command{
		Name:      "exec",
		Usage:     "run a command on several machines at once",
		ArgsUsage: "COMMAND...",
		Flags: []cli.Flag{
			deploymentFlag(),
			&cli.StringSliceFlag{Name: "on", Usage: "only on these `MACHINES`"},
		},
		Action: runExec,
	}
}

// connected opens a deployment and connects to one of its machines.
func connected(c *cli.Context, name string) (*link.Link, error) {
	_, d, err := chooseDeployment(c)
	if err != nil {
		return nil, err
	}
	if _, err := machinesOf(d, []string{name}); err != nil {
		return nil, err
	}
	s, err := newSession(d, nil, event.Discard)
	if err != nil {
		return nil, err
	}
	l, err := s.Link(c.Context, d.Machines[name])
	if err != nil {
		return nil, withCode(exitSomeFailed, fmt.Errorf("machine %s: %w", name, err))
	}
	return l, nil
}

func runSSH(c *cli.Context) error {
	if !c.Args().Present() {
		return usageError("ssh: name a machine")
	}
	l, err := connected(c, c.Args().First())
	if err != nil {
		return err
	}
	defer l.Close()
	ctx, stop := context.WithCancel(c.Context)
	defer stop()
	for _, f := range c.StringSlice("L") {
		if err := forward(ctx, l, f); err != nil {
			return usageError("-L %s: %v", f, err)
		}
	}
	command := shellWords(c.Args().Tail())
	in, isFile := c.App.Reader.(*os.File)
	switch {
	case isFile && term.IsTerminal(int(in.Fd())) && isTerminal(c.App.Writer):
		err = shell(ctx, l, in, c, command)
	case command == "":
		err = l.Run(ctx, "exec ${SHELL:-/bin/sh} -s", c.App.Reader, c.App.Writer, c.App.ErrWriter)
	default:
		err = l.Run(ctx, command, c.App.Reader, c.App.Writer, c.App.ErrWriter)
	}
	return exitOf(err)
}

// exitOf makes a remote command's code the program's own.
func exitOf(err error) error {
	var exit *link.ExitError
	if errors.As(err, &exit) {
		return &codeError{exit.Code, nil}
	}
	return err
}

// shellWords quotes a command for the machine's shell. One word is passed as it
// is, so that it may be a whole script, as with ssh.
func shellWords(args []string) string {
	if len(args) == 1 {
		return args[0]
	}
	quoted := make([]string, len(args))
	for i, a := range args {
		if a != "" && strings.Trim(a, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:=@,+%") == "" {
			quoted[i] = a
		} else {
			quoted[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(quoted, " ")
}

func shell(ctx context.Context, l *link.Link, in *os.File, c *cli.Context, command string) error {
	fd := int(in.Fd())
	old, err := term.MakeRaw(fd)
	if err != nil {
		return withCode(exitEnvironment, err)
	}
	defer term.Restore(fd, old)
	width, height, err := term.GetSize(fd)
	if err != nil {
		width, height = 80, 24
	}
	resize := make(chan [2]int, 1)
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	defer signal.Stop(changed)
	go func() {
		for {
			select {
			case <-changed:
				if w, h, err := term.GetSize(fd); err == nil {
					select {
					case resize <- [2]int{w, h}:
					default:
					}
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	kind := os.Getenv("TERM")
	if kind == "" {
		kind = "dumb"
	}
	return l.Shell(ctx, command, link.Terminal{In: in, Out: c.App.Writer, Err: c.App.ErrWriter, Type: kind, Width: width, Height: height, Resize: resize})
}

// forward listens here and leads what connects through the machine.
func forward(ctx context.Context, l *link.Link, spec string) error {
	parts := strings.Split(spec, ":")
	if len(parts) == 3 {
		parts = append([]string{"127.0.0.1"}, parts...)
	}
	if len(parts) != 4 {
		return errors.New("want [ADDRESS:]PORT:HOST:PORT")
	}
	listen, err := net.Listen("tcp", net.JoinHostPort(parts[0], parts[1]))
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { listen.Close() })
	go func() {
		for {
			here, err := listen.Accept()
			if err != nil {
				return
			}
			go func() {
				defer here.Close()
				there, err := l.Dial("tcp", net.JoinHostPort(parts[2], parts[3]))
				if err != nil {
					return
				}
				defer there.Close()
				go func() { io.Copy(there, here); there.Close() }()
				io.Copy(here, there)
			}()
		}
	}()
	return nil
}

func runExec(c *cli.Context) error {
	if !c.Args().Present() {
		return usageError("exec: give a command")
	}
	_, d, err := chooseDeployment(c)
	if err != nil {
		return err
	}
	names, err := machinesOf(d, onMachines(c))
	if err != nil {
		return err
	}
	s, err := newSession(d, nil, event.Discard)
	if err != nil {
		return err
	}
	command := shellWords(c.Args().Slice())
	var mu sync.Mutex
	var wg sync.WaitGroup
	code := 0
	for _, name := range names {
		wg.Go(func() {
			out := &prefixed{name: name, w: c.App.Writer, mu: &mu}
			errs := &prefixed{name: name, w: c.App.ErrWriter, mu: &mu}
			err := execOn(c.Context, s, name, command, out, errs)
			out.flush()
			errs.flush()
			mu.Lock()
			defer mu.Unlock()
			var exit *link.ExitError
			if errors.As(err, &exit) {
				code = max(code, exit.Code)
			} else if err != nil {
				fmt.Fprintf(c.App.ErrWriter, "%s> %v\n", name, err)
				code = max(code, exitSomeFailed)
			}
		})
	}
	wg.Wait()
	if c.Context.Err() != nil {
		return c.Context.Err()
	}
	if code != 0 {
		return &codeError{code, nil}
	}
	return nil
}

func execOn(ctx context.Context, s *deploy.Session, name, command string, out, errs io.Writer) error {
	l, err := s.Link(ctx, s.D.Machines[name])
	if err != nil {
		return err
	}
	defer l.Close()
	return l.Run(ctx, command, nil, out, errs)
}

// prefixed writes whole lines with the machine's name before them.
type prefixed struct {
	name string
	w    io.Writer
	mu   *sync.Mutex
	rest []byte
}

// maxLine is where a line without an end is cut, in bytes.
const maxLine = 64 << 10

func (p *prefixed) Write(b []byte) (int, error) {
	p.rest = append(p.rest, b...)
	for {
		i := bytes.IndexByte(p.rest, '\n')
		if i < 0 && len(p.rest) < maxLine {
			return len(b), nil
		}
		if i < 0 {
			i = len(p.rest) - 1
		}
		p.line(p.rest[:i+1])
		p.rest = append(p.rest[:0], p.rest[i+1:]...)
	}
}

func (p *prefixed) line(b []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, "%s> %s\n", p.name, strings.TrimRight(string(b), "\r\n"))
}

func (p *prefixed) flush() {
	if len(p.rest) > 0 {
		p.line(p.rest)
		p.rest = nil
	}
}
