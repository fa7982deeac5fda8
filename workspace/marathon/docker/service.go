package docker

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Service is what a swarm is asked to keep running.
type Service struct {
	ID        string
	Version   Version
	CreatedAt time.Time
	Spec      ServiceSpec
}

// ServiceSpec describes a service.
type ServiceSpec struct {
	Name         string
	Labels       map[string]string
	TaskTemplate TaskSpec
	Mode         Mode
	EndpointSpec *EndpointSpec `json:",omitempty"`
}

// Mode says how many tasks a service has.
type Mode struct{ Replicated *Replicated }

// Replicated is a fixed number of tasks.
type Replicated struct{ Replicas uint64 }

// TaskSpec describes a service's tasks.
type TaskSpec struct {
	ContainerSpec ContainerSpec
	Resources     *Resources     `json:",omitempty"`
	RestartPolicy *RestartPolicy `json:",omitempty"`
	Placement     *Placement     `json:",omitempty"`
	Networks      []Network      `json:",omitempty"`
}

// ContainerSpec describes a task's container. Command takes the place of the
// image's entry point, Args of its arguments. Durations are in nanoseconds.
type ContainerSpec struct {
	Image           string
	Labels          map[string]string `json:",omitempty"`
	Command         []string          `json:",omitempty"`
	Args            []string          `json:",omitempty"`
	Env             []string          `json:",omitempty"`
	User            string            `json:",omitempty"`
	Mounts          []Mount           `json:",omitempty"`
	StopGracePeriod time.Duration     `json:",omitempty"`
	Healthcheck     *Healthcheck      `json:",omitempty"`
}

// Mount is a folder of the node in the container.
type Mount struct {
	Type     string
	Source   string
	Target   string
	ReadOnly bool `json:",omitempty"`
}

// Healthcheck is a command that the engine runs in the container.
type Healthcheck struct {
	Test        []string
	Interval    time.Duration `json:",omitempty"`
	Timeout     time.Duration `json:",omitempty"`
	StartPeriod time.Duration `json:",omitempty"`
	Retries     int           `json:",omitempty"`
}

// Resources are what a task may use and what is set aside for it.
type Resources struct {
	Limits       *Amounts `json:",omitempty"`
	Reservations *Amounts `json:",omitempty"`
}

// Amounts of processors, in billionths, and of memory.
type Amounts struct {
	NanoCPUs    int64 `json:",omitempty"`
	MemoryBytes int64 `json:",omitempty"`
}

// RestartPolicy says when the swarm itself replaces a task.
type RestartPolicy struct{ Condition string }

// Placement says which nodes are good enough.
type Placement struct {
	Constraints []string `json:",omitempty"`
}

// Network is one that a task is attached to.
type Network struct{ Target string }

// EndpointSpec says which ports are published.
type EndpointSpec struct{ Ports []Port }

// Port is a published port.
type Port struct {
	Protocol      string
	TargetPort    int
	PublishedPort int
	PublishMode   string
}

// Services lists a swarm's services.
func (c *Client) Services(ctx context.Context) ([]Service, error) {
	var out []Service
	err := c.do(ctx, http.MethodGet, "/services", nil, nil, &out)
	return out, err
}

// CreateService adds a service and returns its id. The image is taken as it is
// named: no registry is asked.
func (c *Client) CreateService(ctx context.Context, s *ServiceSpec) (string, error) {
	var out struct{ ID string }
	err := c.do(ctx, http.MethodPost, "/services/create", nil, s, &out)
	return out.ID, err
}

// RemoveService ends a service and its tasks.
func (c *Client) RemoveService(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, "/services/"+url.PathEscape(id), nil, nil, nil)
}

// Task is one attempt to run a service's container on a node.
type Task struct {
	ID           string
	ServiceID    string
	NodeID       string
	CreatedAt    time.Time
	DesiredState string
	Status       TaskStatus
}

// TaskStatus is how a task is.
type TaskStatus struct {
	Timestamp       time.Time
	State           string
	Message         string
	Err             string
	ContainerStatus *struct {
		ContainerID string
		ExitCode    int
	} `json:",omitempty"`
	PortStatus struct{ Ports []Port }
}

// Tasks lists a swarm's tasks.
func (c *Client) Tasks(ctx context.Context) ([]Task, error) {
	var out []Task
	err := c.do(ctx, http.MethodGet, "/tasks", nil, nil, &out)
	return out, err
}
