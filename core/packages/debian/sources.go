package debian

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"tool/core/packages/deb822"
)

// Source is one apt source.
type Source struct {
	URIs       []string // http, https or file URLs, or folders; tried in order
	Suites     []string
	Components []string // empty: every one that is asked for
	Archs      []string // empty: every one that is asked for
	SignedBy   []string // keyring files; empty: those that apt trusts
	Key        []byte   // an inline OpenPGP key block, armored
	Trusted    bool     // "trusted=yes": no signature is asked for
	Stale      bool     // "check-valid-until=no": a release may be past its date
	Origin     string   // where it was declared, for errors
}

// has reports whether the source offers a suite's component.
func (s Source) has(suite, component, arch string) bool {
	return slices.Contains(s.Suites, suite) &&
		(len(s.Components) == 0 || slices.Contains(s.Components, component)) &&
		(len(s.Archs) == 0 || arch == "" || slices.Contains(s.Archs, arch))
}

// SplitSuite splits "bookworm/main" into suite and component; "bookworm"
// means its main.
func SplitSuite(s string) (suite, component string) {
	if i := strings.LastIndexByte(s, '/'); i >= 0 {
		return s[:i], s[i+1:]
	}
	return s, "main"
}

// SourcesFor returns the sources for a suite ("bookworm/main"), in order.
// Explicit ones, where there are any, win over the others: they come first.
func SourcesFor(all []Source, name, arch string) []Source {
	suite, component := SplitSuite(name)
	var out []Source
	for _, s := range all {
		if s.has(suite, component, arch) {
			out = append(out, s)
		}
	}
	return out
}

// Mirrors returns the base URLs or folders of a suite ("bookworm/main"), in
// order, each once. A lock entry's path is relative to them.
func Mirrors(all []Source, name string) []string {
	var out []string
	for _, s := range SourcesFor(all, name, "") {
		for _, u := range s.URIs {
			if !slices.Contains(out, u) {
				out = append(out, u)
			}
		}
	}
	return out
}

// ExplicitSources makes sources of tool.toml's table: suite ("bookworm", or
// "bookworm/main" for one component) → base URLs or folders.
func ExplicitSources(mirrors map[string][]string) []Source {
	var out []Source
	for _, name := range slices.Sorted(maps.Keys(mirrors)) {
		s := Source{URIs: mirrors[name], Suites: []string{name}, Origin: "tool.toml: mirrors.debian." + name}
		if strings.Contains(name, "/") {
			suite, component := SplitSuite(name)
			s.Suites, s.Components = []string{suite}, []string{component}
		}
		out = append(out, s)
	}
	return out
}

// HostSources reads the apt configuration below root ("/"): sources.list and
// sources.list.d, in apt's order. A machine without any has no sources, which
// is no error here. A file that cannot be read or parsed is.
func HostSources(root string) ([]Source, error) {
	var out []Source
	files := []string{filepath.Join(root, "etc/apt/sources.list")}
	more, err := filepath.Glob(filepath.Join(root, "etc/apt/sources.list.d/*"))
	if err != nil {
		return nil, err
	}
	for _, f := range append(files, more...) { // Glob sorts
		var srcs []Source
		var err error
		switch filepath.Ext(f) {
		case ".list":
			srcs, err = readList(root, f)
		case ".sources":
			srcs, err = readDeb822(root, f)
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("apt sources: %w", err)
		}
		out = append(out, srcs...)
	}
	return out, nil
}

func readList(root, file string) ([]Source, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []Source
	sc := bufio.NewScanner(f)
	for n := 1; sc.Scan(); n++ {
		line, _, _ := strings.Cut(sc.Text(), "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(strings.ReplaceAll(line, "\t", " ")), "deb ")
		if !ok {
			continue // deb-src, comments
		}
		s := Source{Origin: fmt.Sprintf("%s:%d", file, n)}
		rest = strings.TrimSpace(rest)
		if strings.HasPrefix(rest, "[") {
			opts, after, ok := strings.Cut(rest[1:], "]")
			if !ok {
				return nil, fmt.Errorf("%s: [ without ]", s.Origin)
			}
			rest = after
			for _, o := range strings.Fields(opts) {
				key, val, _ := strings.Cut(o, "=")
				switch strings.ToLower(strings.TrimRight(key, "+-")) {
				case "arch":
					s.Archs = strings.Split(val, ",")
				case "signed-by":
					s.SignedBy = under(root, strings.Split(val, ","))
				case "trusted":
					s.Trusted = val == "yes"
				case "check-valid-until":
					s.Stale = isNo(val)
				}
			}
		}
		fields := strings.Fields(rest)
		if len(fields) < 2 {
			return nil, fmt.Errorf("%s: want: deb <uri> <suite> <component>...", s.Origin)
		}
		s.Suites, s.Components = fields[1:2], fields[2:]
		if s.URIs, err = expand(root, fields[:1]); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Origin, err)
		}
		if len(s.URIs) > 0 && usable(s.Suites[0]) {
			out = append(out, s)
		}
	}
	return out, sc.Err()
}

