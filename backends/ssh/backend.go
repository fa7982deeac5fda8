// Package ssh takes machines that are there already: any Debian with systemd
// that root can reach. It makes and destroys nothing; a machine that is
// destroyed is given back.
//
// The first step adopts a machine: the agent is put below /tool, what was there
// becomes generation 0, and the deployment's key is authorized for root. From
// then on the machine is switched like any other, and generation 0 is a way
// back to what it was.
package ssh

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"tool/core/machines/deploy"
	"tool/core/machines/link"
)

// Backend implements deploy.Backend.
type Backend struct {
	// Binary is the program that machines get as their agent.
	Binary *deploy.Binary
}

var (
	_ deploy.Backend = (*Backend)(nil)
	_ deploy.Adopter = (*Backend)(nil)
)

// The steps.
const (
	stepAdopt   = "adopt"
	stepRelease = "release"
)

// dialTimeout is how long a connection may take to be made.
const dialTimeout = 10 * time.Second

// name is what deployments call this backend.
const name = "ssh"

// Settings of a machine, in machine(backends = {"ssh": […]}).
const (
	settingHost     = "host"     // name or address; must be given
	settingPort     = "port"     // default 22
	settingIdentity = "identity" // file with a private key that root accepts, for adopting; default ~/.ssh/id_ed25519
	settingHostKey  = "host_key" // its public host key; must be given, for nobody is trusted on first use
	settingAddress  = "address"  // in the machines' own network, where host is no address or another one
)

var known = []string{settingAddress, settingHost, settingHostKey, settingIdentity, settingPort}

// Name implements deploy.Backend.
func (b *Backend) Name() string { return name }

// Usable implements deploy.Backend: what is needed is on the machines.
func (b *Backend) Usable(context.Context) error { return nil }

// Identity implements deploy.Adopter.
func (b *Backend) Identity(settings map[string]string) (deploy.Identity, error) {
	var id deploy.Identity
	for _, k := range slices.Sorted(maps.Keys(settings)) {
		if !slices.Contains(known, k) {
			return id, fmt.Errorf("backends: ssh has no setting %q; it has %s", k, strings.Join(known, ", "))
		}
	}
	id = deploy.Identity{Host: settings[settingHost], HostKey: settings[settingHostKey]}
	if _, err := address(settings); err != nil {
		return id, err
	}
	if id.HostKey == "" {
		return id, errors.New(`it has no host_key: say it with backends = {"ssh": ["host_key=ssh-ed25519 …"]}; ssh-keyscan shows it, and whoever set the machine up can tell whether it is right`)
	}
	if err := link.CheckHostKey(id.HostKey); err != nil {
		return id, fmt.Errorf("backends: ssh: host_key: %w", err)
	}
	text := cmp.Or(settings[settingAddress], id.Host)
	var err error
	if id.Address, err = netip.ParseAddr(text); err != nil {
		return id, fmt.Errorf("%q is not an IP address: give host as one, or address beside it, for the others' /etc/hosts", text)
	}
	return id, nil
}

func address(settings map[string]string) (string, error) {
	host, port := settings[settingHost], cmp.Or(settings[settingPort], "22")
	if host == "" {
		return "", errors.New(`it has no host: say where it is with backends = {"ssh": ["host=…", "host_key=ssh-ed25519 …"]}`)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return "", fmt.Errorf("backends: ssh: %q is not a port", port)
	}
	return net.JoinHostPort(host, port), nil
}

// Dial implements deploy.Backend.
func (b *Backend) Dial(ctx context.Context, m *deploy.Machine) (net.Conn, error) {
	addr, err := address(m.Settings)
	if err != nil {
		return nil, err
	}
	return (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", addr)
}

// Console implements deploy.Backend.
func (b *Backend) Console(*deploy.Machine) string { return "" }

// Observe implements deploy.Backend.
func (b *Backend) Observe(ctx context.Context, m *deploy.Machine) (*deploy.Observed, error) {
	addr, err := address(m.Settings)
	if err != nil {
		return nil, err
	}
	o := &deploy.Observed{Exists: true, Complete: m.Made, State: deploy.StateRunning, ID: addr, Hardware: m.Hardware}
	conn, err := b.Dial(ctx, m)
	if err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		o.State = deploy.StateUnknown
		o.Problems = append(o.Problems, err.Error())
		return o, nil
	}
	return o, conn.Close()
}

