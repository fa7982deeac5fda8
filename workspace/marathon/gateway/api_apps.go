package gateway

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"marathon-gateway/app"
)

// appView is an app with how it is.
type appView struct {
	*app.App
	TasksStaged    int             `json:"tasksStaged"`
	TasksRunning   int             `json:"tasksRunning"`
	TasksHealthy   int             `json:"tasksHealthy"`
	TasksUnhealthy int             `json:"tasksUnhealthy"`
	Deployments    []deploymentRef `json:"deployments"`
	Tasks          []*taskView     `json:"tasks,omitzero"`
	LastFailure    *failure        `json:"lastTaskFailure,omitempty"`
}

func (a *api) view(r *record, tasks bool) *appView {
	v := &appView{App: r.App, Deployments: []deploymentRef{}, LastFailure: r.LastFailure}
	if tasks {
		v.Tasks = []*taskView{}
	}
	for _, d := range a.state.deploymentList() {
		if d.AppID == r.App.ID {
			v.Deployments = append(v.Deployments, deploymentRef{d.ID})
		}
	}
	for _, t := range a.scheduler.tasks(r.App.ID) {
		if t.over() {
			continue
		}
		tv := a.taskView(t)
		switch {
		case t.state != taskRunning:
			v.TasksStaged++
		default:
			v.TasksRunning++
			if len(r.App.HealthChecks) == 0 {
				break
			}
			if slices.ContainsFunc(tv.HealthCheckResults, func(h *healthResult) bool { return !h.Alive }) {
				v.TasksUnhealthy++
			} else if len(tv.HealthCheckResults) == len(r.App.HealthChecks) {
				v.TasksHealthy++
			}
		}
		if tasks {
			v.Tasks = append(v.Tasks, tv)
		}
	}
	return v
}

func (a *api) listApps() (*answer, error) {
	q := a.query()
	keep, err := selector(q.Get("label"))
	if err != nil {
		return nil, err
	}
	tasks := slices.ContainsFunc(q["embed"], func(e string) bool { return e == "apps.tasks" || e == "app.tasks" })
	out := []*appView{}
	for _, r := range a.state.list() {
		cmd := ""
		if r.App.Cmd != nil {
			cmd = *r.App.Cmd
		}
		if strings.Contains(r.App.ID, q.Get("id")) && strings.Contains(cmd, q.Get("cmd")) && keep(r.App.Labels) {
			out = append(out, a.view(r, tasks))
		}
	}
	return ok(map[string]any{"apps": out})
}

// selector reads Marathon's label selectors: name, name==value, name!=value,
// name in (a, b), name notin (a, b), joined by commas.
func selector(text string) (func(map[string]string) bool, error) {
	var all []func(map[string]string) bool
	depth, start := 0, 0
	var parts []string
	for i, r := range text + "," {
		switch {
		case r == '(':
			depth++
		case r == ')':
			depth--
		case r == ',' && depth <= 0:
			parts = append(parts, strings.TrimSpace((text + ",")[start:i]))
			start = i + 1
		}
	}
	if depth != 0 {
		return nil, &apiError{status: http.StatusBadRequest, Message: fmt.Sprintf("Parsing error: %q has a parenthesis too many", text)}
	}
	for _, p := range parts {
		if p == "" {
			continue
		}
		all = append(all, requirement(p))
		if all[len(all)-1] == nil {
			return nil, &apiError{status: http.StatusBadRequest, Message: fmt.Sprintf("Parsing error: %q is no label selector", p)}
		}
	}
	return func(labels map[string]string) bool {
		return !slices.ContainsFunc(all, func(f func(map[string]string) bool) bool { return !f(labels) })
	}, nil
}

func requirement(p string) func(map[string]string) bool {
	if k, v, ok := strings.Cut(p, "=="); ok {
		k, v = strings.TrimSpace(k), strings.TrimSpace(v)
		return func(l map[string]string) bool { got, has := l[k]; return has && got == v }
	}
	if k, v, ok := strings.Cut(p, "!="); ok {
		k, v = strings.TrimSpace(k), strings.TrimSpace(v)
		return func(l map[string]string) bool { return l[k] != v }
	}
	words := strings.Fields(p)
	switch {
	case len(words) == 1:
		return func(l map[string]string) bool { _, has := l[p]; return has }
	case words[1] == "in" || words[1] == "notin":
		list := strings.TrimSpace(p[strings.Index(p, words[1])+len(words[1]):])
		if !strings.HasPrefix(list, "(") || !strings.HasSuffix(list, ")") {
			return nil
		}
		var values []string
		for v := range strings.SplitSeq(list[1:len(list)-1], ",") {
			values = append(values, strings.TrimSpace(v))
		}
		return func(l map[string]string) bool {
			got, has := l[words[0]]
			return has && slices.Contains(values, got) == (words[1] == "in")
		}
	}
	return nil
}

