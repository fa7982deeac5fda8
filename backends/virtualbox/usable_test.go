package virtualbox_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"tool/backends/virtualbox"
	"tool/backends/virtualbox/vboxtest"
)

// TestUsable tells each reason by itself, with what to do.
func TestUsable(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	t.Setenv("VBOX_INSTALL_PATH", dir)
	program := filepath.Join(dir, "VBoxManage")
	usable := func(o virtualbox.Options) string {
		t.Helper()
		err := virtualbox.New(o).Usable(context.Background())
		if err == nil {
			return ""
		}
		return err.Error()
	}
	driver := filepath.Join(dir, "vboxdrv")
	if _, err := os.Stat("/usr/lib/virtualbox/VBoxManage"); err != nil {
		if got := usable(virtualbox.Options{}); !strings.Contains(got, "VirtualBox is not installed") || !strings.Contains(got, "TOOL_VBOXMANAGE") {
			t.Error(got)
		}
	}
	if got := usable(virtualbox.Options{Program: program}); !strings.Contains(got, program) {
		t.Error(got)
	}
	says := func(text string) {
		t.Helper()
		if err := os.WriteFile(program, []byte("#!/bin/sh\necho '"+text+"'\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	says("6.1.38_Debianr153438")
	if got := usable(virtualbox.Options{Driver: driver}); !strings.Contains(got, "VirtualBox 6.1 is too old: 7.0") {
		t.Error(got)
	}
	says("hello")
	if got := usable(virtualbox.Options{Driver: driver}); !strings.Contains(got, "its version cannot be read") {
		t.Error(got)
	}
	says("7.2.22")
	if got := usable(virtualbox.Options{Driver: driver}); !strings.Contains(got, "driver is not loaded") || !strings.Contains(got, "modprobe vboxdrv") {
		t.Error(got)
	}
	if err := os.Mkdir(driver, 0o755); err != nil {
		t.Fatal(err)
	}
	if got := usable(virtualbox.Options{Driver: driver}); !strings.Contains(got, "not accessible") || !strings.Contains(got, "vboxusers") {
		t.Error(got)
	}
}

// TestBrokenSettings shows what is told where VirtualBox itself cannot start.
func TestBrokenSettings(t *testing.T) {
	h := vboxtest.New(t)
	if err := os.WriteFile(filepath.Join(h.Home, "VirtualBox.xml"), []byte("<broken\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	err := newBackend(h).Usable(context.Background())
	if err == nil || !strings.Contains(err.Error(), "VirtualBox's server does not start") || !strings.Contains(err.Error(), "VirtualBox.xml") {
		t.Error(err)
	}
}
