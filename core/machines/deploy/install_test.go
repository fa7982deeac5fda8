package deploy

import (
	"bytes"
	"compress/gzip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var toolPath = regexp.MustCompile(`(^|[ =])/tool\b`)

// TestInstallScript runs what a machine's shell is told with this host's, below
// a folder.
func TestInstallScript(t *testing.T) {
	var script, sum string
	inFleet(t, func(f *fleet) {
		o := f.plain(1, "one")
		f.deploy(o)
		f.must(os.WriteFile(filepath.Join(f.dir, "program2"), []byte("another program"), 0o755))
		f.session.Binary = &Binary{Find: func() (string, error) { return filepath.Join(f.dir, "program2"), nil }}
		f.plan(o)
		var err error
		_, sum, err = f.session.Binary.Program()
		f.must(err)
		script = f.backend.machine("m0").install
	})
	root := t.TempDir()
	script = toolPath.ReplaceAllString(script, "${1}"+root+"/tool")
	var packed bytes.Buffer
	z := gzip.NewWriter(&packed)
	z.Write([]byte("another program"))
	z.Close()
	run := func(in []byte) (string, error) {
		cmd := exec.Command("/bin/sh", "-c", script)
		cmd.Stdin = bytes.NewReader(in)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	agent := filepath.Join(root, "tool/agent", sum, "tool")
	// Cut off, damaged, another program: nothing is put there.
	other := func() []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write([]byte("not it"))
		z.Close()
		return b.Bytes()
	}()
	for name, in := range map[string][]byte{"cut off": packed.Bytes()[:packed.Len()/2], "nothing": nil, "another": other} {
		out, err := run(in)
		if err == nil || exists(agent) {
			t.Errorf("%s: it was installed: %s", name, out)
		}
		if name == "another" && !strings.Contains(out, "the agent arrived damaged") {
			t.Errorf("%s: %s", name, out)
		}
		if left, _ := filepath.Glob(filepath.Join(root, "tool/agent", sum, "*")); len(left) > 0 {
			t.Errorf("%s: it left %v", name, left)
		}
	}
	for range 2 { // and again, over one that is there
		if out, err := run(packed.Bytes()); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		b, err := os.ReadFile(filepath.Join(root, "tool/agent/current/tool"))
		if err != nil || string(b) != "another program" {
			t.Errorf("%q, %v", b, err)
		}
		if fi, err := os.Stat(agent); err != nil || fi.Mode().Perm() != 0o755 {
			t.Errorf("%v, %v", fi, err)
		}
		if left, _ := filepath.Glob(filepath.Join(root, "tool/agent", "*", "*")); len(left) != 2 { // current/tool is the same
			t.Errorf("there are %v", left)
		}
	}
}
