package gateway

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"marathon-gateway/fakedocker"
)

func TestLifeOfAnApp(t *testing.T) {
	r := newRig(t, 11, 3, 2)
	r.want(201, "POST", "/v2/apps", appJSON("nginx", 1, ""))
	first := r.settle("/nginx", 1)
	if first[0].Host[0] != 's' || first[0].Ports[0] < 31000 || first[0].Ports[0] > 31019 {
		t.Errorf("%+v", first)
	}
	res, err := http.Get(fmt.Sprintf("http://127.0.11.%d:%d/", 4+int(first[0].Host[1]-'0'), first[0].Ports[0]))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if page, err := io.ReadAll(res.Body); err != nil || string(page) != fakedocker.Page {
		t.Errorf("%q %v", page, err)
	}
	// Scaling leaves tasks alone.
	r.want(200, "PUT", "/v2/apps/nginx", `{"instances":4}`)
	four := r.settle("/nginx", 4)
	if !slices.Contains(ids(four), first[0].ID) {
		t.Error("scaling replaced a task")
	}
	ports := map[int]bool{}
	for _, x := range four {
		ports[x.Ports[0]] = true
	}
	if len(ports) != 4 {
		t.Errorf("ports are there twice: %+v", four)
	}
	// A new leader finds everything.
	r.stop()
	if code, _ := r.call("GET", "/v2/apps", ""); code != 503 {
		t.Errorf("without a leader: %d", code)
	}
	r.lead()
	r.eventually("the new leader sees the swarm", func() bool { return r.app("/nginx").App.TasksRunning == 4 })
	if got := ids(r.settle("/nginx", 4)); !slices.Equal(got, ids(four)) {
		t.Errorf("a new leader replaced tasks: %v, were %v", got, ids(four))
	}
	// A change of the configuration replaces them all.
	r.want(200, "PUT", "/v2/apps/nginx", `{"env":{"A":"b"}}`)
	for _, x := range r.settle("/nginx", 4) {
		if slices.Contains(ids(four), x.ID) {
			t.Errorf("%s is still there", x.ID)
		}
	}
	r.want(200, "PUT", "/v2/apps/nginx", `{"instances":1}`)
	r.settle("/nginx", 1)
	r.want(200, "DELETE", "/v2/apps/nginx", "")
	r.want(404, "GET", "/v2/apps/nginx", "")
	r.eventually("the tasks are gone", func() bool { return r.engines["s0"].Running()+r.engines["s1"].Running() == 0 })
	r.eventually("the deployment ends", func() bool { _, b := r.call("GET", "/v2/deployments", ""); return b == "[]" })
	if len(r.docs.docs) != 0 {
		t.Errorf("left behind: %v", r.docs.docs)
	}
}

func TestFailures(t *testing.T) {
	r := newRig(t, 12, 1, 2)
	r.want(201, "POST", "/v2/apps", appJSON("/a", 2, `,"backoffSeconds":0`))
	before := r.settle("/a", 2)
	// A node that dies: its tasks are replaced on the other.
	r.engines["s0"].SetDown(true)
	r.eventually("the tasks are on s1", func() bool {
		a := r.app("/a").App
		return a.TasksRunning == 2 && a.Tasks[0].Host == "s1" && a.Tasks[1].Host == "s1"
	})
	if f := r.app("/a").App.LastTaskFailure; f == nil || f.State != taskLost || f.Host != "s0" {
		t.Errorf("last failure: %+v", f)
	}
	r.engines["s0"].SetDown(false)
	// Tasks that fail are new tasks.
	r.engines["s1"].Break()
	r.eventually("new tasks run", func() bool {
		a := r.app("/a").App
		return a.TasksRunning == 2 && !slices.ContainsFunc(a.Tasks, func(x taskAnswer) bool { return slices.Contains(ids(before), x.ID) })
	})
	// A new node of an old name takes its place in the swarm.
	r.engines["s0"].Recreate()
	r.eventually("s0 joins again", r.engines["s0"].Member)
	r.want(200, "PUT", "/v2/apps/a", `{"instances":6}`)
	r.eventually("s0 runs tasks again", func() bool { return r.engines["s0"].Running() > 0 })
	// Killed by hand.
	one := r.settle("/a", 6)[0].ID
	r.want(200, "DELETE", "/v2/apps/a/tasks/"+one, "")
	r.eventually("it is replaced", func() bool {
		a := r.app("/a").App
		return a.TasksRunning == 6 && !slices.Contains(ids(a.Tasks), one)
	})
	r.want(200, "DELETE", "/v2/apps/a/tasks?scale=true&host=s1", "")
	r.eventually("the app is smaller", func() bool { a := r.app("/a").App; return a.Instances < 6 && a.TasksRunning == a.Instances })
}

