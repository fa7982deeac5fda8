package gateway

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"marathon-gateway/app"
)

func appJSONDocker(t *testing.T, image string) *app.Docker {
	t.Helper()
	f, err := app.ParseFields([]byte(fmt.Sprintf(`{"id":"x","container":{"docker":{"image":%q}}}`, image)))
	if err != nil {
		t.Fatal(err)
	}
	a, err := app.New(f, "")
	if err != nil {
		t.Fatal(err)
	}
	return a.Container.Docker
}

func TestErrors(t *testing.T) {
	r := newRig(t, 31, 1, 1)
	r.want(201, "POST", "/v2/apps", appJSON("a", 1, ""))
	r.settle("/a", 1)
	for _, c := range []struct {
		method, path, body string
		status             int
		contains           string
	}{
		{"POST", "/v2/apps", appJSON("/a", 1, ""), 409, `{"message":"An app with id [/a] already exists."}`},
		{"POST", "/v2/apps", `{"id":`, 400, `"message":"Invalid JSON","details":[{"path":`},
		{"POST", "/v2/apps", ``, 400, `"message":"Invalid JSON"`},
		{"POST", "/v2/apps", `[]`, 400, `"message":"Invalid JSON"`},
		{"POST", "/v2/apps", `{"id":"b","instances":"two"}`, 400, `"details":[{"path":"/instances","errors":["error.expected.jsnumber"]}]`},
		{"POST", "/v2/apps", appJSON("UPPER", 1, ""), 422, `{"message":"Object is not valid","details":[{"path":"/id","errors":[`},
		{"POST", "/v2/apps", `{"id":"b","cmd":"sleep 1"}`, 422, `"path":"/container/docker"`},
		{"POST", "/v2/apps", appJSON("b", 1, `,"constraints":[["rack","GROUP_BY"]]`), 422, `"path":"/constraints(0)"`},
		{"POST", "/v2/apps", appJSON("b", -1, ""), 422, `"path":"/instances"`},
		{"POST", "/v2/apps", `{"id":"` + strings.Repeat("x", maxBody) + `"}`, 413, "too large"},
		{"PUT", "/v2/apps/a", `{"id":"/b"}`, 422, `"path":"/id"`},
		{"PUT", "/v2/apps/a", `{"version":"x","instances":1}`, 422, `may only be combined`},
		{"PUT", "/v2/apps/a", `{"version":"x"}`, 404, "does not exist"},
		{"PATCH", "/v2/apps/nothing", `{"instances":1}`, 404, `{"message":"App '/nothing' does not exist"}`},
		{"GET", "/v2/apps/nothing", "", 404, `{"message":"App '/nothing' does not exist"}`},
		{"DELETE", "/v2/apps/nothing", "", 404, `{"message":"App '/nothing' does not exist"}`},
		{"GET", "/v2/apps/nothing/tasks", "", 404, ""},
		{"GET", "/v2/apps/nothing/versions", "", 404, ""},
		{"POST", "/v2/apps/nothing/restart", "", 404, ""},
		{"DELETE", "/v2/apps/a/tasks/nothing", "", 404, ""},
		{"GET", "/v2/apps/a/versions/nothing", "", 404, ""},
		{"DELETE", "/v2/deployments/nothing", "", 404, `{"message":"DeploymentPlan nothing does not exist"}`},
		{"GET", "/v2/groups/nothing", "", 404, ""},
		{"GET", "/v2/apps?label=((", "", 400, ""},
		{"PUT", "/v2/apps", "{}", 405, `supported methods: GET, POST"}`},
		{"PUT", "/v2/groups", "{}", 405, ""},
		{"POST", "/ping", "", 405, ""},
		{"POST", "/v2/tasks/delete", `{"ids":[]}`, 422, ""},
		{"GET", "/v2/unknown", "", 404, ""},
		{"GET", "/v2", "", 404, ""},
		{"GET", "/", "", 404, ""},
		{"GET", "/v2/apps/%00", "", 404, ""},
		{"GET", "/v2/apps/..%2f..", "", 404, ""},
	} {
		code, body := r.call(c.method, c.path, c.body)
		if code != c.status || !strings.Contains(body, c.contains) {
			t.Errorf("%s %s %.80s: %d %s, want %d with %s", c.method, c.path, c.body, code, body, c.status, c.contains)
		}
	}
}

