package tests

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// openTerminal returns both ends of a pseudo terminal of 100 columns.
func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("SKIPPED: there are no pseudo terminals: %v", err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 30, Col: 100}); err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("SKIPPED: there are no pseudo terminals: %v", err)
	}
	return master, slave
}

// TestTerminal looks at what a terminal gets: colours and live lines, unless
// they are not wanted.
func TestTerminal(t *testing.T) {
	t.Parallel()
	p := newPlace(t, needStore(t), map[string]string{
		"BUILD.star": `genrule(name = "fails", outs = ["x"], cmd = "sleep 0.5; echo the reason >&2; false", message = "trying hard")` + "\n",
	})
	const colour, up = "\x1b[1;31m", "A\x1b[J"
	for name, c := range map[string]struct {
		env          []string
		args         []string
		colour, live bool
	}{
		"plainly a terminal": {nil, nil, true, true},
		"NO_COLOR":           {[]string{"NO_COLOR=1"}, nil, false, true},
		"TERM=dumb":          {[]string{"TERM=dumb"}, nil, false, false},
		"--progress=plain":   {nil, []string{"--progress=plain"}, true, false},
		"--progress=none":    {nil, []string{"--progress=none"}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			master, slave := openTerminal(t)
			defer master.Close()
			cmd := p.command(append([]string{"build", "//:fails"}, c.args...)...)
			cmd.Env = append(append(cmd.Env, "NO_COLOR=", "TERM=xterm"), c.env...)
			cmd.Stdout, cmd.Stderr = slave, slave
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			slave.Close()
			var b bytes.Buffer
			_, _ = io.Copy(&b, master) // ends with EIO once nobody holds the other end
			if cmd.Wait() == nil {
				t.Error("the build succeeded")
			}
			got := b.String()
			if !strings.Contains(got, "the reason\r\n") || !strings.Contains(got, "//:fails: Genrule failed: exit status 1") {
				t.Errorf("the error is not told: %q", got)
			}
			if has := strings.Contains(got, colour); has != c.colour {
				t.Errorf("colour: %v, want %v in %q", has, c.colour, got)
			}
			if has := strings.Contains(got, up) && strings.Contains(got, "trying hard"); has != c.live {
				t.Errorf("live lines: %v, want %v in %q", has, c.live, got)
			}
			if !c.colour && !c.live && strings.Contains(got, "\x1b") {
				t.Errorf("escapes in %q", got)
			}
			if i := strings.LastIndex(got, "error:"); i >= 0 && strings.Contains(got[i:], "trying hard") {
				t.Errorf("live lines are left below the error: %q", got)
			}
		})
	}
}
