package fetch

import (
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/mod/module"

	"tool/core/packages/lock"
)

// join appends a relative path to a mirror, which is a URL or a folder.
func join(mirror, path string) string {
	if filepath.IsAbs(mirror) {
		return filepath.Join(mirror, path)
	}
	return strings.TrimRight(mirror, "/") + "/" + escape(path)
}

// escape keeps what mirrors expect: Debian's file names hold + and ~ as they
// are, and a % that is no escape must not become one.
func escape(path string) string { return strings.ReplaceAll(path, "%", "%25") }

// Deb returns the request for a pinned package; mirrors are those of its
// suite, in order.
func Deb(d lock.Deb, mirrors []string) Request {
	r := Request{Name: d.Name + " " + d.Version, Digest: d.Digest}
	for _, m := range mirrors {
		r.URLs = append(r.URLs, join(m, d.Path))
	}
	return r
}

// File returns the request for a pinned archive: mirrors hold it under its
// SHA-256, or under the relative path that the lock gives; complete URLs of
// the lock come last.
func File(f lock.File, mirrors []string) Request {
	r := Request{Name: f.Name, Digest: f.Digest}
	for _, m := range mirrors {
		r.URLs = append(r.URLs, join(m, f.Digest.Hex()))
		for _, u := range f.URLs {
			if !strings.Contains(u, "://") {
				r.URLs = append(r.URLs, join(m, u))
			}
		}
	}
	for _, u := range f.URLs {
		if strings.Contains(u, "://") {
			r.URLs = append(r.URLs, u)
		}
	}
	return r
}

// Module returns the request for a pinned Go module or toolchain; proxies
// come from GoProxies, in order.
func Module(m lock.Module, proxies []string) (Request, error) {
	urls, err := moduleURLs(m.Path, m.Version, proxies)
	return Request{Name: m.Path + "@" + m.Version, Digest: m.Digest, URLs: urls}, err
}

func moduleURLs(path, version string, proxies []string) ([]string, error) {
	p, err := module.EscapePath(path)
	if err != nil {
		return nil, fmt.Errorf("Go module %s: %w", path, err)
	}
	v, err := module.EscapeVersion(version)
	if err != nil {
		return nil, fmt.Errorf("Go module %s@%s: %w", path, version, err)
	}
	var urls []string
	for _, proxy := range proxies {
		urls = append(urls, join(proxy, p+"/@v/"+v+".zip"))
	}
	return urls, nil
}
