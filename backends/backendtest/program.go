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

// Program returns the program at $TOOL_BINARY, or builds one in dir: tests have
// what they need from pinned packages through tool itself.
func Program(dir string) (string, error) {
	if program := os.Getenv("TOOL_BINARY"); program != "" {
		return program, nil
	}
	program := filepath.Join(dir, "tool")
	if out, err := exec.Command("go", "build", "-buildvcs=false", "-o", program, "tool/cmd/tool").CombinedOutput(); err != nil {
		return "", fmt.Errorf("building the program: %w\n%s", err, out)
	}
	return program, nil
}

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
		return nil, fmt.Errorf("tool %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
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
