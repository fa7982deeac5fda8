// Package sandbox runs commands in Linux namespaces: with their declared inputs
// read-only, no network, and nothing else of the machine.
//
// A Runner keeps a few long-lived worker processes (this same binary, see
// Main), each of them pid 1 of a pid namespace inside a user namespace; so it
// needs no privileges and no helper programs. For each command a worker
// unshares the mount and IPC namespaces of one of its threads, builds a root
// from bind mounts of the CAS, and forks the command from that thread. Nothing
// is executed but the command itself.
//
// The command's writable places are /tmp, /dev/shm and directories for its
// outputs. Everything else, its inputs above all, is on read-only mounts.
package sandbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"tool/core/execution/exec"
	"tool/core/model/merkle"
	"tool/core/storage/cas"
)

// Runner runs spawns in sandboxes on this machine. It is safe for concurrent
// use. Close it to end its worker processes.
type Runner struct {
	cas  *cas.Store
	jobs chan struct{} // a slot for each command that runs

	mu     sync.Mutex
	idle   []*process
	closed bool
}

// New returns a runner of at most jobs commands at a time whose inputs and
// outputs are in c. No process is started until the first Run.
func New(c *cas.Store, jobs int) *Runner {
	return &Runner{cas: c, jobs: make(chan struct{}, max(jobs, 1))}
}

// Run implements exec.Runner. Where ctx ends, the command and all it started
// are dead when Run returns, and the error is ctx's cause.
func (r *Runner) Run(ctx context.Context, s *exec.Spawn) (*exec.Result, error) {
	select {
	case r.jobs <- struct{}{}:
		defer func() { <-r.jobs }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	st, err := r.stage(ctx, s)
	if err != nil {
		return nil, fmt.Errorf("sandbox for %s: %w", s.Name, err)
	}
	keep := false
	defer func() {
		if !keep {
			st.remove(r)
		}
	}()
	w, err := r.worker()
	if err != nil {
		return nil, err
	}
	answer, err := w.ask(ctx, &st.req)
	if err != nil {
		w.kill()
		return nil, fmt.Errorf("sandbox for %s: %w", s.Name, err)
	}
	r.release(w)
	res := &exec.Result{
		ExitCode: answer.ExitCode, TimedOut: answer.TimedOut,
		Stdout: answer.Stdout, Stderr: answer.Stderr, Took: answer.Took,
		Outputs: make([]*merkle.Node, len(s.Outputs)),
	}
	if res.ExitCode == 0 && !res.TimedOut {
		if err := r.collect(st, s, res); err != nil {
			return nil, err
		}
	}
	if s.Keep && failed(res) {
		dir, err := r.keep(st)
		if err != nil {
			return nil, fmt.Errorf("keep sandbox: %w", err)
		}
		keep = true
		res.Kept = "tool sandbox-enter " + dir
	}
	return res, nil
}

func failed(r *exec.Result) bool {
	return r.ExitCode != 0 || r.TimedOut || len(r.Problems) > 0 || slices.Contains(r.Outputs, nil)
}

// worker takes an idle worker or starts one.
func (r *Runner) worker() (*process, error) {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		return nil, errors.New("the sandbox runner is closed")
	}
	if n := len(r.idle); n > 0 {
		w := r.idle[n-1]
		r.idle = r.idle[:n-1]
		r.mu.Unlock()
		return w, nil
	}
	r.mu.Unlock()
	w, err := start(r.cas.Dir(), false)
	if err != nil {
		return nil, explain(err)
	}
	return w, nil
}

func (r *Runner) release(w *process) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		w.kill()
		return
	}
	r.idle = append(r.idle, w)
}

// Close ends the worker processes. Commands that still run go on until their
// Run returns.
func (r *Runner) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, w := range r.idle { // all at once: the kernel takes its time for each
		go w.kill()
	}
	for _, w := range r.idle {
		w.kill()
	}
	r.idle = nil
	return nil
}
