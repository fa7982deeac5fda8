package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"tool/core/machines/deploy"
	"tool/core/machines/link"
)

// testStep is one step of a deployment_test: rules/testing makes them.
type testStep struct {
	Kind    string   `json:"kind"` // run, http or power
	Machine string   `json:"machine"`
	Command string   `json:"command"`
	Code    int      `json:"code"`
	URLs    []string `json:"urls"`
	Method  string   `json:"method"`
	Body    string   `json:"body"`
	Status  int      `json:"status"`
	Output  string   `json:"output"`
	To      string   `json:"to"`
	Seconds int      `json:"seconds"`
}

func (s *testStep) String() string {
	switch s.Kind {
	case "run":
		return fmt.Sprintf("run on %s: %s", s.Machine, s.Command)
	case "http":
		return fmt.Sprintf("%s %s", s.Method, strings.Join(s.URLs, " or "))
	}
	return fmt.Sprintf("power %s: %s", s.Machine, s.To)
}

// steps deploys and takes the steps.
func (t *testRun) steps(ctx context.Context, w *deployment, m *testManifest) error {
	c, d := w.c, w.session.D
	if err := w.load(w.built.object); err != nil {
		return err
	}
	var err error
	w.options.Mode = "switch"
	if w.options.Note, err = settle(c, d, w.object); err != nil {
		return err
	}
	d.Emulator = w.built.emulator
	start := time.Now()
	r, err := w.session.Deploy(ctx, w.object, w.options)
	if err != nil {
		return fmt.Errorf("deploying %s: %w", m.Deployment, err)
	}
	for _, o := range r.Outcomes {
		if o.Err != nil {
			return fmt.Errorf("deploying %s: machine %s: %w", m.Deployment, o.Machine, o.Err)
		}
	}
	t.say(c, "deployed %s in %s", m.Deployment, duration(time.Since(start)))
	for i := range m.Steps {
		s := &m.Steps[i]
		start := time.Now()
		if err := takeStep(ctx, w.session, s); err != nil {
			t.say(c, "step %d, %s: FAILED: %v", i+1, s, err)
			return fmt.Errorf("step %d, %s: %w", i+1, s, err)
		}
		t.say(c, "step %d, %s: ok in %s", i+1, s, duration(time.Since(start)))
	}
	return nil
}

// takeStep does a step again and again until it comes out as wanted or its time
// is over.
func takeStep(ctx context.Context, s *deploy.Session, step *testStep) error {
	ctx, stop := context.WithTimeout(ctx, time.Duration(max(step.Seconds, 1))*time.Second)
	defer stop()
	if step.Kind == "power" {
		return powerStep(ctx, s, step)
	}
	var last error
	for {
		var err error
		if step.Kind == "http" {
			err = httpStep(ctx, s, step)
		} else {
			err = runStep(ctx, s, step)
		}
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return fmt.Errorf("not within %d seconds: %w", step.Seconds, last)
		}
	}
}

func powerStep(ctx context.Context, s *deploy.Session, step *testStep) error {
	switch step.To {
	case "on":
		return s.Start(ctx, step.Machine)
	case "off":
		return s.Cut(ctx, step.Machine)
	}
	return s.Stop(ctx, step.Machine)
}

func runStep(ctx context.Context, s *deploy.Session, step *testStep) error {
	l, err := s.Link(ctx, s.D.Machines[step.Machine])
	if err != nil {
		return err
	}
	defer l.Close()
	out, err := l.Output(ctx, step.Command, 1<<20)
	var exit *link.ExitError
	code, stderr := 0, ""
	if errors.As(err, &exit) {
		code, stderr = exit.Code, exit.Stderr
	} else if err != nil {
		return err
	}
	if code != step.Code {
		return fmt.Errorf("it ended with %d and should with %d: %s", code, step.Code, excerpt(string(out)+" "+stderr))
	}
	if !strings.Contains(string(out), step.Output) {
		return fmt.Errorf("its output has no %q: %s", step.Output, excerpt(string(out)))
	}
	return nil
}

func excerpt(s string) string {
	s = strings.TrimSpace(deploy.Printable(s))
	if len(s) > 2000 {
		s = s[:2000] + "…"
	}
	return s
}

func httpStep(ctx context.Context, s *deploy.Session, step *testStep) error {
	var errs []error
	for _, u := range step.URLs {
		err := httpOnce(ctx, s, step, u)
		if err == nil {
			return nil
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func httpOnce(ctx context.Context, s *deploy.Session, step *testStep, text string) error {
	u, err := url.Parse(text)
	if err != nil {
		return err
	}
	ms := s.D.Machines[u.Hostname()]
	if ms == nil {
		return fmt.Errorf("%s: there is no machine %s", text, u.Hostname())
	}
	u.Host = net.JoinHostPort(ms.Reach(), u.Port())
	ctx, stop := context.WithTimeout(ctx, 30*time.Second)
	defer stop()
	req, err := http.NewRequestWithContext(ctx, step.Method, u.String(), strings.NewReader(step.Body))
	if err != nil {
		return err
	}
	if step.Body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != step.Status {
		return fmt.Errorf("%s answers %s and should %d: %s", text, resp.Status, step.Status, excerpt(string(b)))
	}
	if !strings.Contains(string(b), step.Output) {
		return fmt.Errorf("%s: the answer has no %q: %s", text, step.Output, excerpt(string(b)))
	}
	return nil
}
