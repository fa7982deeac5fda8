package tests

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// knobs are what the scenarios turn: they become vm/knobs.star.
type knobs struct {
	greeting string // content of a file that one's greet.service reads at its start
	sshd     string // further lines of one's sshd_config
	ballast  bool   // one has a large file
	network  string // one's file for networkd, before all others
	comment  string // changes nothing
}

// fleet is a deployment of two machines under QEMU, driven by the command line.
type fleet struct {
	dir, work, state string
	ctx              context.Context // ends while there is still time to clean up
	knobs            knobs
	machines         []string // whose journals are told when a test has failed
}

// greetBuild is a service that writes down what it has read and then sleeps, or
// fails where it is told to. Its health check lasts for as long as /run/hold is
// there, which holds a switch where a test wants it.
const greetBuild = `
GREET = """read -r greeting < /etc/greet.conf
echo "$greeting" > /run/greeted
case $greeting in
    broken*) echo "there is no greeting with $greeting" >&2; exit 7 ;;
esac
exec sleep infinity
"""

service(
    name = "greet",
    exec_start = "/bin/sh /etc/greet.sh",
    etc = {"etc/greet.conf": GREETING + "\n", "etc/greet.sh": GREET},
    health_commands = ["test ! -e /run/hold"],
)
`

// vmBuild is the workspace's package vm.
const vmBuild = `
load("@rules//deployment:defs.star", "deployment")
load("@rules//machine:defs.star", "machine")
load("@rules//service:defs.star", "service")
load("@rules//services:sshd.star", "sshd")
load(":knobs.star", "BALLAST", "GREETING", "NETWORK", "SSHD")
` + greetBuild + `
# Which fails when it is started first, as what misses something that comes up
# later: on a new machine that must not take a second deploy.
STEADY = """n=$(cat /var/lib/steady || echo 0)
echo $((n + 1)) > /var/lib/steady
[ "$n" -gt 0 ] || { echo "what it needs is not there yet" >&2; exit 1; }
exec sleep infinity
"""

service(
    name = "steady",
    exec_start = "/bin/sh /etc/steady.sh",
    etc = {"etc/steady.sh": STEADY},
    files = {":ballast.bin": "usr/share/ballast.bin"} if BALLAST else {},
    on_change = "nothing",
)
# Which is to reach the other machine, once there is a file for the network. It
# listens to what answers: some hosts take connections to any address.
service(
    name = "neighbour",
    exec_start = "/bin/sleep infinity",
    files = {":network": "usr/lib/systemd/network/05-test.network"} if NETWORK else {},
    health_commands = ["bash -c 'exec 3<>/dev/tcp/two/22 && read -rt 15 banner <&3 && [[ $banner == SSH-* ]]'"] if "eth1" in NETWORK else [],
    health_seconds = 30,
    on_change = "nothing",
)
sshd(name = "sshd", packages = ["//packages:sshd"], extra_config = SSHD)
sshd(name = "plain-sshd", packages = ["//packages:sshd"])

[machine(
    name = name,
    memory = 512,
    disk = 2048,
    kernel = "//packages:kernel",
    packages = ["//packages:base"],
    services = services,
) for name, services in {"one": [":greet", ":neighbour", ":steady", ":sshd"], "two": [":steady", ":plain-sshd"]}.items()]

deployment(name = "pair", description = "Two small machines", machines = ["one", "two"])
`

// ballastSize is so much that copying it takes a while.
const ballastSize = 48 << 20

// newFleet makes the workspace with the package vm.
func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := newSite(t)
	f.write(t, "vm/BUILD.star", []byte(vmBuild))
	// The same bytes in every run, or each would leave its own in the store.
	ballast := make([]byte, ballastSize)
	rand.NewChaCha8([32]byte{}).Read(ballast)
	f.write(t, "vm/ballast.bin", ballast)
	f.turn(t, func(*knobs) {})
	return f
}

