package store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"tool/core/model/digest"
	"tool/core/model/merkle"
	"tool/core/storage/cas"
)

// The kinds of problems.
const (
	ProblemBlob   = "blob"   // a blob's file holds other bytes than its name says
	ProblemTree   = "tree"   // a materialised tree holds a damaged blob or cannot be checked
	ProblemObject = "object" // metadata unreadable, a reference not registered, or blobs missing
	ProblemLink   = "link"   // store/<ref> is dangling, wrong, or without an object
	ProblemRoot   = "root"   // a root names an object that is not there: build it again
)

// Problem is one thing that Verify found.
type Problem struct {
	Kind     string        `json:"kind"`
	Path     string        `json:"path,omitempty"`
	Ref      Ref           `json:"ref,omitempty"`
	Digest   digest.Digest `json:"digest,omitzero"`
	Detail   string        `json:"detail"`
	Repaired bool          `json:"repaired"`
}

// Report is the result of Verify.
type Report struct {
	Problems []Problem
	Removed  []digest.Digest // blobs that a repair took away and that no other file holds
	Blobs    int             // files hashed
	Objects  int             // objects checked
	Bytes    int64           // bytes hashed
}

// Verify hashes every blob, and checks the objects, the links and the roots.
// With repair it removes what is damaged and all that depends on it, so that
// the next build makes it again; it keeps collections and puts out only while it
// removes objects. The error is for what kept it from looking. progress counts
// blob files and may be nil; it is called from several goroutines, one at a time.
func (s *Store) Verify(ctx context.Context, repair bool, progress func(done, total int)) (*Report, error) {
	v := verification{s: s, ctx: ctx, repair: repair, progress: progress, report: &Report{}}
	if err := v.run(); err != nil {
		return v.report, fmt.Errorf("verify the store: %w", err)
	}
	return v.report, nil
}

type verification struct {
	s        *Store
	ctx      context.Context
	repair   bool
	progress func(done, total int)
	mu       sync.Mutex
	report   *Report
	bad      map[hash]bool // blobs with at least one damaged file
}

type blobFile struct {
	d          digest.Digest
	executable bool
}

func (v *verification) run() error {
	v.bad = map[hash]bool{}
	if err := v.blobs(); err != nil {
		return err
	}
	if v.repair {
		unlock, err := v.s.cas.Exclusive(v.ctx)
		if err != nil {
			return err
		}
		defer unlock()
	}
	for _, step := range []func() error{v.trees, v.objects, v.roots} {
		if err := step(); err != nil {
			return err
		}
	}
	slices.SortStableFunc(v.report.Problems, func(a, b Problem) int {
		return strings.Compare(a.Kind+a.Path, b.Kind+b.Path)
	})
	return nil
}

func (v *verification) found(p Problem) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Problems = append(v.report.Problems, p)
}

func (v *verification) blobs() error {
	var files []blobFile
	err := v.s.cas.Each(func(d digest.Digest, x bool, _ int64, _ time.Time) error {
		files = append(files, blobFile{d, x})
		return nil
	})
	if err != nil {
		return err
	}
	work := make(chan blobFile)
	errs := make([]error, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			for f := range work {
				errs[i] = errors.Join(errs[i], v.blob(f, len(files)))
			}
		})
	}
	for _, f := range files {
		if v.ctx.Err() != nil {
			break
		}
		work <- f
	}
	close(work)
	wg.Wait()
	if err := v.ctx.Err(); err != nil {
		return err
	}
	return errors.Join(errs...)
}

func (v *verification) blob(f blobFile, total int) error {
	err := v.s.cas.VerifyFile(v.ctx, f.d, f.executable)
	v.mu.Lock()
	v.report.Blobs++
	v.report.Bytes += f.d.Size
	if v.progress != nil {
		v.progress(v.report.Blobs, total)
	}
	v.mu.Unlock()
	if errors.Is(err, os.ErrNotExist) {
		return nil // collected meanwhile
	}
	if !cas.IsCorrupt(err) {
		return err
	}
	p := Problem{Kind: ProblemBlob, Path: v.s.cas.Path(f.d, f.executable), Digest: f.d, Detail: err.Error()}
	if v.repair {
		if err := v.s.cas.RemoveFile(f.d, f.executable); err != nil {
			return err
		}
		p.Repaired = true
	}
	v.found(p)
	v.mu.Lock()
	defer v.mu.Unlock()
	v.bad[f.d.Hash] = true
	if _, still := v.s.cas.Stat(f.d); v.repair && !still {
		v.report.Removed = append(v.report.Removed, f.d)
	}
	return nil
}

