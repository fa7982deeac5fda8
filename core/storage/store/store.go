// Package store holds named objects: a tree or file of the cas with a name and
// references to other objects. It knows what each object needs (closures),
// what someone wants kept (roots and leases), and removes the rest (garbage
// collection). All of it is plain files beside the blobs, in one directory:
//
//	objects/<ref>     an object's metadata, JSON with a version
//	store/<ref>       the object itself: a link to ../trees/<hex>, or the file
//	roots/<name>.json what to keep, and why
//	leases/<random>   what a living process uses; locked by it
//	actions/          results of actions; its owner is the action cache
//	gc.lock           held by the one collection that runs
//
// # Invariants
//
// An object is registered after everything that it refers to, and removed
// before it. So at every moment, also after kill -9, a registered object's
// closure is registered and its blobs are there.
//
// # What a collection spares
//
// Whatever the roots reach; whatever a living Lease has adopted; and every blob,
// tree and object that is younger than the oldest living lease, for a lease's
// holder makes things before it can say so. Therefore: take a lease, and then
// either put a thing (which renews it), or adopt it and then ask whether it is
// still there.
package store

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"tool/core/storage/cas"
)

// Store is an open store. Its methods are safe for concurrent use, and any
// number of processes may have the same directory open.
type Store struct {
	// Results finds the action results that roots name. It is used by WhyAlive,
	// and by PlanGC where its options give none. Set it right after Open.
	Results ResultIndex

	dir string
	cas *cas.Store
	seq atomic.Uint64

	tmpOnce sync.Once
	tmp     string
	tmpErr  error
}

// Open opens the store in dir and creates it where there is none. After a loss
// of power it first removes what was damaged; see cas.Open.
func Open(dir string) (*Store, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	s := &Store{dir: abs}
	for _, d := range []string{"objects", "store", "roots", "leases", "actions"} {
		if err := os.MkdirAll(filepath.Join(abs, d), 0o755); err != nil {
			return nil, fmt.Errorf("open store %s: %w", dir, err)
		}
	}
	s.cas, err = cas.OpenRecovering(abs, func(c *cas.Store) error {
		s.cas = c
		v := verification{s: s, ctx: context.Background(), repair: true, report: &Report{}}
		return v.objects()
	})
	if err != nil {
		return nil, err
	}
	return s, nil
}

// Close releases the store. It does not release leases.
func (s *Store) Close() error { return s.cas.Close() }

// CAS returns the blobs and trees of the store.
func (s *Store) CAS() *cas.Store { return s.cas }

// Dir returns the store's absolute directory.
func (s *Store) Dir() string { return s.dir }

// tmpName returns an unused path on the store's file system.
func (s *Store) tmpName() (string, error) {
	s.tmpOnce.Do(func() { s.tmp, s.tmpErr = s.cas.TempDir("store") })
	return filepath.Join(s.tmp, strconv.FormatUint(s.seq.Add(1), 10)), s.tmpErr
}

// writeFile replaces path by rename. It is durable after the next Flush, like
// blobs. With sync, at least no half of it can be there after a loss of power.
func (s *Store) writeFile(path string, b []byte, sync bool) error {
	tmp, err := s.tmpName()
	if err != nil {
		return err
	}
	err = s.cas.Unflushed(func() error {
		if err := cas.WriteSmall(tmp, b, sync); err != nil {
			return err
		}
		return os.Rename(tmp, path)
	})
	if err != nil {
		os.Remove(tmp)
	}
	return err
}
