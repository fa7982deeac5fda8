package debian

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestHostSources(t *testing.T) {
	root := t.TempDir()
	if got, err := HostSources(root); err != nil || len(got) != 0 {
		t.Errorf("no apt: %v, %v", got, err)
	}
	for name, text := range map[string]string{
		"etc/apt/sources.list": "# c\ndeb-src http://m/debian a main\ndeb http://m/debian/ bookworm main contrib # c\n" +
			"deb\t[arch=amd64,i386 signed-by=/k/a.gpg trusted=yes check-valid-until=no] https://n x/updates main\ndeb cdrom:[x]/ y main\ndeb http://flat ./\n",
		"etc/apt/sources.list.d/b.sources": "Types: deb deb-src\nURIs: http://one http://two\nSuites: bookworm bookworm-updates\nComponents: main\n" +
			"Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n -----END PGP PUBLIC KEY BLOCK-----\n\n" +
			"Types: deb\nURIs: http://off\nSuites: z\nEnabled: no\n\nTypes: deb-src\nURIs: http://off\nSuites: z\n\n" +
			"Types: deb\nURIs: mirror+file:/etc/apt/mirrors/m.list\nSuites: sid\nComponents: main\nArchitectures: arm64\nCheck-Valid-Until: No\nSigned-By: /k/b.gpg\n",
		"etc/apt/sources.list.d/ignored.save": "deb x",
		"etc/apt/mirrors/m.list":              "http://cdn/debian/\npriority:2\n",
	} {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := HostSources(root)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, s := range got {
		lines = append(lines, strings.ReplaceAll(fmt.Sprintf("%v %v %v %v %v %v %v %q", s.URIs, s.Suites, s.Components, s.Archs, s.SignedBy, s.Trusted, s.Stale, s.Key), root, ""))
	}
	want := `[http://m/debian] [bookworm] [main contrib] [] [] false false ""
[https://n] [x/updates] [main] [amd64 i386] [/k/a.gpg] true true ""
[http://one http://two] [bookworm bookworm-updates] [main] [] [] false false "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc\n-----END PGP PUBLIC KEY BLOCK-----\n"
[http://cdn/debian] [sid] [main] [arm64] [/k/b.gpg] false true ""`
	if g := strings.Join(lines, "\n"); g != want {
		t.Errorf("got\n%s\nwant\n%s", g, want)
	}
	all := append(ExplicitSources(map[string][]string{"bookworm": {"/srv/debian", "http://one"}, "bookworm/contrib": {"http://c"}}), got...)
	for suite, want := range map[string]string{
		"bookworm/main": "[/srv/debian http://one http://m/debian http://two]", "bookworm/contrib": "[/srv/debian http://one http://c http://m/debian]",
		"x/updates/main": "[https://n]", "z/main": "[]",
	} {
		if got := fmt.Sprint(Mirrors(all, suite)); got != want {
			t.Errorf("%s: got %s, want %s", suite, got, want)
		}
	}
	if n := len(SourcesFor(all, "sid/main", "amd64")); n != 0 {
		t.Errorf("sid has %d sources for amd64", n)
	}
	if err := os.WriteFile(filepath.Join(root, "etc/apt/sources.list"), []byte("\ndeb http://x\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := HostSources(root); err == nil || !strings.Contains(err.Error(), "etc/apt/sources.list:2: want: deb <uri> <suite>") {
		t.Errorf("got %v", err)
	}
}

func TestDidYouMean(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"abc", "abc", 0}, {"abc", "abd", 1}, {"abc", "ab", 1}, {"", "abc", 3}, {"kitten", "sitting", 3}, {"aaaa", "bbbb", 4}} {
		if got := editDistance(c.a, c.b, 3); got != c.want {
			t.Errorf("%s %s: got %d, want %d", c.a, c.b, got, c.want)
		}
	}
}

// TestHostTakesStale asks the host's apt under settings of our own.
func TestHostTakesStale(t *testing.T) {
	if _, err := exec.LookPath("apt-config"); err != nil {
		t.Skip("SKIPPED: there is no apt here")
	}
	empty := t.TempDir()
	for setting, want := range map[string]bool{"": false, "Acquire::Check-Valid-Until \"true\";": false, "Acquire::Check-Valid-Until \"no\";": true, "Acquire::Check-Valid-Until \"false\";": true} {
		conf := filepath.Join(t.TempDir(), "apt.conf")
		if err := os.WriteFile(conf, fmt.Appendf(nil, "Dir::Etc %q;\n%s\n", empty, setting), 0o644); err != nil {
			t.Fatal(err)
		}
		t.Setenv("APT_CONFIG", conf)
		if got := HostTakesStale(t.Context()); got != want {
			t.Errorf("%q: %v", setting, got)
		}
	}
}
