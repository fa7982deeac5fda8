package tests

import (
	"bufio"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// What is deployed to a machine that was there before.
const siteBuild = `
load("@rules//deployment:defs.star", "deployment")
load("@rules//machine:defs.star", "machine")
load("@rules//service:defs.star", "service")
load("@rules//services:sshd.star", "sshd")
load(":knobs.star", "GREETING", "SETTINGS")
` + greetBuild + `
service(name = "steady", exec_start = "/bin/sleep infinity")
sshd(name = "sshd", packages = ["//packages:sshd"])
machine(name = "old", packages = ["//packages:base"], services = [":greet", ":steady", ":sshd"], backends = {"ssh": SETTINGS})
deployment(name = "site", machines = ["old"], backend = "ssh")
`

// plainHost is a machine that knows nothing of tool, with a deployment for it.
type plainHost struct {
	*fleet
	port                    int
	identity, key, hostKey  string // a file, its public line; the machine's public line
	qemu, disk, kernel, dir string
	before                  string // what the machine was like
}

// TestDebian takes over a machine that runs plain Debian, changes it, breaks
// it, starts it again, and gives it back. Nothing of ours is in its disk,
// kernel or initrd; it is made of Debian's packages as debootstrap would, with
// its own accounts, network, services and fstab.
func TestDebian(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: -short runs no virtual machines")
	}
	d := newDebian(t)
	for _, s := range []struct {
		name string
		do   func(*plainHost, *testing.T)
	}{
		{"refused", (*plainHost).testRefused},
		{"adopt", (*plainHost).testAdopt},
		{"change", (*plainHost).testChangeHost},
		{"broken unit", (*plainHost).testBrokenHost},
		{"roll back", (*plainHost).testBackAndForth},
		{"restart", (*plainHost).testRestartHost},
		{"give back", (*plainHost).testGiveBack},
	} {
		start := time.Now()
		if !t.Run(s.name, func(t *testing.T) { s.do(d, t) }) {
			return
		}
		t.Logf("%s: %s", s.name, time.Since(start).Round(time.Second))
	}
}

func newDebian(t *testing.T) *plainHost {
	t.Helper()
	d := &plainHost{fleet: newSite(t)}
	d.machines = nil // it is not there any more when they would be asked
	d.dir = filepath.Join(d.fleet.dir, "debian")
	var private string
	private, d.key = sshKey(t, "owner")
	d.identity = filepath.Join(d.fleet.dir, "identity")
	if err := os.WriteFile(d.identity, []byte(private), 0o600); err != nil {
		t.Fatal(err)
	}
	private, d.hostKey = sshKey(t, "host")
	for _, name := range []string{"init.go", "defs.star"} {
		copyFile(t, filepath.Join("testdata/debian", name), filepath.Join(d.work, "plain", name))
	}
	copyFile(t, "testdata/debian/plain.star", filepath.Join(d.work, "plain/BUILD.star"))
	d.write(t, "plain/go.mod", []byte("module init\n\ngo 1.26\n"))
	d.write(t, "plain/keys.star", fmt.Appendf(nil, "AUTHORIZED_KEY = %q\nHOST_KEY = %q\nHOST_KEY_PUBLIC = %q\n", d.key, private, d.hostKey))
	d.write(t, "site/BUILD.star", []byte(siteBuild))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d.port = l.Addr().(*net.TCPAddr).Port
	l.Close()
	d.settings(t, "hello", nil)
	built := d.need(t, "//plain:plain", "//packages:qemu", "//site:site").out
	for suffix, to := range map[string]*string{"-plain.img": &d.disk, "-plain.kernel": &d.kernel, "-qemu": &d.qemu} {
		*to = regexp.MustCompile(`(?m)/\S+` + regexp.QuoteMeta(suffix) + `\b`).FindString(built)
		if *to == "" {
			t.Fatalf("no %s was built:\n%s", suffix, built)
		}
	}
	d.boot(t)
	d.before = d.state(t)
	return d
}

