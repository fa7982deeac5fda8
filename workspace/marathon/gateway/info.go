package gateway

import (
	"io"
	"net/http"
	"runtime"
	"strings"
	"time"
)

// ping is the machine's health check: it answers whatever else is wrong.
func (g *gateway) ping(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, "pong")
}

// info has the fields of Marathon's own answer that are true of the gateway.
func (g *gateway) info(w http.ResponseWriter) {
	s := g.settings
	leader, mine := g.election.who()
	reply(w, http.StatusOK, map[string]any{
		"name":        "marathon-gateway",
		"version":     Version,
		"frameworkId": nil,
		"elected":     mine,
		"leader":      optional(leader),
		"http_config": map[string]any{"http_port": s.port},
		"marathon_config": map[string]any{
			"hostname":       s.hostname,
			"ha":             len(s.zk.hosts) > 1,
			"framework_name": "marathon-gateway",
			"local_port_min": firstServicePort,
			"local_port_max": 65535,
			"docker_engine":  s.docker,
			"managers":       s.managers,
			"workers":        s.workers,
			"task_ports":     []int{s.ports.first, s.ports.last},
		},
		"zookeeper_config": map[string]any{
			"zk": s.zk.String(), "zk_hosts": strings.Join(s.zk.hosts, ","), "zk_path": s.zk.path, "zk_session_timeout": s.zkTimeout.Milliseconds(),
		},
	})
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// leader tells who leads, whoever is asked.
func (g *gateway) leader(w http.ResponseWriter) {
	leader, _ := g.election.who()
	if leader == "" {
		refuse(w, notFound("There is no leader"))
		return
	}
	reply(w, http.StatusOK, map[string]string{"leader": leader})
}

func (g *gateway) metrics(w http.ResponseWriter) {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	gauge := func(v any) map[string]any { return map[string]any{"value": v} }
	gauges := map[string]any{
		"memory.heap.used":  gauge(m.HeapAlloc),
		"memory.system":     gauge(m.Sys),
		"uptime.seconds":    gauge(int(time.Since(g.started).Seconds())),
		"goroutines.active": gauge(runtime.NumGoroutine()),
		"leader":            gauge(0),
	}
	if l := g.leads(); l != nil {
		running := 0
		tasks := l.scheduler.tasks("")
		for _, t := range tasks {
			if t.state == taskRunning {
				running++
			}
		}
		gauges["leader"] = gauge(1)
		gauges["apps.active.count"] = gauge(len(l.state.list()))
		gauges["deployments.active.count"] = gauge(len(l.state.deploymentList()))
		gauges["instances.running.count"] = gauge(running)
		gauges["instances.staged.count"] = gauge(len(tasks) - running)
	}
	reply(w, http.StatusOK, map[string]any{"start": g.started.UTC().Format(time.RFC3339), "gauges": gauges})
}
