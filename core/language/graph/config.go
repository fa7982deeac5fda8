package graph

import (
	"fmt"
	"runtime"
	"sort"
	"strings"
)

// Config is what select() asks about. There is one configuration to a command.
type Config struct {
	Define          map[string]string
	CompilationMode string // fastbuild, dbg or opt
}

// OS and CPU name the platform that everything is built for and on.
const (
	OS  = "linux"
	CPU = "x86_64"
)

// HostSupported reports whether this machine is the platform built for.
func HostSupported() bool { return runtime.GOOS == "linux" && runtime.GOARCH == "amd64" }

// String is a canonical text of the configuration, for keys and for people.
func (c Config) String() string {
	keys := make([]string, 0, len(c.Define))
	for k := range c.Define {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	var b strings.Builder
	fmt.Fprintf(&b, "compilation_mode=%s", c.mode())
	for _, k := range keys {
		fmt.Fprintf(&b, " define=%s=%s", k, c.Define[k])
	}
	return b.String()
}

func (c Config) mode() string {
	if c.CompilationMode == "" {
		return "fastbuild"
	}
	return c.CompilationMode
}

// value answers config_setting's values.
func (c Config) value(name string) (string, error) {
	switch name {
	case "compilation_mode":
		return c.mode(), nil
	case "cpu", "host_cpu":
		return CPU, nil
	case "os":
		return OS, nil
	}
	return "", fmt.Errorf("there is no setting %q; settings are compilation_mode, cpu, os and define", name)
}