// sshKey returns a private key in OpenSSH's form and its public line, which are
// the same for the same name in every run: one is in the disk's image, and each
// image stays in the store.
func sshKey(t *testing.T, name string) (private, public string) {
	t.Helper()
	seed := sha256.Sum256([]byte(name))
	priv := ed25519.NewKeyFromSeed(seed[:])
	block, err := ssh.MarshalPrivateKey(priv, "")
	if err != nil {
		t.Fatal(err)
	}
	// Two equal random numbers stand before the private part; any others do.
	at := len("openssh-key-v1\x00")
	for range 3 { // cipher, key derivation, its options
		at += 4 + int(binary.BigEndian.Uint32(block.Bytes[at:]))
	}
	at += 4 // the number of keys
	at += 4 + int(binary.BigEndian.Uint32(block.Bytes[at:]))
	clear(block.Bytes[at+4 : at+12])
	line, err := ssh.NewPublicKey(priv.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(block)), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(line)))
}

// settings writes what the deployment is made of: the greeting, and where its
// machine is, with some settings changed; "" takes one away.
func (d *plainHost) settings(t *testing.T, greeting string, change map[string]string) {
	t.Helper()
	all := map[string]string{"host": "127.0.0.1", "port": fmt.Sprint(d.port), "identity": d.identity, "host_key": d.hostKey}
	var list []string
	for _, k := range slices.Sorted(maps.Keys(all)) {
		v := all[k]
		if c, ok := change[k]; ok {
			v = c
		}
		if v != "" {
			list = append(list, fmt.Sprintf("%q", k+"="+v))
		}
	}
	d.write(t, "site/knobs.star", fmt.Appendf(nil, "GREETING = %q\nSETTINGS = [%s]\n", greeting, strings.Join(list, ", ")))
}

// boot starts the machine, as its owner would have: tool has no hand in it.
func (d *plainHost) boot(t *testing.T) {
	t.Helper()
	if err := os.MkdirAll(d.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	lib := filepath.Join(d.qemu, "usr/lib/x86_64-linux-gnu")
	command := func(program string, args ...string) *exec.Cmd {
		cmd := exec.Command(filepath.Join(lib, "ld-linux-x86-64.so.2"), append([]string{"--library-path", lib, filepath.Join(d.qemu, "usr/bin", program)}, args...)...)
		cmd.Dir, cmd.Env = d.dir, []string{"QEMU_MODULE_DIR=" + filepath.Join(lib, "qemu")}
		return cmd
	}
	if out, err := command("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", d.disk, "disk").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	cmd := command("qemu-system-x86_64", "-name", "debian", "-no-user-config", "-nodefaults", "-display", "none",
		"-L", filepath.Join(d.qemu, "usr/share/qemu"), "-L", filepath.Join(d.qemu, "usr/share/seabios"),
		"-machine", "q35", "-accel", "tcg,thread=multi,tb-size=160", "-cpu", "Nehalem", "-m", "512", "-serial", "file:console",
		"-device", "virtio-rng-pci", "-drive", "if=none,id=root,file=disk,format=qcow2,cache=writeback", "-device", "virtio-blk-pci,drive=root",
		"-kernel", filepath.Join(d.kernel, "vmlinuz"), "-initrd", filepath.Join(d.kernel, "initrd"),
		"-append", "console=ttyS0 root=/dev/vda ro panic=10 loglevel=4 mitigations=off TERM=dumb systemd.default_timeout_start_sec=600",
		"-netdev", fmt.Sprintf("user,id=n,hostfwd=tcp:127.0.0.1:%d-:22", d.port), "-device", "virtio-net-pci,netdev=n,romfile=")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			ctx, stop := context.WithTimeout(context.Background(), 30*time.Second)
			defer stop()
			t.Log(d.start(t, ctx, "ssh", "old", "cat /tool/state/switch.json; journalctl -q --no-pager -n 300 | grep -v sshd | tail -n 60").end())
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	start := time.Now()
	d.awaitHost(t)
	t.Logf("Debian answers after %s", time.Since(start).Round(time.Second))
}

// awaitHost waits until the machine's sshd greets.
func (d *plainHost) awaitHost(t *testing.T) {
	t.Helper()
	t.Cleanup(func() {
		if b, err := os.ReadFile(filepath.Join(d.dir, "console")); t.Failed() && err == nil {
			t.Logf("its console:\n%s", b[max(0, len(b)-3000):])
		}
	})
	d.await(t, "the machine answers", 10*time.Minute, func() bool {
		c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", d.port), time.Second)
		if err != nil {
			return false
		}
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		banner, _ := bufio.NewReader(c).ReadString('\n')
		return strings.HasPrefix(banner, "SSH-")
	})
}

// on runs a script on the machine as its owner does, with the key from before.
func (d *plainHost) on(t *testing.T, script string) string {
	t.Helper()
	private, err := os.ReadFile(d.identity)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.ParsePrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	host, _, _, _, err := ssh.ParseAuthorizedKey([]byte(d.hostKey))
	if err != nil {
		t.Fatal(err)
	}
	var c *ssh.Client
	// One that is given up is work for the machine all the same, and where that is
	// slow they would pile up until its sshd drops some.
	d.await(t, "the owner can log in", 6*time.Minute, func() bool {
		c, err = ssh.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", d.port), &ssh.ClientConfig{
			User: "root", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.FixedHostKey(host), HostKeyAlgorithms: []string{host.Type()}, Timeout: 2 * time.Minute,
		})
		return err == nil
	})
	defer c.Close()
	s, err := c.NewSession()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.CombinedOutput(script)
	if err != nil {
		t.Fatalf("%s: %v: %s", script, err, out)
	}
	return strings.TrimSpace(string(out))
}

