package clienttest

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	marathon "github.com/gambol99/go-marathon"
)

func demo(id string) *marathon.Application {
	a := marathon.NewDockerApplication().Name(id).CPU(0.1).Memory(32).Count(1)
	a.Container.Docker.Container(image).Bridged().Expose(80)
	return a
}

func apiError(t *testing.T, err error, code int) {
	t.Helper()
	var e *marathon.APIError
	if !errors.As(err, &e) || e.ErrCode != code {
		t.Errorf("%v, want the client's error %d", err, code)
	}
}

const patience = 30 * time.Second

// TestClient is what users of go-marathon do.
func TestClient(t *testing.T) {
	c := newCluster(t)
	c.ready()
	m := c.client(c.gateways...)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if pong, err := m.Ping(); err != nil || !pong {
		t.Errorf("ping: %v %v", pong, err)
	}
	info, err := m.Info()
	must(err)
	if info.Name != "marathon-gateway" || info.Leader == "" {
		t.Errorf("info: %+v", info)
	}
	made, err := m.CreateApplication(demo("/prod/nginx"))
	must(err)
	if made.ID != "/prod/nginx" || made.Version == "" || len(made.DeploymentIDs()) != 1 {
		t.Errorf("made: %+v", made)
	}
	must(m.WaitOnDeployment(made.DeploymentIDs()[0].DeploymentID, patience))
	must(m.WaitOnApplication("/prod/nginx", patience))
	_, err = m.CreateApplication(demo("/prod/nginx"))
	apiError(t, err, marathon.ErrCodeDuplicateID)
	_, err = m.CreateApplication(demo("/NO"))
	apiError(t, err, marathon.ErrCodeInvalidBean)
	_, err = m.Application("/nothing")
	apiError(t, err, marathon.ErrCodeNotFound)

	app, err := m.Application("/prod/nginx")
	must(err)
	task := app.Tasks[0]
	if app.TasksRunning != 1 || len(app.Tasks) != 1 || !strings.HasPrefix(task.ID, "prod_nginx.") || len(task.Ports) != 1 || len(task.ServicePorts) != 1 ||
		task.StagedAt == "" || task.StartedAt == "" || task.SlaveID == "" || task.State != "TASK_RUNNING" || task.Version != app.Version || len(task.IPAddresses) != 1 {
		t.Errorf("app: %+v, task: %+v", app, task)
	}
	if _, page := get(fmt.Sprintf("http://%s:%d/", task.IPAddresses[0].IPAddress, task.Ports[0])); !strings.Contains(page, "Hello brave new world!") {
		t.Errorf("page: %s", page)
	}
	if okay, err := m.ApplicationOK("/prod/nginx"); err != nil || !okay {
		t.Errorf("not OK: %v", err)
	}
	endpoints, err := m.TaskEndpoints("/prod/nginx", 80, false)
	must(err)
	if len(endpoints) != 1 || endpoints[0] != fmt.Sprintf("%s:%d", task.Host, task.Ports[0]) {
		t.Errorf("endpoints: %v", endpoints)
	}

	d, err := m.ScaleApplicationInstances("/prod/nginx", 3, false)
	must(err)
	must(m.WaitOnDeployment(d.DeploymentID, patience))
	tasks, err := m.Tasks("/prod/nginx")
	must(err)
	if len(tasks.Tasks) != 3 {
		t.Errorf("tasks: %+v", tasks)
	}
	// What was read can be sent back: nothing is restarted.
	app, err = m.Application("/prod/nginx")
	must(err)
	back := demo("/prod/nginx").Count(3)
	back.AddEnv("GREETING", "hello")
	d, err = m.UpdateApplication(back, false)
	must(err)
	must(m.WaitOnDeployment(d.DeploymentID, patience))
	versions, err := m.ApplicationVersions("/prod/nginx")
	must(err)
	if len(versions.Versions) != 3 {
		t.Errorf("versions: %v", versions.Versions)
	}
	old, err := m.ApplicationByVersion("/prod/nginx", app.Version)
	must(err)
	if old.Version != app.Version || old.Env != nil && len(*old.Env) != 0 {
		t.Errorf("old version: %+v", old)
	}
	d, err = m.SetApplicationVersion("/prod/nginx", &marathon.ApplicationVersion{Version: app.Version})
	must(err)
	must(m.WaitOnDeployment(d.DeploymentID, patience))
	d, err = m.RestartApplication("/prod/nginx", false)
	must(err)
	must(m.WaitOnDeployment(d.DeploymentID, patience))

	all, err := m.AllTasks(&marathon.AllTasksOpts{Status: "running"})
	must(err)
	if len(all.Tasks) != 3 {
		t.Errorf("all tasks: %+v", all)
	}
	if _, err := m.KillTask(all.Tasks[0].ID, nil); err != nil {
		t.Error(err)
	}
	must(m.WaitOnApplication("/prod/nginx", patience))
	if err := m.KillTasks([]string{all.Tasks[1].ID}, &marathon.KillTaskOpts{Scale: true}); err != nil {
		t.Error(err)
	}
	c.eventually("two instances are left", func() bool {
		a, err := m.Application("/prod/nginx")
		return err == nil && *a.Instances == 2 && a.TasksRunning == 2 && len(a.Deployments) == 0
	})
	list, err := m.Applications(url.Values{"embed": {"apps.tasks"}})
	must(err)
	if len(list.Apps) != 1 || len(list.Apps[0].Tasks) != 2 {
		t.Errorf("apps: %+v", list)
	}
	groups, err := m.Groups()
	must(err)
	if len(groups.Groups) != 1 || groups.Groups[0].ID != "/prod" {
		t.Errorf("groups: %+v", groups)
	}

	// An app that cannot start holds its lock; force breaks it.
	bad := demo("/bad")
	bad.Container.Docker.Container("no/such:1")
	_, err = m.CreateApplication(bad)
	must(err)
	_, err = m.ScaleApplicationInstances("/bad", 2, false)
	apiError(t, err, marathon.ErrCodeAppLocked)
	deployments, err := m.Deployments()
	must(err)
	if len(deployments) != 1 || deployments[0].AffectedApps[0] != "/bad" || deployments[0].Steps[0][0].Action != "StartApplication" {
		t.Errorf("deployments: %+v", deployments)
	}
	queue, err := m.Queue()
	must(err)
	if len(queue.Items) != 1 || queue.Items[0].Application.ID != "/bad" {
		t.Errorf("queue: %+v", queue)
	}
	must(m.DeleteQueueDelay("/bad"))
	if _, err := m.DeleteDeployment(deployments[0].ID, false); err != nil {
		t.Error(err)
	}
	d, err = m.DeleteApplication("/prod/nginx", false)
	must(err)
	must(m.WaitOnDeployment(d.DeploymentID, patience))
	c.eventually("nothing runs", func() bool { return c.engines["s0"].Running()+c.engines["s1"].Running() == 0 })
}

