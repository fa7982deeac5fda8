package gateway

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"marathon-gateway/app"
	"marathon-gateway/docker"
)

const (
	defaultKillGrace = 3 * time.Second // Mesos's
	minMemory        = 6 * 1024 * 1024 // Docker refuses less
	maxNanoCPUs      = 1024 * 1_000_000_000
)

// launch is all that is decided about a task before it exists.
type launch struct {
	app   *app.App
	id    string
	image string // what the engine is told: an id, or the app's own name
	ports []int
	nodes []string // constraints of placement
	now   time.Time
}

// spec is the service that makes the swarm run the task.
func (l *launch) spec() (*docker.ServiceSpec, error) {
	a := l.app
	ports, err := json.Marshal(l.ports)
	if err != nil {
		return nil, err
	}
	services, err := json.Marshal(a.Ports)
	if err != nil {
		return nil, err
	}
	memory := max(int64(a.Mem*1024*1024), minMemory)
	s := &docker.ServiceSpec{
		// Names of services have no dots and at most 63 characters.
		Name: "marathon-" + l.id[strings.LastIndexByte(l.id, '.')+1:],
		Labels: map[string]string{
			labelTask: l.id, labelApp: a.ID, labelVersion: a.Version, labelPorts: string(ports), labelService: string(services),
			labelStaged: l.now.UTC().Format(timeFormat),
		},
		Mode: docker.Mode{Replicated: &docker.Replicated{Replicas: 1}},
		TaskTemplate: docker.TaskSpec{
			ContainerSpec: docker.ContainerSpec{
				Image: l.image, Env: l.env(), Args: a.Args, User: a.User, StopGracePeriod: defaultKillGrace,
				Labels: map[string]string{labelTask: l.id, labelApp: a.ID},
			},
			Resources: &docker.Resources{
				Limits:       &docker.Amounts{MemoryBytes: memory},
				Reservations: &docker.Amounts{MemoryBytes: memory, NanoCPUs: min(int64(math.Round(a.CPUs*1e9)), maxNanoCPUs)},
			},
			// A task that ended is replaced by another task, with an id of its
			// own, and that is the gateway's to do.
			RestartPolicy: &docker.RestartPolicy{Condition: "none"},
			Placement:     &docker.Placement{Constraints: l.nodes},
		},
	}
	c := &s.TaskTemplate.ContainerSpec
	if a.Cmd != nil {
		c.Command = []string{"/bin/sh", "-c", *a.Cmd}
	}
	if g := a.TaskKillGracePeriodSeconds; g != nil {
		c.StopGracePeriod = seconds(*g)
	}
	for _, v := range a.Container.Volumes {
		c.Mounts = append(c.Mounts, docker.Mount{Type: "bind", Source: v.HostPath, Target: v.ContainerPath, ReadOnly: v.Mode == "RO"})
	}
	for i := range a.HealthChecks {
		if h := &a.HealthChecks[i]; h.Kind() == "COMMAND" {
			c.Healthcheck = &docker.Healthcheck{
				Test: []string{"CMD-SHELL", h.Command.Value}, Interval: seconds(h.IntervalSeconds), Timeout: seconds(h.TimeoutSeconds),
				StartPeriod: seconds(h.GracePeriodSeconds), Retries: max(1, h.MaxConsecutiveFailures),
			}
		}
	}
	if !a.Bridged() {
		s.TaskTemplate.Networks = []docker.Network{{Target: "host"}}
		return s, nil
	}
	s.EndpointSpec = &docker.EndpointSpec{}
	for i, p := range a.HostPorts() {
		target := p.ContainerPort
		if target == 0 {
			target = l.ports[i]
		}
		// In host mode the port is the task's own, on its own host, as with
		// Mesos; Swarm's routing mesh would offer it on every host.
		s.EndpointSpec.Ports = append(s.EndpointSpec.Ports, docker.Port{Protocol: p.Protocol, TargetPort: target, PublishedPort: l.ports[i], PublishMode: "host"})
	}
	return s, nil
}

// env is the task's environment: the app's own, and what Marathon adds to it.
func (l *launch) env() []string {
	a := l.app
	vars := map[string]string{}
	add := func(k string, v any) { vars[k] = fmt.Sprint(v) }
	add("MARATHON_APP_ID", a.ID)
	add("MARATHON_APP_VERSION", a.Version)
	add("MARATHON_APP_DOCKER_IMAGE", literal(a.Container.Docker.Image))
	add("MARATHON_APP_RESOURCE_CPUS", a.CPUs)
	add("MARATHON_APP_RESOURCE_MEM", a.Mem)
	add("MESOS_TASK_ID", l.id)
	add("HOST", "{{.Node.Hostname}}")
	all := make([]string, len(l.ports))
	for i, p := range a.HostPorts() {
		all[i] = strconv.Itoa(l.ports[i])
		add("PORT"+strconv.Itoa(i), l.ports[i])
		if p.ContainerPort != 0 {
			add("PORT_"+strconv.Itoa(p.ContainerPort), l.ports[i])
		}
		if p.Name != "" {
			add("PORT_"+envName(p.Name), l.ports[i])
		}
	}
	if len(all) > 0 {
		add("PORT", all[0])
		add("PORTS", strings.Join(all, ","))
	}
	for k, v := range a.Env {
		vars[literal(k)] = literal(v)
	}
	out := make([]string, 0, len(vars))
	for k, v := range vars {
		out = append(out, k+"="+v)
	}
	slices.Sort(out)
	return out
}

// literal keeps Swarm from taking a user's braces for a template.
func literal(s string) string { return strings.ReplaceAll(s, "{{", "{{\"{{\"}}") }

func envName(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToUpper(s))
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