// state is all of the machine that taking it over could change.
func (d *plainHost) state(t *testing.T) string {
	t.Helper()
	return d.on(t, `cd /; ls -ld bin lib lib64 sbin usr | sed 's/ .* / /'
find /etc /root/.ssh -printf '%p %y %m %U:%G %l\n' | LC_ALL=C sort
find /etc /root/.ssh -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
ls -d /tool /var/lib/ssh 2>&1
cat /var/lib/legacy/data /run/legacy
systemctl is-active legacy ssh systemd-networkd dbus
readlink -f /usr/bin/env
findmnt -n -o TARGET,FSTYPE,OPTIONS / /srv | sed 's/ .*//' `)
}

func (d *plainHost) testRefused(t *testing.T) {
	deploy := []string{"deploy", "//site:site"}
	other := filepath.Join(d.fleet.dir, "other")
	private, _ := sshKey(t, "other")
	if err := os.WriteFile(other, []byte(private), 0o600); err != nil {
		t.Fatal(err)
	}
	_, wrong := sshKey(t, "wrong")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
	l.Close()
	for _, c := range []struct {
		name   string
		change map[string]string
		code   int
		says   string
	}{
		{"no host", map[string]string{"host": ""}, 1, "machine old: it has no host: say where it is with backends"},
		{"no host key", map[string]string{"host_key": ""}, 1, "machine old: it has no host_key: say it with backends"},
		{"nobody there", map[string]string{"port": nobody}, 51, "connection refused"},
		{"another machine", map[string]string{"host_key": wrong}, 51, "it presents the host key SHA256:"},
		{"another key", map[string]string{"identity": other}, 51, "does not let root in with"},
		{"no key", map[string]string{"identity": "/nonexistent/key"}, 51, "/nonexistent/key"},
	} {
		d.settings(t, "hello", c.change)
		r := d.must(t, c.code, deploy, c.says)
		if n := strings.Count(r.out+r.err, c.says); n != 1 {
			t.Errorf("%s: it is said %d times: %v", c.name, n, r)
		}
	}
	d.settings(t, "hello", nil)
	d.on(t, "mv /run/systemd/system /run/systemd/away")
	d.must(t, 51, deploy, "it does not run systemd")
	d.on(t, "mv /run/systemd/away /run/systemd/system")
	if now := d.state(t); now != d.before {
		t.Errorf("it was touched:\n%s", diffLines(d.before, now))
	}
	d.must(t, 0, []string{"destroy", "--yes"})
	d.must(t, 0, []string{"delete"})
}

