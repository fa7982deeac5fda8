package store

import (
	"path"
	"strings"
)

// NameOf makes an object's name of an exec path: its last element, with what
// CheckName does not allow replaced by underscores.
func NameOf(execPath string) string {
	base := path.Base(execPath)
	if len(base) > MaxNameLen {
		base = base[len(base)-MaxNameLen:]
	}
	name := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("+._-?=", r) {
			return r
		}
		return '_'
	}, base)
	if strings.HasPrefix(name, ".") {
		name = "_" + name[1:]
	}
	return name
}
