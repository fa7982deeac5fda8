package gateway

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"marathon-gateway/app"
)

// taskView is a task as the API tells it.
type taskView struct {
	ID                 string          `json:"id"`
	AppID              string          `json:"appId"`
	Host               string          `json:"host"`
	IPAddresses        []ipAddress     `json:"ipAddresses"`
	Ports              []int           `json:"ports"`
	ServicePorts       []int           `json:"servicePorts"`
	SlaveID            *string         `json:"slaveId"`
	State              string          `json:"state"`
	StagedAt           string          `json:"stagedAt"`
	StartedAt          *string         `json:"startedAt"`
	Version            string          `json:"version"`
	LocalVolumes       []any           `json:"localVolumes"`
	HealthCheckResults []*healthResult `json:"healthCheckResults,omitempty"`
}

type ipAddress struct {
	IPAddress string `json:"ipAddress"`
	Protocol  string `json:"protocol"`
}

func (a *api) taskView(t *task) *taskView {
	v := &taskView{
		ID: t.id, AppID: t.appID, Host: t.host(), IPAddresses: []ipAddress{}, Ports: slices.Clone(t.ports), ServicePorts: slices.Clone(t.services),
		State: t.state, StagedAt: t.stagedAt, Version: t.version, LocalVolumes: []any{},
	}
	if v.Ports == nil {
		v.Ports = []int{}
	}
	if v.ServicePorts == nil {
		v.ServicePorts = []int{}
	}
	if t.node != nil {
		v.SlaveID = &t.node.ID
		// The host's, where the ports are: a bridge's own addresses are of no
		// use to anybody outside.
		v.IPAddresses = append(v.IPAddresses, ipAddress{t.address(), "IPv4"})
	}
	if !t.startedAt.IsZero() {
		at := t.startedAt.UTC().Format(timeFormat)
		v.StartedAt = &at
	}
	if of := a.scheduler.appOf(t); of != nil {
		v.HealthCheckResults = a.scheduler.health.of(t, of)
	}
	return v
}

// taskViews tells tasks that are not over.
func (a *api) taskViews(tasks []*task) []*taskView {
	out := []*taskView{}
	for _, t := range tasks {
		if !t.over() {
			out = append(out, a.taskView(t))
		}
	}
	return out
}

func (a *api) allTasks() (*answer, error) {
	tasks := a.scheduler.tasks("")
	wanted := append(a.query()["status"], a.query()["status[]"]...)
	if len(wanted) > 0 {
		tasks = slices.DeleteFunc(tasks, func(t *task) bool {
			status := "staging"
			if t.state == taskRunning {
				status = "running"
			}
			return !slices.Contains(wanted, status)
		})
	}
	if strings.HasPrefix(a.r.Header.Get("Accept"), "text/plain") {
		return a.endpoints(tasks)
	}
	return ok(map[string]any{"tasks": a.taskViews(tasks)})
}

// text is an answer that is no JSON.
type text string

// endpoints is Marathon's table for scripts: app, service port, host:port of
// each running task.
func (a *api) endpoints(tasks []*task) (*answer, error) {
	var b strings.Builder
	for _, r := range a.state.list() {
		for i, port := range r.App.Ports {
			b.WriteString(app.TaskPrefix(r.App.ID) + "\t" + strconv.Itoa(port) + "\t")
			for _, t := range tasks {
				if t.appID == r.App.ID && t.state == taskRunning && i < len(t.ports) {
					b.WriteString(t.host() + ":" + strconv.Itoa(t.ports[i]) + "\t")
				}
			}
			b.WriteString("\n")
		}
	}
	return ok(text(b.String()))
}

func (a *api) appTasks(id string) (*answer, error) {
	if a.state.app(id) == nil {
		return nil, noApp(id)
	}
	return ok(map[string]any{"tasks": a.taskViews(a.scheduler.tasks(id))})
}

// killAll ends tasks of apps; with scale the apps want so many fewer.
func (a *api) killAll(tasks []*task) (*deployment, error) {
	var last *deployment
	if a.flag("scale") {
		count := map[string]int{}
		for _, t := range tasks {
			count[t.appID]++
		}
		for id, n := range count {
			d, _, err := a.change(wish{id: id, next: func(current *record) (*app.App, error) {
				if current == nil {
					return nil, noApp(id)
				}
				left := strconv.Itoa(max(0, current.App.Instances-n))
				return current.App.Update(app.Fields{"instances": json.RawMessage(left)})
			}})
			if err != nil {
				return nil, err
			}
			last = d
		}
	}
	return last, a.scheduler.kill(a.r.Context(), tasks, "somebody asked for it")
}

func (a *api) killed(tasks []*task) (*answer, error) {
	views := a.taskViews(tasks)
	d, err := a.killAll(tasks)
	if err != nil {
		return nil, err
	}
	if d != nil {
		return started(d)
	}
	return ok(map[string]any{"tasks": views})
}

func (a *api) killAppTasks(id string) (*answer, error) {
	if a.state.app(id) == nil {
		return nil, noApp(id)
	}
	tasks := a.scheduler.tasks(id)
	if host := a.query().Get("host"); host != "" && host != "*" {
		tasks = slices.DeleteFunc(tasks, func(t *task) bool { return t.host() != host && t.address() != host })
	}
	return a.killed(tasks)
}

func (a *api) killTask(id, taskID string) (*answer, error) {
	if a.state.app(id) == nil {
		return nil, noApp(id)
	}
	for _, t := range a.scheduler.tasks(id) {
		if t.id != taskID {
			continue
		}
		v := a.taskView(t)
		d, err := a.killAll([]*task{t})
		if err != nil {
			return nil, err
		}
		if d != nil {
			return started(d)
		}
		return ok(map[string]any{"task": v})
	}
	return nil, notFound("Task '%s' does not exist", taskID)
}

func (a *api) deleteTasks() (*answer, error) {
	data, err := a.body()
	if err != nil {
		return nil, err
	}
	var in struct{ IDs []string }
	if err := json.Unmarshal(data, &in); err != nil {
		return nil, &app.SyntaxError{Details: []app.Violation{{Path: "/ids", Errors: []string{err.Error()}}}}
	}
	var tasks []*task
	for _, t := range a.scheduler.tasks("") {
		if slices.Contains(in.IDs, t.id) {
			tasks = append(tasks, t)
		}
	}
	if len(in.IDs) == 0 {
		return nil, &apiError{status: http.StatusUnprocessableEntity, Message: "Object is not valid", Details: []app.Violation{{Path: "/ids", Errors: []string{"must not be empty"}}}}
	}
	return a.killed(tasks)
}
