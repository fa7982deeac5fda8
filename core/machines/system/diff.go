package system

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Action is what a switch does to a unit.
type Action string

// The actions. StopStart stops the unit before the switch and starts it after,
// Restart does both after it, and None leaves a changed unit as it is, because
// its service says on_change = "nothing".
const (
	Start     Action = "start"
	Stop      Action = "stop"
	Restart   Action = "restart"
	Reload    Action = "reload"
	StopStart Action = "stop-start"
	None      Action = "none"
)

// UnitChange is one unit that a switch acts on, and why.
type UnitChange struct {
	Unit    string   `json:"unit"`
	Action  Action   `json:"action"`
	Label   string   `json:"label,omitempty"` // of the service; empty for a unit of a package
	Reasons []Reason `json:"reasons"`
}

// Reason is one thing that changed and made a unit change. Exactly one of Path
// and Package is set, or neither, where the unit itself came, went or moved
// between services and enabled units. An empty Old or New means absent.
type Reason struct {
	Path    string `json:"path,omitempty"`    // file of the system
	Package string `json:"package,omitempty"` // its name
	Old     string `json:"old,omitempty"`     // version of the package, or ref of the file
	New     string `json:"new,omitempty"`
	Label   string `json:"label,omitempty"` // what brought it
}

func (r Reason) String() string {
	state := "changed"
	switch {
	case r.Old == "" && r.New != "":
		state = "added"
	case r.Old != "" && r.New == "":
		state = "removed"
	}
	var s string
	switch {
	case r.Package != "" && state == "changed" && r.Old != r.New:
		s = fmt.Sprintf("%s %s → %s", r.Package, r.Old, r.New)
	case r.Package != "" && state == "changed":
		s = fmt.Sprintf("%s %s, rebuilt", r.Package, r.New)
	case r.Package != "":
		s = fmt.Sprintf("%s %s %s", r.Package, r.Old+r.New, state)
	case r.Path != "":
		s = fmt.Sprintf("/%s %s", r.Path, state)
	default:
		s = state
	}
	if r.Label != "" {
		s += " (" + r.Label + ")"
	}
	return s
}

// PackageChange is a package that two systems have differently. An empty
// version means that the system lacks it; equal versions, that its content
// differs all the same.
type PackageChange struct {
	Name  string `json:"name"`
	Old   string `json:"old,omitempty"`
	New   string `json:"new,omitempty"`
	Label string `json:"label,omitempty"`
}

// SetChange is what came and went in a set of names; Changed are those that
// stayed and mean something else now.
type SetChange struct {
	Added   []string `json:"added,omitempty"`
	Removed []string `json:"removed,omitempty"`
	Changed []string `json:"changed,omitempty"`
}

// IsEmpty reports whether nothing changed.
func (c SetChange) IsEmpty() bool { return len(c.Added)+len(c.Removed)+len(c.Changed) == 0 }

// Kernel tells of a kernel that only runs after the machine has started again.
type Kernel struct {
	Old    string `json:"old"` // releases, as uname -r
	New    string `json:"new"`
	Reason string `json:"reason"`
}

// Changes is all that differs between two systems, as the plan shows it and the
// machine executes it. Every list is sorted.
type Changes struct {
	Units       []UnitChange    `json:"units,omitempty"`
	Packages    []PackageChange `json:"packages,omitempty"`
	Users       SetChange       `json:"users,omitzero"`
	Groups      SetChange       `json:"groups,omitzero"`
	Modules     SetChange       `json:"modules,omitzero"`
	Directories SetChange       `json:"directories,omitzero"`
	// Systemd tells that the service manager itself changed and must execute
	// its new program.
	Systemd bool `json:"systemd,omitempty"`
	// RebootNeeded is set where the kernel or its command line changed.
	RebootNeeded *Kernel `json:"reboot_needed,omitempty"`
	// Irreversible names services whose data older programs cannot read: there
	// is no way back across them.
	Irreversible []string `json:"irreversible,omitempty"`
}

