package cas

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
)

// TestPowerLoss plays a marker of another boot: suspects are hashed, bad ones and
// the trees that hold them or lack something go, the rest stays.
func TestPowerLoss(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	t.Cleanup(func() { removeAll(dir) })
	s := openAt(t, dir)
	good, bad := put(t, s, "good"), put(t, s, "bad")
	tree := putTree(t, s, map[string]string{"f": "good", "x/y": "!z"})
	if _, err := s.Materialise(t.Context(), tree); err != nil {
		t.Fatal(err)
	}
	var broken []string
	for _, content := range []map[string]string{{"f": "bad"}, {"f": "good", "gone": "good"}} {
		p, err := s.Materialise(t.Context(), putTree(t, s, content))
		if err != nil {
			t.Fatal(err)
		}
		broken = append(broken, p)
	}
	lose := func(name string) {
		if err := errors.Join(os.Chmod(filepath.Dir(name), 0o755), os.Remove(name)); err != nil {
			t.Fatal(err)
		}
	}
	lose(filepath.Join(broken[1], "gone"))
	markers := func() []string {
		names, _ := filepath.Glob(filepath.Join(dir, "dirty", "*"))
		return names
	}
	if len(markers()) != 1 {
		t.Fatalf("markers after a write: %q", markers())
	}
	if err := s.Flush(); err != nil || len(markers()) != 0 {
		t.Fatalf("after Flush: %v, %q", err, markers())
	}
	damage(t, s.Path(bad, false))
	stale := filepath.Join(dir, "dirty", "00000000-dead-boot.X")
	if err := os.WriteFile(stale, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	failed := errors.New("killed here")
	if _, err := OpenRecovering(dir, func(*Store) error { return failed }); !errors.Is(err, failed) {
		t.Errorf("the check's error: %v", err)
	}
	if len(markers()) != 1 {
		t.Errorf("a recovery that did not end has forgotten: %q", markers())
	}
	again := openAt(t, dir)
	if !again.Recovered() || len(markers()) != 0 {
		t.Errorf("recovered %v, markers %q", again.Recovered(), markers())
	}
	if again.Has(bad) || !again.Has(good) {
		t.Errorf("bad is there: %v, good is there: %v", again.Has(bad), again.Has(good))
	}
	if err := again.VerifyTree(t.Context(), tree); err != nil {
		t.Errorf("a whole tree did not survive: %v", err)
	}
	for _, p := range broken {
		if _, err := os.Lstat(p); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a broken tree survived: %v", err)
		}
	}
	if third := openAt(t, dir); third.Recovered() {
		t.Error("recovered twice")
	}
}

// TestMarkersOfOthers: a Flush speaks for this process and for dead ones.
func TestMarkersOfOthers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	a, b := openAt(t, dir), openAt(t, dir)
	put(t, a, "a")
	put(t, b, "b")
	if err := a.Flush(); err != nil {
		t.Fatal(err)
	}
	names, _ := filepath.Glob(filepath.Join(dir, "dirty", a.boot+".*"))
	if len(names) != 1 {
		t.Fatalf("after a's Flush: %q", names)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Flush(); err != nil {
		t.Fatal(err)
	}
	if names, _ := filepath.Glob(filepath.Join(dir, "dirty", "*")); len(names) != 0 {
		t.Errorf("b is gone and synced by a, left: %q", names)
	}
}

// TestFlushWhileWriting: every blob is covered by a marker or by a sync.
func TestFlushWhileWriting(t *testing.T) {
	s := open(t)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for j := range 50 {
				if _, err := s.PutBytes(fmt.Append(nil, i, j)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 5 {
		if err := s.Flush(); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}
