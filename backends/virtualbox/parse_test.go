package virtualbox

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// captured is what a real VBoxManage said: its stdout, its stderr, or both where
// a file holds several calls.
func captured(t testing.TB, name string) (stdout, stderr string) {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", "captures", name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "# --- stdout\n")
	if !ok {
		return string(b), string(b)
	}
	stdout, stderr, _ = strings.Cut(rest, "# --- stderr\n")
	return stdout, stderr
}

func allCaptured(t testing.TB) map[string]string {
	t.Helper()
	files, err := filepath.Glob("testdata/captures/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	all := map[string]string{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(f)] = string(b)
	}
	return all
}

func TestInfo(t *testing.T) {
	for name, want := range map[string]map[string]string{
		"02-showvminfo-fresh":         {"VMState": "poweroff", "name": "fleet-0f5eb759-web"},
		"05-showvminfo-medium-gone":   {"VMState": "poweroff", "memory": "640", "SATA-2-0": "/vb/w/vms/fleet-0f5eb759-web/seed.vdi", "description": "fleet deployment 0f5eb759 machine web\nline2 \"quoted\" = x", "GuestMemoryBalloon": "0", "firmware": "EFI", "uartmode1": "file,/vb/w/vms/fleet-0f5eb759-web/console.log"},
		"09-showvminfo-with-snapshot": {"SnapshotName": "backup-20261123", "CurrentSnapshotNode": "SnapshotName-1", "nic2": "intnet", "intnet2": "fleet-int"},
		"14-showvminfo-paused":        {"VMState": "paused"},
		"14-showvminfo-running":       {"VMState": "running"},
		"19-showvminfo-running-efi":   {"VMState": "running", "firmware": "EFI"},
		"20-showvminfo-aborted":       {"VMState": "aborted"},
	} {
		out, _ := captured(t, name)
		got := parseInfo(out)
		for k, v := range want {
			if got[k] != v {
				t.Errorf("%s: %s is %q, want %q", name, k, got[k], v)
			}
		}
		for k := range got {
			if k == "" || strings.ContainsAny(k, "\"= \n") && !strings.HasPrefix(k, "SATA") {
				t.Errorf("%s: a key %q", name, k)
			}
		}
	}
	out, _ := captured(t, "05-showvminfo-medium-gone")
	got := parseInfo(out).rules()
	want := []rule{{"http", "tcp", "127.0.0.1", 28080, 80}, {"ssh", "tcp", "127.0.0.1", 22201, 22}}
	if !slices.Equal(got, want) {
		t.Errorf("forwarded ports are %v", got)
	}
}

