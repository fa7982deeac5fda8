package virtualbox

import "testing"

// TestOurs tells the interface that was made from others.
func TestOurs(t *testing.T) {
	made := hostonly{Before: []string{"vboxnet0"}, Name: "vboxnet1", Boot: "now", Address: "192.168.60.1", Mask: "255.255.255.0"}
	for _, x := range []struct {
		what string
		h    hostonly
		i    hostInterface
		boot string
		want bool
	}{
		{"the one that was made", made, hostInterface{"vboxnet1", "192.168.60.1", "255.255.255.0"}, "now", true},
		{"its address was changed by hand", made, hostInterface{"vboxnet1", "192.168.60.9", "255.255.255.0"}, "now", true},
		{"another one", made, hostInterface{"vboxnet0", "192.168.60.1", "255.255.255.0"}, "now", false},
		{"after a restart of the host", made, hostInterface{"vboxnet1", "192.168.60.1", "255.255.255.0"}, "later", true},
		{"another one of its name after a restart", made, hostInterface{"vboxnet1", "192.168.57.1", "255.255.255.0"}, "later", false},
		{"none was made", hostonly{Boot: "now"}, hostInterface{"", "", ""}, "now", false},
	} {
		if got := x.h.ours(x.i, x.boot); got != x.want {
			t.Errorf("%s: %v, want %v", x.what, got, x.want)
		}
	}
}

// TestUnnamed finds what a command made that did not live to write it down.
func TestUnnamed(t *testing.T) {
	h := hostonly{Before: []string{"vboxnet0"}, Boot: "now"}
	for _, x := range []struct {
		i    hostInterface
		boot string
		want string
	}{
		{hostInterface{"vboxnet1", "192.168.57.1", "255.255.255.0"}, "now", "vboxnet1"},
		{hostInterface{"vboxnet1", "", ""}, "now", "vboxnet1"},
		{hostInterface{"vboxnet1", "0.0.0.0", "0.0.0.0"}, "now", "vboxnet1"},
		{hostInterface{"vboxnet1", "192.168.60.1", "255.255.255.0"}, "now", ""}, // somebody has configured it
		{hostInterface{"vboxnet0", "192.168.56.1", "255.255.255.0"}, "now", ""},
		{hostInterface{"vboxnet1", "192.168.57.1", "255.255.255.0"}, "later", ""},
	} {
		if got := h.unnamed([]hostInterface{x.i}, x.boot); got != x.want {
			t.Errorf("%+v in boot %s: %q, want %q", x.i, x.boot, got, x.want)
		}
	}
}
