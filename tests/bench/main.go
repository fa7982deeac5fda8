// Command bench times tool on a synthetic workspace and, in the same run, its
// peers on the same work, and prints ratios. It asserts nothing: machines are
// noisy, and only figures of one run can be compared.
//
//	go run ./tests/bench -n 1000
//	go run ./tests/bench -cluster
//
// The work is a layered graph of n actions: each reads a source file of its
// own and three outputs of the layer before, 100 actions to a package.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"syscall"
	"time"
)

const width = 100 // actions of a layer, and of a package

func main() {
	n := flag.Int("n", 1000, "actions")
	runs := flag.Int("runs", 7, "times to run a null build")
	keep := flag.String("dir", "", "work here and leave it")
	cluster := flag.Bool("cluster", false, "time //cluster:marathon instead; run this at the root of the repository")
	flag.Parse()
	if err := run(*n, *runs, *keep, *cluster); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(n, runs int, dir string, cluster bool) error {
	if dir == "" {
		d, err := os.MkdirTemp("", "tool-bench-")
		if err != nil {
			return err
		}
		defer func() {
			_ = exec.Command("chmod", "-R", "u+w", d).Run()
			_ = os.RemoveAll(d)
		}()
		dir = d
	}
	b := &bench{dir: dir, n: n}
	if err := b.prepare(); err != nil {
		return err
	}
	if cluster {
		return b.cluster()
	}
	fmt.Printf("%d actions, %d processors\n", n, runtime.NumCPU())
	fmt.Printf("%-34s %10s %10s %8s %10s\n", "", "tool", "ninja", "ratio", "tool peak")
	b.compare("clean build", 1, b.toolBuild, b.ninjaBuild)
	b.compare("null build", runs, b.toolBuild, b.ninjaBuild)
	last := b.source(n - 1)
	b.compare("edit the last source", 3, b.editing(last, b.toolBuild), b.editing(last, b.ninjaBuild))
	first := b.source(0)
	b.compare("edit the deepest source", 1, b.editing(first, b.toolBuild), b.editing(first, b.ninjaBuild))
	return nil
}

type bench struct {
	dir, tool, step string
	n               int
	edits           int
}

// sample is one run of a command.
type sample struct {
	wall time.Duration
	peak int64 // bytes of the largest process
}

func (b *bench) source(i int) string {
	return filepath.Join(b.dir, "src", fmt.Sprintf("p%d", i/width), fmt.Sprintf("s%d.txt", i%width))
}

func (b *bench) prepare() error {
	b.tool, b.step = filepath.Join(b.dir, "tool"), filepath.Join(b.dir, "src", "step.bin")
	if err := os.MkdirAll(filepath.Join(b.dir, "src"), 0o755); err != nil {
		return err
	}
	for out, pkg := range map[string]string{b.tool: "./cmd/tool", b.step: "./tests/bench/step"} {
		cmd := exec.Command("go", "build", "-trimpath", "-o", out, pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if msg, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build %s: %w\n%s", pkg, err, msg)
		}
	}
	files := map[string]string{
		"tool.toml": "",
		"step.star": stepRule,
		"BUILD.star": `exports_files(["step.bin"])
`,
	}
	var ninja strings.Builder
	fmt.Fprintf(&ninja, "rule step\n  command = %s $out $in\n  restat = 1\n", b.step)
	for p := 0; p*width < b.n; p++ {
		var build strings.Builder
		build.WriteString("load(\"//:step.star\", \"step\")\npackage(default_visibility = [\"//visibility:public\"])\n")
		for i := p * width; i < min((p+1)*width, b.n); i++ {
			files[fmt.Sprintf("p%d/s%d.txt", p, i%width)] = fmt.Sprintf("source %d\n", i)
			ins := []string{fmt.Sprintf("p%d/s%d.txt", p, i%width)}
			srcs := []string{fmt.Sprintf("%q", fmt.Sprintf("s%d.txt", i%width))}
			for k := range 3 {
				if p == 0 {
					break
				}
				j := (i + k*7) % width
				ins = append(ins, fmt.Sprintf("out/p%d/o%d", p-1, j))
				srcs = append(srcs, fmt.Sprintf("\"//p%d:o%d\"", p-1, j))
			}
			fmt.Fprintf(&build, "step(name = \"o%d\", srcs = [%s])\n", i%width, strings.Join(srcs, ", "))
			fmt.Fprintf(&ninja, "build out/p%d/o%d: step %s\n", p, i%width, strings.Join(ins, " "))
		}
		files[fmt.Sprintf("p%d/BUILD.star", p)] = build.String()
	}
	files["build.ninja"] = ninja.String()
	for name, content := range files {
		p := filepath.Join(b.dir, "src", name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

const stepRule = `"""One benchmark action."""

def _step_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name)
    ctx.actions.run(outputs = [out], inputs = ctx.files.srcs, executable = ctx.executable._step, arguments = [out.path] + [f.path for f in ctx.files.srcs], mnemonic = "Step")
    return [DefaultInfo(files = depset([out]))]

step = rule(
    implementation = _step_impl,
    attrs = {
        "srcs": attr.label_list(allow_files = True),
        "_step": attr.label(default = Label("//:step.bin"), allow_single_file = True, executable = True, cfg = "exec"),
    },
)
`

func (b *bench) toolBuild() (sample, error) {
	return b.command(b.tool, "build", "--progress=none", "--json", "//...")
}

func (b *bench) ninjaBuild() (sample, error) { return b.command("ninja", "--quiet") }

// editing makes a real change to a file before each run.
func (b *bench) editing(file string, build func() (sample, error)) func() (sample, error) {
	return func() (sample, error) {
		b.edits++
		if err := os.WriteFile(file, fmt.Appendf(nil, "edit %d\n", b.edits), 0o644); err != nil {
			return sample{}, err
		}
		time.Sleep(100 * time.Millisecond) // beyond the clock's granularity, as a person's edit is
		return build()
	}
}

func (b *bench) command(name string, args ...string) (sample, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = filepath.Join(b.dir, "src")
	cmd.Env = append(os.Environ(), "TOOL_STORE="+filepath.Join(b.dir, "store"))
	return timed(cmd)
}

// timed runs a command and tells what it took.
func timed(cmd *exec.Cmd) (sample, error) {
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	start := time.Now()
	err := cmd.Run()
	s := sample{wall: time.Since(start)}
	if ru, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		s.peak = ru.Maxrss << 10
	}
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", cmd.Path, err, stderr.String())
	}
	return s, err
}

// compare runs both in turn and prints medians.
func (b *bench) compare(what string, runs int, ours, theirs func() (sample, error)) {
	_, none := exec.LookPath("ninja")
	var a, c []sample
	for range runs {
		s, err := ours()
		if err != nil {
			fmt.Printf("%-34s %v\n", what, err)
			return
		}
		a = append(a, s)
		if none == nil {
			if s, err = theirs(); err != nil {
				fmt.Printf("%-34s %v\n", what, err)
				return
			}
			c = append(c, s)
		}
	}
	m := median(a)
	if c == nil {
		fmt.Printf("%-34s %10s %10s %8s %7d MB\n", what, seconds(m.wall), "absent", "-", m.peak>>20)
		return
	}
	o := median(c)
	fmt.Printf("%-34s %10s %10s %8.2f %7d MB\n", what, seconds(m.wall), seconds(o.wall), m.wall.Seconds()/o.wall.Seconds(), m.peak>>20)
}

func median(s []sample) sample {
	sort.Slice(s, func(i, j int) bool { return s[i].wall < s[j].wall })
	return s[len(s)/2]
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.3f s", d.Seconds()) }