func TestPairs(t *testing.T) {
	for _, x := range []struct {
		text string
		want []pair
	}{
		{"", nil},
		{" rec_screen0\n", nil},
		{"a=1\r\nb=\"x\"\r\n", []pair{{"a", "1"}, {"b", "x"}}},
		{"\"a b-0-0\"=\"/x=y\"\n", []pair{{"a b-0-0", "/x=y"}}},
		{"d=\"one\ntwo=2\n\"\ne=3", []pair{{"d", "one\ntwo=2\n"}, {"e", "3"}}},
		{`q="say \"no\" \\"` + "\n", []pair{{"q", `say "no" \`}}},
		{"open=\"never\nclosed=1\n", []pair{{"open", "never"}, {"closed", "1"}}},
		{"=1\n\"x\n\"=\"\n", nil},
	} {
		if got := parsePairs(x.text); !slices.Equal(got, x.want) {
			t.Errorf("%q: %q, want %q", x.text, got, x.want)
		}
	}
}

func TestList(t *testing.T) {
	out, _ := captured(t, "02-list-vms")
	want := []listed{{"fleet-0f5eb759-web", "b0e76f7f-3c38-4376-9363-089c9ecf6a32"}, {"a/b", "e98bf35a-cd79-4414-b620-e60c3bd54a62"}}
	if got := parseList(out); !slices.Equal(got, want) {
		t.Errorf("%v", got)
	}
	out, _ = captured(t, "18-inaccessible-vm")
	if got := parseList(out); len(got) == 0 || got[0] != (listed{inaccessible, "9fa5040a-d9f7-49ba-b6fe-8645c9b5246f"}) {
		t.Errorf("%v", got)
	}
	if got := parseList("\"a\" {b}\" {c}\n\" {x}\nnothing\n\"y\" {z"); !slices.Equal(got, []listed{{`a" {b}`, "c"}}) {
		t.Errorf("%q", got)
	}
}

func TestMedia(t *testing.T) {
	out, _ := captured(t, "04-list-hdds")
	all := parseMedia(out)
	if len(all) != 5 || all[1] != (medium{id: "f4a19b69-ae3a-4b37-a592-b18d7f7742cd", parent: "base", state: "created", location: "/vb/w/vms/fleet-0f5eb759-web/disk1.vdi", capacity: 256}) {
		t.Errorf("%+v", all)
	}
	out, _ = captured(t, "05-medium-file-gone")
	all = parseMedia(out)
	if len(all) != 1 || all[0].state != "inaccessible" || !strings.Contains(all[0].problem, "VERR_FILE_NOT_FOUND") || all[0].capacity != 4 {
		t.Errorf("%+v", all)
	}
	out, _ = captured(t, "04-showmediuminfo")
	if all = parseMedia(out); len(all) != 1 || all[0].capacity != 256 {
		t.Errorf("%+v", all)
	}
}

func TestSnapshotList(t *testing.T) {
	out, _ := captured(t, "09-snapshot-list-mr")
	want := []snapshotEntry{
		{"backup-20261123", "9cc1a7a1-01c2-4efc-b377-1e0c33276a77", "before deploy", false},
		{"backup-20261123", "40a315ff-d3c0-455c-adf3-bd884ada4659", "", true},
	}
	if got := parseSnapshots(out); !slices.Equal(got, want) {
		t.Errorf("%+v", got)
	}
}

func TestInterfaces(t *testing.T) {
	out, _ := captured(t, "10-list-hostonlyifs")
	if got := parseInterfaces(out); len(got) != 0 {
		t.Errorf("%+v", got)
	}
	// The list of the host's own interfaces has the same form.
	out, _ = captured(t, "10-list-bridgedifs")
	if got := parseInterfaces(out); len(got) == 0 || got[0] != (hostInterface{"eth0", "192.0.2.2", "255.255.255.0"}) {
		t.Errorf("%+v", got)
	}
	for text, want := range map[string]string{
		"0%...10%...100%\nInterface 'vboxnet3' was successfully created\n": "vboxnet3",
		"Interface 'vboxnet3' was not found":                               "", "": "", "Interface 'a b' created": "",
	} {
		if got := parseCreated(text); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func TestVersion(t *testing.T) {
	for _, name := range []string{"01-version", "00-wrapper-version"} {
		out, _ := captured(t, name)
		if major, minor, err := parseVersion(out); err != nil || major != 7 || minor != 2 {
			t.Errorf("%s: %d.%d, %v", name, major, minor, err)
		}
	}
	for _, bad := range []string{"", "seven", "7", "x.y.z", "-1.2"} {
		if _, _, err := parseVersion(bad); err == nil {
			t.Errorf("%q is a version", bad)
		}
	}
}

// TestBusy tells errors that pass from those that stay.
func TestBusy(t *testing.T) {
	for name, want := range map[string]bool{
		"14-modifyvm-running": true, "14-startvm-running": true, "14-unregister-running": true, "18-concurrent-modifyvm": true,
		"18-cold-start-race": true, "20-showvminfo-right-after-kill9": true,
		"12-discardstate": false, "18-broken-config": false, "18-userhome-unwritable": false, "02-showvminfo-notfound": false,
		"02-createvm-duplicate": false, "03-modifyvm-badmem": false, "12-startvm-headless": false, "15-startvm-disk-missing": false, "05-closemedium-attached": false,
	} {
		_, stderr := captured(t, name)
		if got := busy(&callError{text: stderr, err: errors.New("exit status 1")}); got != want {
			t.Errorf("%s is busy: %v, want %v\n%s", name, got, want, stderr)
		}
	}
	// Said by showvminfo and setextradata while others lock the machine.
	for _, text := range []string{
		"VBoxManage: error: The machine 'm0' was unlocked unexpectedly while attempting to share its session\n" +
			"VBoxManage: error: Details: code VBOX_E_INVALID_SESSION_STATE (0x80bb000b), component MachineWrap, interface IMachine, callee nsISupports\n",
		"VBoxManage: error: Failed to assign the machine to the session (E_ACCESSDENIED)\n" +
			"VBoxManage: error: Details: code VBOX_E_VM_ERROR (0x80bb0003), component MachineWrap, interface IMachine, callee nsISupports\n",
		"VBoxManage: error: The object is not ready\n" +
			"VBoxManage: error: Details: code E_ACCESSDENIED (0x80070005), component SessionMachine, interface IMachine, callee nsISupports\n",
		"VBoxManage: error: Machine state change is in progress. Please retry the operation later.\n",
		"VBoxManage: error: The session is not locked (session state: Unlocked)\n" +
			"VBoxManage: error: Details: code NS_ERROR_UNEXPECTED (0x8000ffff), component SessionWrap, interface ISession, callee nsISupports\n",
	} {
		if !busy(&callError{text: text, err: errors.New("exit status 1")}) {
			t.Errorf("not busy: %s", text)
		}
	}
}

// TestVanished: a list fails where another machine's disk goes away meanwhile.
func TestVanished(t *testing.T) {
	for _, text := range []string{
		"VBoxManage: error: The object is not ready\nVBoxManage: error: The object is not ready\n",
		"VBoxManage: error: Code NS_ERROR_FAILURE (0x80004005) - Operation failed (extended info not available)\n",
	} {
		err := &callError{text: text, err: errors.New("exit status 1")}
		if !vanished([]string{"list", "hdds"}, err) || vanished([]string{"unregistervm", "m"}, err) {
			t.Errorf("%s", text)
		}
	}
}

// TestErrors shows VBoxManage's words without the places in its source.
func TestErrors(t *testing.T) {
	_, stderr := captured(t, "12-startvm-headless")
	err := &callError{args: []string{"startvm", "x", "--type", "headless"}, text: stderr, err: errors.New("exit status 1")}
	want := "VBoxManage startvm x: The virtual machine 'fleet-0f5eb759-web' has terminated unexpectedly during startup with exit code 1 (0x1)"
	if err.Error() != want {
		t.Errorf("%s", err)
	}
	if err := (&callError{args: []string{"x"}, err: errors.New("exit status 3")}); !strings.Contains(err.Error(), "exit status 3") {
		t.Error(err)
	}
	for name, hint := range map[string]string{
		"12-startvm-headless": "kernel driver", "15-startvm-intnet-nodriver": "modprobe vboxdrv", "15-startvm-hostonly-missing": "deploy again", "15-startvm-native-api": "virtualization",
	} {
		_, stderr := captured(t, name)
		if got := hintOf(stderr); !strings.Contains(got, hint) {
			t.Errorf("%s: the hint is %q", name, got)
		}
	}
}

func TestRanges(t *testing.T) {
	file := filepath.Join(t.TempDir(), "networks.conf")
	in := netip.MustParsePrefix("192.168.56.0/24")
	out := netip.MustParsePrefix("10.1.0.0/16")
	if err := checkRange(in, file); err != nil {
		t.Error(err)
	}
	if err := checkRange(out, file); err == nil || !strings.Contains(err.Error(), `"* 10.1.0.0/16"`) {
		t.Error(err)
	}
	if err := os.WriteFile(file, []byte("# ours\n* 10.0.0.0/8 192.168.0.0/16\n* nonsense\n*\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, p := range []netip.Prefix{in, out} {
		if err := checkRange(p, file); err != nil {
			t.Error(err)
		}
	}
	if err := checkRange(netip.MustParsePrefix("172.16.0.0/24"), file); err == nil {
		t.Error("an address outside of all ranges is allowed")
	}
	if a, m := hostAddress(netip.MustParsePrefix("192.168.57.12/22")); a != "192.168.56.1" || m != "255.255.252.0" {
		t.Error(a, m)
	}
}

func TestVDI(t *testing.T) {
	b := make([]byte, vdiHeader)
	copy(b[vdiSignatureAt:], []byte{0x7f, 0x10, 0xda, 0xbe, 1, 0, 1, 0})
	b[vdiSizeAt+3] = 0x10 // 256 MiB
	b[vdiIDAt], b[vdiParentAt] = 1, 2
	if v, err := parseVDI(b); err != nil || v.capacity != 256 || v.id != [16]byte{1} || v.parent != [16]byte{2} {
		t.Error(v, err)
	}
	b[vdiVersionAt+2] = 2
	if _, err := parseVDI(b); err == nil {
		t.Error("a version from the future is read")
	}
	if _, err := parseVDI(b[:100]); err == nil {
		t.Error("half a header is read")
	}
}

// FuzzParse shows that nothing VBoxManage could say makes a parser fail, and that
// what is read is bounded by what there was.
func FuzzParse(f *testing.F) {
	for _, text := range allCaptured(f) {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		n := 0
		for _, p := range parsePairs(text) {
			n += len(p.key) + len(p.value)
		}
		if n > len(text) {
			t.Errorf("%d bytes give %d", len(text), n)
		}
		_ = parseInfo(text).rules()
		for _, l := range parseList(text) {
			if !strings.Contains(text, l.id) {
				t.Errorf("%+v", l)
			}
		}
		for _, m := range parseMedia(text) {
			if m.capacity < 0 || m.id == "" {
				t.Errorf("%+v", m)
			}
		}
		parseSnapshots(text)
		parseInterfaces(text)
		parseCreated(text)
		_, _, _ = parseVersion(text)
		parseRanges(text)
		_ = busy(&callError{text: text})
		_ = (&callError{text: text, err: errors.New("x")}).Error()
		_, _ = parseVDI([]byte(text))
		if r, ok := parseRule(text); ok && r.name+r.proto+r.addr == "" && r.port == 0 && r.guest == 0 && len(text) > 20 && !strings.Contains(text, "0") {
			t.Errorf("%q", text)
		}
	})
}
