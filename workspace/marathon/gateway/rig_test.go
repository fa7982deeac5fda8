package gateway

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"marathon-gateway/fakedocker"
)

// memory is documents that do not outlive the test.
type memory struct {
	mu   sync.Mutex
	docs map[string][]byte
	err  error // of the next commit
}

func (m *memory) load(context.Context) (map[string][]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.docs), nil
}

func (m *memory) commit(_ context.Context, changes []change) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	for _, c := range changes {
		if c.data == nil {
			delete(m.docs, c.path)
		} else {
			m.docs[c.path] = c.data
		}
	}
	return nil
}

// rig is a leading gateway over engines that are not there.
type rig struct {
	t       *testing.T
	world   *fakedocker.World
	engines map[string]*fakedocker.Engine
	docs    *memory
	gateway *gateway
	server  *httptest.Server
	stop    func()
}

const image = "demo/nginx:1"

// newRig makes hosts m0, m1, … and s0, s1, …; net is the third byte of their
// addresses, for tests not to meet.
func newRig(t *testing.T, net, managers, workers int) *rig {
	t.Helper()
	r := &rig{t: t, world: fakedocker.New(), engines: map[string]*fakedocker.Engine{}, docs: &memory{docs: map[string][]byte{}}}
	t.Cleanup(r.world.Close)
	addresses := map[string]string{}
	add := func(kind string, count int) string {
		var names []string
		for i := range count {
			name := fmt.Sprintf("%s%d", kind, i)
			addresses[name] = fmt.Sprintf("127.0.%d.%d", net, len(addresses)+1)
			e, err := r.world.Add(name, addresses[name])
			if err != nil {
				t.Fatal(err)
			}
			e.Load(image, "sha256:1")
			r.engines[name] = e
			names = append(names, name)
		}
		return strings.Join(names, ",")
	}
	s, err := parse([]string{"--zk=zk://none", "--hostname=m0", "--managers=" + add("m", managers), "--workers=" + add("s", workers), "--task_ports=31000-31019"})
	if err != nil {
		t.Fatal(err)
	}
	o := Options{
		Hurry:   100,
		Resolve: func(host string) (string, error) { return addresses[host], nil },
		Engine:  func(host string) string { return r.engines[host].Address() },
	}
	r.gateway = &gateway{settings: s, options: o, started: time.Now()}
	r.gateway.election = &election{settings: s, address: "m0:8080"}
	r.server = httptest.NewServer(r.gateway)
	t.Cleanup(r.server.Close)
	r.lead()
	t.Cleanup(func() { r.stop() })
	return r
}

// lead makes the gateway lead; r.stop ends that.
func (r *rig) lead() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.gateway.lead(ctx, r.docs) }()
	var once sync.Once
	r.stop = func() { once.Do(func() { cancel(); <-done }) }
	r.eventually("the gateway leads", func() bool { return r.gateway.leads() != nil })
}

func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	for range 1000 {
		if ok() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	_, apps := r.call("GET", "/v2/apps?embed=apps.tasks", "")
	_, queue := r.call("GET", "/v2/queue", "")
	r.t.Fatalf("never: %s\n%s\n%s", what, apps, queue)
}

func (r *rig) call(method, path, body string) (int, string) {
	r.t.Helper()
	req, err := http.NewRequest(method, r.server.URL+path, bytes.NewBufferString(body))
	if err != nil {
		r.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		r.t.Fatal(err)
	}
	return res.StatusCode, strings.TrimSpace(string(b))
}

// want calls and expects a status.
func (r *rig) want(status int, method, path, body string) string {
	r.t.Helper()
	code, answer := r.call(method, path, body)
	if code != status {
		r.t.Fatalf("%s %s: %d %s, want %d", method, path, code, answer, status)
	}
	return answer
}

type appAnswer struct {
	App struct {
		Instances, TasksRunning, TasksStaged, TasksHealthy, TasksUnhealthy int
		Version                                                            string
		Tasks                                                              []taskAnswer
		Deployments                                                        []struct{ ID string }
		LastTaskFailure                                                    *failure
	}
}

type taskAnswer struct {
	ID, Host, State, Version string
	Ports                    []int
}

func (r *rig) app(id string) appAnswer {
	r.t.Helper()
	var a appAnswer
	if err := json.Unmarshal([]byte(r.want(200, "GET", "/v2/apps"+id, "")), &a); err != nil {
		r.t.Fatal(err)
	}
	return a
}

// settle waits until an app's deployments are done and so many tasks run.
func (r *rig) settle(id string, running int) []taskAnswer {
	r.t.Helper()
	var a appAnswer
	r.eventually(fmt.Sprintf("%s has %d tasks", id, running), func() bool {
		a = r.app(id)
		return a.App.TasksRunning == running && a.App.TasksStaged == 0 && len(a.App.Deployments) == 0
	})
	return a.App.Tasks
}

func ids(tasks []taskAnswer) []string {
	var out []string
	for _, t := range tasks {
		out = append(out, t.ID)
	}
	slices.Sort(out)
	return out
}

// appJSON is an app of the demo image; more is further fields.
func appJSON(id string, instances int, more string) string {
	return fmt.Sprintf(`{"id":%q,"instances":%d,"cpus":0.1,"mem":32,"container":{"type":"DOCKER","docker":{"image":%q,"network":"BRIDGE","portMappings":[{"containerPort":80,"hostPort":0}]}}%s}`, id, instances, image, more)
}
