package tests

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestGateway runs the tests of the example's gateway, which is a Go module of
// its own, and those of its conformance to a real client of Marathon's API,
// with the ZooKeeper that the machines have.
func TestGateway(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: it starts ZooKeeper and three gateways, several times")
	}
	t.Parallel()
	class := zookeeperClassPath(t)
	for _, module := range []string{"workspace/marathon", "workspace/marathon/clienttest"} {
		cmd := exec.Command("go", "test", "-count=1", "./...")
		cmd.Dir = filepath.Join("..", module)
		cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "ZOOKEEPER_CLASSPATH="+class)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", module, err, out)
		}
		if strings.Contains(string(out), "SKIPPED") {
			t.Logf("%s:\n%s", module, out)
		}
	}
}

// zookeeperClassPath builds the packages of the machines' ZooKeeper, and
// returns where its jars are; empty, and the tests that need it skip, where
// they cannot be fetched.
func zookeeperClassPath(t *testing.T) string {
	t.Helper()
	cmd := exec.Command(shared.tool, "build", "--json", "--progress=none", "//packages:zookeeper")
	cmd.Dir = ".."
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Logf("without ZooKeeper: %v\n%s", err, stderr.String())
		return ""
	}
	var built struct {
		Targets []struct {
			Outputs []struct{ Path string }
		}
	}
	if err := json.Unmarshal(out, &built); err != nil {
		t.Fatal(err)
	}
	var folders []string
	for _, target := range built.Targets {
		for _, o := range target.Outputs {
			java := filepath.Join(o.Path, "usr/share/java")
			if _, err := os.Stat(java); err == nil {
				folders = append(folders, java+"/*")
			}
		}
	}
	return strings.Join(folders, ":")
}
