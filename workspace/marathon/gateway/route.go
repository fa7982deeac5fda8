package gateway

import (
	"io"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"runtime/debug"
	"strings"
	"time"
)

const (
	maxBody = 512 << 10 // bytes of a request; ZooKeeper takes 1 MB in one node
	// viaHeader is Marathon's guard against leaders that pass requests on.
	viaHeader = "X-Marathon-Via"
)

// ServeHTTP answers what every gateway can answer, and lets the leader answer
// the rest.
func (g *gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			log.Printf("API: %s %s: %v\n%s", r.Method, r.URL.Path, p, debug.Stack())
			reply(w, http.StatusInternalServerError, &apiError{Message: "Internal error"})
		}
	}()
	path := "/" + strings.Trim(r.URL.Path, "/")
	switch path {
	case "/ping":
		g.local(w, r, g.ping)
	case "/metrics":
		g.local(w, r, g.metrics)
	case "/v2/info":
		g.local(w, r, g.info)
	case "/v2/leader":
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			g.leader(w)
			return
		}
		g.led(w, r, path)
	default:
		if path != "/v2" && !strings.HasPrefix(path, "/v2/") {
			refuse(w, notFound("There is no %s", path))
			return
		}
		g.led(w, r, path)
	}
}

func (g *gateway) local(w http.ResponseWriter, r *http.Request, f func(http.ResponseWriter)) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		refuse(w, notAllowed(w, "GET"))
		return
	}
	f(w)
}

// led answers as the leader, or passes the request on to it.
func (g *gateway) led(w http.ResponseWriter, r *http.Request, path string) {
	if l := g.leads(); l != nil {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		(&api{gateway: g, leader: l, path: path}).serve(w, r)
		return
	}
	address, mine := g.election.who()
	if address == "" || mine { // elected a moment ago, and still reading the state
		refuse(w, &apiError{status: http.StatusServiceUnavailable, Message: "Could not determine the current leader"})
		return
	}
	if r.Header.Get(viaHeader) != "" {
		refuse(w, &apiError{status: http.StatusBadGateway, Message: "Detected proxying loop."})
		return
	}
	g.pass(w, r, address)
}

func (g *gateway) pass(w http.ResponseWriter, r *http.Request, address string) {
	target := &url.URL{Scheme: "http", Host: address}
	if g.options.Resolve != nil { // tests have names of their own
		if host, port, ok := strings.Cut(address, ":"); ok {
			if ip, err := g.options.Resolve(host); err == nil {
				target.Host = ip + ":" + port
			}
		}
	}
	(&httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) {
			p.SetURL(target)
			p.Out.Header.Set(viaHeader, g.election.address)
		},
		Transport: &http.Transport{ResponseHeaderTimeout: time.Minute, DisableKeepAlives: true},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			refuse(w, &apiError{status: http.StatusServiceUnavailable, Message: "The leader " + address + " does not answer: " + err.Error()})
		},
		ErrorLog: log.New(io.Discard, "", 0),
	}).ServeHTTP(w, r)
}

func notAllowed(w http.ResponseWriter, methods ...string) error {
	all := strings.Join(methods, ", ")
	w.Header().Set("Allow", all)
	return &apiError{status: http.StatusMethodNotAllowed, Message: "HTTP method not allowed, supported methods: " + all}
}
