package fetch

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// GoEnv is where the go command would look for its settings.
type GoEnv struct {
	Getenv    func(string) string
	ConfigDir string // os.UserConfigDir
	// Command runs "go env NAME"; nil if there is no go command.
	Command func(ctx context.Context, name string) (string, error)
}

// HostGoEnv returns the environment of this process and machine.
func HostGoEnv() GoEnv {
	e := GoEnv{Getenv: os.Getenv}
	e.ConfigDir, _ = os.UserConfigDir() // without a home there is no file to read
	if _, err := exec.LookPath("go"); err == nil {
		e.Command = func(ctx context.Context, name string) (string, error) {
			cmd := exec.CommandContext(ctx, "go", "env", name)
			// Only the go command's defaults are asked for: no workspace, no
			// other toolchain to download.
			cmd.Env = append(os.Environ(), "GOTOOLCHAIN=local", "GOWORK=off")
			cmd.Dir = os.TempDir()
			out, err := cmd.Output()
			return strings.TrimSpace(string(out)), err
		}
	}
	return e
}

// GoProxies returns the Go module proxies, in order: explicit ones (tool.toml)
// first, then those the go command would use: GOPROXY, the user's file of go
// settings, $GOROOT/go.env, or what the go command itself says. "direct" and
// "off" are left out: modules are only ever taken from a proxy, as zips.
func GoProxies(ctx context.Context, e GoEnv, explicit []string) ([]string, error) {
	out := append(slices.Clone(explicit), splitProxies(e.goproxy(ctx))...)
	if len(out) == 0 {
		return nil, errors.New("no Go module proxy is known: set GOPROXY, or add to tool.toml:\n\n\t[mirrors]\n\tgo = [\"https://PROXY\"]")
	}
	return out, nil
}

func (e GoEnv) goproxy(ctx context.Context) string {
	const name = "GOPROXY"
	if v := e.Getenv(name); v != "" {
		return v
	}
	file := e.Getenv("GOENV")
	if file == "" && e.ConfigDir != "" {
		file = filepath.Join(e.ConfigDir, "go", "env")
	}
	if v := setting(file, name); v != "" && file != "off" {
		return v
	}
	if root := e.Getenv("GOROOT"); root != "" {
		if v := setting(filepath.Join(root, "go.env"), name); v != "" {
			return v
		}
	}
	if e.Command != nil {
		if v, err := e.Command(ctx, name); err == nil {
			return v
		}
	}
	return ""
}

// setting reads NAME=value from a file of settings, "" if there is none.
func setting(file, name string) string {
	b, err := os.ReadFile(file)
	if err != nil {
		return ""
	}
	sc := bufio.NewScanner(bytes.NewReader(b))
	for sc.Scan() {
		if key, val, ok := strings.Cut(sc.Text(), "="); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(val)
		}
	}
	return ""
}

func splitProxies(list string) []string {
	var out []string
	for _, p := range strings.FieldsFunc(list, func(r rune) bool { return r == ',' || r == '|' }) {
		switch p = strings.TrimSpace(p); p {
		case "", "direct":
		case "off":
			return out
		default:
			out = append(out, strings.TrimRight(p, "/"))
		}
	}
	return out
}
