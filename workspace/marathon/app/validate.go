package app

import (
	"fmt"
	"math"
	"strings"
)

// Limits that keep one app from filling the cluster's memory.
const (
	maxInstances = 1000
	maxPorts     = 64
)

// checker gathers what is wrong.
type checker struct{ found []Violation }

func (c *checker) add(ok bool, path, format string, args ...any) {
	if ok {
		return
	}
	msg := fmt.Sprintf(format, args...)
	for i := range c.found {
		if c.found[i].Path == path {
			c.found[i].Errors = append(c.found[i].Errors, msg)
			return
		}
	}
	c.found = append(c.found, Violation{path, []string{msg}})
}

func (c *checker) number(v, low, high float64, path string) {
	c.add(!math.IsNaN(v) && v >= low && v <= high, path, "must be between %g and %g", low, high)
}

// validate says what of the app cannot be run, and why.
func (a *App) validate() []Violation {
	c := &checker{}
	if err := CheckID(a.ID); err != nil {
		c.add(false, "/id", "%v", err)
	}
	c.number(float64(a.Instances), 0, maxInstances, "/instances")
	c.number(a.CPUs, 0, 1024, "/cpus")
	c.number(a.Mem, 0, 1<<24, "/mem")
	c.number(a.Disk, 0, 1<<40, "/disk")
	c.add(a.GPUs == 0, "/gpus", "the gateway has none to give")
	c.number(a.BackoffSeconds, 0, 86400, "/backoffSeconds")
	c.number(a.BackoffFactor, 1, 1000, "/backoffFactor")
	c.number(a.MaxLaunchDelaySeconds, 0, 86400, "/maxLaunchDelaySeconds")
	if g := a.TaskKillGracePeriodSeconds; g != nil {
		c.number(*g, 0, 86400, "/taskKillGracePeriodSeconds")
	}
	c.number(a.UpgradeStrategy.MinimumHealthCapacity, 0, 1, "/upgradeStrategy/minimumHealthCapacity")
	c.number(a.UpgradeStrategy.MaximumOverCapacity, 0, 1, "/upgradeStrategy/maximumOverCapacity")
	c.add(a.Cmd == nil || len(a.Args) == 0, "/", "AppDefinition must either contain one of 'cmd' or 'args', and/or a 'container'")
	c.add(a.Executor == "" || a.Executor == "//cmd", "/executor", "the gateway has no executors but its own")
	c.add(len(a.Fetch) == 0 && len(a.URIs) == 0 && len(a.StoreURLs) == 0, "/fetch", "the gateway fetches nothing: put it into the image")
	c.add(len(a.Secrets) == 0, "/secrets", "the gateway keeps no secrets")
	c.add(len(a.IPAddress) == 0, "/ipAddress", "tasks have no addresses of their own: use container.portMappings")
	c.add(len(a.Residency) == 0, "/residency", "tasks keep nothing: use a volume with a hostPath")
	c.add(len(a.ReadinessChecks) == 0, "/readinessChecks", "not supported: use healthChecks")
	for name := range a.Env {
		c.add(name != "" && !strings.ContainsAny(name, "=\x00"), "/env", "%q cannot be the name of a variable", name)
	}
	for name, v := range a.Env {
		c.add(!strings.Contains(v, "\x00"), "/env/"+name, "must not contain NUL")
	}
	for i, d := range a.Dependencies {
		c.add(CheckID(ID(d)) == nil, fmt.Sprintf("/dependencies(%d)", i), "%q is no app's id", d)
	}
	c.constraints(a.Constraints)
	c.container(a)
	c.ports(a)
	for i := range a.HealthChecks {
		c.healthCheck(a, i)
	}
	return c.found
}

func (c *checker) constraints(all [][]string) {
	for i, con := range all {
		path := fmt.Sprintf("/constraints(%d)", i)
		if len(con) < 2 {
			c.add(false, path, "a constraint is a list of a field, an operator and sometimes a value")
			continue
		}
		c.add(con[0] == "hostname" || con[0] == "@hostname", path, "the field %q is not supported: hostname is", con[0])
		c.add(con[1] == "UNIQUE", path, "the operator %q is not supported: UNIQUE is", con[1])
		c.add(len(con) == 2, path, "UNIQUE takes no value")
	}
}

