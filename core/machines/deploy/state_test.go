package deploy

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestKillWhileSaving: the state is the old or the new one, never half.
func TestKillWhileSaving(t *testing.T) {
	dir, d := newDeployment(t)
	for n := range 15 {
		h := startHelper(t, dir, "save")
		h.says(t, "saving")
		time.Sleep(time.Duration(n) * 3 * time.Millisecond) // anywhere
		if err := h.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		h.cmd.Wait()
		b, err := OpenBook(dir)
		if err != nil {
			t.Fatal(err)
		}
		got, err := b.Find("c")
		if err != nil {
			t.Fatal(err)
		}
		if got.UUID != d.UUID || got.KeyPrivate != d.KeyPrivate {
			t.Fatal("it is another state")
		}
		if s := got.Description; s != "" && s != fmt.Sprint(got.Next-1, strings.Repeat("x", 1<<20), got.Next-1) {
			t.Fatal("it is half of two states")
		}
	}
}

func TestBook(t *testing.T) {
	b, err := OpenBook(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Find("x"); err == nil || !strings.Contains(err.Error(), "none yet") {
		t.Errorf("%v", err)
	}
	for _, name := range []string{"", "-x", ".x", "a b", "a/b", "ü", strings.Repeat("x", 101)} {
		if _, err := b.Create(name, "//c:c", "/w"); err == nil {
			t.Errorf("made a deployment called %q", name)
		}
	}
	d, err := b.Create("c", "//c:c", "/w")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Create("c", "//c:d", "/w"); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("%v", err)
	}
	var none *NotFoundError
	if _, err := b.Find("d"); !errors.As(err, &none) || !strings.Contains(err.Error(), "there is c") {
		t.Errorf("%v", err)
	}
	for _, name := range []string{"c", d.UUID, d.UUID[:8]} {
		if got, err := b.Find(name); err != nil || got.UUID != d.UUID {
			t.Errorf("find %q: %v", name, err)
		}
	}
	fi, err := os.Stat(filepath.Join(d.Dir(), "state.json"))
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("the state, with its keys, has mode %v, %v", fi.Mode(), err)
	}
	// What is being made or deleted is no mistake.
	if err := os.Mkdir(filepath.Join(filepath.Dir(d.Dir()), "half"), 0o700); err != nil {
		t.Fatal(err)
	}
	if all, err := b.List(); err != nil || len(all) != 1 {
		t.Errorf("%v, %v", all, err)
	}
	if err := b.Delete(d); err != nil {
		t.Fatal(err)
	}
	if all, err := b.List(); err != nil || len(all) != 0 {
		t.Errorf("%v, %v", all, err)
	}
}

func TestStateErrors(t *testing.T) {
	_, d := newDeployment(t)
	good, err := os.ReadFile(d.file())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, old, now, want string }{
		{"a version to come", `"version": 1`, `"version": 2`, "version 2, this program knows 1"},
		{"cut off", string(good[len(good)/2:]), "", "JSON"},
		{"another name", `"name": "c"`, `"name": "../c"`, "cannot be a deployment's name"},
		{"no UUID", d.UUID, "../../../../../../../../../../../../etc", "not a UUID"},
		{"a machine without a name", `"machines": {}`, `"machines": {"a": {}}`, `machine "a" is damaged`},
		{"a machine somewhere else", `"machines": {}`, `"machines": {"../../x": {"name": "../../x"}}`, `host name "../../x"`},
		{"no machine", `"machines": {}`, `"machines": {"a": null}`, `machine "a" is damaged`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := strings.Replace(string(good), c.old, c.now, 1)
			if s == string(good) {
				t.Fatalf("there is no %q", c.old)
			}
			if _, err := ParseDeployment([]byte(s)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v", err)
			}
		})
	}
}

func FuzzParseDeployment(f *testing.F) {
	f.Add([]byte(`{"version":1,"name":"c","uuid":"00000000-0000-4000-8000-000000000000","machines":{"m":{"name":"m","address":"10.0.0.1/24"}},"generations":[{"number":1}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := ParseDeployment(b)
		if err != nil {
			return
		}
		d.dir = "/nowhere"
		for _, n := range d.MachineNames() {
			m := d.machine(d.Machines[n])
			if rel, err := filepath.Rel("/nowhere/machines", m.Dir); err != nil || strings.Contains(rel, "..") || rel == "." {
				t.Errorf("machine %q has the folder %s", n, m.Dir)
			}
			d.Machines[n].Reach()
			d.Wanted(n)
		}
		d.Before()
		d.Current()
		d.WithoutKeys()
	})
}

func FuzzParsePlan(f *testing.F) {
	f.Add([]byte(`{"version":1,"deployment":"x","object":"2238wj7nwbqic50z98hvnbp8i6xhlss1-deployment.json","machines":[{"name":"m"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := ParsePlan(b)
		if err != nil {
			return
		}
		p.Empty()
		p.Creates()
		e, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		q, err := ParsePlan(e)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.same(q); err != nil {
			t.Errorf("a plan that was saved and read is another: %v", err)
		}
	})
}

func FuzzParseObject(f *testing.F) {
	f.Add([]byte(`{"version":1,"network":{"name":"n","cidr":"10.0.0.0/24"},"machines":[{"name":"m","system":"/tool/store/2238wj7nwbqic50z98hvnbp8i6xhlss1-m"}],"publish":[{"machine":"m","port":80,"to":90}],"rollout_groups":[{"name":"g","machines":["m"]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, err := ParseObject(b)
		if err != nil {
			return
		}
		for _, n := range machineNames(o) {
			if len(o.forwards(n)) > 1024*len(o.Publish) {
				t.Error("more forwards than are published")
			}
		}
		_, _ = waves(o.RolloutGroups, machineNames(o), nil, 0)
	})
}
