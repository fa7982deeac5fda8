package link

import (
	"context"
	"fmt"
	"io"

	"golang.org/x/crypto/ssh"
)

// Terminal is the terminal of a shell's user.
type Terminal struct {
	In     io.Reader
	Out    io.Writer
	Err    io.Writer
	Type   string // $TERM
	Width  int
	Height int
	Resize <-chan [2]int // width and height, when they change; may be nil
}

// Shell runs a command in a terminal of the machine, or its login shell where
// command is empty, until it ends.
func (l *Link) Shell(ctx context.Context, command string, t Terminal) error {
	s, err := l.client.NewSession()
	if err != nil {
		return fmt.Errorf("open a shell: %w", err)
	}
	defer s.Close()
	if err := s.RequestPty(t.Type, t.Height, t.Width, ssh.TerminalModes{}); err != nil {
		return fmt.Errorf("open a shell: get a terminal: %w", err)
	}
	in, err := s.StdinPipe()
	if err != nil {
		return fmt.Errorf("open a shell: %w", err)
	}
	s.Stdout, s.Stderr = t.Out, t.Err
	if command == "" {
		err = s.Shell()
	} else {
		err = s.Start(command)
	}
	if err != nil {
		return fmt.Errorf("open a shell: %w", err)
	}
	// Not s.Stdin: Wait would wait for a key to be pressed.
	go func() { io.Copy(in, t.In); in.Close() }()
	done := make(chan error, 1)
	go func() { done <- s.Wait() }()
	for {
		select {
		case err := <-done:
			return exitError(command, err, "")
		case <-ctx.Done():
			return ctx.Err()
		case wh, ok := <-t.Resize:
			if !ok {
				t.Resize = nil
				continue
			}
			_ = s.WindowChange(wh[1], wh[0])
		}
	}
}
