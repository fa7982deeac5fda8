package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"time"

	"tool/core/packages/lock"
)

// locks pin what //cluster:marathon is made of.
var locks = []string{"workspace/packages/debian.lock", "workspace/packages/go.lock", "workspace/marathon/go.lock"}

// cluster times the example with everything fetched beforehand, and beside it
// dpkg-deb unpacking the same packages: the least that anyone has to do.
func (b *bench) cluster() error {
	const target = "//cluster:marathon"
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	build := func(store string) (sample, error) {
		cmd := exec.Command(b.tool, "build", "--progress=none", target)
		cmd.Dir = root
		cmd.Env = append(os.Environ(), "TOOL_STORE="+store)
		return timed(cmd)
	}
	warm, cold := filepath.Join(b.dir, "warm"), filepath.Join(b.dir, "cold")
	if _, err := build(warm); err != nil {
		return err
	}
	debs, err := pins(warm, cold)
	if err != nil {
		return err
	}
	clean, err := build(cold)
	if err != nil {
		return err
	}
	if _, err := build(cold); err != nil { // keeps the answer
		return err
	}
	null, err := build(cold)
	if err != nil {
		return err
	}
	fmt.Printf("%s, network aside: clean build %s, peak %d MB; null build %s\n", target, seconds(clean.wall), clean.peak>>20, seconds(null.wall))
	took, err := dpkg(debs, filepath.Join(b.dir, "dpkg"))
	if err != nil {
		fmt.Println("dpkg-deb:", err)
		return nil
	}
	fmt.Printf("dpkg-deb -x of its %d packages, %d at a time: %s; clean build ÷ that: %.2f\n", len(debs), runtime.NumCPU(), seconds(took), clean.wall.Seconds()/took.Seconds())
	return nil
}

// pins makes a store that holds nothing but the pinned downloads of another,
// and returns the files of the Debian packages among them.
func pins(from, to string) (debs []string, err error) {
	for _, file := range locks {
		text, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		l, err := lock.Parse(file, text)
		if err != nil {
			return nil, err
		}
		take := func(hex string) (string, error) {
			rel := filepath.Join("blobs", hex[:2], hex)
			if _, err := os.Stat(filepath.Join(from, rel)); os.IsNotExist(err) {
				return "", nil // of a set that the target does not need
			}
			if err := os.MkdirAll(filepath.Dir(filepath.Join(to, rel)), 0o755); err != nil {
				return "", err
			}
			return filepath.Join(to, rel), os.Link(filepath.Join(from, rel), filepath.Join(to, rel))
		}
		for _, d := range l.Debs {
			p, err := take(d.Digest.Hex())
			if err != nil {
				return nil, err
			}
			if p != "" {
				debs = append(debs, p)
			}
		}
		for _, m := range l.Modules {
			if _, err := take(m.Digest.Hex()); err != nil {
				return nil, err
			}
		}
	}
	return debs, nil
}

// dpkg unpacks packages with dpkg-deb, as many at a time as there are
// processors.
func dpkg(debs []string, dir string) (time.Duration, error) {
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		return 0, err
	}
	next := make(chan int)
	errs := make(chan error, len(debs))
	var wg sync.WaitGroup
	start := time.Now()
	for range runtime.NumCPU() {
		wg.Go(func() {
			for i := range next {
				out, err := exec.Command("dpkg-deb", "-x", debs[i], filepath.Join(dir, fmt.Sprint(i))).CombinedOutput()
				if err != nil {
					errs <- fmt.Errorf("%w: %s", err, strings.TrimSpace(string(out)))
				}
			}
		})
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, err
	}
	for i := range debs {
		next <- i
	}
	close(next)
	wg.Wait()
	close(errs)
	return time.Since(start), <-errs
}
