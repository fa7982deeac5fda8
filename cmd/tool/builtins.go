package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"tool/core/execution/exec"
	"tool/core/execution/fetch"
	"tool/core/language/action"
	"tool/core/language/workspace"
	"tool/core/model/digest"
	"tool/core/model/merkle"
	"tool/core/packages/debian"
	"tool/core/packages/gomod"
	"tool/core/packages/lock"
	"tool/core/packages/unpack"
)

// builtins are the in-process actions that need the network or know a foreign
// package format; the others come with the execution phase.
func builtins(e *engine) (map[string]exec.Builtin, error) {
	m := newMirrors(e)
	return map[string]exec.Builtin{
		"fetch@1":        m.fetchBuiltin,
		"unpack-deb@1":   unpacking(unpackDeb),
		"unpack@1":       unpacking(unpackArchive),
		"go-module@1":    unpacking(goModule),
		"go-toolchain@1": unpacking(goToolchain),
	}, nil
}

// mirrors knows where pinned bytes are; it asks the host only when something
// really has to be fetched.
type mirrors struct {
	ws       *workspace.Workspace
	fetcher  *fetch.Fetcher
	watching sync.Map // digest.Digest → func(done, total int64)

	debian  func() ([]debian.Source, error)
	proxies func() ([]string, error)
}

func newMirrors(e *engine) *mirrors {
	cfg := &e.ws.Config
	m := &mirrors{ws: e.ws, fetcher: &fetch.Fetcher{
		Sink: e.store.CAS(), Partial: filepath.Join(e.store.Dir(), "partial"),
		Stall: time.Duration(cfg.Fetch.StallSeconds) * time.Second,
	}}
	m.fetcher.Progress = func(p fetch.Progress) {
		if f, ok := m.watching.Load(p.Request.Digest); ok {
			f.(func(done, total int64))(p.Done, p.Request.Digest.Size)
		}
	}
	m.debian = sync.OnceValues(func() ([]debian.Source, error) {
		host, err := debian.HostSources("/")
		return append(debian.ExplicitSources(cfg.Mirrors.Debian), host...), err
	})
	m.proxies = sync.OnceValues(func() ([]string, error) {
		return fetch.GoProxies(context.Background(), fetch.HostGoEnv(), cfg.Mirrors.Go)
	})
	return m
}

// fetchParams are what the rule library tells of a pin.
type fetchParams struct {
	Kind    string   `json:"kind"` // deb, gomod or file
	Name    string   `json:"name"`
	Version string   `json:"version"`
	Arch    string   `json:"arch"`
	Suite   string   `json:"suite"`
	Path    string   `json:"path"`
	H1      string   `json:"h1"`
	URLs    []string `json:"urls"`
}

func (m *mirrors) request(p *fetchParams, want digest.Digest) (fetch.Request, error) {
	switch p.Kind {
	case "deb":
		sources, err := m.debian()
		if err != nil {
			return fetch.Request{}, err
		}
		urls := debian.Mirrors(sources, p.Suite)
		if len(urls) == 0 {
			return fetch.Request{}, fmt.Errorf("no mirror of %s is known: this machine has no apt source for it; add to %s:\n\n\t[mirrors.debian]\n\t%q = [\"https://MIRROR/debian\"]", p.Suite, workspace.ConfigFile, p.Suite)
		}
		return fetch.Deb(lock.Deb{Name: p.Name, Version: p.Version, Arch: p.Arch, Suite: p.Suite, Path: p.Path, Digest: want}, urls), nil
	case "gomod":
		proxies, err := m.proxies()
		if err != nil {
			return fetch.Request{}, err
		}
		return fetch.Module(lock.Module{Path: p.Name, Version: p.Version, Digest: want, Sum: p.H1}, proxies)
	case "file":
		return fetch.File(lock.File{Name: p.Name, Digest: want, URLs: p.URLs}, m.ws.Config.Mirrors.Files), nil
	}
	return fetch.Request{}, fmt.Errorf("fetch@1: there is no kind %q", p.Kind)
}

