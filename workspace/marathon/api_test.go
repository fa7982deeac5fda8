package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"testing"
)

func start(t *testing.T, args ...string) string {
	t.Helper()
	s, err := parse(append([]string{"--zk=zk://m0:2181,m1,m2:2182/marathon"}, args...))
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- serve(ctx, l, s) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "http://" + l.Addr().String()
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(b)
}

func TestAPI(t *testing.T) {
	url := start(t, "--hostname=m0")
	if code, body := get(t, url+"/ping"); code != 200 || body != "pong" {
		t.Errorf("/ping: %d %q", code, body)
	}
	code, body := get(t, url+"/v2/info")
	var info struct {
		Name     string
		Marathon struct {
			Hostname string
			HA       bool
		} `json:"marathon_config"`
		ZK struct {
			ZK string `json:"zk"`
		} `json:"zookeeper_config"`
	}
	if err := json.Unmarshal([]byte(body), &info); err != nil || code != 200 {
		t.Fatalf("/v2/info: %d %s %v", code, body, err)
	}
	if info.Name != "marathon-gateway" || info.Marathon.Hostname != "m0" || !info.Marathon.HA || info.ZK.ZK != "zk://m0:2181,m1:2181,m2:2182/marathon" {
		t.Errorf("/v2/info: %s", body)
	}
	if code, body := get(t, url+"/v2/apps"); code != http.StatusNotImplemented {
		t.Errorf("/v2/apps: %d %s", code, body)
	}
	if code, _ := get(t, url+"/nothing"); code != http.StatusNotFound {
		t.Errorf("/nothing: %d", code)
	}
}

func TestParse(t *testing.T) {
	for _, args := range [][]string{{}, {"--zk=http://x"}, {"--zk=zk://"}, {"--zk=zk://a", "--http_port=0"}, {"--zk=zk://a", "x"}} {
		if _, err := parse(args); err == nil {
			t.Errorf("parse(%q) succeeded", args)
		}
	}
}
