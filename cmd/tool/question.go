package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"tool/core/language/workspace"
)

// question is a build command as the first level of memory sees it: all that
// its answer depends on besides files.
type question struct {
	root string
	text []byte
	kept string // the root that keeps the answer's outputs
}

func newQuestion(c *cli.Context, req *buildRequest) (*question, error) {
	root, err := workspace.FindRoot(req.Dir)
	if err != nil {
		return nil, withCode(exitUsage, err)
	}
	rel, err := filepath.Rel(root, req.Dir)
	if err != nil {
		return nil, withCode(exitEnvironment, err)
	}
	id, err := programID()
	if err != nil {
		return nil, withCode(exitEnvironment, err)
	}
	parts := []string{"build", id, root, rel, os.Getenv("TOOL_STORE"), os.Getenv("XDG_DATA_HOME"), os.Getenv("HOME"),
		req.Groups, c.String("compilation_mode"), strings.Join(c.StringSlice("config"), "\x01"), strings.Join(c.StringSlice("define"), "\x01")}
	return &question{root: root, text: []byte(strings.Join(append(parts, req.Targets...), "\x00"))}, nil
}

// load returns the kept result, as JSON and as text, with the number of its
// actions, if nothing that it depends on has changed.
func (q *question) load() (targets, text []byte, n int, ok bool) {
	payload, ok := workspace.LoadAnswer(q.root, q.text)
	if !ok {
		return nil, nil, 0, false
	}
	// The targets stand in the payload as JSON and as text, ready to print:
	// reading ten thousand of them back would take longer than checking them.
	total, rest, _ := bytes.Cut(payload, []byte{'\n'})
	targets, text, ok = bytes.Cut(rest, []byte{0})
	n, err := strconv.Atoi(string(total))
	return targets, text, n, ok && err == nil
}

// result is the kept result for a command that goes on with it.
func (q *question) result() *buildResult {
	targets, _, n, ok := q.load()
	r := &buildResult{Actions: actionCounts{n, 0, n}}
	if !ok || json.Unmarshal(targets, &r.Targets) != nil {
		return nil
	}
	return r
}

// answer prints the kept result.
func (q *question) answer(c *cli.Context, start time.Time) (bool, error) {
	targets, text, n, ok := q.load()
	if !ok {
		return false, nil
	}
	var err error
	seconds := time.Since(start)
	w := c.App.Writer
	if c.Bool("json") {
		_, err = fmt.Fprintf(w, `{"targets":%s,"actions":{"total":%d,"executed":0,"cached":%d},"seconds":%g}`+"\n", targets, n, n, seconds.Seconds())
		return true, err
	}
	if newPalette(w).on {
		var r buildResult
		if json.Unmarshal(targets, &r.Targets) != nil {
			return false, nil
		}
		r.Actions, r.Seconds = actionCounts{n, 0, n}, seconds.Seconds()
		return true, printBuild(c, &r)
	}
	_, err = fmt.Fprintf(w, "%s%s", text, summary(actionCounts{n, 0, n}, seconds))
	return true, err
}

// keep saves a result for the next time. That it cannot be saved costs only
// time, so errors are dropped.
func (q *question) keep(e *engine, r *buildResult) {
	if e.ws.Record.Racy() {
		return
	}
	targets, err := json.Marshal(r.Targets)
	if err != nil {
		return
	}
	payload := fmt.Appendf(nil, "%d\n%s\x00", r.Actions.Total, targets)
	payload = append(payload, targetText(r.Targets, palette{})...)
	// An output is checked through its link in .tool/out: both must stay.
	a := &workspace.Answer{Question: q.text, Payload: payload, Paths: e.ws.Record.All(), Base: outDir(q.root), Outside: map[string]workspace.Fingerprint{}}
	for _, l := range e.links {
		a.Outside[l] = workspace.Stat(filepath.Join(a.Base, l))
	}
	kept := e.store.RootFile(q.kept)
	rel, err := filepath.Rel(a.Base, kept)
	if err != nil {
		return
	}
	a.Outside[rel] = workspace.Stat(kept)
	_ = workspace.SaveAnswer(q.root, a)
}

// programID names the running program's content: the linker's build ID, which
// stays when `go run` puts the same program elsewhere.
func programID() (string, error) {
	p, err := os.Executable()
	if err != nil {
		return "", err
	}
	f, err := os.Open(p)
	if err != nil {
		return "", err
	}
	defer f.Close()
	// The Go linker writes the ID near the start of the text segment.
	buf := make([]byte, 32<<10)
	n, _ := f.ReadAt(buf, 0)
	const marker = "\xff Go build ID: \""
	if i := strings.Index(string(buf[:n]), marker); i >= 0 {
		if j := strings.Index(string(buf[i+len(marker):n]), "\"\n \xff"); j >= 0 && j > 0 {
			return string(buf[i+len(marker) : i+len(marker)+j]), nil
		}
	}
	// Linked without an ID, as //:tool is: which file it is stands for it.
	return fmt.Sprint(workspace.Stat(p)), nil
}
