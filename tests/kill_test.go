package tests

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// layers is a workspace of several layers of actions: a few dozen that each
// read what the layer before made, and a report of the last.
func layers(layers, width int) map[string]string {
	return map[string]string{"BUILD.star": fmt.Sprintf(`
[genrule(
    name = "%%d.%%d" %% (layer, i),
    srcs = ["seed.txt"] if layer == 0 else ["%%d.%%d.txt" %% (layer - 1, j) for j in range(%[2]d)],
    outs = ["%%d.%%d.txt" %% (layer, i)],
    cmd = "(echo %%d.%%d; cat $(SRCS) | sha256sum) > $@" %% (layer, i),
) for layer in range(%[1]d) for i in range(%[2]d)]

genrule(name = "report", srcs = ["%[3]d.%%d.txt" %% i for i in range(%[2]d)], outs = ["report.txt"], cmd = "cat $(SRCS) > $@")
`, layers, width, layers-1), "seed.txt": "seed\n"}
}

// TestKill kills builds at random moments. The next run must come to the same
// end as a build that nobody disturbed, and the store must be sound.
func TestKill(t *testing.T) {
	t.Parallel()
	kills := 10
	if s := os.Getenv("TOOL_KILLS"); s != "" {
		var err error
		if kills, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	calm := newPlace(t, tempDir(t), layers(3, 4))
	start := time.Now()
	want := calm.build("//...")
	took := time.Since(start)

	p := newPlace(t, tempDir(t), layers(3, 4))
	killed := 0
	for i := range kills {
		// From an empty store every third time, else with a new seed: both the
		// unpacking and the commands are to be hit.
		fresh := i%3 == 0
		span := took
		if fresh {
			p.store = tempDir(t)
		} else {
			p.write("seed.txt", fmt.Sprintf("seed %d\n", i))
			span = took / 4
		}
		cmd := p.command("build", "//...")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		after := rand.N(span * 2 / 3)
		timer := time.AfterFunc(after, func() { _ = cmd.Process.Kill() })
		if cmd.Wait() != nil {
			killed++
		}
		timer.Stop()
		p.write("seed.txt", "seed\n")
		got := p.build("//...")
		if fmt.Sprint(outputs(got)) != fmt.Sprint(outputs(want)) {
			t.Fatalf("killed after %v: the next build made something else:\n%v\nwant\n%v", after, outputs(got), outputs(want))
		}
		if p.read(".tool/out/report.txt") != calm.read(".tool/out/report.txt") {
			t.Fatalf("killed after %v: report.txt differs", after)
		}
		p.sound()
		if t.Failed() {
			t.Fatalf("killed after %v", after)
		}
	}
	t.Logf("%d of %d builds were killed", killed, kills)
}

// outputs lists what was built, without where.
func outputs(b built) []string {
	var out []string
	for _, t := range b.Targets {
		for _, o := range t.Outputs {
			out = append(out, strings.Join([]string{t.Label, o.Ref, o.Digest}, " "))
		}
	}
	return out
}