func (c *checker) container(a *App) {
	if a.Container == nil || a.Container.Docker == nil {
		c.add(false, "/container/docker", "must be given: tasks are containers of Docker images")
		return
	}
	d := a.Container.Docker
	c.add(a.Container.Type == "DOCKER" || a.Container.Type == "MESOS", "/container/type", "%q is neither DOCKER nor MESOS", a.Container.Type)
	c.add(d.Image != "", "/container/docker/image", "must not be empty")
	c.add(len(d.Image) <= 512 && !strings.ContainsAny(d.Image, " \t\r\n\x00?#%"), "/container/docker/image", "is no image's name")
	c.add(!d.Privileged, "/container/docker/privileged", "Docker Swarm runs no privileged containers")
	c.add(len(d.Parameters) == 0, "/container/docker/parameters", "Docker Swarm takes no parameters of docker run")
	c.add(d.Credential == nil && d.PullConfig == nil, "/container/docker/pullConfig", "the gateway knows no credentials")
	switch strings.ToUpper(d.Network) {
	case "", "BRIDGE", "HOST":
	default:
		c.add(false, "/container/docker/network", "%q is not supported: BRIDGE and HOST are", d.Network)
	}
	c.add(len(a.Networks) <= 1, "/networks", "a task has one network")
	for i, n := range a.Networks {
		c.add(n.Mode == "host" || n.Mode == "container/bridge", fmt.Sprintf("/networks(%d)/mode", i), "%q is not supported: container/bridge and host are", n.Mode)
	}
	for i, v := range a.Container.Volumes {
		path := fmt.Sprintf("/container/volumes(%d)", i)
		c.add(v.External == nil && v.Persistent == nil && v.Secret == nil, path, "only volumes with a hostPath are supported")
		c.add(strings.HasPrefix(v.HostPath, "/"), path+"/hostPath", "must be an absolute path")
		c.add(strings.HasPrefix(v.ContainerPath, "/"), path+"/containerPath", "must be an absolute path")
		c.add(v.Mode == "RO" || v.Mode == "RW", path+"/mode", "must be RO or RW")
	}
}

func (c *checker) ports(a *App) {
	both := a.Container != nil && a.Container.Docker != nil && len(a.Container.Docker.PortMappings) > 0 && len(a.Container.PortMappings) > 0
	c.add(!both, "/container/portMappings", "give them either here or in docker")
	c.add(a.Bridged() || len(a.Container.Mappings()) == 0, "/container/portMappings", "a task in the host's network has portDefinitions")
	all := a.HostPorts()
	c.add(len(all) <= maxPorts, "/portDefinitions", "must be at most %d", maxPorts)
	taken := map[string]bool{}
	for i, p := range all {
		path := fmt.Sprintf("/portDefinitions(%d)", i)
		if a.Bridged() {
			path = fmt.Sprintf("/container/portMappings(%d)", i)
		}
		for _, n := range []int{p.ContainerPort, p.HostPort, p.ServicePort} {
			c.add(n >= 0 && n <= 65535, path, "a port is a number from 0 to 65535")
		}
		c.add(p.Protocol == "tcp" || p.Protocol == "udp", path+"/protocol", "%q is neither tcp nor udp", p.Protocol)
		if key := fmt.Sprint(p.HostPort, p.Protocol); p.HostPort != 0 {
			c.add(!taken[key], path, "the host port %d is there twice", p.HostPort)
			taken[key] = true
		}
	}
}

func (c *checker) healthCheck(a *App, i int) {
	h, path := &a.HealthChecks[i], fmt.Sprintf("/healthChecks(%d)", i)
	c.number(h.GracePeriodSeconds, 0, 86400, path+"/gracePeriodSeconds")
	c.number(h.IntervalSeconds, 1, 86400, path+"/intervalSeconds")
	c.number(h.TimeoutSeconds, 1, 86400, path+"/timeoutSeconds")
	c.number(float64(h.MaxConsecutiveFailures), 0, 1e6, path+"/maxConsecutiveFailures")
	c.add(!strings.ContainsAny(h.Path, " \r\n\x00"), path+"/path", "is no path of a URL")
	if h.Kind() == "COMMAND" {
		c.add(h.Command != nil && h.Command.Value != "", path+"/command", "must be given")
		for j := range i {
			c.add(a.HealthChecks[j].Kind() != "COMMAND", path, "Docker runs one command at most to find out a container's health")
		}
		return
	}
	c.add(h.Kind() != "", path+"/protocol", "%q is not supported: HTTP, HTTPS, TCP and COMMAND are", h.Protocol)
	if h.Port != nil {
		c.add(*h.Port > 0 && *h.Port <= 65535, path+"/port", "a port is a number from 1 to 65535")
	} else if h.PortIndex != nil {
		c.add(*h.PortIndex >= 0 && *h.PortIndex < len(a.HostPorts()), path+"/portIndex", "the app has no port of that number")
	}
}

// Kind is HTTP, HTTPS, TCP or COMMAND, whoever is to perform the check; empty
// if it is none of them.
func (h *HealthCheck) Kind() string {
	switch k := strings.TrimPrefix(h.Protocol, "MESOS_"); k {
	case "HTTP", "HTTPS", "TCP", "COMMAND":
		return k
	}
	return ""
}