// Plan implements deploy.Backend.
func (b *Backend) Plan(m *deploy.Machine, o *deploy.Observed, g deploy.Goal) ([]deploy.Step, error) {
	switch g {
	case deploy.Absent:
		if !m.Made {
			return nil, nil // nothing was done to it
		}
		if o.State != deploy.StateRunning {
			return nil, &deploy.AwayError{At: o.ID, Why: strings.Join(o.Problems, "; ") + "; so it cannot be given back (`tool destroy --forget` only forgets it)"}
		}
		return []deploy.Step{{Kind: stepRelease, Text: "give " + o.ID + " back as it was"}}, nil
	case deploy.Stopped:
		return nil, fmt.Errorf("machine %s is not tool's to stop: shut it down yourself (tool ssh %s poweroff)", m.Name, m.Name)
	}
	if o.State != deploy.StateRunning {
		return nil, &deploy.AwayError{At: o.ID, Why: strings.Join(o.Problems, "; ") + "; it is not tool's to start"}
	}
	if o.Complete {
		return nil, nil
	}
	return []deploy.Step{{Kind: stepAdopt, Text: "adopt " + o.ID + ": agent and store below /tool; its /usr and what the system replaces in /etc wait in /tool/generation-0; the deployment's key in /root/.ssh/authorized_keys; the units tool-agent-boot.service and tool-host-modules.service"}}, nil
}

// Do implements deploy.Backend.
func (b *Backend) Do(ctx context.Context, m *deploy.Machine, s deploy.Step) error {
	switch s.Kind {
	case stepAdopt:
		return b.adopt(ctx, m)
	case stepRelease:
		return b.release(ctx, m)
	}
	return fmt.Errorf("the ssh backend has no step %q", s.Kind)
}

func (b *Backend) adopt(ctx context.Context, m *deploy.Machine) error {
	l, err := b.connect(ctx, m)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := preflight(ctx, l); err != nil {
		return err
	}
	if err := deploy.InstallAgent(ctx, l, b.Binary); err != nil {
		return err
	}
	if err := l.Run(ctx, "/tool/agent/current/tool agent adopt", nil, nil, nil); err != nil {
		return err
	}
	if err := l.Run(ctx, authorize, strings.NewReader(m.AuthorizedKey+"\n"), nil, nil); err != nil {
		return fmt.Errorf("authorize the deployment's key: %w", err)
	}
	m.Made = true
	return nil
}

// release brings a machine back to what it was before. Its sshd is restarted on
// the way, so the connection may be lost; everything may be asked for again.
func (b *Backend) release(ctx context.Context, m *deploy.Machine) error {
	var err error
	for range 3 {
		var l *link.Link
		if l, err = b.connect(ctx, m); err != nil {
			return err
		}
		err = b.releaseOver(ctx, l)
		if err == nil {
			// Over the same connection: the key is what let us in.
			err = l.Run(ctx, forget, strings.NewReader(m.AuthorizedKey+"\n"), nil, nil)
		}
		l.Close()
		if err == nil {
			m.Made = false
			return nil
		}
		if errors.As(err, new(*link.ExitError)) || ctx.Err() != nil {
			break
		}
	}
	return err
}

