package system

import (
	"fmt"
	"strings"
)

// maxID is the largest user or group id; the one above means "none" to the kernel.
const maxID = 1<<32 - 2

// checkAccounts holds users and groups to what a line of passwd can say.
func (m *Manifest) checkAccounts() error {
	for _, u := range m.Users {
		if err := checkAccount(u.Name, u.UID, u.GID); err != nil {
			return fmt.Errorf("user %w", err)
		}
		if strings.ContainsAny(u.Home, ":\n\x00") {
			return fmt.Errorf("user %s: home %q holds a colon or a line break", u.Name, u.Home)
		}
		for _, g := range u.Groups {
			if err := checkAccount(g, 0, 0); err != nil {
				return fmt.Errorf("user %s: group %w", u.Name, err)
			}
		}
	}
	for _, g := range m.Groups {
		if err := checkAccount(g.Name, g.GID, g.GID); err != nil {
			return fmt.Errorf("group %w", err)
		}
	}
	return nil
}

func checkAccount(name string, ids ...int) error {
	ok := name != "" && len(name) <= 32
	for i := range len(name) {
		c := name[i]
		ok = ok && (c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '_' || i > 0 && (c >= '0' && c <= '9' || c == '-' || c == '.'))
	}
	if !ok {
		return fmt.Errorf("%q: a name is a letter or _, then letters, digits, _, - and .", name)
	}
	for _, id := range ids {
		if id < 0 || id > maxID {
			return fmt.Errorf("%s: id %d is none", name, id)
		}
	}
	return nil
}
