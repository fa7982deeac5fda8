package activate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// UnitState is what systemd says of a unit.
type UnitState struct {
	Unit     string `json:"unit"`
	Load     string `json:"load"`   // loaded, not-found, masked
	Active   string `json:"active"` // active, reloading, inactive, failed, activating, deactivating
	Sub      string `json:"sub"`    // running, exited, auto-restart, …
	Result   string `json:"result"` // success, exit-code, timeout, …
	Exit     string `json:"exit"`   // of the main process: "code=exited status=203", where known
	Restarts int    `json:"restarts"`
}

// Failed reports whether systemd has given the unit up.
func (u UnitState) Failed() bool { return u.Active == "failed" }

// Well reports whether the unit does what it should. A reload is part of that.
func (u UnitState) Well() bool { return u.Active == "active" || u.Active == "reloading" }

// Transient is a program to be run as a unit of its own.
type Transient struct {
	Unit    string
	Command []string
}

// Systemd is the machine's service manager.
type Systemd interface {
	// Show returns the states of units, in their order. A unit that systemd
	// does not know has Load "not-found".
	Show(ctx context.Context, units ...string) ([]UnitState, error)
	// List returns the loaded units that are in one of the given states.
	List(ctx context.Context, states ...string) ([]string, error)
	// Do runs a verb (start, stop, restart, reload-or-restart) on units and
	// waits for its end. Where it fails for some, it is done for the others.
	Do(ctx context.Context, verb string, units ...string) error
	// ResetFailed forgets failures, so that start limits do not hinder.
	ResetFailed(ctx context.Context) error
	DaemonReload(ctx context.Context) error
	DaemonReexec(ctx context.Context) error
	// Tmpfiles makes what tmpfiles.d says.
	Tmpfiles(ctx context.Context) error
	ReloadNetwork(ctx context.Context) error
	// Journal returns the last lines of a unit's journal since then.
	Journal(ctx context.Context, unit string, since time.Time, lines int) ([]string, error)
	// Run starts a transient unit and does not wait. It is started again when
	// it fails. If the unit runs already, nothing is done.
	Run(ctx context.Context, t Transient) error
	Reboot(ctx context.Context) error
}

// Systemctl is the Systemd of the machine that this process runs on.
type Systemctl struct{}

// command runs a program of the system and returns what it printed. Its words
// on stderr are the error.
func command(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8", "SYSTEMD_COLORS=0", "SYSTEMD_PAGER="}
	cmd.WaitDelay = 2 * time.Second
	// What a shell has started must not outlive it: on a slow machine such
	// leftovers pile up, and slow it further.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.Path = findProgram(name, cmd.Path)
	if cmd.Path != "" {
		cmd.Err = nil
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &limited{&stdout, 16 << 20}, &limited{&stderr, 64 << 10}
	err := cmd.Run()
	if err != nil {
		text := strings.TrimSpace(stderr.String())
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		if text != "" {
			err = fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, text)
		} else {
			err = fmt.Errorf("%s %s: %w", name, strings.Join(args, " "), err)
		}
	}
	return stdout.String(), err
}

// findProgram looks where every system has its programs: the PATH of whoever
// started us does not matter.
func findProgram(name, fallback string) string {
	for _, dir := range []string{"/usr/bin/", "/usr/sbin/", "/bin/", "/sbin/"} {
		if _, err := exec.LookPath(dir + name); err == nil {
			return dir + name
		}
	}
	return fallback
}

// limited keeps the first n bytes and swallows the rest.
type limited struct {
	b *bytes.Buffer
	n int
}