func (m *mirrors) fetchBuiltin(ctx context.Context, c *exec.BuiltinCall) ([]merkle.Node, error) {
	var p fetchParams
	if err := params(c, &p); err != nil {
		return nil, err
	}
	if len(c.Outputs) != 1 || c.Outputs[0].Fixed.IsZero() {
		return nil, fmt.Errorf("fetch@1: wants one output with a known digest")
	}
	want := c.Outputs[0].Fixed
	r, err := m.request(&p, want)
	if err != nil {
		return nil, err
	}
	if !c.CAS.Has(want) {
		m.watching.Store(want, c.Progress)
		defer m.watching.Delete(want)
		if err := m.fetcher.Fetch(ctx, r); err != nil {
			return nil, err
		}
	}
	return []merkle.Node{{Kind: merkle.File, Digest: want}}, nil
}

func params(c *exec.BuiltinCall, into any) error {
	d := json.NewDecoder(bytes.NewReader(c.Params))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return fmt.Errorf("%s: parameters: %w", c.Name, err)
	}
	return nil
}

// archive is the one file that an unpacking builtin reads.
type archive struct {
	*os.File
	size int64 // bytes
	sink unpack.Sink
}

// unpacking makes a builtin of a function that turns an archive into a tree; P
// is the type of its parameters.
func unpacking[P any](f func(context.Context, *archive, P) (digest.Digest, error)) exec.Builtin {
	return func(ctx context.Context, c *exec.BuiltinCall) ([]merkle.Node, error) {
		var p P
		if err := params(c, &p); err != nil {
			return nil, err
		}
		if len(c.Inputs) != 1 || c.Inputs[0].Node.Kind != merkle.File || len(c.Outputs) != 1 || c.Outputs[0].Kind != action.Tree {
			return nil, fmt.Errorf("%s: wants one file in and one directory out", c.Name)
		}
		in := c.Inputs[0].Node.Digest
		file, err := c.CAS.Open(in)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		d, err := f(ctx, &archive{file, in.Size, unpack.To(c.CAS)}, p)
		if err != nil {
			return nil, err
		}
		return []merkle.Node{{Kind: merkle.Dir, Digest: d}}, nil
	}
}

type debParams struct {
	Exclude []string `json:"exclude"`
}

func unpackDeb(ctx context.Context, a *archive, p debParams) (digest.Digest, error) {
	d, _, err := unpack.Deb(ctx, a, a.sink, unpack.Options{Exclude: p.Exclude})
	return d, err
}

type archiveParams struct {
	Exclude []string `json:"exclude"`
	Prefix  string   `json:"prefix"`
	Strip   int      `json:"strip"`
}

func unpackArchive(ctx context.Context, a *archive, p archiveParams) (digest.Digest, error) {
	opt := unpack.Options{Exclude: p.Exclude, Prefix: p.Prefix, Strip: p.Strip}
	var magic [4]byte
	if _, err := a.ReadAt(magic[:], 0); err == nil && string(magic[:]) == "PK\x03\x04" {
		return unpack.Zip(ctx, a, a.size, a.sink, opt)
	}
	return unpack.Tar(ctx, a, a.sink, opt)
}

type moduleParams struct {
	Path    string `json:"path"`
	Version string `json:"version"`
	H1      string `json:"h1"`
}

func goModule(ctx context.Context, a *archive, p moduleParams) (digest.Digest, error) {
	return gomod.CacheTree(ctx, a, a.size, gomod.Module{Path: p.Path, Version: p.Version, Sum: p.H1}, a.sink)
}

func goToolchain(ctx context.Context, a *archive, p moduleParams) (digest.Digest, error) {
	return gomod.Toolchain(ctx, a, a.size, gomod.Module{Path: gomod.ToolchainPath, Version: p.Version, Sum: p.H1}, a.sink)
}