func readDeb822(root, file string) ([]Source, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []Source
	for rd := deb822.NewReader(file, f); ; {
		p, err := rd.Next()
		if err != nil {
			if err == io.EOF {
				err = nil
			}
			return out, err
		}
		if e := p.Get("Enabled"); e == "no" || e == "false" || !slices.Contains(strings.Fields(p.Get("Types")), "deb") {
			continue
		}
		s := Source{
			Suites: strings.Fields(p.Get("Suites")), Components: strings.Fields(p.Get("Components")),
			Archs: strings.Fields(p.Get("Architectures")), Trusted: p.Get("Trusted") == "yes", Stale: isNo(p.Get("Check-Valid-Until")),
			Origin: fmt.Sprintf("%s:%d", file, p.Line),
		}
		if key := p.Get("Signed-By"); strings.Contains(key, "-----BEGIN PGP") {
			s.Key = inlineKey(key)
		} else {
			s.SignedBy = under(root, strings.Fields(key))
		}
		if s.URIs, err = expand(root, strings.Fields(p.Get("URIs"))); err != nil {
			return nil, fmt.Errorf("%s: %w", s.Origin, err)
		}
		s.Suites = slices.DeleteFunc(s.Suites, func(x string) bool { return !usable(x) })
		if len(s.URIs) > 0 && len(s.Suites) > 0 {
			out = append(out, s)
		}
	}
}

// isNo reads a boolean option as apt does.
func isNo(v string) bool {
	return slices.Contains([]string{"no", "false", "without", "off", "disable", "0"}, strings.ToLower(v))
}

// HostTakesStale reports whether the host's apt takes releases that are past their
// date, whatever their source: Acquire::Check-Valid-Until is false, as hosts have it
// whose mirrors stand still. Without apt it is false.
func HostTakesStale(ctx context.Context) bool {
	out, err := exec.CommandContext(ctx, "apt-config", "shell", "V", "Acquire::Check-Valid-Until/b").Output()
	return err == nil && strings.TrimSpace(string(out)) == "V='false'"
}

// usable leaves out flat repositories, which have no suites to name.
func usable(suite string) bool { return !strings.HasSuffix(suite, "/") }

// inlineKey undoes deb822's folding: " ." stands for an empty line.
func inlineKey(v string) []byte {
	lines := strings.Split(v, "\n")
	for i, l := range lines {
		if lines[i] = strings.TrimSpace(l); lines[i] == "." {
			lines[i] = ""
		}
	}
	return []byte(strings.TrimSpace(strings.Join(lines, "\n")) + "\n")
}

func under(root string, files []string) []string {
	for i, f := range files {
		if filepath.IsAbs(f) {
			files[i] = filepath.Join(root, f)
		}
	}
	return files
}

// expand keeps the URIs that can be fetched from, and replaces lists of
// mirrors in files (as cloud images have) by what they hold.
func expand(root string, uris []string) ([]string, error) {
	var out []string
	for _, u := range uris {
		scheme, rest, _ := strings.Cut(u, ":")
		switch scheme {
		case "http", "https", "file":
			out = append(out, strings.TrimRight(u, "/"))
		case "mirror+file":
			b, err := os.ReadFile(filepath.Join(root, "/"+strings.TrimLeft(rest, "/")))
			if err != nil {
				return nil, err
			}
			for line := range strings.Lines(string(b)) {
				if f := strings.Fields(line); len(f) > 0 && strings.HasPrefix(f[0], "http") {
					out = append(out, strings.TrimRight(f[0], "/"))
				}
			}
		}
	}
	return out, nil
}
