package system

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func ref(content string) string {
	return StorePrefix + strings.Repeat("0", 32-len(content)%10) + content
}

func base() *Manifest {
	return &Manifest{
		Version:  1,
		Name:     "m",
		Packages: []Package{{Name: "libc6", Version: "2.36", Ref: ref("libc"), Label: "//p:base"}, {Name: "zk", Version: "3.8", Ref: ref("zk"), Label: "//p:zk"}, {Name: "systemd", Version: "252", Ref: ref("sd")}},
		Services: []Service{
			{Label: "//c:zk", Unit: "zookeeper.service", UnitFile: PlacedFile{"usr/lib/systemd/system/zookeeper.service", ref("u")}, Files: []PlacedFile{{"etc/zoo.cfg", ref("cfg")}}, Packages: []string{"libc6", "zk"}, OnChange: "restart"},
			{Label: "//c:sshd", Unit: "ssh.service", UnitFile: PlacedFile{"usr/lib/systemd/system/ssh.service.d/50.conf", ref("s")}, Packages: []string{"libc6"}, OnChange: "reload"},
		},
		Enabled: []string{"systemd-networkd.service"},
		Boot:    &Boot{Kernel: "boot/k", Initrd: "boot/i", Release: "6.1.0"},
	}
}

func clone(t *testing.T, m *Manifest, change func(*Manifest)) *Manifest {
	t.Helper()
	c := *m
	c.Packages = slices.Clone(m.Packages)
	c.Services = slices.Clone(m.Services)
	for i := range c.Services {
		c.Services[i].Files = slices.Clone(c.Services[i].Files)
		c.Services[i].Packages = slices.Clone(c.Services[i].Packages)
	}
	c.Enabled = slices.Clone(m.Enabled)
	b := *m.Boot
	c.Boot = &b
	if change != nil {
		change(&c)
	}
	return &c
}

func TestDiff(t *testing.T) {
	m := base()
	for _, c := range []struct {
		name   string
		change func(*Manifest)
		want   []string
	}{
		{"nothing", nil, nil},
		{"a file", func(m *Manifest) { m.Services[0].Files[0].Ref = ref("cfg2") }, []string{"restart zookeeper.service: /etc/zoo.cfg changed (//c:zk)"}},
		{"a unit file", func(m *Manifest) { m.Services[1].UnitFile.Ref = ref("s2") }, []string{"reload ssh.service: /usr/lib/systemd/system/ssh.service.d/50.conf changed (//c:sshd)"}},
		{"a package of both", func(m *Manifest) { m.Packages[0].Ref, m.Packages[0].Version = ref("libc2"), "2.37" }, []string{"reload ssh.service: libc6 2.36 → 2.37 (//p:base)", "restart zookeeper.service: libc6 2.36 → 2.37 (//p:base)"}},
		{"rebuilt", func(m *Manifest) { m.Packages[1].Ref = ref("zk2") }, []string{"restart zookeeper.service: zk 3.8, rebuilt (//p:zk)"}},
		{"a version without content", func(m *Manifest) { m.Packages[1].Version = "3.9" }, nil},
		{"gone", func(m *Manifest) { m.Services = m.Services[1:] }, []string{"stop zookeeper.service: removed (//c:zk)"}},
		{"enabled", func(m *Manifest) { m.Enabled = append(m.Enabled, "cron.service") }, []string{"start cron.service: added"}},
		{"disabled", func(m *Manifest) { m.Enabled = nil }, []string{"stop systemd-networkd.service: removed"}},
		{"adopted by a service", func(m *Manifest) {
			m.Enabled = nil
			m.Services = append(m.Services, Service{Label: "//c:net", Unit: "systemd-networkd.service", UnitFile: PlacedFile{"usr/x.conf", ref("x")}, OnChange: "stop-start"})
		}, []string{"stop-start systemd-networkd.service: /usr/x.conf added (//c:net)"}},
		{"left alone", func(m *Manifest) { m.Services[0].OnChange, m.Services[0].Files = "nothing", nil }, []string{"none zookeeper.service: /etc/zoo.cfg removed (//c:zk)"}},
		{"needs more", func(m *Manifest) { m.Services[1].Packages = append(m.Services[1].Packages, "zk") }, []string{"reload ssh.service: zk 3.8 added (//p:zk)"}},
	} {
		var got []string
		for _, u := range Diff(m, clone(t, m, c.change)).Units {
			var reasons []string
			for _, r := range u.Reasons {
				reasons = append(reasons, r.String())
			}
			got = append(got, fmt.Sprintf("%s %s: %s", u.Action, u.Unit, strings.Join(reasons, ", ")))
		}
		if d := cmp.Diff(c.want, got); d != "" {
			t.Errorf("%s: -want +got\n%s", c.name, d)
		}
	}
}

