package deploy

import (
	"context"
	"fmt"

	"tool/core/machines/pack"
	"tool/core/machines/seed"
	"tool/core/machines/system"
	"tool/core/model/digest"
	"tool/core/storage/cas"
	"tool/core/storage/store"
)

// imageFiles finds the blobs that the base image has: the files of all
// packages of all machines of the deployment. rules/disk makes it of the same.
func imageFiles(ctx context.Context, s *store.Store, o *Object) (map[digest.Digest]bool, error) {
	seen := map[store.Ref]bool{}
	var refs []store.Ref
	for i := range o.Machines {
		for _, p := range o.Machines[i].manifest.Packages {
			r, err := system.RefOf(p.Ref)
			if err != nil {
				return nil, fmt.Errorf("package %s: %w", p.Name, err)
			}
			if !seen[r] {
				seen[r] = true
				refs = append(refs, r)
			}
		}
	}
	files := map[digest.Digest]bool{}
	err := pack.Files(ctx, s, refs, func(b pack.Blob, _ *cas.Store) error {
		files[b.Digest] = true
		return nil
	})
	return files, err
}

// writeSeed makes the disk that tells a new machine who it is and brings what
// its base image lacks.
func (a *applier) writeSeed(ctx context.Context, path string, ms *MachineState, om *ObjectMachine) error {
	a.filesOnce.Do(func() { a.files, a.filesErr = imageFiles(ctx, a.Store, a.object) })
	if a.filesErr != nil {
		return fmt.Errorf("list what the base image has: %w", a.filesErr)
	}
	program, _, err := a.Binary.Program()
	if err != nil {
		return err
	}
	_, err = seed.Write(ctx, path, a.Store, seed.Content{
		Facts: factsOf(a.D, ms, a.alloc), Generation: a.plan.Generation, Label: om.Label, Ref: om.ref, Agent: program,
		Skip: func(d digest.Digest) bool { return a.files[d] },
	})
	return err
}
