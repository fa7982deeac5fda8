package clienttest

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	marathon "github.com/gambol99/go-marathon"

	"marathon-gateway/docker"
	"marathon-gateway/gateway"
	"marathon-gateway/zktest"
)

// imageEnv names the archive of an image that serves a page at port 80:
// //demo:nginx.
const imageEnv = "DEMO_IMAGE"

const engineAddress = "10.98.0.1" // in the engine's own network

// The engine is in namespaces of its own and takes all it started along when
// it ends. The bridge is there for its address, which the swarm wants.
const engineScript = `set -e
ip link set lo up
ip link add name tool0 type bridge
ip addr add ` + engineAddress + `/24 dev tool0
ip link set tool0 up
hostname m0
exec dockerd --data-root "$1/data" --exec-root "$1/run" --pidfile "$1/pid" -H "unix://$1/docker.sock"`

// engine starts a real Docker engine, or skips the test.
func engine(t *testing.T) (socket string, pid int) {
	t.Helper()
	skip := func(why string) { t.Skip("SKIPPED: no real Docker engine: ", why) }
	if os.Geteuid() != 0 {
		skip("not root")
	}
	for _, program := range []string{"dockerd", "containerd", "runc", "iptables", "ip", "unshare", "nsenter"} {
		if _, err := exec.LookPath(program); err != nil {
			skip(err.Error())
		}
	}
	dir, err := os.MkdirTemp("", "gateway-docker-") // short, for the socket's path
	if err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", engineScript, "sh", dir)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-done
		time.Sleep(time.Second) // its mounts go with its last process
		_ = os.RemoveAll(dir)
	})
	socket = filepath.Join(dir, "docker.sock")
	for range 300 {
		select {
		case <-done:
			text, _ := os.ReadFile(log.Name())
			skip(fmt.Sprintf("dockerd ends:\n%s", text))
		case <-time.After(100 * time.Millisecond):
		}
		if c, err := net.Dial("unix", socket); err == nil {
			_ = c.Close()
			children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", cmd.Process.Pid, cmd.Process.Pid))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Sscan(string(children), &pid); err != nil {
				t.Fatal(err)
			}
			return socket, pid
		}
	}
	skip("dockerd does not listen after 30 s")
	return "", 0
}

// load gives the engine an image, as `docker load` does.
func load(t *testing.T, socket, archive string) {
	t.Helper()
	f, err := os.Open(archive)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	res, err := client.Post("http://docker/v1.41/images/load", "application/x-tar", f)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text := make([]byte, 4096)
	n, _ := res.Body.Read(text)
	if res.StatusCode != 200 || !strings.Contains(string(text[:n]), "Loaded image: "+image) {
		t.Fatalf("loading the image: %s %s", res.Status, text[:n])
	}
}

// TestRealDocker runs the demo image on a real engine, where there is one.
func TestRealDocker(t *testing.T) {
	archive := os.Getenv(imageEnv)
	if archive == "" {
		t.Skip("SKIPPED: no real Docker engine: ", imageEnv, " is not set")
	}
	zk, err := zktest.Start(t.TempDir())
	if errors.Is(err, zktest.ErrMissing) {
		t.Skip("SKIPPED: ", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = zk.Stop() })
	socket, pid := engine(t)
	load(t, socket, archive)

	port := freePort(t)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- gateway.Run(ctx, []string{
			"--hostname=m0", fmt.Sprintf("--http_port=%d", port), "--zk=zk://" + zk.Address + "/marathon", "--docker=unix://" + socket, "--task_ports=31000-31019",
		}, gateway.Options{Resolve: func(string) (string, error) { return engineAddress, nil }})
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	c := &cluster{t: t}
	p := &process{name: "m0", url: fmt.Sprintf("http://127.0.0.1:%d", port)}
	c.eventually("it leads", func() bool { return ok(p.url + "/v2/apps") })
	m := c.client(p)
	if _, err := m.CreateApplication(demo("/nginx").Count(2)); err != nil {
		t.Fatal(err)
	}
	var app *marathon.Application
	c.eventually("two tasks run", func() bool {
		app, err = m.Application("/nginx")
		return err == nil && app.TasksRunning == 2
	})
	api, err := docker.New("unix://" + socket)
	if err != nil {
		t.Fatal(err)
	}
	if swarm, err := api.Swarm(ctx); err != nil || swarm.Spec.Dispatcher.HeartbeatPeriod != 10*time.Second {
		t.Errorf("swarm: %+v %v", swarm, err)
	}
	for _, task := range app.Tasks {
		page, err := exec.Command("nsenter", "--target", fmt.Sprint(pid), "--net", "bash", "-c",
			fmt.Sprintf(`exec 3<>/dev/tcp/%s/%d; printf 'GET / HTTP/1.0\r\n\r\n' >&3; cat <&3`, engineAddress, task.Ports[0])).CombinedOutput()
		if err != nil || !strings.Contains(string(page), "<h1> Hello brave new world! </h1>") {
			t.Errorf("%s: %v %s", task.ID, err, page)
		}
	}
	if _, err := m.DeleteApplication("/nginx", false); err != nil {
		t.Error(err)
	}
	c.eventually("no deployment is left", func() bool { d, err := m.Deployments(); return err == nil && len(d) == 0 })
}
