package workspace

import (
	"fmt"
	"os"
	"path"
	"sort"
	"strings"

	"github.com/BurntSushi/toml"
)

// Config is what tool.toml says. Unknown keys are errors, so that a misspelt
// setting is never silently without effect.
type Config struct {
	Workspace struct {
		Name        string   `toml:"name"`         // shown by info; default: the root's folder name
		PackagePath []string `toml:"package_path"` // folders that packages are looked for in, in order; default ["."]
	} `toml:"workspace"`
	Store struct {
		Path string `toml:"path"` // physical store; default: $XDG_DATA_HOME/tool
	} `toml:"store"`
	Build struct {
		Jobs        int    `toml:"jobs"`        // actions at once; default: number of processors
		Environment string `toml:"environment"` // label of the root file system that commands see by default
		KeepGoing   bool   `toml:"keep_going"`  // as --keep_going
	} `toml:"build"`
	Deploy struct {
		Emulator  string `toml:"emulator"`   // label of the emulator that deployments run machines with by default
		DiskTools string `toml:"disk_tools"` // label of the environment that makes disk images by default
	} `toml:"deploy"`
	GC struct {
		KeepBuilds      *int  `toml:"keep_builds"`      // newest builds kept for each label; default 1
		KeepInputs      *bool `toml:"keep_inputs"`      // also keep what a kept build was made from; default true
		KeepGenerations *int  `toml:"keep_generations"` // newest generations that gc -d keeps of a deployment; default 5
	} `toml:"gc"`
	Mirrors struct {
		Debian map[string][]string `toml:"debian"` // suite → base URLs or folders, before the host's apt sources
		Go     []string            `toml:"go"`     // before the host's GOPROXY
		Files  []string            `toml:"files"`  // for archives: <mirror>/<sha256>
	} `toml:"mirrors"`
	Fetch struct {
		StallSeconds int `toml:"stall_seconds"` // no byte for so long: next mirror; default 20
	} `toml:"fetch"`
	Starlark struct {
		MaxSteps     uint64 `toml:"max_steps"`     // bytecode steps a file or rule may take; default 1e9
		MaxMegabytes uint64 `toml:"max_megabytes"` // memory that evaluation may fill; default 4295 (4 GiB), or a third of the machine's
	} `toml:"starlark"`
	Config map[string]Settings `toml:"config"` // chosen by --config NAME
}

// Settings are what select() may ask about; [config.NAME] and flags set them.
type Settings struct {
	Define          map[string]string `toml:"define"`
	CompilationMode string            `toml:"compilation_mode"` // fastbuild, dbg or opt
	KeepGoing       bool              `toml:"keep_going"`
	Jobs            int               `toml:"jobs"`
}

// ConfigFile is the name of the file that marks a workspace's root.
const ConfigFile = "tool.toml"

func parseConfig(file string, data []byte) (Config, error) {
	var c Config
	md, err := toml.Decode(string(data), &c)
	if err != nil {
		if pe, ok := err.(toml.ParseError); ok {
			return c, fmt.Errorf("%s:%d:%d: %s", file, pe.Position.Line, pe.Position.Col, strings.TrimPrefix(pe.Message, "toml: "))
		}
		return c, fmt.Errorf("%s: %s", file, strings.TrimPrefix(err.Error(), "toml: "))
	}
	if un := md.Undecoded(); len(un) > 0 {
		keys := make([]string, len(un))
		for i, k := range un {
			keys[i] = k.String()
		}
		sort.Strings(keys)
		return c, fmt.Errorf("%s:%d: unknown key %q; docs/tool.toml.md lists the keys", file, lineOfKey(string(data), un[0]), keys[0])
	}
	if len(c.Workspace.PackagePath) == 0 {
		c.Workspace.PackagePath = []string{"."}
	}
	for _, p := range c.Workspace.PackagePath {
		if path.IsAbs(p) || p != path.Clean(p) || p == ".." || strings.HasPrefix(p, "../") {
			return c, fmt.Errorf("%s: package_path entry %q must be a clean path inside the workspace", file, p)
		}
	}
	if c.Store.Path != "" && !path.IsAbs(c.Store.Path) && !strings.HasPrefix(c.Store.Path, "~/") {
		return c, fmt.Errorf("%s: store.path %q must be absolute or start with ~/", file, c.Store.Path)
	}
	for name, s := range c.Config {
		if err := s.check(); err != nil {
			return c, fmt.Errorf("%s: [config.%s]: %w", file, name, err)
		}
	}
	return c, nil
}

func (s Settings) check() error {
	switch s.CompilationMode {
	case "", "fastbuild", "dbg", "opt":
		return nil
	}
	return fmt.Errorf("compilation_mode %q is none of fastbuild, dbg, opt", s.CompilationMode)
}

// lineOfKey finds the line on which an undecoded key is set: the TOML library
// keeps no positions for them.
func lineOfKey(data string, k toml.Key) int {
	last := k[len(k)-1]
	section := strings.Join(k[:len(k)-1], ".")
	in := section == ""
	for i, line := range strings.Split(data, "\n") {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "[") {
			name := strings.Trim(line, "[] ")
			if name == k.String() {
				return i + 1
			}
			in = name == section
			continue
		}
		key, _, _ := strings.Cut(line, "=")
		if key = strings.Trim(strings.TrimSpace(key), `"'`); in && key == last {
			return i + 1
		}
	}
	return 1
}

func expandHome(p string) (string, error) {
	rest, ok := strings.CutPrefix(p, "~/")
	if !ok {
		return p, nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("store.path %q: %w", p, err)
	}
	return path.Join(home, rest), nil
}
