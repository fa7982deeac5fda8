package tests

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tool/core/model/digest"
)

// debPlace is a workspace with one pinned package that only the given mirrors
// have: no machine has apt sources for its suite.
func debPlace(t *testing.T, lock string, mirrors ...string) *place {
	p := bare(t, map[string]string{
		"BUILD.star": "load(\"@rules//debian:defs.star\", \"debian_set\")\n\ndebian_set(name = \"set\", packages = [\"hello\"])\n",
	})
	if lock == "" {
		lock = debLine("hello", digest.Of([]byte("the package")), "pool/hello.deb") + "set set hello\n"
	}
	p.write("debian.lock", "tool-lock 1\n"+lock)
	config := "[fetch]\nstall_seconds = 1\n"
	if len(mirrors) > 0 {
		config += fmt.Sprintf("\n[mirrors.debian]\n\"fake/main\" = [\"%s\"]\n", strings.Join(mirrors, `", "`))
	}
	p.write("tool.toml", config)
	return p
}

func debLine(name string, d digest.Digest, path string) string {
	return fmt.Sprintf("deb all fake/main %s 1.0 %d %s %s\n", name, d.Size, d.Hex(), path)
}

// TestMirrors fetches from mirrors that misbehave. Each is named with what it
// did, and another one makes up for it.
func TestMirrors(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/garbage/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "other bytes") })
	mux.HandleFunc("/more/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("x", 1000)) })
	mux.HandleFunc("/error/", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusForbidden) })
	mux.HandleFunc("/stalls/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "the")
		w.(http.Flusher).Flush()
		select {
		case <-release:
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("/breaks/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "11")
		fmt.Fprint(w, "the pac")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	})
	deb, err := os.ReadFile(firstDeb(t))
	if err != nil {
		t.Fatal(err)
	}
	mux.HandleFunc("/good/", func(w http.ResponseWriter, r *http.Request) { w.Write(deb) })
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	t.Cleanup(func() { close(release) })

	want := digest.Of([]byte("the package"))
	for name, c := range map[string]struct {
		mirrors []string
		message string
	}{
		"lacks it": {[]string{"/nothing", "/none"}, "hello 1.0 (sha256 SHA256) is pinned, but no mirror has it any more (tried $URL/nothing/pool/hello.deb, $URL/none/pool/hello.deb): `tool lock --refresh` pins what they have now"},
		"garbage":  {[]string{"/garbage"}, fmt.Sprintf("fetch hello 1.0: $URL/garbage/pool/hello.deb: it sent sha256 SHA256 (11 bytes), pinned is sha256 SHA256 (%d bytes)", want.Size)},
		"more":     {[]string{"/more"}, "fetch hello 1.0: $URL/more/pool/hello.deb: it sends more than the 11 bytes that are pinned (sha256 SHA256)"},
		"refuses":  {[]string{"/error"}, "fetch hello 1.0: $URL/error/pool/hello.deb: 403 Forbidden"},
		"stalls":   {[]string{"/stalls"}, "fetch hello 1.0: $URL/stalls/pool/hello.deb: it fell silent"},
		"breaks":   {[]string{"/breaks"}, "fetch hello 1.0: $URL/breaks/pool/hello.deb: unexpected EOF"},
		"several":  {[]string{"/nothing", "/garbage"}, "fetch hello 1.0: $URL/nothing/pool/hello.deb: 404 Not Found\n$URL/garbage/pool/hello.deb: it sent sha256 SHA256 (11 bytes), pinned is sha256 SHA256 (11 bytes)"},
		"none":     {nil, "no mirror of fake/main is known: this machine has no apt source for it; add to tool.toml:\n\n\t[mirrors.debian]\n\t\"fake/main\" = [\"https://MIRROR/debian\"]"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i, m := range c.mirrors {
				c.mirrors[i] = server.URL + m
			}
			p := debPlace(t, "", c.mirrors...)
			message := "error: BUILD.star:3:11: //:deb/hello: FetchDeb failed: " + strings.ReplaceAll(c.message, "$URL", server.URL) + "\n"
			p.fails(1, message, "build", "//:set")
		})
	}
	t.Run("another makes up for it", func(t *testing.T) {
		t.Parallel()
		lock := debLine("hello", digest.Of(deb), "pool/hello.deb") + "set set hello\n"
		p := debPlace(t, lock, server.URL+"/nothing", server.URL+"/stalls", server.URL+"/garbage", server.URL+"/breaks", "/no/such/folder", server.URL+"/good")
		if b := p.build("//:set"); b.Actions.Executed != 2 {
			t.Errorf("%d actions were executed, want 2", b.Actions.Executed)
		}
		p.sound()
	})
}

