package activate

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tool/core/machines/system"
)

func withBoot(release string) func(*system.Manifest) {
	return func(m *system.Manifest) {
		m.Boot = &system.Boot{Kernel: "etc/kernel", Initrd: "etc/initrd", Cmdline: "quiet", Release: release}
	}
}

// TestESP: entries and files by content, the default moves on confirmation only.
func TestESP(t *testing.T) {
	r := newRig(t)
	esp := t.TempDir()
	open := func() (string, func() error, error) { return esp, func() error { return nil }, nil }
	r.m.openESP = open
	f := someFacts()
	f.Firmware = "uefi"
	stage := func(n int, kernel string) {
		ref := r.system(map[string]string{"a.service": "a" + kernel}, map[string]string{"kernel": kernel, "initrd": "i"}, withBoot(kernel))
		if err := r.m.Stage(t.Context(), n, ref, "//c:m", f); err != nil {
			t.Fatal(err)
		}
	}
	stage(1, "k1")
	if err := r.m.Boot(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	r.startAll()
	if s := r.do(SwitchRequest{Generation: 1, Auto: true}); s.Result != ResultConfirmed {
		t.Fatal(s)
	}
	list := func() string {
		var out []string
		filepath.WalkDir(esp, func(p string, d fs.DirEntry, err error) error {
			if !d.IsDir() {
				out = append(out, strings.TrimPrefix(p, esp+"/"))
			}
			return nil
		})
		return strings.Join(out, " ")
	}
	if got := list(); strings.Count(got, "vmlinuz-") != 1 || !strings.Contains(got, "loader/entries/gen-1.conf") {
		t.Errorf("%s", got)
	}
	efi := r.m.path("sys/firmware/efi/efivars")
	os.Chmod(r.m.path("sys"), 0o755)
	os.MkdirAll(efi, 0o755)
	stage(2, "k2")
	if s := r.do(SwitchRequest{Generation: 2, Mode: ModeBoot, Auto: true}); s.Phase != PhaseTrial {
		t.Fatal(s)
	}
	loader := func() string {
		b, _ := os.ReadFile(filepath.Join(esp, "loader/loader.conf"))
		return string(b)
	}
	if !strings.Contains(loader(), "default gen-1.conf") || strings.Count(list(), "vmlinuz-") != 2 {
		t.Errorf("%s\n%s", loader(), list())
	}
	b, err := os.ReadFile(filepath.Join(efi, "LoaderEntryOneShot-"+loaderVendor))
	if err != nil || !bytes.HasPrefix(b, []byte{7, 0, 0, 0, 'g', 0, 'e', 0}) || len(b) != 4+2*11 {
		t.Errorf("%q, %v", b, err)
	}
	os.WriteFile(r.m.path("proc/cmdline"), []byte("quiet tool.generation=2"), 0o644)
	r.open()
	r.m.openESP = open
	r.m.bootID += "+"
	if err := r.m.Boot(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	r.startAll()
	if err := r.m.Settle(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.check(2, 2)
	got := list()
	if !strings.Contains(loader(), "default gen-2.conf") || strings.Count(got, "vmlinuz-") != 1 || strings.Contains(got, "gen-1") {
		t.Errorf("%s\n%s", loader(), got)
	}
	b, _ = os.ReadFile(filepath.Join(esp, "loader/entries/gen-2.conf"))
	if !strings.Contains(string(b), "options quiet tool.generation=2") {
		t.Errorf("%s", b)
	}
}

// TestFATLabel reads what mkfs.vfat writes.
func TestFATLabel(t *testing.T) {
	dir := t.TempDir()
	sector := make([]byte, 512)
	copy(sector[71:], "TOOL-ESP   FAT32   ")
	sector[510], sector[511] = 0x55, 0xaa
	os.WriteFile(filepath.Join(dir, "vda1"), sector, 0o644)
	os.WriteFile(filepath.Join(dir, "vda2"), make([]byte, 600), 0o644)
	sys := t.TempDir()
	for _, n := range []string{"loop0", "vda1", "vda2", "gone"} {
		os.Mkdir(filepath.Join(sys, n), 0o755)
	}
	if got, err := findESP(sys, dir); err != nil || got != filepath.Join(dir, "vda1") {
		t.Errorf("%s, %v", got, err)
	}
	os.Remove(filepath.Join(dir, "vda1"))
	if _, err := findESP(sys, dir); err == nil {
		t.Error("found none")
	}
}
