package exec_test

import (
	"fmt"
	"testing"

	"sync"
	"tool/core/execution/exec"
	"tool/core/model/digest"
)

// memory is a Cache that costs nothing.
type memory struct{ m sync.Map }

func (c *memory) Get(k digest.Digest) *exec.Entry {
	v, ok := c.m.Load(k)
	if !ok {
		return nil
	}
	return v.(*exec.Entry)
}

func (c *memory) Put(k digest.Digest, e *exec.Entry) error {
	c.m.Store(k, e)
	return nil
}

// noops is 10,000 actions that all make the same file, half of them layered.
func noops() (*graph, []int) {
	g := newGraph()
	var want, last []int
	for i := range 5000 {
		want = append(want, g.builtin("symlink@1", fmt.Sprintf(`{"target":"%d"}`, i), fmt.Sprintf("out/i%d", i)))
	}
	for l := range 50 {
		var now []int
		for i := range 100 {
			var in []int
			if l > 0 {
				in = []int{last[i], last[(i+1)%100]}
			}
			now = append(now, g.builtin("symlink@1", fmt.Sprintf(`{"target":"%d.%d"}`, l, i), fmt.Sprintf("out/l%d/n%d", l, i), in...))
		}
		last = now
	}
	return g, append(want, last...)
}

func BenchmarkNoops(b *testing.B) {
	g, want := noops()
	l := newLab(b, b.TempDir())
	for b.Loop() {
		l.ex.Cache = &memory{}
		if r := l.build(g, want...); r.Executed != 10000 {
			b.Fatal(r.Executed)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/10000, "µs/action")
}

func BenchmarkNoopsOnDisk(b *testing.B) {
	g, want := noops()
	for b.Loop() {
		l := newLab(b, b.TempDir())
		if r := l.build(g, want...); r.Executed != 10000 {
			b.Fatal(r.Executed)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/10000, "µs/action")
}

func BenchmarkNull(b *testing.B) {
	g, want := noops()
	l := newLab(b, b.TempDir())
	l.build(g, want...)
	for b.Loop() {
		if r := l.build(g, want...); r.Cached != 10000 {
			b.Fatal(r)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms/build")
}
