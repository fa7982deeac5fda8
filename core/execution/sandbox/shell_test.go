package sandbox_test

import (
	"io"
	"os"
	osexec "os/exec"
	"strings"
	"testing"

	"tool/core/execution/exec"
	"tool/core/model/merkle"
)

// newShell is a bench whose root has this machine's /bin/sh and nothing else.
func newShell(t *testing.T) *bench {
	if _, err := os.Stat("/bin/sh"); err != nil {
		t.Skip("this machine has no /bin/sh")
	}
	b := newBench(t, t.TempDir())
	files := libraries(t, "/bin/sh")
	files["bin/sh"] = "/bin/sh"
	var tree merkle.Builder
	for p, from := range files {
		if err := tree.Add(p, b.put(from)); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if b.root, err = tree.Write(b.cas); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestShell(t *testing.T) {
	b := newShell(t)
	s := b.spawn()
	s.Inputs = []exec.Input{{Path: "in", Node: b.file("line\n", false)}}
	s.Outputs = []exec.Output{{Path: "out/x"}}
	s.Argv = []string{"/bin/sh", "-ec", `
		read l < in
		(sleep_a_bit() { while :; do :; done; }; sleep_a_bit) &
		echo "$l $PWD $0 $(echo sub)" > out/x
		echo "$$ $!"
		if echo x > in; then echo "in was written"; fi
		if echo x > /etc-file; then echo "/ was written"; fi
		trap 'echo terminated; exit 4' TERM; kill $$`, "name"}
	for range 3 {
		res := b.do(s)
		if got := string(res.Stdout); got != "1000 1001\nterminated\n" || res.ExitCode != 4 {
			t.Fatalf("exit %d: %s%s", res.ExitCode, res.Stdout, res.Stderr)
		}
	}
	s.Argv[2] = strings.ReplaceAll(s.Argv[2], "exit 4", "exit 0")
	if got := b.content(b.do(s).Outputs[0]); got != "line /build name sub\n" {
		t.Errorf("got %q", got)
	}
}

func TestEnter(t *testing.T) {
	b := newShell(t)
	s := b.spawn()
	s.Argv, s.Env, s.Keep = []string{"/bin/sh", "-c", "echo half > out/x; exit 5"}, []string{"VAR=value"}, true
	s.Inputs = []exec.Input{{Path: "in", Node: b.file("input\n", false)}}
	s.Outputs = []exec.Output{{Path: "out/x"}}
	dir := strings.TrimPrefix(b.do(s).Kept, "tool sandbox-enter ")
	cmd := osexec.Command("/proc/self/exe", "enter", dir)
	cmd.Stdin = strings.NewReader("read a < in; read b < out/x; echo \"got $a $b $VAR $PWD\"; exit\n")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, io.Discard
	if err := cmd.Run(); err != nil || !strings.Contains(out.String(), "got input half value /build\n") {
		t.Errorf("%v: %q", err, out.String())
	}
}
