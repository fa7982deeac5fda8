package debian

import (
	"errors"
	"math/rand/v2"
	"os/exec"
	"testing"
)

var versionTable = []string{
	"0", "0.0", "00", "1", "1.0", "1.0-1", "1.0-0", "1.0-", "1~", "1~~", "1~~a", "1~a", "1a", "1+", "1.", "1-1~deb12u1", "1-1+deb12u1",
	"0:1", "1:0", "2:0.1", "1.2.3", "1.2.10", "1.2.003", "1.2a", "1.2+b1", "1.2~rc1", "3.0.17-1~deb12u2", "3.0.9", "252.39-1~deb12u2",
	"2.36-9+deb12u14", "1.0-1-2", "1.a", "1.A", "1.aa", "1.a1", "9999999999999999999999", "9999999999999999999998", "1:1-1:1",
}

// TestVersionsAsDpkg compares the order of versions with dpkg's.
func TestVersionsAsDpkg(t *testing.T) {
	dpkg, err := exec.LookPath("dpkg")
	if err != nil {
		t.Skip("SKIPPED: there is no dpkg to compare with")
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	random := func() string {
		const chars = "0019aAz.+~-:"
		b := []byte{'1'}
		for range rnd.IntN(7) {
			b = append(b, chars[rnd.IntN(len(chars))])
		}
		return string(b)
	}
	pairs := [][2]string{}
	for i, a := range versionTable {
		for _, b := range versionTable[i+1:] {
			pairs = append(pairs, [2]string{a, b})
		}
	}
	rnd.Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
	pairs = pairs[:250]
	for range 250 {
		pairs = append(pairs, [2]string{random(), random()})
	}
	is := func(a, op, b string) bool {
		err := exec.Command(dpkg, "--compare-versions", a, op, b).Run()
		var ee *exec.ExitError
		if err != nil && !(errors.As(err, &ee) && ee.ExitCode() == 1) {
			t.Fatalf("dpkg --compare-versions %s %s %s: %v", a, op, b, err)
		}
		return err == nil
	}
	compared := 0
	for _, p := range pairs {
		a, b := p[0], p[1]
		if CheckVersion(a) != nil || CheckVersion(b) != nil {
			continue // dpkg warns, and says nothing binding
		}
		compared++
		got := CompareVersions(a, b)
		switch {
		case got < 0 && !is(a, "lt", b), got == 0 && !is(a, "eq", b), got > 0 && !is(a, "gt", b):
			t.Errorf("compare %s %s = %d: dpkg differs", a, b, got)
		}
		if CompareVersions(b, a) != -got {
			t.Errorf("compare %s %s is not the reverse of %s %s", b, a, a, b)
		}
	}
	t.Logf("%d pairs", compared)
}

func TestCheckVersion(t *testing.T) {
	for v, ok := range map[string]bool{"1": true, "1:2.3-4": true, "1:1:1-1": true, "": false, ":1": false, "a:1": false, "1-": false,
		"1 2": false, "1/2": false, "1_2": false, "1:": false, "9999999999:1": false, "2.36-9+deb12u14": true} {
		if err := CheckVersion(v); (err == nil) != ok {
			t.Errorf("%q: %v", v, err)
		}
	}
}

func FuzzCompareVersions(f *testing.F) {
	for _, v := range versionTable {
		f.Add(v, "1.0-1", "1~")
	}
	f.Fuzz(func(t *testing.T, a, b, c string) {
		if CompareVersions(a, b) != -CompareVersions(b, a) {
			t.Fatalf("%q %q: not antisymmetric", a, b)
		}
		if CompareVersions(a, b) <= 0 && CompareVersions(b, c) <= 0 && CompareVersions(a, c) > 0 {
			t.Fatalf("%q %q %q: not transitive", a, b, c)
		}
	})
}