func TestBackoffAndQueue(t *testing.T) {
	r := newRig(t, 13, 1, 1)
	bad := strings.Replace(appJSON("bad", 1, `,"backoffSeconds":3600,"maxLaunchDelaySeconds":3600`), image, "no/such:1", 1)
	r.want(201, "POST", "/v2/apps", bad)
	r.eventually("it waits", func() bool {
		_, q := r.call("GET", "/v2/queue", "")
		return strings.Contains(q, `"id":"/bad"`) && strings.Contains(q, `"overdue":false`)
	})
	if f := r.app("/bad").App.LastTaskFailure; f == nil || !strings.Contains(f.Message, "No such image") {
		t.Errorf("last failure: %+v", f)
	}
	r.want(409, "PUT", "/v2/apps/bad", `{"instances":2}`)
	r.want(204, "DELETE", "/v2/queue/bad/delay", "")
	r.engines["s0"].Load("no/such:1", "sha256:2")
	r.want(200, "PUT", "/v2/apps/bad?force=true", `{"cpus":0.2}`)
	r.settle("/bad", 1)
}

func TestUnique(t *testing.T) {
	r := newRig(t, 14, 1, 3)
	r.want(201, "POST", "/v2/apps", appJSON("u", 3, `,"constraints":[["hostname","UNIQUE"]]`))
	hosts := map[string]bool{}
	for _, x := range r.settle("/u", 3) {
		hosts[x.Host] = true
	}
	if len(hosts) != 3 {
		t.Errorf("hosts: %v", hosts)
	}
	// One more than there are hosts waits.
	r.want(200, "PUT", "/v2/apps/u", `{"instances":4}`)
	r.eventually("it is queued", func() bool { _, q := r.call("GET", "/v2/queue", ""); return strings.Contains(q, `"count":1`) })
}

func TestFixedPortsAndExhaustion(t *testing.T) {
	r := newRig(t, 15, 1, 2)
	fixed := strings.Replace(appJSON("fixed", 2, ""), `"hostPort":0`, `"hostPort":31000`, 1)
	r.want(201, "POST", "/v2/apps", fixed)
	tasks := r.settle("/fixed", 2)
	if tasks[0].Ports[0] != 31000 || tasks[1].Ports[0] != 31000 || tasks[0].Host == tasks[1].Host {
		t.Errorf("%+v", tasks)
	}
	r.want(201, "POST", "/v2/apps", appJSON("many", 25, ""))
	r.eventually("all ports are taken", func() bool { return r.app("/many").App.TasksRunning == 19 })
}

func TestHealthChecks(t *testing.T) {
	r := newRig(t, 16, 1, 1)
	good := `,"healthChecks":[{"path":"/"},{"protocol":"TCP"},{"protocol":"COMMAND","command":{"value":"true"}}]`
	r.want(201, "POST", "/v2/apps", appJSON("good", 1, good))
	r.settle("/good", 1)
	if a := r.app("/good").App; a.TasksHealthy != 1 || a.TasksUnhealthy != 0 {
		t.Errorf("%+v", a)
	}
	bad := `,"backoffSeconds":0,"healthChecks":[{"protocol":"TCP","port":1,"gracePeriodSeconds":0,"intervalSeconds":1,"timeoutSeconds":1,"maxConsecutiveFailures":1}]`
	r.want(201, "POST", "/v2/apps", appJSON("bad", 1, bad))
	r.eventually("it is replaced", func() bool {
		f := r.app("/bad").App.LastTaskFailure
		return f != nil && strings.Contains(f.Message, "health check 0 failed 1 times")
	})
	if a := r.app("/bad").App; len(a.Deployments) != 1 {
		t.Error("the deployment of an app that is never healthy is finished")
	}
}

func TestRollback(t *testing.T) {
	r := newRig(t, 17, 1, 1)
	r.want(201, "POST", "/v2/apps", appJSON("a", 1, ""))
	good := ids(r.settle("/a", 1))
	r.want(200, "PUT", "/v2/apps/a", `{"container":{"type":"DOCKER","docker":{"image":"no/such:1"}},"instances":1}`)
	d := r.app("/a").App.Deployments
	if len(d) != 1 {
		t.Fatalf("deployments: %+v", d)
	}
	// The old task stays as long as no new one is healthy.
	r.eventually("the new one fails", func() bool { return r.app("/a").App.LastTaskFailure != nil })
	if got := ids(r.app("/a").App.Tasks); !slices.Contains(got, good[0]) {
		t.Errorf("tasks: %v", got)
	}
	r.want(200, "DELETE", "/v2/deployments/"+d[0].ID, "")
	r.settle("/a", 1)
	if a := r.want(200, "GET", "/v2/apps/a", ""); !strings.Contains(a, image) {
		t.Error(a)
	}
}

func TestLostWrite(t *testing.T) {
	r := newRig(t, 18, 1, 1)
	r.docs.mu.Lock()
	r.docs.err = errors.New("connection lost")
	r.docs.mu.Unlock()
	r.want(503, "POST", "/v2/apps", appJSON("a", 1, ""))
	r.eventually("it steps down", func() bool { return r.gateway.leads() == nil })
}
