package proxy

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/judge"
	"github.com/sallyport/sallyport/proxy/route"
	"github.com/sallyport/sallyport/proxy/upstream"
)

// decide is a decider made of a function.
type decide func(in *authz.Input) (*authz.Decision, error)

func (d decide) Decide(_ context.Context, in *authz.Input) (*authz.Decision, error) { return d(in) }

func allow(*authz.Input) (*authz.Decision, error) {
	return &authz.Decision{Allow: true}, nil
}

// testChain lets "Bearer good" and everyone without credentials in.
type testChain struct{}

func (testChain) Authenticate(_ context.Context, r *authn.Request) (*authz.Identity, error) {
	switch r.Authorization {
	case "":
		return &authz.Identity{Kind: "anonymous"}, nil
	case "Bearer good":
		return &authz.Identity{Authenticated: true, Kind: "jwt", Subject: "alice"}, nil
	case "Bearer later":
		return nil, authn.ErrUnavailable
	}
	return nil, authn.ErrInvalid
}

func (testChain) Challenges(error) []string { return []string{`Bearer error="invalid_token"`} }

// records keeps what was recorded.
type records struct {
	mu   sync.Mutex
	list []*authz.Record
}

func (r *records) Record(rec *authz.Record) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.list = append(r.list, rec)
}

func (r *records) all() []*authz.Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*authz.Record(nil), r.list...)
}

// gateway is a server under test.
type gateway struct {
	*Server
	addr    string
	records *records
	cfg     Config
	parts   Parts
}

type option func(*Config, *Parts, *Deps)

func withDecider(d decide) option { return func(_ *Config, p *Parts, _ *Deps) { p.Decider = d } }

func withListener(change func(*ListenerConfig)) option {
	return func(c *Config, _ *Parts, _ *Deps) { change(&c.Listeners[0]) }
}

func withRoutes(routes ...route.Config) option {
	return func(c *Config, _ *Parts, _ *Deps) { c.Routes = routes }
}

func withUpstream(change func(*upstream.Config)) option {
	return func(c *Config, _ *Parts, _ *Deps) {
		u := c.Upstreams["main"]
		change(&u)
		c.Upstreams["main"] = u
	}
}

func anyRoute() route.Config {
	return route.Config{Name: "all", Upstream: "main", Authenticate: []string{"test"}}
}

// start serves a gateway in front of endpoint on loopback until the test ends.
func start(t testing.TB, endpoint string, options ...option) *gateway {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startOn(t, ln, endpoint, options...)
}

func startOn(t testing.TB, ln net.Listener, endpoint string, options ...option) *gateway {
	t.Helper()
	l := DefaultListener()
	l.Name, l.Address = "public", "127.0.0.1:0"
	u := upstream.Default()
	u.Endpoints = []string{"http://" + endpoint}
	g := &gateway{addr: ln.Addr().String(), records: &records{}}
	g.cfg = Config{Listeners: []ListenerConfig{l}, Upstreams: map[string]upstream.Config{"main": u}, Routes: []route.Config{anyRoute()}}
	g.parts = Parts{Decider: decide(allow), Chain: func([]string) (judge.Chain, error) { return testChain{}, nil }}
	deps := Deps{Recorder: g.records}
	for _, o := range options {
		o(&g.cfg, &g.parts, &deps)
	}
	snap, err := Build(g.cfg, g.parts)
	if err != nil {
		t.Fatal(err)
	}
	if g.Server, err = New(deps); err != nil {
		t.Fatal(err)
	}
	g.linger = 10 * time.Millisecond
	g.Swap(snap)
	done := make(chan error, 1)
	go func() { done <- g.Serve(context.Background(), ln, "public") }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := g.Shutdown(ctx); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("shutdown: %v", err)
		}
		if err := <-done; !errors.Is(err, ErrClosed) {
			t.Errorf("serve: %v", err)
		}
	})
	return g
}

// rawUpstream is a TCP server that keeps every byte it receives and answers each
// request head with what respond returns.
type rawUpstream struct {
	ln    net.Listener
	mu    sync.Mutex
	got   bytes.Buffer
	conns int
	open  map[net.Conn]struct{}
}

const okResponse = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

