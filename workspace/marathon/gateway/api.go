package gateway

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"marathon-gateway/app"
)

// api is one request that the leader answers.
type api struct {
	*leader
	gateway *gateway
	path    string // without slashes at its end

	w http.ResponseWriter
	r *http.Request
}

// answer is what a request comes to.
type answer struct {
	status int
	body   any
}

func ok(body any) (*answer, error) { return &answer{http.StatusOK, body}, nil }

func (a *api) serve(w http.ResponseWriter, r *http.Request) {
	a.w, a.r = w, r
	ans, err := a.route()
	if err != nil {
		refuse(w, err)
		return
	}
	w.Header().Set("X-Marathon-Leader", "http://"+a.gateway.election.address)
	reply(w, ans.status, ans.body)
}

// methods calls the handler of the request's method.
func (a *api) methods(handlers map[string]func() (*answer, error)) (*answer, error) {
	method := a.r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if h := handlers[method]; h != nil {
		return h()
	}
	var all []string
	for m := range handlers {
		all = append(all, m)
	}
	slices.Sort(all)
	return nil, notAllowed(a.w, all...)
}

type handlers = map[string]func() (*answer, error)

func (a *api) route() (*answer, error) {
	words := strings.FieldsFunc(strings.TrimPrefix(a.path, "/v2"), func(r rune) bool { return r == '/' })
	if len(words) == 0 {
		return nil, notFound("There is no %s", a.path)
	}
	rest := words[1:]
	switch {
	case words[0] == "apps" && len(rest) == 0:
		return a.methods(handlers{"GET": a.listApps, "POST": a.createApp})
	case words[0] == "apps":
		return a.routeApp(rest)
	case words[0] == "tasks" && len(rest) == 0:
		return a.methods(handlers{"GET": a.allTasks})
	case words[0] == "tasks" && len(rest) == 1 && rest[0] == "delete":
		return a.methods(handlers{"POST": a.deleteTasks})
	case words[0] == "deployments" && len(rest) == 0:
		return a.methods(handlers{"GET": a.listDeployments})
	case words[0] == "deployments" && len(rest) == 1:
		return a.methods(handlers{"DELETE": func() (*answer, error) { return a.deleteDeployment(rest[0]) }})
	case words[0] == "queue" && len(rest) == 0:
		return a.methods(handlers{"GET": a.queue})
	case words[0] == "queue" && len(rest) > 1 && rest[len(rest)-1] == "delay":
		return a.methods(handlers{"DELETE": func() (*answer, error) { return a.resetDelay(app.ID(strings.Join(rest[:len(rest)-1], "/"))) }})
	case words[0] == "groups":
		return a.methods(handlers{"GET": func() (*answer, error) { return a.group(app.ID(strings.Join(rest, "/"))) }})
	case words[0] == "leader" && len(rest) == 0:
		return a.methods(handlers{"DELETE": a.abdicate})
	}
	return nil, notFound("There is no %s", a.path)
}

// routeApp finds out where an app's id ends: it can have slashes.
func (a *api) routeApp(words []string) (*answer, error) {
	n := len(words)
	id := func(k int) string { return app.ID(strings.Join(words[:k], "/")) }
	switch {
	case n > 1 && words[n-1] == "restart":
		return a.methods(handlers{"POST": func() (*answer, error) { return a.restartApp(id(n - 1)) }})
	case n > 1 && words[n-1] == "versions":
		return a.methods(handlers{"GET": func() (*answer, error) { return a.listVersions(id(n - 1)) }})
	case n > 2 && words[n-2] == "versions":
		return a.methods(handlers{"GET": func() (*answer, error) { return a.getVersion(id(n-2), words[n-1]) }})
	case n > 1 && words[n-1] == "tasks":
		return a.methods(handlers{
			"GET":    func() (*answer, error) { return a.appTasks(id(n - 1)) },
			"DELETE": func() (*answer, error) { return a.killAppTasks(id(n - 1)) },
		})
	case n > 2 && words[n-2] == "tasks":
		return a.methods(handlers{"DELETE": func() (*answer, error) { return a.killTask(id(n-2), words[n-1]) }})
	}
	return a.methods(handlers{
		"GET":    func() (*answer, error) { return a.getApp(id(n)) },
		"PUT":    func() (*answer, error) { return a.putApp(id(n)) },
		"PATCH":  func() (*answer, error) { return a.putApp(id(n)) },
		"DELETE": func() (*answer, error) { return a.deleteApp(id(n)) },
	})
}

func (a *api) query() url.Values { return a.r.URL.Query() }

// flag is a query parameter such as ?force or ?force=true.
func (a *api) flag(name string) bool {
	v, ok := a.query()[name]
	return ok && (v[0] == "" || v[0] == "true")
}

// body reads the request's body.
func (a *api) body() ([]byte, error) {
	data, err := io.ReadAll(a.r.Body)
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		return nil, &apiError{status: http.StatusRequestEntityTooLarge, Message: "The request's body is too large"}
	}
	if err != nil {
		return nil, &apiError{status: http.StatusBadRequest, Message: "The request's body ends early: " + err.Error()}
	}
	return data, nil
}

func (a *api) fields() (app.Fields, error) {
	data, err := a.body()
	if err != nil {
		return nil, err
	}
	return app.ParseFields(data)
}

// started is the answer of requests that start a deployment.
func started(d *deployment) (*answer, error) {
	return ok(map[string]string{"version": d.Version, "deploymentId": d.ID})
}

// change makes a wish come true, from now on.
func (a *api) change(w wish) (*deployment, *app.App, error) {
	w.force = w.force || a.flag("force")
	d, next, err := a.state.want(a.r.Context(), w, time.Now())
	if err == nil {
		a.scheduler.kick()
	}
	return d, next, err
}

func (a *api) abdicate() (*answer, error) {
	a.gateway.election.abdicate()
	return ok(map[string]string{"message": "Leadership abdicated"})
}