// IsEmpty reports whether a switch has nothing to do but to move the link.
func (c *Changes) IsEmpty() bool {
	return len(c.Units)+len(c.Packages)+len(c.Irreversible) == 0 && !c.Systemd && c.RebootNeeded == nil &&
		c.Users.IsEmpty() && c.Groups.IsEmpty() && c.Modules.IsEmpty() && c.Directories.IsEmpty()
}

// With returns the units that have one of the actions, in order.
func (c *Changes) With(actions ...Action) []string {
	var out []string
	for _, u := range c.Units {
		if slices.Contains(actions, u.Action) {
			out = append(out, u.Unit)
		}
	}
	return out
}

// Diff tells what a switch from one system to another does. A nil system has
// nothing: from it everything starts. What the content of a unit, its files or
// its packages is decides, never a path or a version.
func Diff(from, to *Manifest) *Changes {
	if from == nil {
		from = &Manifest{}
	}
	if to == nil {
		to = &Manifest{}
	}
	c := &Changes{Packages: diffPackages(from, to)}
	d := differ{from: from, to: to, oldPackages: byName(from.Packages), newPackages: byName(to.Packages)}
	c.Units = d.units()
	c.Users = diffSet(from.Users, to.Users, func(u User) string { return u.Name }, func(a, b User) bool {
		return a.UID == b.UID && a.GID == b.GID && a.Home == b.Home && slices.Equal(a.Groups, b.Groups)
	})
	c.Groups = diffSet(from.Groups, to.Groups, func(g Group) string { return g.Name }, func(a, b Group) bool { return a == b })
	c.Modules = diffSet(from.Modules, to.Modules, func(m string) string { return m }, func(a, b string) bool { return a == b })
	c.Directories = diffSet(from.Directories, to.Directories, func(d Directory) string { return d.Path }, func(a, b Directory) bool { return a == b })
	oldSystemd, newSystemd := d.oldPackages["systemd"], d.newPackages["systemd"]
	c.Systemd = oldSystemd != nil && newSystemd != nil && oldSystemd.Ref != newSystemd.Ref
	c.RebootNeeded = d.kernel()
	for _, s := range to.Services {
		if old := from.Service(s.Unit); old != nil && s.StateEpoch > old.StateEpoch {
			c.Irreversible = append(c.Irreversible, s.Unit)
		}
	}
	slices.Sort(c.Irreversible)
	return c
}

type differ struct {
	from, to                 *Manifest
	oldPackages, newPackages map[string]*Package
}

func byName(packages []Package) map[string]*Package {
	m := make(map[string]*Package, len(packages))
	for i := range packages {
		m[packages[i].Name] = &packages[i]
	}
	return m
}

// units decides for every unit that either system starts.
func (d *differ) units() []UnitChange {
	all := map[string]bool{}
	for _, m := range []*Manifest{d.from, d.to} {
		for _, s := range m.Services {
			all[s.Unit] = true
		}
		for _, u := range m.Enabled {
			all[u] = true
		}
	}
	var out []UnitChange
	for _, unit := range slices.Sorted(maps.Keys(all)) {
		if u := d.unit(unit); u != nil {
			out = append(out, *u)
		}
	}
	return out
}

func (d *differ) unit(unit string) *UnitChange {
	from, to := d.from.Service(unit), d.to.Service(unit)
	was := from != nil || slices.Contains(d.from.Enabled, unit)
	is := to != nil || slices.Contains(d.to.Enabled, unit)
	switch {
	case !was:
		u := &UnitChange{Unit: unit, Action: Start, Reasons: []Reason{{New: unit}}}
		if to != nil {
			u.Label, u.Reasons[0].Label = to.Label, to.Label
		}
		return u
	case !is:
		u := &UnitChange{Unit: unit, Action: Stop, Reasons: []Reason{{Old: unit}}}
		if from != nil {
			u.Label, u.Reasons[0].Label = from.Label, from.Label
		}
		return u
	}
	reasons := d.reasons(from, to)
	if len(reasons) == 0 {
		return nil
	}
	if to == nil { // a service's drop-in went; the package's unit stays
		return &UnitChange{Unit: unit, Action: Restart, Label: from.Label, Reasons: reasons}
	}
	return &UnitChange{Unit: unit, Action: onChange(to.OnChange), Label: to.Label, Reasons: reasons}
}

