// Package app is Marathon's application: what users post, checked and with its
// defaults filled in.
package app

// App is an application as Marathon's API has it. Its fields are those that
// the gateway acts on or keeps for clients that read them back.
type App struct {
	ID                         string            `json:"id"`
	Cmd                        *string           `json:"cmd,omitempty"`
	Args                       []string          `json:"args,omitempty"`
	User                       string            `json:"user,omitempty"`
	Env                        map[string]string `json:"env"`
	Instances                  int               `json:"instances"`
	CPUs                       float64           `json:"cpus"`
	Mem                        float64           `json:"mem"`
	Disk                       float64           `json:"disk"`
	GPUs                       float64           `json:"gpus"`
	Executor                   string            `json:"executor"`
	Constraints                [][]string        `json:"constraints"`
	Fetch                      []any             `json:"fetch,omitempty"`
	URIs                       []string          `json:"uris,omitempty"`
	StoreURLs                  []string          `json:"storeUrls,omitempty"`
	Secrets                    map[string]any    `json:"secrets,omitempty"`
	IPAddress                  map[string]any    `json:"ipAddress,omitempty"`
	Residency                  map[string]any    `json:"residency,omitempty"`
	Ports                      []int             `json:"ports"`
	PortDefinitions            []PortDefinition  `json:"portDefinitions,omitempty"`
	RequirePorts               bool              `json:"requirePorts"`
	BackoffSeconds             float64           `json:"backoffSeconds"`
	BackoffFactor              float64           `json:"backoffFactor"`
	MaxLaunchDelaySeconds      float64           `json:"maxLaunchDelaySeconds"`
	TaskKillGracePeriodSeconds *float64          `json:"taskKillGracePeriodSeconds,omitempty"`
	Container                  *Container        `json:"container,omitempty"`
	Networks                   []Network         `json:"networks,omitempty"`
	HealthChecks               []HealthCheck     `json:"healthChecks"`
	ReadinessChecks            []any             `json:"readinessChecks,omitempty"`
	Dependencies               []string          `json:"dependencies"`
	UpgradeStrategy            UpgradeStrategy   `json:"upgradeStrategy"`
	Labels                     map[string]string `json:"labels"`
	AcceptedResourceRoles      []string          `json:"acceptedResourceRoles,omitempty"`
	KillSelection              string            `json:"killSelection"`
	Version                    string            `json:"version,omitempty"`
	VersionInfo                *VersionInfo      `json:"versionInfo,omitempty"`
}

// VersionInfo tells when an app was changed: tasks older than the last change
// of its configuration are to be replaced, others are not.
type VersionInfo struct {
	LastScalingAt      string `json:"lastScalingAt"`
	LastConfigChangeAt string `json:"lastConfigChangeAt"`
}

// UpgradeStrategy says how many tasks a deployment keeps and adds, as shares of
// the number of instances.
type UpgradeStrategy struct {
	MinimumHealthCapacity float64 `json:"minimumHealthCapacity"`
	MaximumOverCapacity   float64 `json:"maximumOverCapacity"`
}

// PortDefinition is a port of an app in the host's network.
type PortDefinition struct {
	Port     int               `json:"port"`
	Protocol string            `json:"protocol,omitempty"`
	Name     string            `json:"name,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
}

// Network is how an app is attached to the network.
type Network struct {
	Mode   string            `json:"mode"`
	Name   string            `json:"name,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
}

// HealthCheck says how a task's health is found out.
type HealthCheck struct {
	Protocol               string   `json:"protocol"`
	Path                   string   `json:"path,omitempty"`
	PortIndex              *int     `json:"portIndex,omitempty"`
	Port                   *int     `json:"port,omitempty"`
	Command                *Command `json:"command,omitempty"`
	GracePeriodSeconds     float64  `json:"gracePeriodSeconds"`
	IntervalSeconds        float64  `json:"intervalSeconds"`
	TimeoutSeconds         float64  `json:"timeoutSeconds"`
	MaxConsecutiveFailures int      `json:"maxConsecutiveFailures"`
	IgnoreHTTP1xx          bool     `json:"ignoreHttp1xx,omitempty"`
}

// Command is a health check's command.
type Command struct {
	Value string `json:"value"`
}

// The defaults of Marathon.
const (
	defaultCPUs           = 1
	defaultMem            = 128
	defaultBackoff        = 1
	defaultBackoffFactor  = 1.15
	defaultMaxLaunchDelay = 300
	defaultGrace          = 300
	defaultInterval       = 60
	defaultTimeout        = 20
	defaultMaxFailures    = 3
)

// blank is an app of which nothing is said.
func blank() *App {
	return &App{
		Env: map[string]string{}, Labels: map[string]string{}, Constraints: [][]string{}, HealthChecks: []HealthCheck{}, Dependencies: []string{},
		Instances: 1, CPUs: defaultCPUs, Mem: defaultMem, BackoffSeconds: defaultBackoff, BackoffFactor: defaultBackoffFactor,
		MaxLaunchDelaySeconds: defaultMaxLaunchDelay, UpgradeStrategy: UpgradeStrategy{1, 1}, KillSelection: "YOUNGEST_FIRST",
	}
}

// fill completes what was decoded on top of a blank app.
func (a *App) fill() {
	if a.Env == nil {
		a.Env = map[string]string{}
	}
	if a.Labels == nil {
		a.Labels = map[string]string{}
	}
	if a.Constraints == nil {
		a.Constraints = [][]string{}
	}
	if a.HealthChecks == nil {
		a.HealthChecks = []HealthCheck{}
	}
	if a.Dependencies == nil {
		a.Dependencies = []string{}
	}
	if a.Bridged() {
		a.PortDefinitions = nil // ports follow from the mappings
	} else if len(a.PortDefinitions) == 0 {
		for _, p := range a.Ports {
			a.PortDefinitions = append(a.PortDefinitions, PortDefinition{Port: p})
		}
	}
	for i := range a.PortDefinitions {
		if a.PortDefinitions[i].Protocol == "" {
			a.PortDefinitions[i].Protocol = "tcp"
		}
	}
	if a.Container != nil {
		a.Container.fill()
	}
	for i := range a.HealthChecks {
		if h := &a.HealthChecks[i]; h.PortIndex == nil && h.Port == nil && h.Command == nil {
			h.PortIndex = new(int)
		}
	}
	a.Ports = a.servicePorts()
}

// servicePorts is what the app's field ports tells, however they were given.
func (a *App) servicePorts() []int {
	out := []int{}
	if a.Bridged() {
		for _, m := range a.Container.Mappings() {
			out = append(out, m.ServicePort)
		}
		return out
	}
	for _, p := range a.PortDefinitions {
		out = append(out, p.Port)
	}
	return out
}
