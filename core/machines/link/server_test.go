package link

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"
)

// keys are of one end.
type keys struct {
	private string // PEM
	public  string // as in authorized_keys
	signer  ssh.Signer
}

func newKeys(t *testing.T) keys {
	t.Helper()
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(priv, "")
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(priv)
	if err != nil {
		t.Fatal(err)
	}
	return keys{string(pem.EncodeToMemory(block)), strings.TrimSpace(string(ssh.MarshalAuthorizedKey(signer.PublicKey()))), signer}
}

// server is an SSH server to test with.
type server struct {
	host, user keys
	address    string
}

func (s *server) dial(t *testing.T) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.address)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (s *server) connect(t *testing.T) *Link {
	t.Helper()
	l, err := Connect(t.Context(), s.dial(t), Config{User: "root", Key: s.user.private, HostKey: s.host.public})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// newServer serves this host's shell with Go's SSH library.
func newServer(t *testing.T) *server {
	t.Helper()
	s := &server{host: newKeys(t), user: newKeys(t)}
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
		if !bytes.Equal(k.Marshal(), s.user.signer.PublicKey().Marshal()) {
			return nil, errors.New("not known")
		}
		return nil, nil
	}}
	config.AddHostKey(s.host.signer)
	listen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = listen.Addr().String()
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := listen.Accept()
			if err != nil {
				return
			}
			running.Go(func() { serveConn(c, config, &running) })
		}
	})
	t.Cleanup(func() { listen.Close(); running.Wait() })
	return s
}

func serveConn(c net.Conn, config *ssh.ServerConfig, running *sync.WaitGroup) {
	defer c.Close()
	_, chans, reqs, err := ssh.NewServerConn(c, config)
	if err != nil {
		return
	}
	go func() {
		for r := range reqs {
			r.Reply(true, nil)
		}
	}()
	for n := range chans {
		if n.ChannelType() != "session" {
			n.Reject(ssh.UnknownChannelType, "no")
			continue
		}
		ch, reqs, err := n.Accept()
		if err != nil {
			return
		}
		running.Go(func() { serveSession(ch, reqs) })
	}
}

func serveSession(ch ssh.Channel, reqs <-chan *ssh.Request) {
	defer ch.Close()
	for r := range reqs {
		var p struct{ Command string }
		switch {
		case r.Type == "pty-req" || r.Type == "window-change":
			r.Reply(true, nil)
		case r.Type == "exec" && ssh.Unmarshal(r.Payload, &p) == nil:
			r.Reply(true, nil)
			cmd := exec.Command("/bin/sh", "-c", p.Command)
			cmd.Stdout, cmd.Stderr = ch, ch.Stderr()
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			in, err := cmd.StdinPipe()
			if err != nil || cmd.Start() != nil {
				return
			}
			go func() { defer in.Close(); copyAll(in, ch) }()
			go func() { // the controller hangs up
				for range reqs {
				}
				syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			}()
			err = cmd.Wait()
			var exit *exec.ExitError
			if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signaled() {
				ch.SendRequest("exit-signal", false, ssh.Marshal(struct {
					Signal string
					Core   bool
					Text   string
					Lang   string
				}{"KILL", false, "", ""}))
				return
			}
			ch.SendRequest("exit-status", false, ssh.Marshal(struct{ Code uint32 }{uint32(cmd.ProcessState.ExitCode())}))
			return
		default:
			r.Reply(false, nil)
		}
	}
}

func copyAll(to interface{ Write([]byte) (int, error) }, from interface{ Read([]byte) (int, error) }) {
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		if _, werr := to.Write(b[:n]); err != nil || werr != nil {
			return
		}
	}
}

// newSSHD runs this host's OpenSSH, the oracle of what machines answer.
func newSSHD(t *testing.T) *server {
	t.Helper()
	var sshd string
	for _, p := range []string{"/usr/sbin/sshd", "/usr/local/sbin/sshd"} {
		if _, err := os.Stat(p); err == nil {
			sshd = p
		}
	}
	if sshd == "" || os.Geteuid() != 0 {
		t.Skip("SKIPPED: there is no sshd on this host to compare with, or no right to run it")
	}
	s := &server{host: newKeys(t), user: newKeys(t)}
	dir := t.TempDir()
	write := func(name, content string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	listen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = listen.Addr().String()
	_, port, _ := net.SplitHostPort(s.address)
	listen.Close()
	config := write("config", fmt.Sprintf("ListenAddress 127.0.0.1\nPort %s\nHostKey %s\nAuthorizedKeysFile %s\nStrictModes no\nPidFile none\nUsePAM no\nPermitRootLogin yes\n",
		port, write("host", s.host.private), write("authorized", s.user.public+"\n")))
	cmd := exec.Command(sshd, "-D", "-e", "-f", config)
	var log bytes.Buffer
	cmd.Stderr = &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", s.address)
		if err == nil {
			c.Close()
			return s
		}
		if time.Now().After(end) {
			t.Skipf("SKIPPED: this host's sshd does not start: %s", log.String())
		}
	}
}

// newSilent returns a maker of connections to somebody who never speaks.
func newSilent(t *testing.T) func() net.Conn {
	t.Helper()
	listen, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listen.Close() })
	return func() net.Conn {
		c, err := net.Dial("tcp", listen.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
}
