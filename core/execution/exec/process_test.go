package exec_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tool/core/execution/exec"
	"tool/core/model/digest"
	"tool/core/model/merkle"
)

func digestOf(s string) digest.Digest { return digest.Of([]byte(s)) }

// buildWeb builds the web in a store and prints what ran. It is for being
// killed, or for being started twice.
func buildWeb(dir string) {
	l := newLab(plain{}, dir)
	g, want := slowWeb(l)
	r, err := l.try(g, want...)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	for _, o := range l.ev.ran {
		fmt.Println("ran", o)
	}
	for _, v := range r.Wanted {
		fmt.Println("made", v.Node.Digest)
	}
	os.Exit(0)
}

func slowWeb(l *lab) (*graph, []int) {
	l.ex.Builtins["slow@1"] = func(ctx context.Context, c *exec.BuiltinCall) ([]merkle.Node, error) {
		time.Sleep(time.Millisecond) // so that a kill hits the middle
		return concat(ctx, c)
	}
	g, want := web(10, 10)
	for _, a := range g.Actions {
		a.Builtin = "slow@1"
	}
	return g, want
}

// plain is a testing.TB for a process that is not a test.
type plain struct{ testing.TB }

func (plain) Helper()           {}
func (plain) Cleanup(func())    {}
func (plain) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func TestKilledBuilds(t *testing.T) {
	var truth string
	{
		l := newLab(t, t.TempDir())
		g, want := slowWeb(l)
		truth = contents(l, g, want)
	}
	dir := t.TempDir()
	rnd := rand.New(rand.NewPCG(5, 6))
	for range 20 {
		cmd := osexec.Command("/proc/self/exe", "build-web", dir)
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rnd.IntN(120)) * time.Millisecond)
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if rnd.IntN(4) == 0 { // a torn file, as after a power loss
			files, _ := filepath.Glob(filepath.Join(dir, "actions", "*", "*-*"))
			if len(files) > 0 {
				_ = os.Truncate(files[rnd.IntN(len(files))], 10)
			}
		}
	}
	l := newLab(t, dir)
	g, want := slowWeb(l)
	if got := contents(l, g, want); got != truth {
		t.Error("the result is another one")
	}
	if r := l.build(g, want...); r.Executed != 0 {
		t.Errorf("a null build executed %d actions", r.Executed)
	}
}

func TestTwoProcessesShareTheWork(t *testing.T) {
	dir := t.TempDir()
	l := newLab(t, dir) // also cleans up
	ran := map[string]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			cmd := osexec.Command("/proc/self/exe", "build-web", dir)
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			if err != nil {
				t.Errorf("%v", err)
			}
			mu.Lock()
			defer mu.Unlock()
			s := bufio.NewScanner(strings.NewReader(string(out)))
			for s.Scan() {
				if o, ok := strings.CutPrefix(s.Text(), "ran "); ok {
					ran[o]++
				}
			}
		})
	}
	wg.Wait()
	for o, n := range ran {
		if n > 1 {
			t.Errorf("%s ran %d times", o, n)
		}
	}
	g, want := slowWeb(l)
	if r := l.build(g, want...); r.Total != len(ran) || r.Cached != len(ran) {
		t.Errorf("%d ran; then %+v", len(ran), r)
	}
}
