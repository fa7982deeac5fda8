package app

import "strings"

// Container is what an app's tasks run in. Port mappings are either here, as
// Marathon 1.5 has them, or in docker, as before.
type Container struct {
	Type         string        `json:"type"`
	Docker       *Docker       `json:"docker,omitempty"`
	Volumes      []Volume      `json:"volumes"`
	PortMappings []PortMapping `json:"portMappings,omitempty"`
}

// Docker is an image and how it is run.
type Docker struct {
	Image          string        `json:"image"`
	Network        string        `json:"network,omitempty"`
	PortMappings   []PortMapping `json:"portMappings,omitempty"`
	Privileged     bool          `json:"privileged"`
	Parameters     []Parameter   `json:"parameters"`
	ForcePullImage bool          `json:"forcePullImage"`
	Credential     any           `json:"credential,omitempty"`
	PullConfig     any           `json:"pullConfig,omitempty"`
}

// Parameter is an option of docker run.
type Parameter struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Volume is a folder of the host in the container.
type Volume struct {
	ContainerPath string `json:"containerPath"`
	HostPath      string `json:"hostPath,omitempty"`
	Mode          string `json:"mode"`
	External      any    `json:"external,omitempty"`
	Persistent    any    `json:"persistent,omitempty"`
	Secret        any    `json:"secret,omitempty"`
}

// PortMapping publishes a port of the container on the host. A host port of 0
// is one that the gateway chooses, a service port of 0 too.
type PortMapping struct {
	ContainerPort int               `json:"containerPort"`
	HostPort      int               `json:"hostPort"`
	ServicePort   int               `json:"servicePort"`
	Protocol      string            `json:"protocol"`
	Name          string            `json:"name,omitempty"`
	Labels        map[string]string `json:"labels,omitempty"`
}

// Mappings are the port mappings, wherever they were given.
func (c *Container) Mappings() []PortMapping {
	if c == nil {
		return nil
	}
	if c.Docker != nil && len(c.Docker.PortMappings) > 0 {
		return c.Docker.PortMappings
	}
	return c.PortMappings
}

func (c *Container) fill() {
	if c.Type == "" {
		c.Type = "DOCKER"
	}
	if c.Volumes == nil {
		c.Volumes = []Volume{}
	}
	if c.Docker != nil && c.Docker.Parameters == nil {
		c.Docker.Parameters = []Parameter{}
	}
	mappings := c.Mappings()
	for i := range mappings {
		if mappings[i].Protocol == "" {
			mappings[i].Protocol = "tcp"
		}
	}
}

// Bridged tells whether the app's tasks have a network of their own, with
// published ports; otherwise they are in the host's.
func (a *App) Bridged() bool {
	if a.Container == nil {
		return false
	}
	if a.Container.Docker != nil {
		switch strings.ToUpper(a.Container.Docker.Network) {
		case "BRIDGE":
			return true
		case "HOST":
			return false
		}
	}
	for _, n := range a.Networks {
		return n.Mode != "host"
	}
	return len(a.Container.Mappings()) > 0
}

// HostPort is a port that each task of an app needs on its host.
type HostPort struct {
	Name          string
	Protocol      string // tcp, udp
	ContainerPort int    // 0: the same as on the host
	HostPort      int    // 0: any
	ServicePort   int
}

// HostPorts lists what each task needs, in the order of the task's ports.
func (a *App) HostPorts() []HostPort {
	var out []HostPort
	if a.Bridged() {
		for _, m := range a.Container.Mappings() {
			out = append(out, HostPort{Name: m.Name, Protocol: m.Protocol, ContainerPort: m.ContainerPort, HostPort: m.HostPort, ServicePort: m.ServicePort})
		}
		return out
	}
	for _, p := range a.PortDefinitions {
		hp := HostPort{Name: p.Name, Protocol: p.Protocol, ServicePort: p.Port}
		if a.RequirePorts {
			hp.HostPort = p.Port
		}
		out = append(out, hp)
	}
	return out
}

// SetServicePort records a service port that was chosen for port i.
func (a *App) SetServicePort(i, port int) {
	if a.Bridged() {
		a.Container.Mappings()[i].ServicePort = port
	} else {
		a.PortDefinitions[i].Port = port
	}
	a.Ports = a.servicePorts()
}
