package app

import (
	"encoding/json"
	"errors"
	"reflect"
	"testing"
)

const demo = `{"id":"nginx","instances":1,"container":{"type":"DOCKER","docker":{"image":"demo/nginx:1","network":"BRIDGE","portMappings":[{"containerPort":80,"hostPort":0}]}}}`

func parse(t *testing.T, s string) *App {
	t.Helper()
	f, err := ParseFields([]byte(s))
	if err != nil {
		t.Fatal(err)
	}
	a, err := New(f, "")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestDefaults(t *testing.T) {
	a := parse(t, demo)
	if a.ID != "/nginx" || a.CPUs != 1 || a.Mem != 128 || a.BackoffFactor != 1.15 || !a.Bridged() || len(a.Ports) != 1 || a.Container.Mappings()[0].Protocol != "tcp" {
		t.Errorf("%+v", a)
	}
	h := parse(t, `{"id":"x","container":{"docker":{"image":"i"},"portMappings":[{"containerPort":1}]},"healthChecks":[{},{"protocol":"COMMAND","command":{"value":"x"}}]}`)
	if c := h.HealthChecks[0]; c.Protocol != "HTTP" || c.GracePeriodSeconds != 300 || *c.PortIndex != 0 || !h.Bridged() {
		t.Errorf("%+v", c)
	}
	if x := parse(t, `{"id":"x","ports":[0,9000],"container":{"docker":{"image":"i"}}}`); x.Bridged() || len(x.HostPorts()) != 2 || x.HostPorts()[1].HostPort != 0 {
		t.Errorf("%+v", x.HostPorts())
	}
	if x := parse(t, `{"id":"x","ports":[9000],"requirePorts":true,"container":{"docker":{"image":"i"}}}`); x.HostPorts()[0].HostPort != 9000 {
		t.Errorf("%+v", x.HostPorts())
	}
}

// TestReadBack: an app that is read and sent back is the same app.
func TestReadBack(t *testing.T) {
	a := parse(t, demo)
	data, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	f, err := ParseFields(data)
	if err != nil {
		t.Fatal(err)
	}
	b, err := a.Update(f)
	if err != nil || !reflect.DeepEqual(a, b) {
		t.Errorf("%+v %v, was %+v", b, err, a)
	}
}

func TestUpdate(t *testing.T) {
	a := parse(t, `{"id":"x","cmd":"a","env":{"A":"1"},"container":{"docker":{"image":"i"}}}`)
	f, err := ParseFields([]byte(`{"args":["b"],"env":{"B":"2"},"instances":3,"tasksRunning":9,"labels":null}`))
	if err != nil {
		t.Fatal(err)
	}
	b, err := a.Update(f)
	if err != nil || b.Cmd != nil || len(b.Args) != 1 || len(b.Env) != 1 || b.Env["B"] != "2" || b.Instances != 3 || b.Container.Docker.Image != "i" {
		t.Errorf("%+v %v", b, err)
	}
}

func TestInvalid(t *testing.T) {
	for body, path := range map[string]string{
		`{}`:         "/id",
		`{"id":"/"}`: "/id",
		`{"id":"a b","container":{"docker":{"image":"i"}}}`:                                                                                  "/id",
		`{"id":"a/tasks","container":{"docker":{"image":"i"}}}`:                                                                              "/id",
		`{"id":"a","container":{"docker":{"image":""}}}`:                                                                                     "/container/docker/image",
		`{"id":"a","container":{"docker":{"image":"a?b"}}}`:                                                                                  "/container/docker/image",
		`{"id":"a","container":{"docker":{"image":"i","privileged":true}}}`:                                                                  "/container/docker/privileged",
		`{"id":"a","container":{"docker":{"image":"i","network":"USER"}}}`:                                                                   "/container/docker/network",
		`{"id":"a","container":{"docker":{"image":"i"}},"networks":[{"mode":"container","name":"n"}]}`:                                       "/networks(0)/mode",
		`{"id":"a","container":{"docker":{"image":"i"}},"cmd":"x","args":["y"]}`:                                                             "/",
		`{"id":"a","container":{"docker":{"image":"i"}},"instances":100000}`:                                                                 "/instances",
		`{"id":"a","container":{"docker":{"image":"i"}},"fetch":[{"uri":"x"}]}`:                                                              "/fetch",
		`{"id":"a","container":{"docker":{"image":"i"},"volumes":[{"containerPath":"/c","mode":"RW","persistent":{"size":1}}]}}`:             "/container/volumes(0)",
		`{"id":"a","container":{"docker":{"image":"i"}},"healthChecks":[{"protocol":"GRPC"}]}`:                                               "/healthChecks(0)/protocol",
		`{"id":"a","container":{"docker":{"image":"i"}},"healthChecks":[{"protocol":"HTTP","portIndex":1}]}`:                                 "/healthChecks(0)/portIndex",
		`{"id":"a","container":{"docker":{"image":"i"},"portMappings":[{"containerPort":1,"hostPort":9},{"containerPort":2,"hostPort":9}]}}`: "/container/portMappings(1)",
		`{"id":"a","container":{"docker":{"image":"i"},"portMappings":[{"containerPort":70000}]}}`:                                           "/container/portMappings(0)",
		`{"id":"a","container":{"docker":{"image":"i"}},"constraints":[["hostname","LIKE","x"]]}`:                                            "/constraints(0)",
		`{"id":"a","container":{"docker":{"image":"i"}},"secrets":{"a":{}}}`:                                                                 "/secrets",
		`{"id":"a","container":{"docker":{"image":"i"}},"env":{"A=B":"c"}}`:                                                                  "/env",
	} {
		f, err := ParseFields([]byte(body))
		if err != nil {
			t.Fatal(err)
		}
		_, err = New(f, "")
		var invalid *InvalidError
		if !errors.As(err, &invalid) {
			t.Errorf("%s: %v", body, err)
			continue
		}
		found := false
		for _, v := range invalid.Details {
			found = found || v.Path == path
		}
		if !found {
			t.Errorf("%s: %v, want %s", body, invalid.Details, path)
		}
	}
}

// FuzzApp: whatever is sent, what is taken can be stored, read and changed.
func FuzzApp(f *testing.F) {
	f.Add([]byte(demo), []byte(`{"instances":2}`))
	f.Add([]byte(`{"id":"a","healthChecks":[{"portIndex":-1}],"HealthChecks":[{},{}]}`), []byte(`{"ports":[1]}`))
	f.Add([]byte(`{"id":"/a/b","ports":[1,2],"container":{"docker":{"image":"i"}},"constraints":[[]]}`), []byte(`{"container":null}`))
	f.Fuzz(func(t *testing.T, body, update []byte) {
		fields, err := ParseFields(body)
		if err != nil {
			return
		}
		a, err := New(fields, "")
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without words")
			}
			return
		}
		for i := range a.HostPorts() {
			a.SetServicePort(i, 10000+i)
		}
		same, err := a.Update(Fields{})
		if err != nil {
			t.Fatalf("%s: cannot be read back: %v", body, err)
		}
		if !reflect.DeepEqual(a, same) {
			x, _ := json.Marshal(a)
			y, _ := json.Marshal(same)
			if string(x) != string(y) {
				t.Fatalf("%s: reads back as %s, was %s", body, y, x)
			}
		}
		if changes, err := ParseFields(update); err == nil {
			_, _ = a.Update(changes)
		}
	})
}
