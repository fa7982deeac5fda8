package pack

import (
	"context"
	"sync"

	"tool/core/model/digest"
	"tool/core/model/merkle"
	"tool/core/storage/cas"
	"tool/core/storage/store"
)

// readers is how many directories are read at once. They are small and lie
// anywhere on a disk, so it is the waiting that takes time: above all in an
// emulated machine that starts for the first time.
const readers = 16

// prefetch reads the directories of objects into the cas's memory, side by
// side. Errors are for whoever reads them again.
func prefetch(ctx context.Context, c *cas.Store, objects []store.Object) {
	f := fetcher{ctx: ctx, c: c, seen: map[digest.Digest]bool{}, slots: make(chan struct{}, readers)}
	for _, o := range objects {
		if o.Node.Kind == merkle.Dir {
			f.dir(o.Node.Digest)
		}
	}
	f.wg.Wait()
}

type fetcher struct {
	ctx   context.Context
	c     *cas.Store
	mu    sync.Mutex
	seen  map[digest.Digest]bool
	slots chan struct{}
	wg    sync.WaitGroup
}

func (f *fetcher) dir(d digest.Digest) {
	f.mu.Lock()
	known := f.seen[d]
	f.seen[d] = true
	f.mu.Unlock()
	if known || f.ctx.Err() != nil {
		return
	}
	select {
	case f.slots <- struct{}{}:
		f.wg.Go(func() {
			defer func() { <-f.slots }()
			f.read(d)
		})
	default:
		f.read(d)
	}
}

func (f *fetcher) read(d digest.Digest) {
	dir, err := f.c.GetDirectory(d)
	if err != nil {
		return
	}
	for _, sub := range dir.Directories {
		f.dir(sub.Digest)
	}
}