// trees finds materialised trees with damaged files: they share the inodes of
// the blobs, or are copies where there were too many links.
func (v *verification) trees() error {
	return v.s.cas.EachTree(func(d digest.Digest, _ time.Time) error {
		if err := v.ctx.Err(); err != nil {
			return err
		}
		err := v.s.cas.VerifyTree(v.ctx, d)
		if err == nil {
			err = v.checkTree(d)
		}
		if err == nil || v.ctx.Err() != nil {
			return v.ctx.Err()
		}
		p := Problem{Kind: ProblemTree, Path: filepath.Join(v.s.dir, "trees", d.Hex()), Digest: d, Detail: err.Error()}
		if v.repair {
			if err := v.s.cas.RemoveTree(d); err != nil {
				return err
			}
			p.Repaired = true
		}
		// A tree whose directories have been collected is a useless cache, no
		// problem, unless they went because they were damaged.
		if !errors.Is(err, os.ErrNotExist) || len(v.bad) > 0 {
			v.found(p)
		}
		return nil
	})
}

// checkTree reports the first blob of the tree that was found damaged.
func (v *verification) checkTree(d digest.Digest) error {
	var damaged error
	u := unique{s: v.s, ctx: v.ctx, visit: func(d digest.Digest, _ merkle.Kind) {
		if v.bad[d.Hash] && damaged == nil {
			damaged = fmt.Errorf("it holds the damaged blob %s", d)
		}
	}}
	if err := u.node(merkle.Node{Kind: merkle.Dir, Digest: d}); err != nil {
		return err
	}
	return damaged
}

// objects checks metadata and links. In a repair an object whose tree is
// incomplete goes, and so do all that refer to it, referrers first.
func (v *verification) objects() error {
	names, err := v.s.objectNames()
	if err != nil {
		return err
	}
	objects := map[Ref]*Object{}
	broken := map[Ref]string{}
	for _, r := range names {
		v.report.Objects++
		o, err := v.s.Get(r)
		if err != nil {
			broken[r] = err.Error()
			continue
		}
		objects[r] = o
		u := unique{s: v.s, ctx: v.ctx, check: true}
		if err := u.node(o.Node); err != nil {
			if v.ctx.Err() != nil {
				return err
			}
			broken[r] = err.Error()
		}
	}
	for again := true; again; {
		again = false
		for _, r := range names {
			if o := objects[r]; o != nil && broken[r] == "" {
				for _, to := range o.Refs {
					if objects[to] == nil || broken[to] != "" {
						broken[r] = fmt.Sprintf("it refers to %s, which is not usable", to)
						again = true
						break
					}
				}
			}
		}
	}
	set := map[Ref]bool{}
	for r := range broken {
		set[r] = true
	}
	for _, r := range v.s.referrersFirst(set) {
		if v.repair {
			if err := v.s.removeObject(r); err != nil {
				return err
			}
		}
		v.found(Problem{Kind: ProblemObject, Path: v.s.objectPath(r), Ref: r, Detail: broken[r], Repaired: v.repair})
		delete(objects, r)
	}
	return v.links(objects, broken)
}

func (v *verification) links(objects map[Ref]*Object, broken map[Ref]string) error {
	entries, err := os.ReadDir(filepath.Join(v.s.dir, "store"))
	if err != nil {
		return err
	}
	for _, e := range entries {
		r := Ref(e.Name())
		var detail string
		switch o := objects[r]; {
		case broken[r] != "":
			continue // reported with the object
		case o == nil:
			if _, err := v.s.Get(r); err == nil {
				continue // registered since we looked
			}
			detail = "there is no such object"
		default:
			if err := v.s.checkLink(o); err != nil {
				detail = err.Error()
			} else if o.Node.Kind == merkle.File && v.bad[o.Node.Digest.Hash] {
				detail = "it is a damaged blob" // or a copy of the good one; it is made again
			}
		}
		if detail == "" {
			continue
		}
		p := Problem{Kind: ProblemLink, Path: v.s.Path(r), Ref: r, Detail: detail}
		if v.repair {
			if err := v.s.cas.RemoveAll(p.Path); err != nil {
				return err
			}
			p.Repaired = true
		}
		v.found(p)
	}
	return nil
}

func (v *verification) roots() error {
	roots, err := v.s.Roots()
	if err != nil {
		return err
	}
	for _, r := range roots {
		for _, ref := range r.Refs {
			if _, err := v.s.Get(ref); err != nil {
				v.found(Problem{Kind: ProblemRoot, Path: v.s.rootPath(r.Name), Ref: ref, Detail: fmt.Sprintf("root %s: %v", r.Name, err)})
			}
		}
	}
	return nil
}

// Info counts what the store holds.
type Info struct {
	Objects int
	Blobs   int   // files; a blob may have two
	Bytes   int64 // of Blobs
}

// Info counts objects, blob files and their bytes.
func (s *Store) Info() (Info, error) {
	names, err := s.objectNames()
	if err != nil {
		return Info{}, err
	}
	info := Info{Objects: len(names)}
	err = s.cas.Each(func(_ digest.Digest, _ bool, size int64, _ time.Time) error {
		info.Blobs++
		info.Bytes += size
		return nil
	})
	return info, err
}
