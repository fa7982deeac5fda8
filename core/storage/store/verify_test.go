package store

import (
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"tool/core/model/digest"
	"tool/core/model/merkle"
)

func flip(t testing.TB, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 0x10
	os.Chmod(path, 0o644)
	if err := os.WriteFile(path, b, 0); err != nil { // the same inode
		t.Fatal(err)
	}
	os.Chmod(path, fi.Mode())
}

func TestVerifyRepairs(t *testing.T) {
	file := func(content string) func(*testing.T, *Store) {
		return func(t *testing.T, s *Store) { flip(t, s.CAS().Path(digest.Of([]byte(content)), false)) }
	}
	libcTree := func(s *Store) merkle.Node {
		return putTree(t, s, map[string]string{"lib/libc.so": "libc", "share/doc": "common"})
	}
	for name, c := range map[string]struct {
		harm    func(*testing.T, *Store)
		kinds   map[string]int
		objects int // that survive the repair, of 4
		removed int
	}{
		"nothing":             {func(*testing.T, *Store) {}, nil, 4, 0},
		"a flipped file":      {file("libc"), map[string]int{ProblemBlob: 1, ProblemTree: 1, ProblemObject: 4, ProblemRoot: 1}, 0, 1},
		"a flipped top file":  {func(t *testing.T, s *Store) { r, _ := s.Referrers(refByName(t, s, "libc")); flipNode(t, s, r, "tool") }, map[string]int{ProblemBlob: 1, ProblemObject: 1}, 3, 1},
		"a flipped directory": {func(t *testing.T, s *Store) { flip(t, s.CAS().Path(libcTree(s).Digest, false)) }, map[string]int{ProblemBlob: 1, ProblemTree: 1, ProblemObject: 4, ProblemRoot: 1}, 0, 1},
		"a lost blob":         {func(t *testing.T, s *Store) { s.CAS().Remove(digest.Of([]byte("libc"))) }, map[string]int{ProblemObject: 4, ProblemRoot: 1}, 0, 0},
		"lost metadata":       {func(t *testing.T, s *Store) { os.Remove(s.objectPath(refByName(t, s, "libssl"))) }, map[string]int{ProblemObject: 1, ProblemRoot: 1}, 2, 0},
		"cut metadata":        {func(t *testing.T, s *Store) { os.Truncate(s.objectPath(refByName(t, s, "server")), 0) }, map[string]int{ProblemObject: 1, ProblemRoot: 1}, 3, 0},
		"a dangling link":     {func(t *testing.T, s *Store) { s.CAS().RemoveTree(libcTree(s).Digest) }, map[string]int{ProblemLink: 1}, 4, 0},
		"a foreign link": {func(t *testing.T, s *Store) {
			os.Remove(s.Path(refByName(t, s, "libc")))
			os.Symlink("/etc", s.Path(refByName(t, s, "libc")))
		}, map[string]int{ProblemLink: 1}, 4, 0},
		"a stray file": {func(t *testing.T, s *Store) { os.WriteFile(filepath.Join(s.Dir(), "store", "stray"), nil, 0o644) }, map[string]int{ProblemLink: 1}, 4, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t)
			libc, _, server, _ := chain(t, s)
			if _, err := s.Realise(t.Context(), libc); err != nil {
				t.Fatal(err)
			}
			if err := s.AddRoot(Root{Name: "r", Refs: []Ref{server}}); err != nil {
				t.Fatal(err)
			}
			c.harm(t, s)
			s = openAt(t, s.Dir()) // nothing in memory
			report, err := s.Verify(t.Context(), false, nil)
			if err != nil {
				t.Fatal(err)
			}
			if harmed := len(report.Problems) > 0; harmed != (len(c.kinds) > 0) {
				t.Errorf("found %+v", report.Problems)
			}
			report, err = s.Verify(t.Context(), true, func(done, total int) {})
			if err != nil {
				t.Fatal(err)
			}
			kinds := map[string]int{}
			for _, p := range report.Problems {
				kinds[p.Kind]++
				if p.Repaired == (p.Kind == ProblemRoot) || p.Detail == "" || p.Path == "" {
					t.Errorf("%+v", p)
				}
			}
			for k := range kinds {
				if kinds[k] != c.kinds[k] {
					t.Errorf("%d problems of kind %s, want %d: %+v", kinds[k], k, c.kinds[k], report.Problems)
				}
			}
			if len(kinds) != len(c.kinds) || len(report.Removed) != c.removed || len(refsOf(t, s)) != c.objects {
				t.Errorf("kinds %v, removed %v, objects %v", kinds, report.Removed, refsOf(t, s))
			}
			// The next build makes it again.
			chain(t, s)
			if _, err := s.Realise(t.Context(), libc); err != nil {
				t.Error(err)
			}
			clean(t, s)
		})
	}
}

