package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"runtime"
	"time"
)

// api serves the REST API.
type api struct {
	settings *settings
	started  time.Time
}

func newAPI(s *settings, started time.Time) http.Handler {
	a := &api{s, started}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /ping", a.ping)
	mux.HandleFunc("GET /v2/info", a.info)
	mux.HandleFunc("GET /metrics", a.metrics)
	mux.HandleFunc("/v2/", a.notYet)
	mux.HandleFunc("/", a.notFound)
	return mux
}

func (a *api) ping(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	fmt.Fprint(w, "pong")
}

// info has the fields of Marathon's own answer that are true of the gateway.
func (a *api) info(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, map[string]any{
		"name":        "marathon-gateway",
		"version":     version,
		"frameworkId": nil,
		"elected":     false, // no election is held yet
		"leader":      nil,
		"http_config": map[string]any{"http_port": a.settings.port},
		"marathon_config": map[string]any{
			"hostname":      a.settings.hostname,
			"ha":            len(a.settings.zk.hosts) > 1,
			"docker_engine": a.settings.docker,
		},
		"zookeeper_config": map[string]any{"zk": a.settings.zk.String(), "zk_hosts": a.settings.zk.hosts, "zk_path": a.settings.zk.path},
	})
}

func (a *api) metrics(w http.ResponseWriter, _ *http.Request) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	reply(w, http.StatusOK, map[string]any{
		"start": a.started.UTC().Format(time.RFC3339),
		"gauges": map[string]any{
			"memory.heap.used": map[string]any{"value": m.HeapAlloc},
			"uptime.seconds":   map[string]any{"value": int(time.Since(a.started).Seconds())},
		},
	})
}

// notYet is honest: nothing is pretended to have been scheduled.
func (a *api) notYet(w http.ResponseWriter, r *http.Request) {
	reply(w, http.StatusNotImplemented, map[string]string{"message": fmt.Sprintf("%s %s is not implemented by this version of the gateway", r.Method, r.URL.Path)})
}

func (a *api) notFound(w http.ResponseWriter, r *http.Request) {
	reply(w, http.StatusNotFound, map[string]string{"message": fmt.Sprintf("there is no %s", r.URL.Path)})
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // a client that is gone reads nothing
}
