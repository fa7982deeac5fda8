package qemu

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// answers serves one connection with what a machine's QEMU would say.
func answers(t *testing.T, lines ...string) string {
	t.Helper()
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, qmpFile))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		in := bufio.NewReader(c)
		for i, line := range lines {
			if i > 0 {
				if _, err := in.ReadString('\n'); err != nil {
					return
				}
			}
			fmt.Fprintf(c, "%s\n", line)
		}
		_, _ = in.ReadString('\n')
	}()
	return dir
}

const greeting = `{"QMP": {"version": {}, "capabilities": []}}`

func TestMonitor(t *testing.T) {
	ok, id := `{"return": {}}`, `{"return": {"UUID": "u"}}`
	for name, c := range map[string]struct {
		lines []string
		want  string // the status, or after ! a part of the error
	}{
		"running":      {[]string{greeting, ok, id, `{"return": {"status": "running"}}`}, "running"},
		"with events":  {[]string{greeting, ok, `{"event": "STOP"}` + "\n" + id, `{"event": "X"}` + "\n" + `{"return": {"status": "paused"}}`}, "paused"},
		"another":      {[]string{greeting, ok, `{"return": {"UUID": "v"}}`}, "!that of the machine v"},
		"not QMP":      {[]string{"220 mail"}, "!QMP"},
		"no greeting":  {[]string{`{"return": {}}`}, "!does not speak QMP"},
		"refused":      {[]string{greeting, `{"error": {"class": "x", "desc": "no"}}`}, "!qmp_capabilities: no"},
		"ends":         {[]string{greeting, ok}, "!query-uuid"},
		"wrong type":   {[]string{greeting, ok, `{"return": {"UUID": 5}}`}, "!query-uuid"},
		"endless line": {[]string{greeting, ok, strings.Repeat("x", maxMessage+2)}, "!longer than"},
		"not JSON":     {[]string{greeting, ok, "{"}, "!query-uuid"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := answers(t, c.lines...)
			status, err := func() (string, error) {
				m, err := openMonitor(context.Background(), dir, 2*time.Second)
				if err != nil {
					return "", err
				}
				defer m.close()
				return m.status("u")
			}()
			if part, bad := strings.CutPrefix(c.want, "!"); bad {
				if err == nil || !strings.Contains(err.Error(), part) {
					t.Errorf("got %q, %v, want an error with %q", status, err, part)
				}
			} else if err != nil || status != c.want {
				t.Errorf("got %q, %v", status, err)
			}
		})
	}
}

// TestMonitorHangs shows that one that says nothing is not waited for.
func TestMonitorHangs(t *testing.T) {
	dir := answers(t, greeting)
	start := time.Now()
	if _, err := openMonitor(context.Background(), dir, 200*time.Millisecond); err == nil || time.Since(start) > 5*time.Second {
		t.Errorf("%v after %s", err, time.Since(start))
	}
}

// TestMonitorLongPath shows that a folder may be deeper than socket paths can be.
func TestMonitorLongPath(t *testing.T) {
	_, err := openMonitor(context.Background(), filepath.Join(t.TempDir(), strings.Repeat("x", 200)), time.Second)
	if err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Error(err)
	}
}

func FuzzMessage(f *testing.F) {
	f.Add([]byte(greeting + "\n"))
	f.Add([]byte(`{"error": {"desc": "x"}}` + "\n{"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bufio.NewReader(strings.NewReader(string(b)))
		for range 100 {
			if m, err := readMessage(r); err != nil {
				return
			} else if m == nil {
				t.Fatal("nothing was read without an error")
			}
		}
	})
}