func (a *api) createApp() (*answer, error) {
	f, err := a.fields()
	if err != nil {
		return nil, err
	}
	next, err := app.New(f, "")
	if err != nil {
		return nil, err
	}
	exists := &apiError{status: http.StatusConflict, Message: fmt.Sprintf("An app with id [%s] already exists.", next.ID)}
	if a.state.app(next.ID) != nil {
		return nil, exists
	}
	d, made, err := a.change(wish{id: next.ID, next: func(current *record) (*app.App, error) {
		if current != nil {
			return nil, exists
		}
		return next, nil
	}})
	if err != nil {
		return nil, err
	}
	a.w.Header().Set("Location", "/v2/apps"+next.ID)
	a.w.Header().Set("Marathon-Deployment-Id", d.ID)
	v := a.view(&record{App: made}, true)
	return &answer{http.StatusCreated, v}, nil
}

func (a *api) getApp(id string) (*answer, error) {
	r := a.state.app(id)
	if r == nil {
		return nil, noApp(id)
	}
	embed := a.query()["embed"]
	tasks := len(embed) == 0 || slices.Contains(embed, "app.tasks") || slices.Contains(embed, "apps.tasks")
	return ok(map[string]any{"app": a.view(r, tasks)})
}

func (a *api) putApp(id string) (*answer, error) {
	f, err := a.fields()
	if err != nil {
		return nil, err
	}
	if a.r.Method == http.MethodPatch && a.state.app(id) == nil {
		return nil, noApp(id)
	}
	whole := a.r.Method == http.MethodPut && a.query().Get("partialUpdate") == "false"
	existed := true
	d, _, err := a.change(wish{id: id, next: func(current *record) (*app.App, error) {
		if _, ok := f["version"]; ok {
			return a.versionOf(id, current, f)
		}
		if existed = current != nil; !existed || whole {
			return app.New(f, id)
		}
		return current.App.Update(f)
	}})
	if err != nil {
		return nil, err
	}
	a.w.Header().Set("Marathon-Deployment-Id", d.ID)
	ans, err := started(d)
	if !existed {
		ans.status = http.StatusCreated
		a.w.Header().Set("Location", "/v2/apps"+id)
	}
	return ans, err
}

// versionOf is an app as an earlier version of it was. state.mu is held.
func (a *api) versionOf(id string, current *record, f app.Fields) (*app.App, error) {
	for name := range f {
		if name != "version" && name != "id" {
			return nil, &app.InvalidError{Details: []app.Violation{{Path: "/version", Errors: []string{"The 'version' field may only be combined with the 'id' field."}}}}
		}
	}
	version := strings.Trim(string(f["version"]), `"`)
	for _, v := range a.state.versions[id] {
		if current != nil && v.Version == version {
			return v.Update(app.Fields{})
		}
	}
	return nil, notFound("App '%s' does not exist in version %s", id, version)
}

func (a *api) deleteApp(id string) (*answer, error) {
	d, _, err := a.change(wish{id: id, next: func(current *record) (*app.App, error) {
		if current == nil {
			return nil, noApp(id)
		}
		return nil, nil
	}})
	if err != nil {
		return nil, err
	}
	return started(d)
}

func (a *api) restartApp(id string) (*answer, error) {
	d, _, err := a.change(wish{id: id, restart: true, next: func(current *record) (*app.App, error) {
		if current == nil {
			return nil, noApp(id)
		}
		return current.App.Update(app.Fields{})
	}})
	if err != nil {
		return nil, err
	}
	return started(d)
}

func (a *api) listVersions(id string) (*answer, error) {
	if a.state.app(id) == nil {
		return nil, noApp(id)
	}
	out := []string{}
	for _, v := range a.state.history(id) {
		out = append(out, v.Version)
	}
	return ok(map[string]any{"versions": out})
}

func (a *api) getVersion(id, version string) (*answer, error) {
	if a.state.app(id) == nil {
		return nil, noApp(id)
	}
	// Any way of writing the time will do.
	if t, err := time.Parse(time.RFC3339Nano, version); err == nil {
		version = t.UTC().Format(timeFormat)
	}
	for _, v := range a.state.history(id) {
		if v.Version == version {
			return ok(v)
		}
	}
	return nil, notFound("App '%s' does not exist in version %s", id, version)
}
