package gateway

import (
	"fmt"
	"time"

	"marathon-gateway/app"
)

// portPool gives tasks their ports: every port of the range once in the whole
// cluster, so that a port alone tells the task.
type portPool struct {
	portRange
	next  int
	freed map[int]time.Time
}

// cooldown is how long a port is left alone after its task ended: the
// container may still be on its way out.
const cooldown = 30 * time.Second

func newPool(r portRange) *portPool {
	return &portPool{portRange: r, next: r.first, freed: map[int]time.Time{}}
}

// release notes that a task's ports will be free.
func (p *portPool) release(ports []int, now time.Time) {
	for _, n := range ports {
		p.freed[n] = now
	}
	for n, t := range p.freed {
		if now.Sub(t) > cooldown {
			delete(p.freed, n)
		}
	}
}

// take chooses ports for the wants of one task and marks them in taken.
func (p *portPool) take(wants []app.HostPort, taken map[int]bool, now time.Time) ([]int, error) {
	out := make([]int, len(wants))
	own := map[int]bool{}
	for i, w := range wants {
		if w.HostPort != 0 {
			out[i] = w.HostPort
			own[w.HostPort] = true
		}
	}
	for i, w := range wants {
		if w.HostPort != 0 {
			continue
		}
		free := func(n int) bool { return !taken[n] && !own[n] }
		n := p.find(func(n int) bool { return free(n) && now.Sub(p.freed[n]) > cooldown })
		if n == 0 {
			n = p.find(free)
		}
		if n == 0 {
			return nil, fmt.Errorf("no port is free: all %d from %d to %d are taken", p.size(), p.first, p.last)
		}
		out[i] = n
		own[n] = true
	}
	for n := range own {
		taken[n] = true
	}
	return out, nil
}

// find goes once around the range, from where it was left.
func (p *portPool) find(ok func(int) bool) int {
	for i := range p.size() {
		n := p.first + (p.next-p.first+i)%p.size()
		if ok(n) {
			p.next = n + 1
			return n
		}
	}
	return 0
}