func TestLocked(t *testing.T) {
	r := newRig(t, 32, 1, 1)
	r.want(201, "POST", "/v2/apps", strings.Replace(appJSON("a", 1, ""), image, "no/such:1", 1))
	for _, c := range [][3]string{{"PUT", "/v2/apps/a", `{"instances":2}`}, {"DELETE", "/v2/apps/a", ""}, {"POST", "/v2/apps/a/restart", ""}} {
		body := r.want(409, c[0], c[1], c[2])
		if !strings.HasPrefix(body, `{"message":"App is locked by one or more deployments. Override with the option '?force=true'.`) || !strings.Contains(body, `"deployments":[{"id":"`) {
			t.Errorf("%v: %s", c, body)
		}
	}
	r.want(200, "DELETE", "/v2/apps/a?force=true", "")
}

func TestNestedIDsAndGroups(t *testing.T) {
	r := newRig(t, 33, 1, 1)
	r.want(201, "POST", "/v2/apps", appJSON("/prod/web", 1, `,"labels":{"tier":"front"}`))
	r.want(201, "PUT", "/v2/apps/prod/db/main", appJSON("/prod/db/main", 1, ""))
	r.settle("/prod/web", 1)
	r.settle("/prod/db/main", 1)
	if id := r.app("/prod/web").App.Tasks[0].ID; !strings.HasPrefix(id, "prod_web.") {
		t.Error(id)
	}
	r.want(200, "GET", "/v2/apps//prod/web/versions", "")
	var g groupView
	if err := json.Unmarshal([]byte(r.want(200, "GET", "/v2/groups", "")), &g); err != nil || len(g.Groups) != 1 || g.Groups[0].ID != "/prod" || len(g.Groups[0].Apps) != 1 || g.Groups[0].Groups[0].ID != "/prod/db" {
		t.Errorf("%+v %v", g, err)
	}
	for query, want := range map[string]int{"": 2, "?id=web": 1, "?cmd=x": 0, "?label=tier": 1, "?label=tier==back": 0, "?label=tier+in+(front,back)": 1, "?label=tier!=front": 1, "?label=tier+notin+(x)": 1} {
		var list struct{ Apps []struct{ ID string } }
		if err := json.Unmarshal([]byte(r.want(200, "GET", "/v2/apps"+query, "")), &list); err != nil || len(list.Apps) != want {
			t.Errorf("%s: %+v %v, want %d", query, list, err, want)
		}
	}
}

func TestVersions(t *testing.T) {
	r := newRig(t, 34, 1, 1)
	r.want(201, "POST", "/v2/apps", appJSON("a", 1, ""))
	r.settle("/a", 1)
	first := r.app("/a").App.Version
	for i := range maxVersions + 2 {
		r.want(200, "PUT", "/v2/apps/a?force=true", fmt.Sprintf(`{"env":{"N":"%d"}}`, i))
	}
	r.settle("/a", 1)
	var v struct{ Versions []string }
	if err := json.Unmarshal([]byte(r.want(200, "GET", "/v2/apps/a/versions", "")), &v); err != nil || len(v.Versions) != maxVersions || slices.Contains(v.Versions, first) {
		t.Fatalf("%v %v", v, err)
	}
	if !slices.IsSortedFunc(v.Versions, func(a, b string) int { return strings.Compare(b, a) }) {
		t.Error("versions are not sorted")
	}
	old := v.Versions[len(v.Versions)-1]
	if b := r.want(200, "GET", "/v2/apps/a/versions/"+old, ""); !strings.Contains(b, `"N":"2"`) {
		t.Error(b)
	}
	r.want(200, "PUT", "/v2/apps/a", fmt.Sprintf(`{"version":%q}`, old))
	r.settle("/a", 1)
	if b := r.want(200, "GET", "/v2/apps/a", ""); !strings.Contains(b, `"N":"2"`) {
		t.Error(b)
	}
	before := ids(r.app("/a").App.Tasks)
	r.want(200, "POST", "/v2/apps/a/restart", "")
	if after := ids(r.settle("/a", 1)); slices.Equal(before, after) {
		t.Error("restart restarted nothing")
	}
	r.want(200, "PUT", "/v2/apps/a?partialUpdate=false", appJSON("a", 1, ""))
	if b := r.want(200, "GET", "/v2/apps/a", ""); strings.Contains(b, `"N":`) {
		t.Error(b)
	}
}

func TestPingWithoutAnything(t *testing.T) {
	r := newRig(t, 35, 1, 1)
	r.stop()
	r.engines["m0"].SetDown(true)
	if b := r.want(200, "GET", "/ping", ""); b != "pong" {
		t.Error(b)
	}
	r.want(200, "GET", "/metrics", "")
	r.want(200, "GET", "/v2/info", "")
	r.want(404, "GET", "/v2/leader", "")
	if b := r.want(503, "GET", "/v2/apps", ""); b != `{"message":"Could not determine the current leader"}` {
		t.Error(b)
	}
}
