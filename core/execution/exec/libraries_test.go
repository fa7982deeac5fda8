package exec_test

import (
	"debug/elf"
	"os"
	"path/filepath"
	"testing"
)

// libraries returns what a binary needs beside itself if it is linked
// dynamically, as this one is for the race detector: path in a root tree → file
// here.
func libraries(t testing.TB, binary string) map[string]string {
	f, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	found := map[string]string{}
	for _, p := range f.Progs {
		if p.Type != elf.PT_INTERP {
			continue
		}
		b := make([]byte, p.Filesz-1)
		if _, err := p.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		found[string(b[1:])] = string(b)
	}
	todo, _ := f.ImportedLibraries()
	for len(todo) > 0 {
		name := todo[0]
		todo = todo[1:]
		if found["lib/"+name] != "" {
			continue
		}
		for _, pattern := range []string{"/lib/*-linux-gnu/", "/usr/lib/*-linux-gnu/", "/lib64/", "/usr/lib/"} {
			if m, _ := filepath.Glob(pattern + name); len(m) > 0 {
				found["lib/"+name] = m[0]
				if l, err := elf.Open(m[0]); err == nil {
					more, _ := l.ImportedLibraries()
					todo = append(todo, more...)
					l.Close()
				}
				break
			}
		}
	}
	for p, file := range found {
		if _, err := os.Stat(file); err != nil {
			t.Fatalf("%s: %v", p, err)
		}
	}
	return found
}
