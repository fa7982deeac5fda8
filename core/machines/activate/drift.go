package activate

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// Drift is one way in which the machine is not what its generation says.
type Drift struct {
	Kind   string `json:"kind"` // pointer, tree, etc, unit, network
	Path   string `json:"path,omitempty"`
	Detail string `json:"detail"`
}

// maxDrift bounds how much is told.
const maxDrift = 200

// FindDrift compares the machine with its active generation: pointers, the
// tree, /etc, networkd's files, failed units. It changes nothing.
func (m *Machine) FindDrift(ctx context.Context) ([]Drift, error) {
	d, err := m.findDrift(ctx)
	if err != nil {
		return nil, fmt.Errorf("look for drift: %w", err)
	}
	return d[:min(len(d), maxDrift)], nil
}

func (m *Machine) findDrift(ctx context.Context) ([]Drift, error) {
	var out []Drift
	n, err := m.Pointer(Active)
	if err != nil {
		return nil, err
	}
	if n != 0 {
		if out, err = m.driftOf(ctx, n); err != nil {
			return nil, err
		}
	}
	failed, err := m.Systemd.List(ctx, "failed")
	if err != nil {
		return nil, err
	}
	for _, u := range failed {
		out = append(out, Drift{Kind: "unit", Path: u, Detail: "it has failed"})
	}
	return out, nil
}

func (m *Machine) driftOf(ctx context.Context, n int) ([]Drift, error) {
	var out []Drift
	add := func(kind, path, format string, args ...any) {
		out = append(out, Drift{kind, path, fmt.Sprintf(format, args...)})
	}
	g, err := m.Generation(n)
	if err != nil {
		return nil, err
	}
	o, err := m.Store.Get(g.Ref)
	if err != nil {
		return nil, err
	}
	if confirmed, err := m.Pointer(Confirmed); err != nil {
		return nil, err
	} else if confirmed != n {
		add("pointer", "", "generation %d is active and %d is confirmed", n, confirmed)
	}
	want := filepath.Join("store", string(g.Ref))
	if have, err := os.Readlink(m.path("tool/current")); err != nil || have != want {
		add("pointer", "/tool/current", "it leads to %q and generation %d is %s", have, n, want)
	}
	if err := m.Store.CAS().VerifyTree(ctx, o.Node.Digest); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		add("tree", "/tool/current", "%v", err)
	}
	etc, err := m.etcOf(o.Node.Digest)
	if err != nil {
		return nil, err
	}
	for _, p := range slices.Sorted(maps.Keys(etc.Links)) {
		if have, err := os.Readlink(m.path("etc", p)); err != nil {
			add("etc", "/etc/"+p, "it is no link to %s", etc.Links[p])
		} else if have != etc.Links[p] {
			add("etc", "/etc/"+p, "it leads to %s and should lead to %s", have, etc.Links[p])
		}
	}
	for _, l := range topLinks {
		if have, _ := os.Readlink(m.path(l.name)); have != l.target && !m.Adopted() {
			add("etc", "/"+l.name, "it leads to %q and should lead to %s", have, l.target)
		}
	}
	manifest, err := m.Manifest(g.Ref)
	if err != nil {
		return nil, err
	}
	f, err := m.Facts()
	if err != nil {
		return nil, err
	}
	files, err := m.wantedFiles(o.Node.Digest, manifest, f)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		m.compareFile(&out, "etc", "etc/"+name, files[name])
	}
	if !f.Adopted {
		network := networkFiles(f)
		for _, name := range slices.Sorted(maps.Keys(network)) {
			m.compareFile(&out, "network", networkDir+"/"+name, etcFile{network[name], owned{mode: 0o644}})
		}
	}
	return out, nil
}

func (m *Machine) compareFile(out *[]Drift, kind, p string, want etcFile) {
	have, err := os.ReadFile(m.path(p))
	if err != nil {
		*out = append(*out, Drift{kind, "/" + p, err.Error()})
		return
	}
	if !bytes.Equal(have, want.content) {
		*out = append(*out, Drift{kind, "/" + p, "its content was changed"})
		return
	}
	var st unix.Stat_t
	if err := unix.Lstat(m.path(p), &st); err == nil && os.FileMode(st.Mode&0o777) != want.owned.mode {
		*out = append(*out, Drift{kind, "/" + p, fmt.Sprintf("its mode is %#o and should be %#o", st.Mode&0o777, want.owned.mode)})
	}
}
