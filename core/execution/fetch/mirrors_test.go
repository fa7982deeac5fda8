package fetch

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"tool/core/model/digest"
	"tool/core/packages/lock"
)

func TestURLs(t *testing.T) {
	d := digest.Of(nil)
	deb := Deb(lock.Deb{Name: "g++", Version: "4:12", Digest: d, Path: "pool/main/g++_12~1%_amd64.deb"}, []string{"http://m/debian/", "/srv/debian"})
	if want := []string{"http://m/debian/pool/main/g++_12~1%25_amd64.deb", "/srv/debian/pool/main/g++_12~1%_amd64.deb"}; !slices.Equal(deb.URLs, want) || deb.Name != "g++ 4:12" {
		t.Errorf("got %v", deb)
	}
	mod, err := Module(lock.Module{Path: "github.com/BurntSushi/toml", Version: "v1.0.0-RC1", Digest: d}, []string{"https://p"})
	if want := []string{"https://p/github.com/!burnt!sushi/toml/@v/v1.0.0-!r!c1.zip"}; err != nil || !slices.Equal(mod.URLs, want) {
		t.Errorf("got %v, %v", mod, err)
	}
	if _, err := Module(lock.Module{Path: "a.b/../c", Version: "v1.0.0"}, nil); err == nil {
		t.Error("no error for a bad module path")
	}
	f := File(lock.File{Name: "x", Digest: d, URLs: []string{"https://u/x.tar", "src/x.tar"}}, []string{"https://m"})
	if want := []string{"https://m/" + d.Hex(), "https://m/src/x.tar", "https://u/x.tar"}; !slices.Equal(f.URLs, want) {
		t.Errorf("got %v", f)
	}
}

func TestGoProxies(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	write("config/go/env", "X=1\nGOPROXY=https://user,direct\n")
	write("goroot/go.env", "GOPROXY=https://root|https://second,off,https://never\n")
	config, root := filepath.Join(dir, "config"), filepath.Join(dir, "goroot")
	command := func(_ context.Context, name string) (string, error) { return "https://cmd,direct", nil }
	for _, c := range []struct {
		env      map[string]string
		config   string
		cmd      func(context.Context, string) (string, error)
		explicit string
		want     string
	}{
		{map[string]string{"GOPROXY": "https://env/"}, config, command, "", "https://env"},
		{map[string]string{"GOROOT": root}, config, command, "", "https://user"},
		{map[string]string{"GOENV": "off", "GOROOT": root}, config, command, "", "https://root https://second"},
		{map[string]string{"GOROOT": root}, "", command, "", "https://root https://second"},
		{nil, "", command, "", "https://cmd"},
		{nil, "", command, "https://mine", "https://mine https://cmd"},
		{nil, "", nil, "", ""},
		{map[string]string{"GOPROXY": "off"}, config, command, "", ""},
	} {
		e := GoEnv{Getenv: func(k string) string { return c.env[k] }, ConfigDir: c.config, Command: c.cmd}
		got, err := GoProxies(context.Background(), e, strings.Fields(c.explicit))
		if strings.Join(got, " ") != c.want || (err != nil) != (c.want == "") {
			t.Errorf("%v: got %v, %v, want %s", c, got, err, c.want)
		}
		if err != nil && !strings.Contains(err.Error(), "set GOPROXY") {
			t.Errorf("got %v", err)
		}
	}
}

func TestLearn(t *testing.T) {
	bad := serve(t, status(404))
	s := serve(t, func(n int64, w http.ResponseWriter, r *http.Request) {
		if n == 1 {
			half(w)
		}
		good(n, w, r)
	})
	f, _ := newFetcher(t)
	p := Proxy{f, []string{bad.URL, s.URL}}
	file, d, err := p.Module(context.Background(), "a.b/c", "v1.0.0")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if b, err := io.ReadAll(file); err != nil || !bytes.Equal(b, content) || d != digest.Of(content) {
		t.Errorf("%d bytes, %s, %v", len(b), d, err)
	}
	if _, _, err := f.Learn(context.Background(), []string{s.URL}, 1000); err == nil || !strings.Contains(err.Error(), "more than 1000 bytes") {
		t.Errorf("got %v", err)
	}
	if left, _ := os.ReadDir(f.Partial); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if _, _, err := f.Learn(context.Background(), []string{filepath.Join(f.Partial, "none")}, 1000); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