// newSite makes a workspace. It is this repository's packages, so that what the
// repository has built already need not be built again: the store is
// $TOOL_STORE, or the user's own.
func newSite(t *testing.T) *fleet {
	t.Helper()
	dir, err := os.MkdirTemp("", "vm-") // short: there will be sockets below it
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{dir: dir, work: filepath.Join(dir, "work"), state: filepath.Join(dir, "state"), knobs: knobs{greeting: "hello"}, machines: []string{"one", "two"}}
	ctx, stop := context.Background(), context.CancelFunc(func() {})
	if end, ok := t.Deadline(); ok {
		ctx, stop = context.WithDeadline(ctx, end.Add(-2*time.Minute))
	}
	f.ctx = ctx
	t.Cleanup(func() {
		stop()
		f.end(t)
	})
	for _, name := range []string{"tool.toml", "go.mod", "go.sum"} {
		copyFile(t, filepath.Join("..", name), filepath.Join(f.work, name))
	}
	packages := "../workspace/packages"
	entries, err := os.ReadDir(packages)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		copyFile(t, filepath.Join(packages, e.Name()), filepath.Join(f.work, "workspace/packages", e.Name()))
	}
	return f
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o755)
	}
	if err == nil {
		err = os.WriteFile(to, b, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (f *fleet) write(t *testing.T, name string, content []byte) {
	t.Helper()
	path := filepath.Join(f.work, name)
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if err == nil {
		err = os.WriteFile(path, content, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// turn changes the knobs.
func (f *fleet) turn(t *testing.T, change func(*knobs)) {
	t.Helper()
	change(&f.knobs)
	k := &f.knobs
	f.write(t, "vm/network", []byte(k.network))
	f.write(t, "vm/knobs.star", fmt.Appendf(nil, "# %s\nGREETING = %q\nSSHD = %q\nNETWORK = %q\nBALLAST = bool(%d)\n", k.comment, k.greeting, k.sshd, k.network, map[bool]int{true: 1}[k.ballast]))
}

// greet changes what greet.service says.
func (f *fleet) greet(t *testing.T, greeting string) {
	t.Helper()
	f.turn(t, func(k *knobs) { k.greeting = greeting })
}

// ran is what one command did.
type ran struct {
	line     string
	code     int // -1: it was killed
	out, err string
	took     time.Duration
}

func (r *ran) String() string {
	return fmt.Sprintf("tool %s\nended with %d after %s\nstdout:\n%s\nstderr:\n%s", r.line, r.code, r.took.Round(time.Millisecond), r.out, r.err)
}

// running is a command that runs, in a process of its own.
type running struct {
	cmd      *exec.Cmd
	line     string
	start    time.Time
	out, err lockedBuffer
	done     chan struct{}
}

// lockedBuffer is read while a command still writes to it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (f *fleet) start(t *testing.T, ctx context.Context, args ...string) *running {
	t.Helper()
	r := &running{line: strings.Join(args, " "), start: time.Now(), done: make(chan struct{})}
	r.cmd = exec.CommandContext(ctx, shared.tool, args...)
	r.cmd.Dir = f.work
	r.cmd.Env = append(os.Environ(), "TOOL_STATE="+f.state, "NO_COLOR=1")
	r.cmd.Stdout, r.cmd.Stderr = &r.out, &r.err
	// What it starts and leaves running may not keep Wait waiting.
	r.cmd.WaitDelay = 10 * time.Second
	if err := r.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = r.cmd.Wait()
		close(r.done)
	}()
	return r
}

// end waits for the command's end.
func (r *running) end() *ran {
	<-r.done
	return &ran{r.line, r.cmd.ProcessState.ExitCode(), r.out.String(), r.err.String(), time.Since(r.start)}
}

func (r *running) kill() *ran {
	_ = r.cmd.Process.Kill() // it may have ended
	return r.end()
}

// run runs the program to its end.
func (f *fleet) run(t *testing.T, args ...string) *ran {
	t.Helper()
	r := f.start(t, f.ctx, args...).end()
	if f.ctx.Err() != nil {
		t.Fatalf("there is no time left for the rest: %v", r)
	}
	return r
}

// must runs the program, which must end with the code, and tell all the texts.
func (f *fleet) must(t *testing.T, code int, args []string, texts ...string) *ran {
	t.Helper()
	r := f.run(t, args...)
	r.must(t, code, texts...)
	return r
}

func (r *ran) must(t *testing.T, code int, texts ...string) {
	t.Helper()
	if r.code != code {
		t.Fatalf("exit code %d, want %d: %v", r.code, code, r)
	}
	for _, s := range texts {
		if !strings.Contains(r.out+r.err, s) {
			t.Fatalf("it does not say %q: %v", s, r)
		}
	}
}

var deployPair = []string{"deploy", "//vm:pair"}

// deploy brings the machines to what the knobs say.
func (f *fleet) deploy(t *testing.T, texts ...string) *ran {
	t.Helper()
	return f.must(t, 0, deployPair, texts...)
}

// sound finds the machines as they were deployed.
func (f *fleet) sound(t *testing.T) {
	t.Helper()
	f.must(t, 0, []string{"check"})
}

// ssh runs a script on a machine and returns what it wrote.
func (f *fleet) ssh(t *testing.T, machine, script string) string {
	t.Helper()
	return strings.TrimSpace(f.must(t, 0, []string{"ssh", machine, script}).out)
}

// greets wants machine one to greet so: the file says it, and the unit that
// is active has read it.
func (f *fleet) greets(t *testing.T, want string) {
	t.Helper()
	var got string
	f.await(t, "greet says what its file says", time.Minute, func() bool {
		lines := strings.Split(f.ssh(t, "one", "cat /etc/greet.conf; cat /run/greeted; systemctl is-active greet"), "\n")
		got = lines[0]
		return len(lines) == 3 && lines[1] == got && lines[2] == "active"
	})
	if got != want {
		t.Fatalf("machine one greets with %q, want %q", got, want)
	}
}

// current is the system that is active on a machine.
func (f *fleet) current(t *testing.T, machine string) string {
	t.Helper()
	return f.ssh(t, machine, "readlink /tool/current")
}

// unitIDs tells which runs of units these are.
func (f *fleet) unitIDs(t *testing.T, machine string, units ...string) map[string]string {
	t.Helper()
	ids := strings.Fields(f.ssh(t, machine, "for u in "+strings.Join(units, " ")+"; do systemctl show -P InvocationID $u; done"))
	if len(ids) != len(units) {
		t.Fatalf("units %v: %q", units, ids)
	}
	out := map[string]string{}
	for i, u := range units {
		out[u] = ids[i]
	}
	return out
}

// await tries until it is so, within the time.
func (f *fleet) await(t *testing.T, what string, within time.Duration, so func() bool) {
	t.Helper()
	for end := time.Now().Add(within); !so(); {
		if time.Now().After(end) {
			t.Fatalf("not after %s: %s", within, what)
		}
		select {
		case <-f.ctx.Done():
			t.Fatalf("there is no time left for the rest, while waiting: %s", what)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// pid is the process of a machine.
func (f *fleet) pid(t *testing.T, machine string) int {
	t.Helper()
	for pid, dir := range f.processes() {
		if filepath.Base(dir) == machine {
			return pid
		}
	}
	t.Fatalf("machine %s has no process", machine)
	return 0
}

// processes are those that work below the state's folder, QEMU and the
// networks, with where they do.
func (f *fleet) processes() map[int]string {
	out := map[int]string{}
	entries, _ := os.ReadDir("/proc") // without it the test fails otherwise
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		dir, err := os.Readlink(filepath.Join("/proc", e.Name(), "cwd"))
		if dir = strings.TrimSuffix(dir, " (deleted)"); err == nil && strings.HasPrefix(dir, f.state+"/") {
			out[pid] = dir
		}
	}
	return out
}

// end destroys the machines, whatever the tests left.
func (f *fleet) end(t *testing.T) {
	ctx, stop := context.WithTimeout(context.Background(), 90*time.Second)
	defer stop()
	if t.Failed() {
		for _, m := range f.machines {
			short, done := context.WithTimeout(ctx, 30*time.Second)
			t.Log(f.start(t, short, "ssh", m, "cat /tool/state/switch.json; journalctl -q --no-pager -n 300 | grep -v sshd | tail -n 60").end())
			done()
		}
	}
	if left, err := filepath.Glob(filepath.Join(f.state, "deployments/*")); err != nil || len(left) > 0 {
		for _, args := range [][]string{{"destroy", "--yes", "--forget"}, {"delete"}} {
			if r := f.start(t, ctx, args...).end(); r.code != 0 {
				t.Errorf("cleaning up: %v", r)
			}
		}
	}
	for pid, dir := range f.processes() {
		t.Errorf("process %d in %s is left; it is killed", pid, dir)
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	if err := removeAll(f.dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}
