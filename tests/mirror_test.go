package tests

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	"tool/core/execution/fetch"
	"tool/core/language/workspace"
	"tool/core/model/digest"
	"tool/core/packages/debian"
	"tool/core/packages/lock"
)

// The sets of the example's lock that tests build with.
const (
	shellSet = "shell-packages"
	ccSet    = "cc-packages"
)

// mirror is a folder with the packages that the tests need, laid out as a
// Debian mirror. It is kept in the user's cache, so that one run with a network
// is enough.
type mirror struct {
	dir  string
	lock *lock.Lock // of the sets, and nothing else
}

// offlineError says that the mirror could not be filled.
type offlineError struct{ err error }

func (e *offlineError) Error() string { return "filling the local mirror: " + e.err.Error() }
func (e *offlineError) Unwrap() error { return e.err }

func openMirror() (*mirror, error) {
	const file = "../workspace/packages/debian.lock"
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	all, err := lock.Parse(file, b)
	if err != nil {
		return nil, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = shared.dir // nothing is kept then
	}
	m := &mirror{dir: filepath.Join(cache, "tool-tests", "mirror"), lock: only(all, shellSet, ccSet)}
	return m, m.fill()
}

// only returns the part of a lock that the sets are pinned by.
func only(all *lock.Lock, sets ...string) *lock.Lock {
	l := &lock.Lock{}
	seen := map[string]bool{}
	for _, m := range all.Members {
		if !slices.Contains(sets, m.Set) {
			continue
		}
		l.Members = append(l.Members, m)
		if d, ok := all.Deb(m.Package); ok && !seen[d.Name] {
			seen[d.Name] = true
			l.Debs = append(l.Debs, d)
		}
	}
	l.Sort()
	return l
}

// fill fetches what is missing or damaged.
func (m *mirror) fill() error {
	to := folder{}
	var requests []fetch.Request
	var sources []debian.Source
	for _, d := range m.lock.Debs {
		p := filepath.Join(m.dir, d.Path)
		if f, err := os.Open(p); err == nil {
			have, err := digest.FromReader(f)
			f.Close()
			if err == nil && have == d.Digest {
				continue
			}
		}
		if sources == nil {
			ws, err := workspace.Open("..")
			if err != nil {
				return err
			}
			host, err := debian.HostSources("/")
			if err != nil {
				return err
			}
			sources = append(debian.ExplicitSources(ws.Config.Mirrors.Debian), host...)
		}
		to[d.Digest] = p
		requests = append(requests, fetch.Deb(d, debian.Mirrors(sources, d.Suite)))
	}
	f := fetch.Fetcher{Sink: to, Partial: filepath.Join(m.dir, ".partial")}
	err := f.FetchAll(context.Background(), requests)
	var gone *fetch.GoneError
	if err != nil && !errors.As(err, &gone) {
		return &offlineError{err}
	}
	return err
}

// folder puts each blob where it belongs.
type folder map[digest.Digest]string

// Put implements fetch.Sink.
func (to folder) Put(_ context.Context, want digest.Digest, r io.Reader) (digest.Digest, error) {
	p := to[want]
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		return want, err
	}
	tmp, err := os.CreateTemp(filepath.Dir(p), ".tmp-")
	if err != nil {
		return want, err
	}
	defer os.Remove(tmp.Name())
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(tmp, h), r)
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Close())
	if err == nil && fmt.Sprintf("%x", h.Sum(nil)) != want.Hex() {
		err = fmt.Errorf("%s: other bytes than were pinned", p)
	}
	if err == nil {
		err = os.Rename(tmp.Name(), p)
	}
	return want, err
}

// buildFiles are the packages of test workspaces, by set.
var buildFiles = map[string]string{
	shellSet: `load("@rules//debian:defs.star", "debian_set")
load("@rules//environment:defs.star", "environment")

package(default_visibility = ["//visibility:public"])

debian_set(name = "shell-packages", packages = ["bash", "coreutils", "diffutils", "findutils", "gawk", "grep", "sed", "tar"])

environment(name = "shell", packages = [":shell-packages"], links = {"usr/bin/awk": "gawk"})
`,
	ccSet: `
debian_set(name = "cc-packages", packages = ["gcc", "make", "libc6-dev"], deps = [":shell-packages"])

environment(name = "cc", packages = [":cc-packages"], links = {"usr/bin/awk": "gawk", "usr/bin/cc": "gcc"})
`,
}

// workspace makes dir a workspace whose actions run in //packages:shell. Files
// that are there already stay.
func (m *mirror) workspace(dir string, sets ...string) error {
	build := ""
	for _, s := range sets {
		build += buildFiles[s]
	}
	config := fmt.Sprintf("[build]\nenvironment = \"//packages:shell\"\n\n[mirrors.debian]\n\"bookworm/main\" = [%q]\n", m.dir)
	for name, content := range map[string]string{
		"tool.toml":            config,
		"packages/BUILD.star":  build,
		"packages/debian.lock": string(only(m.lock, sets...).Bytes()),
	} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			return err
		}
		if _, err := os.Stat(p); err == nil {
			continue
		}
		if err := os.WriteFile(p, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}
