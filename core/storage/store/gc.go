package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"tool/core/model/digest"
	"tool/core/storage/cas"
)

// GCOptions says what a collection may take.
type GCOptions struct {
	// OlderThan spares what was put, linked or renewed within that time.
	OlderThan time.Duration
	// Results is the action cache. Store.Results is used where it is nil;
	// without either no action result is collected, and a root that names
	// some is an error.
	Results ResultIndex
	// Drop names roots that the collection removes first, for example those
	// of targets that no longer exist.
	Drop []string
}

// DeadObject is an object that a collection would remove.
type DeadObject struct {
	Ref  Ref   `json:"ref"`
	Size int64 `json:"size"` // bytes of its blobs, some of which may live on in others
}

// DeadBlob is a blob that a collection would remove.
type DeadBlob struct {
	Digest digest.Digest `json:"digest"`
	Size   int64         `json:"size"` // bytes of its files, which may be two
}

// Plan is what a collection would remove: plain data, to be shown, saved, or
// executed.
type Plan struct {
	Roots   []string        `json:"roots,omitempty"` // to be removed first
	Objects []DeadObject    `json:"objects,omitempty"`
	Blobs   []DeadBlob      `json:"blobs,omitempty"`
	Trees   []digest.Digest `json:"trees,omitempty"`   // materialised ones; size -1: not known
	Results []digest.Digest `json:"results,omitempty"` // keys of action results
	Bytes   int64           `json:"bytes"`             // of Blobs
	Cutoff  time.Time       `json:"cutoff,omitzero"`   // what changed since is spared

	store   *Store
	results ResultIndex
}

// Freed counts what a collection has removed.
type Freed struct {
	Objects, Blobs, Trees, Results int
	Bytes                          int64
}

// BusyError says that another collection runs.
type BusyError struct {
	PID string // the other's process id, as it sees itself; may be empty
}

func (e *BusyError) Error() string {
	if e.PID == "" {
		return "another process is collecting garbage"
	}
	return fmt.Sprintf("process %s is collecting garbage", e.PID)
}

// PlanGC finds what nothing keeps. It changes nothing.
func (s *Store) PlanGC(ctx context.Context, opt GCOptions) (*Plan, error) {
	p := &Plan{store: s, results: opt.Results, Roots: opt.Drop}
	if p.results == nil {
		p.results = s.Results
	}
	if opt.OlderThan > 0 {
		p.Cutoff = time.Now().Add(-opt.OlderThan)
	}
	if err := p.fill(ctx); err != nil {
		return nil, fmt.Errorf("plan a garbage collection: %w", err)
	}
	return p, nil
}

// Attach makes a plan that was read from a file executable.
func (p *Plan) Attach(s *Store, results ResultIndex) { p.store, p.results = s, results }

func (p *Plan) fill(ctx context.Context) error {
	s := p.store
	m := s.newMarking(ctx, p.results, p.Cutoff)
	m.without = p.Roots
	if err := m.all(false); err != nil {
		return err
	}
	p.Cutoff = m.cutoff
	names, err := s.objectNames()
	if err != nil {
		return err
	}
	for _, r := range names {
		if m.objects[r] {
			continue
		}
		dead := DeadObject{Ref: r}
		if o, err := s.Get(r); err == nil {
			dead.Size = o.Size
		}
		p.Objects = append(p.Objects, dead)
	}
	sizes := map[hash]*DeadBlob{}
	err = s.cas.Each(func(d digest.Digest, _ bool, size int64, ctime time.Time) error {
		if m.young(ctime) {
			m.blobs[d.Hash] = true
		}
		if b := sizes[d.Hash]; b != nil {
			b.Size += size
		} else if !m.blobs[d.Hash] {
			sizes[d.Hash] = &DeadBlob{d, size}
		}
		return ctx.Err()
	})
	if err != nil {
		return err
	}
	for h, b := range sizes {
		if !m.blobs[h] { // its other file may have turned out to be young
			p.Blobs = append(p.Blobs, *b)
			p.Bytes += b.Size
		}
	}
	slices.SortFunc(p.Blobs, func(a, b DeadBlob) int { return strings.Compare(a.Digest.Hex(), b.Digest.Hex()) })
	err = s.cas.EachTree(func(d digest.Digest, ctime time.Time) error {
		if !m.blobs[d.Hash] && !m.young(ctime) {
			p.Trees = append(p.Trees, d)
		}
		return nil
	})
	if err != nil || p.results == nil {
		return err
	}
	return p.results.Each(func(key digest.Digest, _ time.Time) error {
		if !m.actions[key] {
			p.Results = append(p.Results, key)
		}
		return nil
	})
}

// Execute removes what the plan names and what is still dead now. It may be
// killed at any moment: the order is results, objects (referrers before what
// they refer to), trees, blobs. progress may be nil.
func (p *Plan) Execute(ctx context.Context, progress func(done, total int)) (Freed, error) {
	if p.store == nil {
		return Freed{}, errors.New("collect garbage: the plan belongs to no store (Attach it)")
	}
	c := collection{Plan: p, ctx: ctx, progress: progress, total: len(p.Objects) + len(p.Blobs) + len(p.Trees) + len(p.Results)}
	err := c.run()
	if err != nil {
		err = fmt.Errorf("collect garbage: %w", err)
	}
	return c.freed, err
}

type collection struct {
	*Plan
	ctx         context.Context
	progress    func(done, total int)
	done, total int
	freed       Freed
	live        *marking
	hidden      []string
}