// loadsModule has the kernel ask for a module, which only the machine's own /usr
// has.
const loadsModule = "ip link add d0 type dummy && ip link del d0 && rmmod dummy && echo dummy"

func (d *plainHost) testAdopt(t *testing.T) {
	d.settings(t, "hello", nil)
	r := d.must(t, 0, []string{"deploy", "//site:site"}, "adopt 127.0.0.1:", "generation 1, 1 of 1 machines confirmed")
	t.Logf("adopted in %s", r.took.Round(time.Second))
	got := d.on(t, `cat /run/greeted /run/legacy; systemctl is-active greet steady ssh legacy systemd-networkd; readlink /usr; hostname
systemctl --failed --no-legend
grep -c ^ann: /etc/passwd; grep -c systemd-resolve /etc/passwd
cat /etc/fstab /etc/timezone /etc/legacy.conf; readlink /etc/localtime
ls /tool/generation-0/etc/ssh/sshd_config; grep -c 'HostKey /var/lib/ssh' /etc/ssh/sshd_config
test -e /tool/generation-0/usr/bin/env && echo kept
`+loadsModule)
	want := "hello\nyears\nactive\nactive\nactive\nactive\nactive\ntool/current/usr\nold.example\n1\n1\n" +
		"/dev/vda / ext4 errors=remount-ro 0 0\ntmpfs /srv tmpfs size=1M 0 0\nEurope/Berlin\nyears\n/usr/share/zoneinfo/Europe/Berlin\n/tool/generation-0/etc/ssh/sshd_config\n1\nkept\ndummy"
	if got != want {
		t.Errorf("the machine:\n%s", diffLines(want, got))
	}
	d.sound(t)
	d.must(t, 0, []string{"info"}, "Up / Up-to-date", "ssh", "127.0.0.1")
	d.must(t, 0, []string{"deploy", "//site:site"}, "nothing to do")
}

func (d *plainHost) testChangeHost(t *testing.T) {
	before := d.unitIDs(t, "old", "greet", "steady", "ssh", "legacy")
	d.settings(t, "good day", nil)
	d.must(t, 0, []string{"deploy", "//site:site"}, "restart greet.service: /etc/greet.conf changed (//site:greet)", "generation 2, 1 of 1 machines confirmed")
	now := d.unitIDs(t, "old", "greet", "steady", "ssh", "legacy")
	if now["greet"] == before["greet"] {
		t.Error("greet was not restarted")
	}
	delete(now, "greet")
	for u, id := range now {
		if id != before[u] {
			t.Errorf("%s was restarted", u)
		}
	}
	if got := d.must(t, 0, []string{"exec", "cat /run/greeted"}).out; !strings.Contains(got, "good day") {
		t.Errorf("it greets with %q", got)
	}
	d.must(t, 7, []string{"ssh", "old", "exit 7"})
	d.must(t, 0, []string{"logs", "old", "-u", "greet"}, "greet")
	d.must(t, 0, []string{"generations"}, "current")
	d.must(t, 2, []string{"console", "old"}, "have no console that is kept")
}

func (d *plainHost) testBrokenHost(t *testing.T) {
	d.settings(t, "broken grammar", nil)
	r := d.must(t, 52, []string{"deploy", "//site:site"}, "old  rolled back", "there is no greeting with broken grammar", "/etc/greet.conf changed (//site:greet)")
	t.Logf("back in %s", r.took.Round(time.Second))
	if got := d.on(t, "cat /run/greeted /run/legacy; systemctl is-active greet"); got != "good day\nyears\nactive" {
		t.Errorf("it has %q", got)
	}
	d.must(t, 32, []string{"check"}, "the last deploy did not reach it")
}