func ok(url string) bool {
	code, _ := get(url)
	return code == 200
}

// TestLeaderDies kills the leader: another takes its place, with all apps, and
// every gateway answers as before.
func TestLeaderDies(t *testing.T) {
	c := newCluster(t)
	c.ready()
	first := c.leader()
	m := c.client(first)
	if _, err := m.CreateApplication(demo("/nginx").Count(2)); err != nil {
		t.Fatal(err)
	}
	if err := m.WaitOnApplication("/nginx", patience); err != nil {
		t.Fatal(err)
	}
	before, err := m.Application("/nginx")
	if err != nil {
		t.Fatal(err)
	}
	// Followers pass requests on.
	for _, p := range c.gateways {
		if code, body := get(p.url + "/v2/apps/nginx"); code != 200 || !strings.Contains(body, before.Tasks[0].ID) {
			t.Errorf("through %s: %d %s", p.name, code, body)
		}
	}
	began := time.Now()
	first.kill()
	var rest []*process
	for _, p := range c.gateways {
		if p != first {
			rest = append(rest, p)
			if code, body := get(p.url + "/ping"); code != 200 || body != "pong" {
				t.Errorf("ping of %s: %d %s", p.name, code, body)
			}
		}
	}
	for _, p := range rest {
		c.eventually(p.name+" answers", func() bool {
			_, body := get(p.url + "/v2/apps/nginx")
			return strings.Contains(body, before.Tasks[0].ID) && strings.Contains(body, before.Tasks[1].ID)
		})
	}
	t.Logf("answering again after %s", time.Since(began).Round(100*time.Millisecond))
	after, err := c.client(rest...).Application("/nginx")
	if err != nil || after.Version != before.Version || after.TasksRunning != 2 {
		t.Errorf("%+v %v", after, err)
	}
	d, err := c.client(rest...).ScaleApplicationInstances("/nginx", 3, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.client(rest...).WaitOnDeployment(d.DeploymentID, patience); err != nil {
		t.Error(err)
	}
	// The dead one comes back and follows.
	c.start(first)
	c.eventually("the first follows", func() bool { _, b := get(first.url + "/v2/apps/nginx"); return strings.Contains(b, before.Tasks[0].ID) })

	// Abdication.
	second := c.leader()
	if _, err := c.client(first).AbdicateLeader(); err != nil {
		t.Error(err)
	}
	c.eventually("another leads", func() bool { l := c.leader(); return l != nil && l != second && ok(l.url+"/v2/apps/nginx") })

	// Without ZooKeeper there is no leader, and health checks still pass.
	if err := c.zk.Stop(); err != nil {
		t.Fatal(err)
	}
	c.eventually("no leader is known", func() bool {
		for _, p := range c.gateways {
			if code, body := get(p.url + "/v2/apps"); code != 503 || !strings.HasPrefix(body, `{"message":`) || !ok(p.url+"/ping") {
				return false
			}
		}
		return true
	})
	if n := c.engines["s0"].Running() + c.engines["s1"].Running(); n != 3 {
		t.Errorf("%d tasks run without ZooKeeper, want 3", n)
	}
	if err := c.zk.Restart(); err != nil {
		t.Fatal(err)
	}
	c.eventually("all is as before", func() bool {
		_, b := get(c.gateways[0].url + "/v2/apps/nginx")
		return strings.Contains(b, before.Tasks[0].ID) && strings.Contains(b, `"tasksRunning":3`)
	})
}