func (l *limited) Write(p []byte) (int, error) {
	if room := l.n - l.b.Len(); room > 0 {
		l.b.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

const showProperties = "Id,LoadState,ActiveState,SubState,Result,NRestarts,ExecMainCode,ExecMainStatus"

// Show implements Systemd.
func (Systemctl) Show(ctx context.Context, units ...string) ([]UnitState, error) {
	if len(units) == 0 {
		return nil, nil
	}
	out, err := command(ctx, "systemctl", append([]string{"show", "--property=" + showProperties, "--"}, units...)...)
	if err != nil {
		return nil, err
	}
	return parseShow(out, units)
}

// parseShow reads blocks of KEY=VALUE, one for each unit. systemctl prints the
// name that an alias stands for, so the order counts.
func parseShow(out string, units []string) ([]UnitState, error) {
	blocks := strings.Split(strings.TrimSpace(out), "\n\n")
	if len(blocks) != len(units) {
		return nil, fmt.Errorf("systemctl show told of %d units, not %d", len(blocks), len(units))
	}
	states := make([]UnitState, len(units))
	for i, block := range blocks {
		s := UnitState{Unit: units[i]}
		var code, status string
		for line := range strings.Lines(block) {
			k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
			switch k {
			case "LoadState":
				s.Load = v
			case "ActiveState":
				s.Active = v
			case "SubState":
				s.Sub = v
			case "Result":
				s.Result = v
			case "NRestarts":
				s.Restarts, _ = strconv.Atoi(v)
			case "ExecMainCode":
				code = v
			case "ExecMainStatus":
				status = v
			}
		}
		if code != "" && code != "0" {
			s.Exit = exitText(code, status)
		}
		states[i] = s
	}
	return states, nil
}

// exitText words the codes of waitid(2).
func exitText(code, status string) string {
	switch code {
	case "1":
		return "exited, status " + status
	case "2":
		return "killed by signal " + status
	case "3":
		return "dumped core, signal " + status
	}
	return "code " + code + ", status " + status
}

// List implements Systemd.
func (Systemctl) List(ctx context.Context, states ...string) ([]string, error) {
	out, err := command(ctx, "systemctl", "list-units", "--all", "--plain", "--no-legend", "--full", "--state="+strings.Join(states, ","))
	if err != nil {
		return nil, err
	}
	var units []string
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 0 {
			units = append(units, f[0])
		}
	}
	return units, nil
}

// Do implements Systemd.
func (Systemctl) Do(ctx context.Context, verb string, units ...string) error {
	if len(units) == 0 {
		return nil
	}
	_, err := command(ctx, "systemctl", append([]string{verb, "--"}, units...)...)
	return err
}

// ResetFailed implements Systemd.
func (Systemctl) ResetFailed(ctx context.Context) error {
	_, err := command(ctx, "systemctl", "reset-failed")
	return err
}

// DaemonReload implements Systemd.
func (Systemctl) DaemonReload(ctx context.Context) error {
	_, err := command(ctx, "systemctl", "daemon-reload")
	return err
}

// DaemonReexec implements Systemd.
func (Systemctl) DaemonReexec(ctx context.Context) error {
	_, err := command(ctx, "systemctl", "daemon-reexec")
	return err
}

// Tmpfiles implements Systemd. Its exit codes 65 and 73 tell of single lines
// that could not be obeyed, as they do at each start of many machines.
func (Systemctl) Tmpfiles(ctx context.Context) error {
	_, err := command(ctx, "systemd-tmpfiles", "--create", "--exclude-prefix=/dev")
	var exit *exec.ExitError
	if errors.As(err, &exit) && (exit.ExitCode() == 65 || exit.ExitCode() == 73) {
		return nil
	}
	return err
}

// ReloadNetwork implements Systemd.
func (Systemctl) ReloadNetwork(ctx context.Context) error {
	_, err := command(ctx, "networkctl", "reload")
	return err
}

// Journal implements Systemd.
func (Systemctl) Journal(ctx context.Context, unit string, since time.Time, lines int) ([]string, error) {
	out, err := command(ctx, "journalctl", "--unit="+unit, "--since=@"+strconv.FormatInt(since.Unix(), 10), "--lines="+strconv.Itoa(lines), "--no-pager", "--output=short-iso", "--quiet")
	if err != nil {
		return nil, err
	}
	var all []string
	for line := range strings.Lines(out) {
		all = append(all, clip(strings.TrimSuffix(line, "\n"), 500))
	}
	return all[max(0, len(all)-lines):], nil
}

func clip(s string, n int) string {
	if len(s) > n {
		s = s[:n] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

// Run implements Systemd.
func (Systemctl) Run(ctx context.Context, t Transient) error {
	args := []string{"--unit=" + t.Unit, "--collect", "--no-block", "--quiet",
		"--property=Restart=on-failure", "--property=RestartSec=1", "--property=StartLimitIntervalSec=120", "--property=StartLimitBurst=20",
		"--property=OOMScoreAdjust=-900", "--"}
	_, err := command(ctx, "systemd-run", append(args, t.Command...)...)
	if err != nil && strings.Contains(err.Error(), "already") {
		return nil
	}
	return err
}

// Reboot implements Systemd.
func (Systemctl) Reboot(ctx context.Context) error {
	_, err := command(ctx, "systemctl", "--no-block", "reboot")
	return err
}