func (c *collection) run() error {
	lock, err := c.store.lockGC()
	if err != nil {
		return err
	}
	defer lock.Close()
	// The links of the dead trees are counted down only after the barrier is
	// lifted: it takes long, and it changes the ctimes of their blobs.
	defer func() {
		for _, h := range c.hidden {
			c.store.cas.RemoveAll(h) // else the next Open does it
		}
	}()
	unlock, err := c.store.cas.Exclusive(c.ctx)
	if err != nil {
		return err
	}
	defer unlock()
	// A power loss may undo removals in any order: have the store checked then.
	if err := c.store.cas.Unflushed(func() error { return nil }); err != nil && !cas.IsFull(err) {
		return err
	}
	for _, name := range c.Roots {
		if err := c.store.RemoveRoot(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := c.remark(); err != nil {
		return err
	}
	for _, step := range []func() error{c.removeResults, c.removeObjects, c.hideTrees, c.removeBlobs} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// remark finds what is alive now, including whatever the plan does not know.
func (c *collection) remark() error {
	c.live = c.store.newMarking(c.ctx, c.results, c.Cutoff)
	if err := c.live.all(true); err != nil {
		return err
	}
	planned := map[Ref]bool{}
	for _, o := range c.Objects {
		planned[o.Ref] = true
	}
	names, err := c.store.objectNames()
	if err != nil {
		return err
	}
	for _, r := range names {
		if !planned[r] {
			if err := c.live.object(r); err != nil {
				return err
			}
		}
	}
	if c.results == nil {
		return nil
	}
	doomed := map[digest.Digest]bool{}
	for _, k := range c.Results {
		doomed[k] = true
	}
	return c.results.Each(func(key digest.Digest, _ time.Time) error {
		if !doomed[key] {
			return c.live.action(key)
		}
		return nil
	})
}

func (c *collection) step() error {
	c.done++
	if c.progress != nil {
		c.progress(c.done, c.total)
	}
	return c.ctx.Err()
}

func (c *collection) removeResults() error {
	for _, key := range c.Results {
		if c.results != nil && !c.live.actions[key] {
			if err := c.results.Remove(key); err != nil {
				return err
			}
			c.freed.Results++
		}
		if err := c.step(); err != nil {
			return err
		}
	}
	return nil
}

func (c *collection) removeObjects() error {
	dead := map[Ref]bool{}
	for _, o := range c.Objects {
		if !c.live.objects[o.Ref] {
			dead[o.Ref] = true
		}
	}
	c.done += len(c.Objects) - len(dead)
	for _, r := range c.store.referrersFirst(dead) {
		if err := c.store.removeObject(r); err != nil {
			return err
		}
		c.freed.Objects++
		if err := c.step(); err != nil {
			return err
		}
	}
	return nil
}

// referrersFirst orders a set of objects so that each comes before those in
// the set that it refers to.
func (s *Store) referrersFirst(set map[Ref]bool) []Ref {
	names := make([]Ref, 0, len(set))
	for r := range set {
		names = append(names, r)
	}
	slices.Sort(names)
	var order []Ref
	seen := map[Ref]bool{}
	var visit func(Ref)
	visit = func(r Ref) {
		if seen[r] || !set[r] {
			return
		}
		seen[r] = true
		if o, err := s.Get(r); err == nil {
			for _, to := range o.Refs {
				visit(to)
			}
		}
		order = append(order, r)
	}
	for _, r := range names {
		visit(r)
	}
	slices.Reverse(order)
	return order
}

// removeObject removes an object's link and metadata, in that order.
func (s *Store) removeObject(r Ref) error {
	for _, p := range []string{s.Path(r), s.objectPath(r)} {
		if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("remove object %s: %w", r, err)
		}
	}
	return nil
}

func (c *collection) hideTrees() error {
	for _, d := range c.Trees {
		fi, err := os.Lstat(filepath.Join(c.store.dir, "trees", d.Hex()))
		if err == nil && !c.live.blobs[d.Hash] && !c.live.young(changed(fi)) {
			p, err := c.store.cas.HideTree(d)
			if err != nil {
				return err
			}
			if p != "" {
				c.hidden = append(c.hidden, p)
				c.freed.Trees++
			}
		}
		if err := c.step(); err != nil {
			return err
		}
	}
	return nil
}

func (c *collection) removeBlobs() error {
	for _, b := range c.Blobs {
		ctime, ok := c.store.cas.Stat(b.Digest)
		if ok && !c.live.blobs[b.Digest.Hash] && !c.live.young(ctime) {
			if err := c.store.cas.Remove(b.Digest); err != nil {
				return err
			}
			c.freed.Blobs++
			c.freed.Bytes += b.Size
		}
		if err := c.step(); err != nil {
			return err
		}
	}
	return nil
}

// lockGC makes sure that one collection runs at a time.
func (s *Store) lockGC() (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(s.dir, "gc.lock"), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer f.Close()
		if err != unix.EWOULDBLOCK {
			return nil, &os.PathError{Op: "flock", Path: f.Name(), Err: err}
		}
		var pid [32]byte
		n, _ := f.Read(pid[:])
		return nil, &BusyError{strings.TrimSpace(string(pid[:n]))}
	}
	// The pid is for people; a full disk must not keep a collection from running.
	if f.Truncate(0) == nil {
		fmt.Fprintln(f, os.Getpid())
	}
	return f, nil
}

// changed returns a file's ctime: unlike the mtime nobody can set it back.
func changed(fi fs.FileInfo) time.Time {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return time.Unix(st.Ctim.Unix())
	}
	return fi.ModTime()
}
