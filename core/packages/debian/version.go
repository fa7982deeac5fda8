// Package debian resolves sets of Debian packages against the archive's own
// indexes, without apt: versions, dependency fields, signed indexes, sources
// and the update of a lock.
package debian

import (
	"cmp"
	"fmt"
	"strings"
)

// CompareVersions orders two version strings as dpkg does: negative if a is
// older than b. It defines an order for strings that are no valid versions too.
func CompareVersions(a, b string) int {
	if a == b {
		return 0
	}
	ea, ua, ra := splitVersion(a)
	eb, ub, rb := splitVersion(b)
	return cmp.Or(compareNumber(ea, eb), comparePart(ua, ub), comparePart(ra, rb))
}

// CheckVersion reports why v is not a version: [epoch:]upstream[-revision].
func CheckVersion(v string) error {
	epoch, upstream, revision := splitVersion(v)
	bad := func(s, more string) bool {
		for _, c := range []byte(s) {
			if !isDigit(c) && !isLetter(c) && !strings.ContainsRune(more, rune(c)) {
				return true
			}
		}
		return false
	}
	switch {
	case upstream == "" || strings.HasSuffix(v, "-"):
		return fmt.Errorf("version %q: empty part", v)
	case strings.Contains(v, ":") && (epoch == "" || len(epoch) > 9 || strings.Trim(epoch, "0123456789") != ""):
		return fmt.Errorf("version %q: bad epoch", v)
	case bad(upstream, ".+~:-") || bad(revision, ".+~"):
		return fmt.Errorf("version %q: character that is not allowed", v)
	}
	return nil
}

func splitVersion(v string) (epoch, upstream, revision string) {
	if i := strings.IndexByte(v, ':'); i >= 0 {
		epoch, v = v[:i], v[i+1:]
	}
	if i := strings.LastIndexByte(v, '-'); i >= 0 {
		return epoch, v[:i], v[i+1:]
	}
	return epoch, v, ""
}

func isDigit(c byte) bool  { return '0' <= c && c <= '9' }
func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }

// compareNumber compares decimal strings of any length.
func compareNumber(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}

// weight orders the characters between numbers: ~ before the end of the part,
// the end before letters, letters before everything else.
func weight(s string, i int) int {
	switch {
	case i >= len(s) || isDigit(s[i]):
		return 0
	case s[i] == '~':
		return -1
	case isLetter(s[i]):
		return int(s[i])
	}
	return int(s[i]) + 256
}

func comparePart(a, b string) int {
	for a != "" || b != "" {
		i := 0
		for ; i < len(a) && !isDigit(a[i]) || i < len(b) && !isDigit(b[i]); i++ {
			wa, wb := weight(a, i), weight(b, i)
			if wa != wb {
				return cmp.Compare(wa, wb)
			}
		}
		// Equal weights all along: both have i characters that are no digits.
		a, b = a[i:], b[i:]
		na, nb := digits(a), digits(b)
		if c := compareNumber(a[:na], b[:nb]); c != 0 {
			return c
		}
		a, b = a[na:], b[nb:]
	}
	return 0
}

func digits(s string) int {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return n
}