func TestDiffRest(t *testing.T) {
	m := base()
	c := Diff(m, clone(t, m, func(m *Manifest) {
		m.Packages[2].Ref = ref("sd2")
		m.Users = []User{{Name: "zk", UID: 800}}
		m.Modules = []string{"overlay"}
		m.Boot.Release = "6.1.1"
		m.Services[0].StateEpoch = 2
	}))
	if !c.Systemd || c.RebootNeeded == nil || c.RebootNeeded.Old != "6.1.0" || c.RebootNeeded.New != "6.1.1" {
		t.Errorf("systemd %v, reboot %+v", c.Systemd, c.RebootNeeded)
	}
	if !slices.Equal(c.Users.Added, []string{"zk"}) || !slices.Equal(c.Modules.Added, []string{"overlay"}) || !slices.Equal(c.Irreversible, []string{"zookeeper.service"}) {
		t.Errorf("%+v", c)
	}
	if c := Diff(m, clone(t, m, func(m *Manifest) { m.Packages[0].Name = "linux-image-6.1" })); c.RebootNeeded == nil {
		t.Error("a new kernel package needs no reboot")
	}
	if c := Diff(nil, m); len(c.Units) != 3 || len(c.With(Start)) != 3 || c.RebootNeeded != nil || c.Systemd {
		t.Errorf("from nothing: %+v", c)
	}
	if c := Diff(m, nil); len(c.With(Stop)) != 3 {
		t.Errorf("to nothing: %+v", c)
	}
}

// random returns a manifest whose parts come from small sets, so that two of
// them share much.
func random(r *rand.Rand) *Manifest {
	m := &Manifest{Version: 1, Name: "m", Boot: &Boot{Release: fmt.Sprint(r.IntN(2))}}
	content := func(s string) string { return ref(fmt.Sprint(s, r.IntN(2))) }
	for _, p := range []string{"a", "b", "systemd", "linux-image-1"} {
		if r.IntN(4) > 0 {
			m.Packages = append(m.Packages, Package{Name: p, Version: fmt.Sprint(r.IntN(2)), Ref: content(p)})
		}
	}
	for _, u := range []string{"x.service", "y.service", "z.socket"} {
		switch r.IntN(4) {
		case 0:
			m.Enabled = append(m.Enabled, u)
		case 1, 2:
			s := Service{Label: "//:" + u, Unit: u, UnitFile: PlacedFile{"usr/" + u, content(u)}, OnChange: "restart", StateEpoch: r.IntN(2)}
			for _, p := range m.Packages {
				if r.IntN(2) == 0 {
					s.Packages = append(s.Packages, p.Name)
				}
			}
			if r.IntN(2) == 0 {
				s.Files = []PlacedFile{{"etc/f", content("f")}}
			}
			m.Services = append(m.Services, s)
		}
	}
	for _, u := range []string{"u", "v"} {
		if r.IntN(2) == 0 {
			m.Users = append(m.Users, User{Name: u, UID: r.IntN(2)})
		}
	}
	return m
}

// TestDiffProperties: nothing differs from itself, and the way back undoes
// exactly what the way there did.
func TestDiffProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	back := map[Action]Action{Start: Stop, Stop: Start, Restart: Restart}
	for range 2000 {
		a, b := random(r), random(r)
		if c := Diff(a, a); !c.IsEmpty() {
			t.Fatalf("%+v differs from itself: %+v", a, c)
		}
		there, home := Diff(a, b), Diff(b, a)
		if len(there.Units) != len(home.Units) || len(there.Packages) != len(home.Packages) || there.Systemd != home.Systemd {
			t.Fatalf("there %+v\nback %+v", there, home)
		}
		for i, u := range there.Units {
			h := home.Units[i]
			if u.Unit != h.Unit || back[u.Action] != h.Action || len(u.Reasons) != len(h.Reasons) || len(u.Reasons) == 0 {
				t.Fatalf("there %+v\nback %+v", u, h)
			}
		}
		for i, p := range there.Packages {
			if h := home.Packages[i]; p.Name != h.Name || p.Old != h.New || p.New != h.Old {
				t.Fatalf("there %+v\nback %+v", p, h)
			}
		}
		if !slices.Equal(there.Users.Added, home.Users.Removed) || !slices.Equal(there.Users.Changed, home.Users.Changed) {
			t.Fatalf("users there %+v\nback %+v", there.Users, home.Users)
		}
	}
}

// FuzzParse: hostile manifests are refused or usable, never a panic.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"version":1,"name":"m","services":[{"unit":"a.service","unit_file":{"path":"usr/a"},"packages":["p"]}],"packages":[{"name":"p"}]}`))
	f.Add([]byte(`{"version":1,"name":"m","boot":{"kernel":"../x","initrd":"b"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b)
		if err != nil {
			return
		}
		if c := Diff(m, m); !c.IsEmpty() {
			t.Errorf("differs from itself: %+v", c)
		}
		Diff(nil, m)
	})
}
