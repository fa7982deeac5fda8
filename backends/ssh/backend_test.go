package ssh

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"tool/core/machines/deploy"
)

func machine(settings map[string]string, made bool) *deploy.Machine {
	return &deploy.Machine{Name: "m", Settings: settings, Made: made}
}

func TestPlan(t *testing.T) {
	up := &deploy.Observed{Exists: true, State: deploy.StateRunning, ID: "10.0.0.1:22"}
	whole := &deploy.Observed{Exists: true, Complete: true, State: deploy.StateRunning, ID: "10.0.0.1:22"}
	away := &deploy.Observed{Exists: true, State: deploy.StateUnknown, ID: "10.0.0.1:22", Problems: []string{"connection refused"}}
	for _, c := range []struct {
		name  string
		seen  *deploy.Observed
		goal  deploy.Goal
		steps int
		err   string
	}{
		{"new", up, deploy.Running, 1, ""},
		{"adopted", whole, deploy.Running, 0, ""},
		{"away", away, deploy.Running, 0, "connection refused; it is not tool's to start"},
		{"stop", whole, deploy.Stopped, 0, "not tool's to stop"},
		{"forget", whole, deploy.Absent, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			steps, err := (&Backend{}).Plan(machine(nil, false), c.seen, c.goal)
			if (err != nil) != (c.err != "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			if len(steps) != c.steps {
				t.Errorf("steps %v, want %d", steps, c.steps)
			}
			for _, s := range steps {
				if s.Destructive {
					t.Errorf("%s is destructive", s.Text)
				}
			}
		})
	}
}

func TestObserve(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	m := machine(map[string]string{"host": "127.0.0.1", "port": port}, true)
	o, err := (&Backend{}).Observe(context.Background(), m)
	if err != nil || o.State != deploy.StateRunning || !o.Complete {
		t.Fatalf("%+v, %v; want it running and complete", o, err)
	}
	l.Close()
	o, err = (&Backend{}).Observe(context.Background(), m)
	if err != nil || o.State != deploy.StateUnknown || len(o.Problems) != 1 {
		t.Fatalf("%+v, %v; want it unknown, with the reason", o, err)
	}
	for _, bad := range []map[string]string{nil, {"host": "h", "port": "ssh"}, {"host": "h", "port": "0"}} {
		if _, err := (&Backend{}).Observe(context.Background(), machine(bad, false)); err == nil {
			t.Errorf("settings %v were taken", bad)
		}
	}
}

// No machine is trusted on first use, and no setting is misread in silence.
func TestIdentity(t *testing.T) {
	const key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0lYzdzRyEPKmyWWLM4DKFRNV2dDCT1tZZPTX8O9e8r"
	for _, c := range []struct {
		name     string
		settings map[string]string
		want     string // address, or what the error says
	}{
		{"whole", map[string]string{"host": "10.0.0.7", "host_key": key}, "10.0.0.7"},
		{"by name", map[string]string{"host": "db.example", "address": "10.1.0.7", "host_key": key, "port": "2222", "identity": "/k"}, "10.1.0.7"},
		{"nothing", nil, "it has no host:"},
		{"no host key", map[string]string{"host": "10.0.0.7"}, "it has no host_key"},
		{"another key", map[string]string{"host": "10.0.0.7", "host_key": "ssh-rsa AAAA"}, "is not a public key like"},
		{"name only", map[string]string{"host": "db.example", "host_key": key}, "is not an IP address"},
		{"port", map[string]string{"host": "10.0.0.7", "host_key": key, "port": "ssh"}, `"ssh" is not a port`},
		{"unknown", map[string]string{"host": "10.0.0.7", "host_key": key, "user": "me"}, `no setting "user"; it has address, host, `},
	} {
		t.Run(c.name, func(t *testing.T) {
			id, err := (&Backend{}).Identity(c.settings)
			got := id.Address.String()
			if err != nil {
				got = err.Error()
			}
			if !strings.Contains(got, c.want) {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// The script is run by a real shell, again and again.
func TestAuthorize(t *testing.T) {
	for name, before := range map[string]string{"nothing": "", "a line": "ssh-ed25519 AAAA me\n", "no line break": "ssh-ed25519 AAAA me"} {
		t.Run(name, func(t *testing.T) {
			home := t.TempDir()
			file := filepath.Join(home, ".ssh", "authorized_keys")
			if before != "" {
				if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(before), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			const key = "ssh-ed25519 BBBB tool@x"
			for range 2 {
				cmd := exec.Command("sh", "-c", authorize)
				cmd.Env = append(os.Environ(), "HOME="+home)
				cmd.Stdin = strings.NewReader(key + "\n")
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Fatalf("%v: %s", err, out)
				}
			}
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := key + "\n"
			if before != "" {
				want = strings.TrimSuffix(before, "\n") + "\n" + want
			}
			if string(b) != want {
				t.Errorf("%q, want %q", b, want)
			}
			if st, _ := os.Stat(file); st.Mode().Perm() != 0o600 {
				t.Errorf("mode %v, want 0600", st.Mode())
			}
		})
	}
}
