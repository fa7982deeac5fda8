package gateway

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"marathon-gateway/app"
)

func demoApp(t *testing.T, body string) *app.App {
	t.Helper()
	f, err := app.ParseFields([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	a, err := app.New(f, "")
	if err != nil {
		t.Fatal(err)
	}
	a.Version, a.VersionInfo = "2", &app.VersionInfo{LastScalingAt: "2", LastConfigChangeAt: "2"}
	return a
}

// TestRolling replaces tasks step by step, under every strategy, and sees that
// the promises of upgradeStrategy hold at each step.
func TestRolling(t *testing.T) {
	for _, instances := range []int{0, 1, 2, 5, 10} {
		for _, least := range []float64{0, 0.5, 1} {
			for _, over := range []float64{0, 0.3, 1} {
				a := demoApp(t, appJSON("a", instances, fmt.Sprintf(`,"upgradeStrategy":{"minimumHealthCapacity":%g,"maximumOverCapacity":%g}`, least, over)))
				var tasks []*task
				for i := range instances {
					tasks = append(tasks, &task{id: fmt.Sprint("old", i), version: "1", state: taskRunning})
				}
				healthy := func(x *task) bool { return x.state == taskRunning }
				most := instances + max(int(over*float64(instances)), 1)
				done := false
				for step := range 100 {
					p := makePlan(a, tasks, healthy)
					tasks = slices.DeleteFunc(tasks, func(x *task) bool { return slices.Contains(p.kill, x) })
					for i := range p.launch {
						tasks = append(tasks, &task{id: fmt.Sprint("new", step, ".", i), version: "2", state: taskStaging})
					}
					up := 0
					for _, x := range tasks {
						if healthy(x) {
							up++
						}
					}
					if float64(up) < least*float64(instances) || len(tasks) > most {
						t.Fatalf("%d instances, %g, %g: step %d has %d tasks, %d healthy", instances, least, over, step, len(tasks), up)
					}
					if done = p.done; done {
						break
					}
					for _, x := range tasks { // one more starts
						if x.state == taskStaging {
							x.state = taskRunning
							break
						}
					}
				}
				if !done || len(tasks) != instances {
					t.Errorf("%d instances, %g, %g: not done, %d tasks", instances, least, over, len(tasks))
				}
			}
		}
	}
}

func TestScaleDownKeepsTheOldAndHealthy(t *testing.T) {
	a := demoApp(t, appJSON("a", 1, ""))
	tasks := []*task{{id: "1", version: "2", state: taskStaging}, {id: "2", version: "2", state: taskRunning}, {id: "3", version: "2", state: taskRunning}}
	p := makePlan(a, tasks, func(x *task) bool { return x.state == taskRunning })
	if len(p.kill) != 2 || p.kill[0].id != "1" || p.kill[1].id != "3" || p.launch != 0 {
		t.Errorf("%+v", p)
	}
}

func TestPorts(t *testing.T) {
	p := newPool(portRange{31000, 31002})
	now := time.Now()
	one := []app.HostPort{{}}
	taken := map[int]bool{}
	for want := 31000; want <= 31002; want++ {
		if got, err := p.take(one, taken, now); err != nil || got[0] != want {
			t.Fatalf("%v %v, want %d", got, err, want)
		}
	}
	if got, err := p.take(one, taken, now); err == nil {
		t.Fatalf("took %v of nothing", got)
	}
	// A port that was just freed is taken only if there is no other.
	delete(taken, 31000)
	delete(taken, 31002)
	p.release([]int{31000}, now)
	if got, err := p.take(one, taken, now); err != nil || got[0] != 31002 {
		t.Errorf("%v %v", got, err)
	}
	if got, err := p.take(one, taken, now); err != nil || got[0] != 31000 {
		t.Errorf("%v %v", got, err)
	}
	// Fixed ports of the task itself are not chosen again.
	got, err := p.take([]app.HostPort{{}, {HostPort: 31001}}, map[int]bool{}, now)
	if err != nil || got[1] != 31001 || got[0] == 31001 {
		t.Errorf("%v %v", got, err)
	}
}

func TestBackoff(t *testing.T) {
	a := demoApp(t, appJSON("a", 1, `,"backoffSeconds":2,"backoffFactor":3,"maxLaunchDelaySeconds":10`))
	b, now := newBackoff(), time.Now()
	for _, want := range []time.Duration{2, 6, 10, 10} {
		b.failed(a, now)
		b.failed(a, now) // at the same time
		if got := b.left(a, now); got != want*time.Second {
			t.Errorf("%s, want %ds", got, want)
		}
		now = now.Add(want*time.Second + 1)
		if got := b.left(a, now); got != 0 {
			t.Errorf("still %s", got)
		}
	}
	a.VersionInfo.LastConfigChangeAt = "3"
	if got := b.left(a, now.Add(-time.Second)); got != 0 {
		t.Errorf("a new configuration waits %s", got)
	}
}

func TestServiceOfATask(t *testing.T) {
	a := demoApp(t, `{"id":"/p/x","cmd":"echo $PORT0","cpus":0.5,"mem":1,"env":{"A":"{{.Node.ID}}","PORT":"mine"},"taskKillGracePeriodSeconds":7,
		"container":{"docker":{"image":"i:1"},"portMappings":[{"containerPort":80,"name":"web"},{"containerPort":53,"protocol":"udp"}],"volumes":[{"hostPath":"/h","containerPath":"/c","mode":"RO"}]},
		"networks":[{"mode":"container/bridge"}],"healthChecks":[{"protocol":"COMMAND","command":{"value":"true"}}]}`)
	s, err := (&launch{app: a, id: "p_x.0-1", image: "sha256:1", ports: []int{31000, 31001}, nodes: []string{"node.role==worker"}}).spec()
	if err != nil {
		t.Fatal(err)
	}
	c := s.TaskTemplate.ContainerSpec
	for _, want := range []string{`A={{"{{"}}.Node.ID}}`, "HOST={{.Node.Hostname}}", "PORT0=31000", "PORT1=31001", "PORT=mine", "PORTS=31000,31001", "PORT_80=31000", "PORT_WEB=31000", "MESOS_TASK_ID=p_x.0-1", "MARATHON_APP_ID=/p/x"} {
		if !slices.Contains(c.Env, want) {
			t.Errorf("no %s in %q", want, c.Env)
		}
	}
	if got := fmt.Sprint(s.Name, c.Command, c.StopGracePeriod, c.Mounts, c.Healthcheck.Test); got != "marathon-0-1[/bin/sh -c echo $PORT0] 7s [{bind /h /c true}] [CMD-SHELL true]" {
		t.Error(got)
	}
	if got := fmt.Sprint(s.EndpointSpec.Ports, s.TaskTemplate.Resources.Limits.MemoryBytes); got != "[{tcp 80 31000 host} {udp 53 31001 host}] 6291456" {
		t.Error(got)
	}
	host := demoApp(t, `{"id":"x","args":["a"],"container":{"docker":{"image":"i","network":"HOST"}},"ports":[0]}`)
	s, err = (&launch{app: host, id: "x.1", image: "i", ports: []int{31000}}).spec()
	if err != nil || len(s.TaskTemplate.Networks) != 1 || s.EndpointSpec != nil || s.TaskTemplate.ContainerSpec.Args[0] != "a" {
		t.Errorf("%+v %v", s, err)
	}
}
