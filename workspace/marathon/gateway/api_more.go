package gateway

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"marathon-gateway/app"
)

// deploymentView is a deployment as the API tells it: always one step.
type deploymentView struct {
	ID             string          `json:"id"`
	Version        string          `json:"version"`
	AffectedApps   []string        `json:"affectedApps"`
	AffectedPods   []string        `json:"affectedPods"`
	Steps          []step          `json:"steps"`
	CurrentActions []currentAction `json:"currentActions"`
	CurrentStep    int             `json:"currentStep"`
	TotalSteps     int             `json:"totalSteps"`
}

type step struct {
	Actions []action `json:"actions"`
}

type action struct {
	Action string `json:"action"`
	App    string `json:"app"`
}

type currentAction struct {
	Action                string `json:"action"`
	App                   string `json:"app"`
	ReadinessCheckResults []any  `json:"readinessCheckResults"`
}

func (a *api) listDeployments() (*answer, error) {
	out := []deploymentView{}
	for _, d := range a.state.deploymentList() {
		out = append(out, deploymentView{
			ID: d.ID, Version: d.Version, AffectedApps: []string{d.AppID}, AffectedPods: []string{},
			Steps:          []step{{[]action{{d.Action, d.AppID}}}},
			CurrentActions: []currentAction{{d.Action, d.AppID, []any{}}},
			CurrentStep:    1, TotalSteps: 1,
		})
	}
	return ok(out)
}

// deleteDeployment gives a deployment up: what it changed is changed back, by
// another deployment; with force, everything is left as it is.
func (a *api) deleteDeployment(id string) (*answer, error) {
	all := a.state.deploymentList()
	i := slices.IndexFunc(all, func(d *deployment) bool { return d.ID == id })
	if i < 0 {
		return nil, notFound("DeploymentPlan %s does not exist", id)
	}
	d := all[i]
	if a.flag("force") {
		if err := a.state.finish(a.r.Context(), id); err != nil {
			return nil, err
		}
		return &answer{http.StatusAccepted, map[string]string{"version": d.Version, "deploymentId": d.ID}}, nil
	}
	back, _, err := a.change(wish{id: d.AppID, force: true, next: func(*record) (*app.App, error) {
		if d.Original == nil {
			return nil, nil
		}
		return d.Original.Update(app.Fields{})
	}})
	if err != nil {
		return nil, err
	}
	return started(back)
}

type queueItem struct {
	App     *app.App  `json:"app"`
	Count   int       `json:"count"`
	Delay   delayView `json:"delay"`
	Since   string    `json:"since"`
	Message string    `json:"message,omitempty"` // what the swarm says, which Marathon has no place for
}

type delayView struct {
	TimeLeftSeconds int  `json:"timeLeftSeconds"`
	Overdue         bool `json:"overdue"`
}

// queue tells which apps have fewer tasks than they want, and how long they
// have to wait because of tasks that failed.
func (a *api) queue() (*answer, error) {
	out := []queueItem{}
	for _, r := range a.state.list() {
		running, message := 0, ""
		for _, t := range a.scheduler.tasks(r.App.ID) {
			if t.state == taskRunning {
				running++
			} else {
				message = t.message
			}
		}
		if running >= r.App.Instances {
			continue
		}
		left := a.scheduler.wait(r.App, time.Now())
		out = append(out, queueItem{
			App: r.App, Count: r.App.Instances - running, Since: r.App.VersionInfo.LastScalingAt, Message: message,
			Delay: delayView{TimeLeftSeconds: int(left.Seconds()), Overdue: left == 0},
		})
	}
	return ok(map[string]any{"queue": out})
}

func (a *api) resetDelay(id string) (*answer, error) {
	if a.state.app(id) == nil {
		return nil, notFound("Application %s not found in tasks queue.", id)
	}
	a.scheduler.resetWait(id)
	return &answer{http.StatusNoContent, nil}, nil
}

// groupView is a folder of apps.
type groupView struct {
	ID           string       `json:"id"`
	Apps         []*appView   `json:"apps"`
	Groups       []*groupView `json:"groups"`
	Pods         []any        `json:"pods"`
	Dependencies []string     `json:"dependencies"`
	Version      string       `json:"version"`
}

// group is made up from the apps' ids: groups have nothing of their own here.
func (a *api) group(id string) (*answer, error) {
	g := a.gather(strings.TrimSuffix(id, "/"), a.state.list())
	if id != "/" && len(g.Apps)+len(g.Groups) == 0 {
		return nil, notFound("Group '%s' does not exist", id)
	}
	return ok(g)
}

// gather makes the group whose id is prefix, or / if that is empty.
func (a *api) gather(prefix string, all []*record) *groupView {
	g := &groupView{ID: prefix, Apps: []*appView{}, Groups: []*groupView{}, Pods: []any{}, Dependencies: []string{}, Version: a.gateway.started.UTC().Format(timeFormat)}
	if prefix == "" {
		g.ID = "/"
	}
	var below []string
	for _, r := range all {
		rest, inside := strings.CutPrefix(r.App.ID, prefix+"/")
		if !inside {
			continue
		}
		g.Version = max(g.Version, r.App.Version)
		if name, _, deeper := strings.Cut(rest, "/"); !deeper {
			g.Apps = append(g.Apps, a.view(r, false))
		} else if !slices.Contains(below, name) {
			below = append(below, name)
		}
	}
	for _, name := range below {
		g.Groups = append(g.Groups, a.gather(prefix+"/"+name, all))
	}
	return g
}
