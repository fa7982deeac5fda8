package deploy

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	helperBook = "TOOL_TEST_BOOK" // makes the test's program hold the lease of the book's deployment
	helperDo   = "TOOL_TEST_DO"   // and what it does: hold, or save without end
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperBook); dir != "" {
		if err := help(dir, os.Getenv(helperDo)); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func help(dir, do string) error {
	b, err := OpenBook(dir)
	if err != nil {
		return err
	}
	d, err := b.Find("c")
	if err != nil {
		return err
	}
	if do == "save" {
		fmt.Println("saving")
		for n := 0; ; n++ {
			// The larger the file, the easier it is to kill in the middle.
			d.Next, d.Description = n+1, fmt.Sprint(n, strings.Repeat("x", 1<<20), n)
			if err := d.Save(); err != nil {
				return err
			}
		}
	}
	l, err := d.Lock("tool deploy -d c")
	if err != nil {
		return err
	}
	fmt.Println("held")
	bufio.NewReader(os.Stdin).ReadString('\n')
	l.Release()
	fmt.Println("released")
	return nil
}

// helper is another process of the controller.
type helper struct {
	cmd *exec.Cmd
	in  interface{ Close() error }
	out *bufio.Reader
}

func startHelper(t *testing.T, dir, do string) *helper {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperBook+"="+dir, helperDo+"="+do)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return &helper{cmd, in, bufio.NewReader(out)}
}

func (h *helper) says(t *testing.T, want string) {
	t.Helper()
	if line, err := h.out.ReadString('\n'); strings.TrimSpace(line) != want {
		t.Fatalf("the helper says %q, %v; want %q", line, err, want)
	}
}

func newDeployment(t *testing.T) (dir string, d *Deployment) {
	t.Helper()
	dir = t.TempDir()
	b, err := OpenBook(dir)
	if err != nil {
		t.Fatal(err)
	}
	if d, err = b.Create("c", "//c:c", "/w"); err != nil {
		t.Fatal(err)
	}
	return dir, d
}

func TestLease(t *testing.T) {
	dir, d := newDeployment(t)
	h := startHelper(t, dir, "hold")
	h.says(t, "held")
	_, err := d.Lock("mine")
	var held *LockedError
	if !errors.As(err, &held) || held.Holder.PID != h.cmd.Process.Pid {
		t.Fatalf("locked by another: %v", err)
	}
	for _, want := range []string{"deployment c", fmt.Sprint("process ", h.cmd.Process.Pid), "`tool deploy -d c`", "@"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q has no %q", err, want)
		}
	}
	// It releases: the lease is free at once.
	h.in.Close()
	h.says(t, "released")
	l, err := d.Lock("mine")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Lock("mine again"); !errors.As(err, &held) {
		t.Errorf("locked twice by one process: %v", err)
	}
	l.Release()
	// It is killed: likewise.
	h = startHelper(t, dir, "hold")
	h.says(t, "held")
	if err := h.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	h.cmd.Wait()
	if l, err = d.Lock("mine"); err != nil {
		t.Fatalf("after its holder was killed: %v", err)
	}
	l.Release()
}

// TestForeignLease: of a process that cannot be asked, the time decides.
func TestForeignLease(t *testing.T) {
	_, d := newDeployment(t)
	write := func(h Holder) {
		b, err := json.Marshal(h)
		if err == nil {
			err = os.WriteFile(filepath.Join(d.Dir(), "lease.json"), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	me := self("x")
	far := Holder{Owner: "u@far", Host: "far", PID: os.Getpid(), Started: me.Started, Boot: "another", Command: "tool deploy", Expires: time.Now().Add(time.Minute)}
	reused := me
	reused.Started = "1" // this process's number, and another process
	for _, c := range []struct {
		name string
		h    Holder
		held bool
	}{
		{"of another host", far, true},
		{"of another host, over", func() Holder { h := far; h.Expires = time.Now().Add(-time.Second); return h }(), false},
		{"of this host before it was started again, over", func() Holder { h := me; h.Boot, h.Expires = "old", time.Now().Add(-time.Second); return h }(), false},
		{"of a process whose number came again", reused, false},
		{"of this process", me, true},
		{"of nobody", Holder{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			write(c.h)
			l, err := d.Lock("mine")
			if held := errors.As(err, new(*LockedError)); held != c.held {
				t.Fatalf("%v", err)
			}
			if c.held && !strings.Contains(err.Error(), c.h.Owner) {
				t.Errorf("%q does not say who: %s", err, c.h.Owner)
			}
			if l != nil {
				l.Release()
			}
		})
	}
	if err := os.WriteFile(filepath.Join(d.Dir(), "lease.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := d.Lock("mine")
	if err != nil {
		t.Fatalf("a damaged lease: %v", err)
	}
	l.Release()
}

// TestLockReads: who gets the lease sees what its last holder wrote.
func TestLockReads(t *testing.T) {
	dir, d := newDeployment(t)
	b, err := OpenBook(dir)
	if err != nil {
		t.Fatal(err)
	}
	other, err := b.Find("c")
	if err != nil {
		t.Fatal(err)
	}
	other.Description = "changed"
	if err := other.Save(); err != nil {
		t.Fatal(err)
	}
	l, err := d.Lock("mine")
	if err != nil || d.Description != "changed" {
		t.Fatalf("%q, %v", d.Description, err)
	}
	l.Release()
	if err := b.Delete(other); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Lock("mine"); err == nil {
		t.Error("locked a deployment that was deleted")
	}
}
