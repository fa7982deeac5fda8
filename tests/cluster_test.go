package tests

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// clusterMemory is what the example's five machines take at most, in KiB.
const clusterMemory = 6 << 20

// TestCluster runs the README's example end to end: five machines come up, the
// API takes the demo app and its page is served, a master loses its power, and
// API and app outlive it. Without KVM it takes some ten minutes on two idle cores.
func TestCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: -short runs no virtual machines")
	}
	if kib := memAvailable(t); kib < clusterMemory {
		t.Skipf("SKIPPED: five machines take up to %d MiB of memory, and %d MiB are free", clusterMemory>>10, kib>>10)
	}
	cmd := exec.Command(shared.tool, "test", "--progress=plain", "//cluster:marathon_test")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "TOOL_STATE="+t.TempDir())
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if err != nil && strings.Contains(out.String(), " failed: fetch ") {
		t.Log(out.String())
		t.Skip("SKIPPED: the packages cannot be fetched, and the store does not have them")
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if !strings.Contains(out.String(), "PASSED") {
		t.Errorf("it does not say that it passed:\n%s", out.String())
	}
}

// memAvailable returns how much memory programs may still take, in KiB.
func memAvailable(t *testing.T) (kib int) {
	t.Helper()
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if _, err := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); err == nil {
			return kib
		}
	}
	t.Fatal("/proc/meminfo does not tell MemAvailable")
	return 0
}
