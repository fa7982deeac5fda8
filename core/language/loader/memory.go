package loader

import (
	"fmt"
	"runtime/metrics"
	"time"

	"go.starlark.net/starlark"
	"golang.org/x/sys/unix"
)

// maxHeap is how much memory, in bytes, the process may hold while a file or a
// rule is evaluated: a net under values that double in size with each step,
// which no bound on steps catches. Go cannot recover from having none left.
const maxHeap = 4 << 30

const heapMetric = "/memory/classes/heap/objects:bytes"

// watchMemory cancels the thread once the heap has grown beyond maxHeap, or
// a third of a small machine's memory. Short evaluations cost one timer.
func watchMemory(thread *starlark.Thread) (stop func()) {
	const pause = 5 * time.Millisecond
	limit := uint64(maxHeap)
	done := make(chan struct{})
	watch := func() {
		var si unix.Sysinfo_t
		if unix.Sysinfo(&si) == nil {
			limit = min(limit, si.Totalram*uint64(si.Unit)/3)
		}
		t := time.NewTicker(pause)
		defer t.Stop()
		for {
			s := []metrics.Sample{{Name: heapMetric}}
			metrics.Read(s)
			if s[0].Value.Kind() == metrics.KindUint64 && s[0].Value.Uint64() > limit {
				thread.Cancel(fmt.Sprintf("this takes more than %.1f GB of memory", float64(limit)/1e9))
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