func onChange(rule string) Action {
	switch rule {
	case "reload":
		return Reload
	case "stop-start":
		return StopStart
	case "nothing":
		return None
	}
	return Restart
}

// reasons compares two services of one unit. Either may be nil.
func (d *differ) reasons(from, to *Service) []Reason {
	type side struct {
		files    map[string]string
		packages map[string]*Package
		label    string
	}
	read := func(s *Service, packages map[string]*Package) side {
		out := side{files: map[string]string{}, packages: map[string]*Package{}}
		if s == nil {
			return out
		}
		out.label = s.Label
		out.files[s.UnitFile.Path] = s.UnitFile.Ref
		for _, f := range s.Files {
			out.files[f.Path] = f.Ref
		}
		for _, p := range s.Packages {
			if packages[p] != nil {
				out.packages[p] = packages[p]
			}
		}
		return out
	}
	a, b := read(from, d.oldPackages), read(to, d.newPackages)
	label := cmp.Or(b.label, a.label)
	var out []Reason
	for _, path := range keys(a.files, b.files) {
		if a.files[path] != b.files[path] {
			out = append(out, Reason{Path: path, Old: a.files[path], New: b.files[path], Label: label})
		}
	}
	for _, name := range keys(a.packages, b.packages) {
		p, q := a.packages[name], b.packages[name]
		switch {
		case p == nil:
			out = append(out, Reason{Package: name, New: version(q), Label: q.Label})
		case q == nil:
			out = append(out, Reason{Package: name, Old: version(p), Label: p.Label})
		case p.Ref != q.Ref:
			out = append(out, Reason{Package: name, Old: version(p), New: version(q), Label: q.Label})
		}
	}
	return out
}

// version is never empty: that would mean absent.
func version(p *Package) string { return cmp.Or(p.Version, "unversioned") }

func keys[V any](maps ...map[string]V) []string {
	var out []string
	for _, m := range maps {
		for k := range m {
			out = append(out, k)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func diffPackages(from, to *Manifest) []PackageChange {
	a, b := byName(from.Packages), byName(to.Packages)
	var out []PackageChange
	for _, name := range keys(a, b) {
		p, q := a[name], b[name]
		switch {
		case p == nil:
			out = append(out, PackageChange{Name: name, New: version(q), Label: q.Label})
		case q == nil:
			out = append(out, PackageChange{Name: name, Old: version(p), Label: p.Label})
		case p.Ref != q.Ref:
			out = append(out, PackageChange{Name: name, Old: version(p), New: version(q), Label: q.Label})
		}
	}
	return out
}

func diffSet[T any](from, to []T, key func(T) string, equal func(a, b T) bool) SetChange {
	a, b := map[string]T{}, map[string]T{}
	for _, v := range from {
		a[key(v)] = v
	}
	for _, v := range to {
		b[key(v)] = v
	}
	var c SetChange
	for _, k := range keys(a, b) {
		p, was := a[k]
		q, is := b[k]
		switch {
		case !was:
			c.Added = append(c.Added, k)
		case !is:
			c.Removed = append(c.Removed, k)
		case !equal(p, q):
			c.Changed = append(c.Changed, k)
		}
	}
	return c
}

// kernel tells whether the running kernel is another than the new system's.
func (d *differ) kernel() *Kernel {
	a, b := d.from.Boot, d.to.Boot
	if a == nil || b == nil {
		return nil
	}
	k := &Kernel{Old: a.Release, New: b.Release}
	switch {
	case a.Release != b.Release:
		k.Reason = fmt.Sprintf("kernel %s → %s", a.Release, b.Release)
	case a.Cmdline != b.Cmdline:
		k.Reason = fmt.Sprintf("kernel command line %q → %q", a.Cmdline, b.Cmdline)
	default:
		for _, c := range diffPackages(d.from, d.to) {
			if strings.HasPrefix(c.Name, "linux-image-") {
				k.Reason = fmt.Sprintf("package %s %s → %s", c.Name, c.Old, c.New)
				return k
			}
		}
		return nil
	}
	return k
}
