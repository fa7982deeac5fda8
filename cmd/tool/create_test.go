package main

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestAuto shows what auto takes, and that it says why.
func TestAuto(t *testing.T) {
	dir := t.TempDir()
	program, driver := filepath.Join(dir, "VBoxManage"), filepath.Join(dir, "vboxdrv")
	t.Setenv("TOOL_VBOXMANAGE", program)
	t.Setenv("TOOL_VBOXDRV", driver)
	choose := func(wantBackend, wantNote string) {
		t.Helper()
		for _, name := range []string{"", "auto"} {
			got, note, err := chooseBackend(context.Background(), name)
			if err != nil || got != wantBackend || !strings.Contains(note, wantNote) || strings.Contains(note, "\n") {
				t.Errorf("%q gives %s, %q, %v", name, got, note, err)
			}
		}
	}
	choose("qemu", "not virtualbox: VBoxManage is said to be "+program)
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho 7.2.22_Debianr175245\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	choose("qemu", "not virtualbox: VirtualBox's kernel driver is not loaded")
	if err := os.WriteFile(driver, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	choose("virtualbox", "backend auto: virtualbox")
}