// listenRaw starts one. Serve handles a connection; nil answers 200 to every
// request that it can read.
func listenRaw(t testing.TB, serve func(c net.Conn, r *bufio.Reader)) *rawUpstream {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u := &rawUpstream{ln: ln, open: map[net.Conn]struct{}{}}
	if serve == nil {
		serve = answerOK
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			u.track(c, true)
			wg.Go(func() {
				defer u.track(c, false)
				defer c.Close()
				serve(c, bufio.NewReader(io.TeeReader(c, u)))
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		u.closeConns()
		wg.Wait()
	})
	return u
}

func answerOK(c net.Conn, r *bufio.Reader) {
	for {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		if _, err := io.WriteString(c, okResponse); err != nil {
			return
		}
	}
}

func (u *rawUpstream) addr() string { return u.ln.Addr().String() }

func (u *rawUpstream) Write(p []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.got.Write(p)
}

func (u *rawUpstream) received() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.got.String()
}

func (u *rawUpstream) connections() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.conns
}

func (u *rawUpstream) track(c net.Conn, opened bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if opened {
		u.conns++
		u.open[c] = struct{}{}
		return
	}
	delete(u.open, c)
}

func (u *rawUpstream) closeConns() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for c := range u.open {
		c.Close()
	}
}

// send writes raw bytes on a new connection and returns all that comes back
// until the gateway closes or nothing comes for a while.
func send(t testing.TB, addr, raw string) string {
	t.Helper()
	c := dial(t, addr)
	if _, err := io.WriteString(c, raw); err != nil {
		t.Fatal(err)
	}
	return readAll(t, c, 300*time.Millisecond)
}

func dial(t testing.TB, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func readAll(t testing.TB, c net.Conn, quiet time.Duration) string {
	t.Helper()
	var out bytes.Buffer
	buf := make([]byte, 64<<10)
	for {
		_ = c.SetReadDeadline(time.Now().Add(quiet))
		n, err := c.Read(buf)
		out.Write(buf[:n])
		if err != nil {
			return out.String()
		}
	}
}

// get sends one request and reads one response.
func get(t testing.TB, addr, raw string) (*http.Response, string) {
	t.Helper()
	c := dial(t, addr)
	return exchangeOn(t, c, bufio.NewReader(c), raw)
}

func exchangeOn(t testing.TB, c net.Conn, br *bufio.Reader, raw string) (*http.Response, string) {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := io.WriteString(c, raw); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(raw, " ")
	resp, err := http.ReadResponse(br, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("read response: %v", err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("read body: %v", err)
	}
	return resp, string(body)
}

// eventually polls until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 5 s: %s", what)
		}
		<-time.After(2 * time.Millisecond)
	}
}

func TestAllowedRequestIsForwarded(t *testing.T) {
	up := listenRaw(t, nil)
	g := start(t, up.addr(), withDecider(func(in *authz.Input) (*authz.Decision, error) {
		d := &authz.Decision{Allow: true}
		d.Upstream.SetHeaders = map[string]string{"X-User": in.Identity.Subject}
		return d, nil
	}))
	resp, body := get(t, g.addr, "GET /a/b?x=1 HTTP/1.1\r\nHost: Example.com\r\nAuthorization: Bearer good\r\nX-User: mallory\r\nAccept: */*\r\n\r\n")
	if resp.StatusCode != 200 || body != "ok" || resp.Header.Get("X-Request-Id") == "" {
		t.Fatalf("got %d %q %v", resp.StatusCode, body, resp.Header)
	}
	id := resp.Header.Get("X-Request-Id")
	want := "GET /a/b?x=1 HTTP/1.1\r\nHost: Example.com\r\nAccept: */*\r\nX-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\n" +
		"X-Forwarded-Host: Example.com\r\nForwarded: for=127.0.0.1;host=Example.com;proto=http\r\nX-Request-Id: " + id + "\r\nX-User: alice\r\n\r\n"
	if got := up.received(); got != want {
		t.Errorf("upstream received\n%s\nwant\n%s", got, want)
	}
	recs := g.records.all()
	if len(recs) != 1 || recs[0].Status != 200 || recs[0].Outcome != authz.OutcomeAllowed || recs[0].Input.Request.ID != id {
		t.Errorf("recorded %+v", recs)
	}
}