// releaseOver goes to generation 0 and releases the machine, with an agent that
// knows how. A machine that has nothing of ours is given back already.
func (b *Backend) releaseOver(ctx context.Context, l *link.Link) error {
	var exit *link.ExitError
	err := l.Run(ctx, "test -e /tool/generation-0", nil, nil, nil)
	if errors.As(err, &exit) && exit.Code == 1 {
		return nil
	}
	if err != nil {
		return err
	}
	_, sum, err := b.Binary.Program()
	if err != nil {
		return err
	}
	agent := "/tool/agent/" + sum + "/tool"
	if err = l.Run(ctx, "test -x "+agent, nil, nil, nil); errors.As(err, &exit) {
		err = deploy.InstallAgent(ctx, l, b.Binary)
	}
	if err != nil {
		return err
	}
	return l.Run(ctx, fmt.Sprintf("set -e; test \"$(readlink /tool/current)\" = generation-0 || %[1]s agent rollback 0 >&2; %[1]s agent release", agent), nil, nil, nil)
}

// forget removes a line from root's keys, by rename, and what is below /tool.
const forget = `set -e
umask 077
read -r key
f=$HOME/.ssh/authorized_keys
if grep -qxF "$key" "$f"; then
    cp -p "$f" "$f.tool"
    grep -vxF "$key" "$f" > "$f.tool" || test $? = 1
    sync "$f.tool"
    mv "$f.tool" "$f"
fi
test -L /usr || rm -rf /tool`

// authorize adds a line to root's keys, once, and by rename.
const authorize = `set -e
umask 077
read -r key
f=$HOME/.ssh/authorized_keys
mkdir -p "$HOME/.ssh"
touch "$f"
grep -qxF "$key" "$f" && exit 0
cp -p "$f" "$f.tool"
{ test ! -s "$f" || test -z "$(tail -c1 "$f")" || echo; echo "$key"; } >> "$f.tool"
sync "$f.tool"
mv "$f.tool" "$f"`

// preflight refuses what could not be adopted, in words of this side.
func preflight(ctx context.Context, l *link.Link) error {
	err := l.Run(ctx, `test "$(id -u)" = 0 || exit 3; test -d /run/systemd/system || exit 4; test "$(uname -m)" = x86_64 || exit 5; test -L /bin || exit 6`, nil, nil, nil)
	var exit *link.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	switch exit.Code {
	case 3:
		return errors.New("it takes a login as root: whoever switches all of /usr must be")
	case 4:
		return errors.New("it does not run systemd")
	case 5:
		return errors.New("it is not an x86_64")
	case 6:
		return errors.New("its /bin is no link into /usr: install Debian's usrmerge first")
	}
	return err
}

// connect uses the deployment's key where it is authorized already, else the
// user's own.
func (b *Backend) connect(ctx context.Context, m *deploy.Machine) (*link.Link, error) {
	addr, err := address(m.Settings)
	if err != nil {
		return nil, err
	}
	own, path, missing := identity(m)
	keys := []string{own, m.Key}
	if missing != nil {
		keys = keys[1:]
	}
	for _, key := range keys {
		conn, derr := b.Dial(ctx, m)
		if derr != nil {
			return nil, derr
		}
		var l *link.Link
		if l, err = link.Connect(ctx, conn, link.Config{User: "root", Key: key, HostKey: m.Settings[settingHostKey]}); err == nil {
			return l, nil
		}
		if !strings.Contains(err.Error(), "unable to authenticate") {
			return nil, err // another key would change nothing
		}
	}
	if missing != nil {
		return nil, fmt.Errorf("%s knows the deployment's key not yet, and there is no other to let root in with: %w", addr, missing)
	}
	return nil, fmt.Errorf("%s does not let root in with the key %s, nor with the deployment's: %w", addr, path, err)
}

// maxKey bounds a private key's file, in bytes.
const maxKey = 64 << 10

// identity returns the user's own key, and where it is.
func identity(m *deploy.Machine) (key, path string, err error) {
	path = cmp.Or(m.Settings[settingIdentity], "~/.ssh/id_ed25519")
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", path, err
		}
		path = filepath.Join(home, rest)
	}
	st, err := os.Stat(path)
	if err == nil && st.Size() > maxKey {
		err = fmt.Errorf("%s is too large to be a key", path)
	}
	if err != nil {
		return "", path, err
	}
	b, err := os.ReadFile(path)
	return string(b), path, err
}
