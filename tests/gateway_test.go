package tests

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestGateway runs the tests of the example's gateway, which is a Go module of
// its own, and those of its conformance to a real client of Marathon's API,
// with the ZooKeeper that the machines have, and with a real Docker engine if
// there is one.
func TestGateway(t *testing.T) {
	if testing.Short() {
		t.Skip("SKIPPED: it starts ZooKeeper and three gateways, several times")
	}
	t.Parallel()
	env := append(os.Environ(), "GOFLAGS=-mod=readonly")
	var folders []string
	for _, tree := range buildHere(t, "//packages:zookeeper") {
		java := filepath.Join(tree, "usr/share/java")
		if _, err := os.Stat(java); err == nil {
			folders = append(folders, java+"/*")
		}
		if _, err := os.Stat(filepath.Join(tree, "usr/lib/jvm")); err == nil {
			env = append(env, "ZOOKEEPER_JAVA_TREE="+tree)
		}
	}
	env = append(env, "ZOOKEEPER_CLASSPATH="+strings.Join(folders, ":"))
	if image := buildHere(t, "//demo:nginx"); len(image) == 1 {
		env = append(env, "DEMO_IMAGE="+image[0])
	}
	for _, module := range []string{"workspace/marathon", "workspace/marathon/clienttest"} {
		cmd := exec.Command("go", "test", "-count=1", "-v", "./...")
		cmd.Dir = filepath.Join("..", module)
		cmd.Env = env
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", module, err, out)
		}
		for line := range strings.SplitSeq(string(out), "\n") {
			if strings.Contains(line, "SKIPPED") {
				t.Log(strings.TrimSpace(line))
			}
		}
	}
}

// TestDemoImage takes the demo's image apart: what `docker load` and every
// reader of images checks must be true of it.
func TestDemoImage(t *testing.T) {
	t.Parallel()
	made := buildHere(t, "//demo:nginx")
	if len(made) != 1 {
		t.Skip("SKIPPED: the packages of the image cannot be fetched")
	}
	files := map[string][]byte{}
	var names []string
	readTar(t, mustOpen(t, made[0]), func(h *tar.Header, r io.Reader) {
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[h.Name] = data
		names = append(names, h.Name)
	})
	var manifest []struct {
		Config           string
		RepoTags, Layers []string
	}
	if err := json.Unmarshal(files["manifest.json"], &manifest); err != nil || len(manifest) != 1 || len(manifest[0].Layers) != 1 {
		t.Fatalf("manifest.json: %s %v", files["manifest.json"], err)
	}
	m := manifest[0]
	if len(m.RepoTags) != 1 || m.RepoTags[0] != "demo/nginx:1" {
		t.Errorf("tags: %v", m.RepoTags)
	}
	config, layer := files[m.Config], files[m.Layers[0]]
	if names[0] != m.Config || m.Config != fmt.Sprintf("%x.json", sha256.Sum256(config)) {
		t.Errorf("the configuration is %s, the first file %s", m.Config, names[0])
	}
	var c struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		}
	}
	if err := json.Unmarshal(config, &c); err != nil || len(c.RootFS.DiffIDs) != 1 || c.RootFS.DiffIDs[0] != fmt.Sprintf("sha256:%x", sha256.Sum256(layer)) {
		t.Errorf("configuration: %s %v", config, err)
	}
	if len(layer) > 20<<20 {
		t.Errorf("the layer has %d bytes", len(layer))
	}
	seen := map[string]int64{}
	readTar(t, bytes.NewReader(layer), func(h *tar.Header, _ io.Reader) {
		name := strings.Trim(strings.TrimPrefix(h.Name, "./"), "/")
		if _, twice := seen[name]; twice {
			t.Errorf("%s is there twice, which Docker refuses", name)
		}
		seen[name] = h.Mode
		if h.Uid != 0 || h.Gid != 0 || h.ModTime.Unix() != 1 {
			t.Errorf("%s: owner %d:%d, time %s", name, h.Uid, h.Gid, h.ModTime)
		}
	})
	for name, mode := range map[string]int64{"usr/sbin/nginx": 0o755, "tmp": 0o1777, "usr/share/demo/index.html": 0o644, "etc/passwd": 0o644} {
		if got, there := seen[name]; !there || got != mode {
			t.Errorf("%s: there: %t, mode %o, want %o", name, there, got, mode)
		}
	}
}

func mustOpen(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func readTar(t *testing.T, r io.Reader, each func(*tar.Header, io.Reader)) {
	t.Helper()
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		each(h, tr)
	}
}

// buildHere makes a target of this repository and returns where its outputs are;
// none if packages cannot be fetched, as without a network.
func buildHere(t *testing.T, target string) []string {
	t.Helper()
	cmd := exec.Command(shared.tool, "build", "--json", "--progress=none", target)
	cmd.Dir = ".."
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil && strings.Contains(stderr.String(), " failed: fetch ") {
		t.Logf("%s: %v\n%s", target, err, stderr.String())
		return nil
	}
	if err != nil {
		t.Fatalf("%s: %v\n%s", target, err, stderr.String())
	}
	var built struct {
		Targets []struct {
			Outputs []struct{ Path string }
		}
	}
	if err := json.Unmarshal(out, &built); err != nil {
		t.Fatal(err)
	}
	var paths []string
	for _, b := range built.Targets {
		for _, o := range b.Outputs {
			paths = append(paths, o.Path)
		}
	}
	return paths
}
