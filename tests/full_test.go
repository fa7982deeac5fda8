package tests

import (
	"os/exec"
	"strings"
	"testing"
)

// TestFullDisk builds in a store that is too small. The build says so, once,
// with the exit code for this machine's faults; it loses nothing, and ends well
// once there is space.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	if out, err := exec.Command("unshare", "-Urm", "mount", "-t", "tmpfs", "none", "/mnt").CombinedOutput(); err != nil {
		t.Skipf("SKIPPED: no tmpfs can be mounted here to be filled: %v: %s", err, out)
	}
	p := newPlace(t, "", layers(2, 3))
	// The store lives as long as the mount namespace, so one shell does it all.
	const script = `
mkdir disk && mount -t tmpfs -o size=160m none disk && head -c 120m /dev/zero >disk/filler || exit 99
"$TOOL" build //... >out1 2>err1; echo $? >code1
"$TOOL" build //... >out2 2>err2; echo $? >code2
rm disk/filler
"$TOOL" store verify >verify3 2>&1; echo $? >code3
"$TOOL" build --json //... >out4 2>err4; echo $? >code4
"$TOOL" store verify >verify5 2>&1; echo $? >code5
`
	p.store = p.path("disk/store")
	cmd := exec.Command("unshare", "-Urm", "sh", "-c", script)
	cmd.Dir = p.dir
	cmd.Env = append(p.command().Env, "TOOL="+shared.tool)
	if r := finish(t, cmd); r.code != 0 {
		t.Fatalf("exit code %d\n%s%s", r.code, r.stdout, r.stderr)
	}
	for n, want := range map[string]string{"1": "36", "2": "36", "3": "0", "4": "0", "5": "0"} {
		if got := strings.TrimSpace(p.read("code" + n)); got != want {
			t.Errorf("command %s had the exit code %s, want %s", n, got, want)
		}
	}
	for _, file := range []string{"err1", "err2"} {
		lines := strings.Split(strings.TrimSpace(progress.ReplaceAllString(p.read(file), "")), "\n")
		if len(lines) != 2 || !strings.Contains(lines[0], "no space left on device") ||
			lines[1] != "Nothing is lost: free some space (tool gc) and run the same command again" {
			t.Errorf("%s:\n%s", file, strings.Join(lines, "\n"))
		}
	}
	if t.Failed() {
		t.Log(p.read("verify3") + p.read("err4") + p.read("verify5"))
		return
	}
	calm := newPlace(t, tempDir(t), layers(2, 3))
	want, got := outputs(calm.build("//...")), outputs(readBuilt(t, p.read("out4")))
	if strings.Join(want, "\n") != strings.Join(got, "\n") {
		t.Errorf("after all it made\n%v\nwant\n%v", got, want)
	}
}
