// Package docker talks to Docker engines.
//
// It is a client of its own because the official one (github.com/docker/docker
// v28.5.2) brings 62 modules, telemetry among them, and 7 MB of program, for
// some fifteen requests: more to pin, fetch and compile than all the rest of
// the gateway. What is here speaks API 1.41, that of Debian 12's engine.
package docker

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

const (
	apiPrefix = "/v1.41"
	maxAnswer = 64 << 20 // bytes of one answer; a list of thousands of tasks is a few MB
)

// Client talks to one engine.
type Client struct {
	address string
	base    string
	http    *http.Client
}

// New makes a client of the engine at unix:///path or tcp://host:port.
func New(address string) (*Client, error) {
	scheme, rest, ok := strings.Cut(address, "://")
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	t := &http.Transport{MaxIdleConns: 4, MaxIdleConnsPerHost: 2, IdleConnTimeout: 30 * time.Second}
	c := &Client{address: address, http: &http.Client{Transport: t}}
	switch {
	case ok && scheme == "unix" && strings.HasPrefix(rest, "/"):
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) { return dialer.DialContext(ctx, "unix", rest) }
		c.base = "http://docker"
	case ok && scheme == "tcp" && rest != "":
		if _, _, err := net.SplitHostPort(rest); err != nil {
			return nil, fmt.Errorf("Docker engine %q: %w", address, err)
		}
		t.DialContext = dialer.DialContext
		c.base = "http://" + rest
	default:
		return nil, fmt.Errorf("Docker engine %q: want unix:///path or tcp://host:port", address)
	}
	return c, nil
}

// String is the engine's address.
func (c *Client) String() string { return c.address }

// Error is an engine's refusal.
type Error struct {
	Status  int
	Message string
}

func (e *Error) Error() string { return fmt.Sprintf("%s (%d)", e.Message, e.Status) }

// IsStatus tells whether err is an engine's answer with that status.
func IsStatus(err error, status int) bool {
	var e *Error
	return errors.As(err, &e) && e.Status == status
}

// Ping asks whether the engine is there.
func (c *Client) Ping(ctx context.Context) error {
	return c.do(ctx, http.MethodGet, "/_ping", nil, nil, nil)
}

// do sends one request. in and out are JSON; nil: no body, no answer wanted.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, in, out any) error {
	fail := func(err error) error { return fmt.Errorf("%s: %s %s: %w", c.address, method, path, err) }
	var body io.Reader
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return fail(err)
		}
		body = bytes.NewReader(b)
	}
	u := c.base + apiPrefix + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, u, body)
	if err != nil {
		return fail(err)
	}
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	res, err := c.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // the URL is in fail's text
		}
		return fail(err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer+1))
	if err != nil {
		return fail(err)
	}
	if len(answer) > maxAnswer {
		return fail(fmt.Errorf("the answer is larger than %d bytes", maxAnswer))
	}
	if res.StatusCode >= 300 {
		var m struct{ Message string }
		if json.Unmarshal(answer, &m) != nil || m.Message == "" {
			m.Message = strings.TrimSpace(string(answer[:min(len(answer), 300)]))
		}
		return fail(&Error{Status: res.StatusCode, Message: m.Message})
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fail(fmt.Errorf("its answer: %w", err))
	}
	return nil
}
