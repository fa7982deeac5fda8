package gateway

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"marathon-gateway/app"
	"marathon-gateway/docker"
)

// image is what the engine is told to run. Named by its id, an image that the
// nodes have is started at once; named by a tag, the engine asks a registry
// first, always, and where there is no network waits half a minute for the
// answer. So if all nodes that have the tag mean the same image, it is the id,
// and lacking names the hosts that cannot run it.
func (m *membership) image(ctx context.Context, d *app.Docker) (ref string, lacking []string) {
	if d.ForcePullImage {
		return d.Image, nil
	}
	m.mu.Lock()
	engines := maps.Clone(m.engines)
	m.mu.Unlock()
	where := m.settings.workers
	if len(where) == 0 {
		where = m.settings.managers
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	ids, missing := make([]string, len(where)), make([]bool, len(where))
	var wg sync.WaitGroup
	for i, host := range where {
		c := engines[host]
		if c == nil {
			continue
		}
		wg.Go(func() {
			id, err := c.ImageID(ctx, d.Image)
			ids[i], missing[i] = id, docker.IsStatus(err, 404)
		})
	}
	wg.Wait()
	for i, host := range where {
		if missing[i] {
			lacking = append(lacking, host)
		}
	}
	ids = slices.DeleteFunc(ids, func(s string) bool { return s == "" })
	slices.Sort(ids)
	if ids = slices.Compact(ids); len(ids) == 1 {
		return ids[0], lacking
	}
	return d.Image, nil
}
