package activate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"tool/core/machines/system"
	"tool/core/model/digest"
	"tool/core/model/merkle"
)

// shadowGroup may read shadow and gshadow; Debian's base-passwd gives it this id.
const shadowGroup = 42

// maxMaster bounds a file of base-passwd, in bytes.
const maxMaster = 1 << 20

// accounts are the lines of passwd, group, shadow and gshadow.
type accounts struct {
	passwd, group, shadow, gshadow []string
	users, groups                  map[string]bool
}

// accountsOf merges Debian's fixed accounts with the system's own, whose ids
// were given at build time. Nobody has a password.
func (m *Machine) accountsOf(tree digest.Digest, manifest *system.Manifest) (*accounts, error) {
	a := &accounts{users: map[string]bool{}, groups: map[string]bool{}}
	passwd, err := m.master(tree, "passwd.master")
	if err != nil {
		return nil, err
	}
	group, err := m.master(tree, "group.master")
	if err != nil {
		return nil, err
	}
	for _, f := range passwd {
		if len(f) == 7 {
			a.user(f[0], f[2], f[3], f[4], f[5], f[6])
		}
	}
	if !a.users["root"] { // a system without base-passwd
		a.user("root", "0", "0", "root", "/root", "/bin/sh")
	}
	members := map[string][]string{}
	for _, u := range manifest.Users {
		a.user(u.Name, strconv.Itoa(u.UID), strconv.Itoa(u.GID), "", u.Home, "/usr/sbin/nologin")
		for _, g := range u.Groups {
			members[g] = append(members[g], u.Name)
		}
	}
	for _, f := range group {
		if len(f) == 4 {
			a.addGroup(f[0], f[2], append(split(f[3]), members[f[0]]...))
		}
	}
	if !a.groups["root"] {
		a.addGroup("root", "0", nil)
	}
	for _, g := range manifest.Groups {
		a.addGroup(g.Name, strconv.Itoa(g.GID), members[g.Name])
	}
	for _, u := range manifest.Users {
		a.addGroup(u.Name, strconv.Itoa(u.GID), members[u.Name])
	}
	for g, users := range members {
		if !a.groups[g] {
			return nil, fmt.Errorf("user %s is to be in the group %s, which the system does not have", users[0], g)
		}
	}
	return a, nil
}

func split(list string) []string {
	if list == "" {
		return nil
	}
	return strings.Split(list, ",")
}

func (a *accounts) user(name, uid, gid, gecos, home, shell string) {
	if a.users[name] {
		return
	}
	a.users[name] = true
	a.passwd = append(a.passwd, strings.Join([]string{name, "x", uid, gid, gecos, home, shell}, ":"))
	a.shadow = append(a.shadow, name+":*:19000:0:99999:7:::")
}

func (a *accounts) addGroup(name, gid string, members []string) {
	if a.groups[name] {
		return
	}
	a.groups[name] = true
	slices.Sort(members)
	list := strings.Join(slices.Compact(members), ",")
	a.group = append(a.group, name+":x:"+gid+":"+list)
	a.gshadow = append(a.gshadow, name+":*::"+list)
}

// master reads a file of base-passwd; none where the system is without it.
func (m *Machine) master(tree digest.Digest, name string) ([][]string, error) {
	n, ok, err := merkle.Find(m.Store.CAS(), tree, "usr/share/base-passwd/"+name)
	if err != nil || !ok || n.Kind != merkle.File {
		return nil, err
	}
	b, err := m.Store.CAS().ReadAll(n.Digest, maxMaster)
	if err != nil {
		return nil, err
	}
	return fields(string(b)), nil
}

func fields(text string) [][]string {
	var out [][]string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			out = append(out, strings.Split(line, ":"))
		}
	}
	return out
}

// files returns what is written to /etc.
func (a *accounts) files() map[string]etcFile {
	text := func(lines []string) []byte { return []byte(strings.Join(lines, "\n") + "\n") }
	return map[string]etcFile{
		"passwd":  {text(a.passwd), owned{mode: 0o644}},
		"group":   {text(a.group), owned{mode: 0o644}},
		"shadow":  {text(a.shadow), owned{mode: 0o640, gid: shadowGroup}},
		"gshadow": {text(a.gshadow), owned{mode: 0o640, gid: shadowGroup}},
	}
}

// etcFile is a file of /etc that activation writes.
type etcFile struct {
	content []byte
	owned   owned
}
