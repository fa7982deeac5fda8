package gomod

import (
	"bytes"
	"context"
	"testing"

	"tool/core/packages/unpack"
)

// TestGolden pins the trees of go-module@1 and go-toolchain@1: the builtin is
// part of action keys, so what it makes may only change along with its version.
func TestGolden(t *testing.T) {
	ctx := context.Background()
	z := makeZip(t, "a.b/C@v1.0.0/x.go", "package c\n", "a.b/C@v1.0.0/sub/y.go", "package sub\n", "a.b/C@v1.0.0/go.mod", "module a.b/C\n")
	m := Module{Path: "a.b/C", Version: "v1.0.0"}
	var err error
	if m.Sum, err = Sum(bytes.NewReader(z), int64(len(z))); err != nil {
		t.Fatal(err)
	}
	d, err := CacheTree(ctx, bytes.NewReader(z), int64(len(z)), m, unpack.To(newMem()))
	if want := "4226e5f0619efbf13fe6c543afbb7cfdaa10dafcefe759054d53bc43ce96babd/156"; err != nil || d.String() != want {
		t.Errorf("go-module@1: got %s, %v, want %s", d, err, want)
	}

	m = ToolchainModule("1.26.8", "linux", "amd64")
	p := m.String() + "/"
	z = makeZip(t, p+"bin/go", "x", p+"pkg/tool/linux_amd64/asm", "z", p+"src/_go.mod", "module std\n", p+"VERSION", "go1.26.8\n")
	if m.Sum, err = Sum(bytes.NewReader(z), int64(len(z))); err != nil {
		t.Fatal(err)
	}
	d, err = Toolchain(ctx, bytes.NewReader(z), int64(len(z)), m, unpack.To(newMem()))
	if want := "6b0ca4542f90b4bc9e7f7aa712903d1f3b50d6843cceaea1f8655f533c18badd/313"; err != nil || d.String() != want {
		t.Errorf("go-toolchain@1: got %s, %v, want %s", d, err, want)
	}
}
