package backendtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// BuildError says that what a test needs was not built.
type BuildError struct {
	What string
	Text string // what the program said
	Err  error
	// Lacks is set where that is this machine's doing: packages that cannot be
	// fetched and are not in the store, or no user namespaces. The test then skips.
	Lacks bool
}

func (e *BuildError) Error() string { return fmt.Sprintf("%s: %v\n%s", e.What, e.Err, e.Text) }

// Unwrap returns how the program ended.
func (e *BuildError) Unwrap() error { return e.Err }

// Program returns the program at $TOOL_BINARY, or builds one in dir: tests have
// what they need from pinned packages through tool itself.
func Program(dir string) (string, error) {
	if program := os.Getenv("TOOL_BINARY"); program != "" {
		return program, nil
	}
	program := filepath.Join(dir, "tool")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", program, "tool/cmd/tool").CombinedOutput(); err != nil {
		return "", &BuildError{What: "building the program", Text: string(out), Err: err}
	}
	return program, nil
}

// exitEnvironment is tool's exit code for what is the machine's fault.
const exitEnvironment = 36

// Build lets the program build in a workspace and returns the paths of all
// outputs. Args are a target, and flags of `tool build`.
func Build(program, workspace string, args ...string) ([]string, error) {
	args = append([]string{"build", "--json"}, args...)
	cmd := exec.Command(program, args...)
	cmd.Dir = workspace
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		text := stderr.String()
		lacks := strings.Contains(text, " failed: fetch ") || cmd.ProcessState.ExitCode() == exitEnvironment && strings.Contains(text, "namespaces")
		return nil, &BuildError{What: "tool " + strings.Join(args, " "), Text: text, Err: err, Lacks: lacks}
	}
	var result struct {
		Targets []struct {
			Outputs []struct {
				Path string `json:"path"`
			} `json:"outputs"`
		} `json:"targets"`
	}
	if err := json.Unmarshal(out, &result); err != nil {
		return nil, fmt.Errorf("tool %s: %w: %s", strings.Join(args, " "), err, out)
	}
	var paths []string
	for _, t := range result.Targets {
		for _, o := range t.Outputs {
			paths = append(paths, o.Path)
		}
	}
	return paths, nil
}
