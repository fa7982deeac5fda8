package loader

import (
	"fmt"
	"runtime/metrics"
	"time"

	"go.starlark.net/starlark"
	"golang.org/x/sys/unix"
)

// maxHeap is how much memory, in bytes, the process may hold while a file or a
// rule is evaluated, unless tool.toml says otherwise: a net under values that
// double in size with each step, which no bound on steps catches. Go cannot
// recover from having none left.
const maxHeap = 4 << 30

const heapMetric = "/memory/classes/heap/objects:bytes"

// heapLimit returns starlark.max_megabytes of tool.toml in bytes, or maxHeap,
// or a third of a small machine's memory.
func heapLimit(thread *starlark.Thread) uint64 {
	if l := evalOf(thread).loader; l != nil && l.Workspace != nil {
		if n := l.Workspace.Config.Starlark.MaxMegabytes; n > 0 {
			return n * 1e6
		}
	}
	limit := uint64(maxHeap)
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) == nil {
		limit = min(limit, si.Totalram*uint64(si.Unit)/3)
	}
	return limit
}

// watchMemory cancels the thread once the heap has grown beyond the limit.
// Short evaluations cost one timer.
func watchMemory(thread *starlark.Thread) (stop func()) {
	const pause = 5 * time.Millisecond
	done := make(chan struct{})
	watch := func() {
		limit := heapLimit(thread)
		t := time.NewTicker(pause)
		defer t.Stop()
		for {
			s := []metrics.Sample{{Name: heapMetric}}
			metrics.Read(s)
			if s[0].Value.Kind() == metrics.KindUint64 && s[0].Value.Uint64() > limit {
				thread.Cancel(fmt.Sprintf("this takes more than %d MB of memory (tool.toml: starlark.max_megabytes raises the limit)", limit/1e6))
				return
			}
			select {
			case <-done:
				return
			case <-t.C:
			}
		}
	}
	start := time.AfterFunc(pause, watch)
	return func() {
		start.Stop()
		close(done)
	}
}