func refByName(t testing.TB, s *Store, name string) Ref {
	t.Helper()
	for _, r := range refsOf(t, s) {
		if r.Name() == name {
			return r
		}
	}
	t.Fatalf("no object %s", name)
	return ""
}

func flipNode(t *testing.T, s *Store, refs []Ref, name string) {
	for _, r := range refs {
		if r.Name() == name {
			o, err := s.Get(r)
			if err != nil {
				t.Fatal(err)
			}
			flip(t, s.CAS().Path(o.Node.Digest, false))
		}
	}
}

// TestPowerLossDropsMetadata: metadata that did not reach the disk goes, with
// all that refers to it, before anyone can see it.
func TestPowerLossDropsMetadata(t *testing.T) {
	s := open(t)
	libc, _, _, _ := chain(t, s)
	if err := os.Truncate(s.objectPath(libc), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(s.Dir(), "dirty", "another-boot.X"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, s.Dir())
	if left := refsOf(t, s); len(left) != 0 {
		t.Errorf("objects %v", left)
	}
	clean(t, s)
}

const childEnv = "STORE_TEST_CHILD_DIR"

// TestKill kills builders and collectors, two of each at once, at random
// moments, and looks whether the store is whole after each.
func TestKill(t *testing.T) {
	if dir := os.Getenv(childEnv); dir != "" {
		child(t, dir)
		return
	}
	dir := filepath.Join(t.TempDir(), "s")
	s := openAt(t, dir)
	t.Cleanup(func() { s.CAS().RemoveAll(dir) })
	for round := range 15 {
		var children []*exec.Cmd
		for i := range 3 {
			cmd := exec.Command("/proc/self/exe", "-test.run=^TestKill$")
			cmd.Env = append(os.Environ(), childEnv+"="+dir, "STORE_TEST_COLLECT="+strconv.FormatBool(i == 0))
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			children = append(children, cmd)
		}
		time.Sleep(time.Duration(50+rand.IntN(150)) * time.Millisecond)
		for _, c := range children {
			c.Process.Kill()
		}
		for _, c := range children {
			if err := c.Wait(); err == nil || c.ProcessState.Exited() {
				t.Fatalf("round %d: a child ended by itself: %v", round, err)
			}
		}
		clean(t, openAt(t, dir))
		if t.Failed() {
			t.Fatalf("round %d", round)
		}
	}
	if tmp, _ := os.ReadDir(filepath.Join(dir, "tmp")); len(tmp) > 16 {
		t.Errorf("%d sessions in tmp, at most 16 live", len(tmp))
	}
	roots, err := s.Roots()
	if err != nil || len(roots) == 0 {
		t.Errorf("the children have built nothing: %v", err)
	}
	for _, r := range roots {
		s.RemoveRoot(r.Name)
	}
	collect(t, s, GCOptions{})
	if info, _ := s.Info(); info != (Info{}) {
		t.Errorf("garbage that no collection takes: %+v", info)
	}
	clean(t, s)
}

// child works until it is killed.
func child(t *testing.T, dir string) {
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); { // or until the parent is gone
		if os.Getenv("STORE_TEST_COLLECT") != "true" {
			if err := buildOnce(t, s, strconv.Itoa(rand.IntN(6)), rand.IntN(3)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		p, err := s.PlanGC(t.Context(), GCOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Execute(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
	}
}