// firstDeb is a small real package.
func firstDeb(t testing.TB) string {
	m := needMirror(t)
	best := m.lock.Debs[0]
	for _, d := range m.lock.Debs {
		if d.Digest.Size < best.Digest.Size {
			best = d
		}
	}
	return filepath.Join(m.dir, best.Path)
}

// TestHostileLocks reads locks that were merged badly, or written by an enemy.
func TestHostileLocks(t *testing.T) {
	t.Parallel()
	d := digest.Of([]byte("the package"))
	good := debLine("hello", d, "pool/hello.deb")
	for name, c := range map[string]struct{ lock, message string }{
		"conflict": {"<<<<<<< ours\n" + good + "=======\n>>>>>>> theirs\nset set hello\n",
			"debian.lock:2: a merge conflict was left here (<<<<<<<): keep both sides' lines, then run `tool lock`, which sorts out the rest\n" +
				"debian.lock:4: a merge conflict was left here (=======): keep both sides' lines, then run `tool lock`, which sorts out the rest\n" +
				"debian.lock:5: a merge conflict was left here (>>>>>>>): keep both sides' lines, then run `tool lock`, which sorts out the rest"},
		"absolute path": {debLine("hello", d, "/etc/shadow"), `debian.lock:2: hello: path "/etc/shadow" is absolute`},
		"dotdot":        {debLine("hello", d, "pool/../../shadow"), `debian.lock:2: hello: path "pool/../../shadow" is not clean (.., // or a / at its end)`},
		"query":         {debLine("hello", d, "pool/x?y"), `debian.lock:2: hello: path "pool/x?y" holds one of \ ? # NUL`},
		"bad name":      {debLine("../hello", d, "pool/x"), `debian.lock:2: bad package name "../hello"`},
		"short hash":    {strings.Replace(good, d.Hex(), d.Hex()[:60], 1), "debian.lock:2: hello: sha256 \"" + d.Hex()[:60] + "\": want 64 lower-case hexadecimal characters"},
		"no pin":        {"set set hello\n", "debian.lock:2: set set has hello, but no deb line pins it: run `tool lock`"},
		"two pins":      {good + strings.Replace(good, " 1.0 ", " 1.1 ", 1), "debian.lock:3: deb hello is pinned differently on line 2: delete one of the two and run `tool lock`"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := debPlace(t, c.lock)
			p.fails(1, "error: "+c.message+"\n", "build", "//:set")
		})
	}
	t.Run("wrong hash", func(t *testing.T) {
		t.Parallel()
		mirror := t.TempDir()
		if err := os.WriteFile(filepath.Join(mirror, "hello.deb"), []byte("not the one"), 0o644); err != nil {
			t.Fatal(err)
		}
		p := debPlace(t, debLine("hello", d, "hello.deb")+"set set hello\n", mirror)
		p.fails(1, fmt.Sprintf("error: BUILD.star:3:11: //:deb/hello: FetchDeb failed: fetch hello 1.0: %s/hello.deb: it sent sha256 SHA256 (11 bytes), pinned is sha256 SHA256 (11 bytes)\n", mirror), "build", "//:set")
	})
	t.Run("not in the lock", func(t *testing.T) {
		t.Parallel()
		p := debPlace(t, good)
		p.fails(1, "error: BUILD.star:3:11: locked_debian_set //:set: hello not in the lock: run `tool lock`\n    @rules//debian/defs.star:LINE: in its implementation\n", "build", "//:set")
	})
}