func (d *plainHost) testBackAndForth(t *testing.T) {
	r := d.must(t, 0, []string{"rollback", "1"}, "restart greet.service")
	if strings.Contains(r.out, " sent") {
		t.Errorf("it sent something: %v", r)
	}
	d.sound(t)
	// On the machine itself, by its owner: first to our other generation, then to
	// what it was before.
	d.on(t, "/tool/agent/current/tool agent rollback 2")
	d.must(t, 32, []string{"check"}, "and should have")
	d.on(t, "/tool/agent/current/tool agent rollback 0")
	if got := d.on(t, "cat /run/legacy; systemctl is-active ssh legacy; systemctl is-active greet; readlink /tool/current; grep -c MaxAuthTries /etc/ssh/sshd_config"); got != "years\nactive\nactive\ninactive\ngeneration-0\n1" {
		t.Errorf("at generation 0: %s", got)
	}
	d.settings(t, "good evening", nil)
	d.must(t, 0, []string{"deploy", "//site:site"}, "1 of 1 machines confirmed")
	d.must(t, 0, []string{"gc", "-d", "site", "--keep=1", "--older-than=10000d"}, "old: removed")
	d.sound(t)
}

// testRestartHost starts the machine again: its own boot loader, kernel and
// initrd do that, and end up in our generation.
func (d *plainHost) testRestartHost(t *testing.T) {
	d.settings(t, "good evening", nil)
	d.must(t, 0, []string{"deploy", "//site:site"})
	boot := d.on(t, "cat /proc/sys/kernel/random/boot_id")
	r := d.must(t, 0, []string{"reboot", "old"})
	t.Logf("started again in %s", r.took.Round(time.Second))
	if d.on(t, "cat /proc/sys/kernel/random/boot_id") == boot {
		t.Error("it did not start again")
	}
	d.await(t, "its services run", 3*time.Minute, func() bool {
		return d.on(t, "cat /run/greeted /run/legacy; systemctl is-active greet steady ssh legacy; findmnt -n -o FSTYPE /srv; touch /root/writable && rm /root/writable && echo writable; "+loadsModule+"; systemctl --failed --no-legend; true") ==
			"good evening\nyears\nactive\nactive\nactive\nactive\ntmpfs\nwritable\ndummy"
	})
	d.sound(t)
	d.must(t, 0, []string{"deploy", "//site:site"}, "nothing to do")
	d.must(t, 51, []string{"stop", "old"}, "not tool's to stop")
	d.settings(t, "later", nil)
	d.must(t, 2, []string{"deploy", "--mode=boot", "//site:site"}, "it is started by its own boot loader")
	d.sound(t)
}

func (d *plainHost) testGiveBack(t *testing.T) {
	r := d.must(t, 0, []string{"destroy", "--yes"})
	t.Logf("given back in %s", r.took.Round(time.Second))
	if now := d.state(t); now != d.before {
		t.Errorf("it is not what it was:\n%s", diffLines(d.before, now))
	}
	if got := d.on(t, "systemctl --failed --no-legend; systemctl list-units --all --plain --no-legend 'greet*' 'steady*' 'tool*'; ls -d /usr/bin/env"); got != "/usr/bin/env" {
		t.Errorf("left: %s", got)
	}
	d.must(t, 0, []string{"delete"})
}

// diffLines tells which lines only one of two texts has.
func diffLines(want, got string) string {
	var out []string
	has := func(text string) map[string]int {
		m := map[string]int{}
		for l := range strings.Lines(text) {
			m[strings.TrimSpace(l)]++
		}
		return m
	}
	a, b := has(want), has(got)
	for l := range a {
		if b[l] < a[l] {
			out = append(out, "- "+l)
		}
	}
	for l := range b {
		if a[l] < b[l] {
			out = append(out, "+ "+l)
		}
	}
	return strings.Join(out, "\n")
}
