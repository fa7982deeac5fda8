package facts

import (
	"net/netip"
	"strings"
	"testing"
)

func some() *Facts {
	return &Facts{
		Deployment: "d", Machine: "m-0", MachineID: strings.Repeat("0a", 16),
		Interfaces:     []Interface{{Name: "control", MAC: "52:54:00:00:00:01"}, {Name: "cluster", MAC: "52:54:00:00:00:02", Address: netip.MustParsePrefix("10.1.2.3/24")}},
		Hosts:          []Host{{Name: "m-0", Address: netip.MustParseAddr("10.1.2.3")}},
		Nameservers:    []netip.Addr{netip.MustParseAddr("10.0.2.3")},
		AuthorizedKeys: []string{"ssh-ed25519 AAAA me"},
		HostKey:        "-----BEGIN OPENSSH PRIVATE KEY-----\n",
	}
}

func TestRoundTrip(t *testing.T) {
	f := some()
	b, err := f.Encode()
	if err != nil {
		t.Fatal(err)
	}
	g, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := g.Encode(); err != nil || string(c) != string(b) {
		t.Errorf("%s\n%s, %v", b, c, err)
	}
	d1, err1 := f.Digest()
	g.Hosts[0].Name = "other"
	d2, err2 := g.Digest()
	if err1 != nil || err2 != nil || d1 == d2 || len(d1) != 64 {
		t.Errorf("%s, %s, %v, %v", d1, d2, err1, err2)
	}
}

// TestCheck: nothing gets into a file that is read by line that is more than
// one thing there.
func TestCheck(t *testing.T) {
	for name, change := range map[string]func(*Facts){
		"host name":      func(f *Facts) { f.Machine = "a b" },
		"long name":      func(f *Facts) { f.Machine = strings.Repeat("a", 64) },
		"machine id":     func(f *Facts) { f.MachineID = "0" },
		"interface":      func(f *Facts) { f.Interfaces[0].Name = "../x" },
		"mac":            func(f *Facts) { f.Interfaces[0].MAC = "52:54\n[Match]" },
		"other host":     func(f *Facts) { f.Hosts[0].Name = "x\n1.2.3.4 y" },
		"no address":     func(f *Facts) { f.Hosts[0].Address = netip.Addr{} },
		"key":            func(f *Facts) { f.AuthorizedKeys[0] = "a\nb" },
		"public key":     func(f *Facts) { f.HostKeyPublic = "a\nb" },
		"private key":    func(f *Facts) { f.HostKey = "secret" },
		"firmware":       func(f *Facts) { f.Firmware = "bios" },
		"no name server": func(f *Facts) { f.Nameservers[0] = netip.Addr{} },
	} {
		f := some()
		if _, err := f.Encode(); err != nil {
			t.Fatal(err)
		}
		change(f)
		if _, err := f.Encode(); err == nil {
			t.Errorf("%s passed", name)
		}
	}
	if _, err := Parse([]byte(`{"version":2}`)); err == nil || !strings.Contains(err.Error(), "version 2") {
		t.Errorf("%v", err)
	}
}

func FuzzParse(f *testing.F) {
	b, err := some().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		facts, err := Parse(b)
		if err != nil {
			return
		}
		c, err := facts.Encode()
		if err != nil {
			t.Fatalf("parsed and cannot be written: %v", err)
		}
		if _, err := Parse(c); err != nil {
			t.Errorf("%s: %v", c, err)
		}
	})
}
