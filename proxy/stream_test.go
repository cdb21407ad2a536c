package proxy

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/upstream"
)

// answer makes an upstream that sends raw after each request head, and closes.
func answer(raw string) func(c net.Conn, r *bufio.Reader) {
	return func(c net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		_, _ = io.WriteString(c, raw)
	}
}

func TestResponses(t *testing.T) {
	tests := []struct {
		name, method, raw string
		status            int
		body              string
	}{
		{"sized", "GET", okResponse, 200, "ok"},
		{"chunked", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: 1\r\n\r\n", 200, "ok"},
		{"to the end", "GET", "HTTP/1.1 200 OK\r\n\r\nok", 200, "ok"},
		{"1.0", "GET", "HTTP/1.0 200 OK\r\n\r\nok", 200, "ok"},
		{"HEAD", "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", 200, ""},
		{"204", "GET", "HTTP/1.1 204 No Content\r\n\r\n", 204, ""},
		{"304", "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\nETag: \"a\"\r\n\r\n", 304, ""},
		{"early hints", "GET", "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + okResponse, 200, "ok"},
		{"404", "GET", "HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\ngone", 404, "gone"},
		{"unknown status", "GET", "HTTP/1.1 799 Odd\r\nContent-Length: 0\r\n\r\n", 799, ""},
		{"reset before the head", "POST", "", 502, "*"},
		{"not HTTP", "GET", "SSH-2.0-OpenSSH\r\n\r\n", 502, "*"},
		{"half a head", "GET", "HTTP/1.1 200 OK\r\nContent-Le", 502, "*"},
		{"two lengths", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk", 502, "*"},
		{"101 unasked", "GET", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n", 502, "*"},
		{"half a body", "GET", "HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nok", 200, "CUT"},
		{"cut in a chunk", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nok", 200, "CUT"},
		{"cut between chunks", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", 200, "CUT"},
		{"cut in the trailers", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", 200, "CUT"},
		{"bad chunk", "GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n", 200, "CUT"},
	}
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			up := listenRaw(t, answer(tc.raw))
			g := start(t, up.addr())
			c := dial(t, g.addr)
			_ = c.SetDeadline(time.Now().Add(5 * time.Second))
			_, _ = io.WriteString(c, tc.method+" / HTTP/1.1\r\nHost: a\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: tc.method})
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			if (err != nil) != (tc.body == "CUT") {
				t.Errorf("read %q, %v", body, err)
			}
			if resp.StatusCode != tc.status || tc.body != "CUT" && tc.body != "*" && string(body) != tc.body {
				t.Errorf("got %d %q", resp.StatusCode, body)
			}
			if resp.Header.Get("X-Request-Id") == "" || resp.Header.Get("Date") == "" || resp.Header.Get("Server") != "" {
				t.Errorf("headers %v", resp.Header)
			}
			if got := resp.Header.Get("Content-Type"); got != "" && resp.StatusCode != http.StatusBadGateway {
				t.Errorf("Content-Type %q is the gateway's invention", got)
			}
			if tc.name == "early hints" && resp.Header.Get("Link") != "" {
				t.Error("a header of an interim response is in the final one")
			}
		})
	}
}

func TestHopByHopResponseHeadersAreDropped(t *testing.T) {
	up := listenRaw(t, answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nServer: s/1\r\nUpgrade: h2c\r\n"+
		"X-Request-Id: theirs\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\nVary: A\r\nVary: B\r\n\r\nok"))
	g := start(t, up.addr())
	resp, _ := get(t, g.addr, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	for _, n := range []string{"X-Hop", "Keep-Alive", "Server", "Upgrade"} {
		if resp.Header.Get(n) != "" {
			t.Errorf("%s came through", n)
		}
	}
	if resp.Close || resp.Header.Get("X-Request-Id") == "theirs" || len(resp.Header["Set-Cookie"]) != 2 || len(resp.Header["Vary"]) != 2 {
		t.Errorf("got %v", resp.Header)
	}
}

func TestHTTP10ClientGetsNoChunks(t *testing.T) {
	up := listenRaw(t, answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"))
	g := start(t, up.addr())
	got := send(t, g.addr, "GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
	if !strings.HasSuffix(got, "\r\n\r\nok") || strings.Contains(got, "chunked") || !strings.Contains(got, "Connection: close") {
		t.Errorf("got %q", got)
	}
}

func TestUpstreamFailures(t *testing.T) {
	hang := make(chan struct{})
	up := listenRaw(t, func(_ net.Conn, r *bufio.Reader) {
		_, _ = http.ReadRequest(r)
		<-hang
	})
	defer close(hang)
	g := start(t, up.addr(), withUpstream(func(u *upstream.Config) { u.ResponseTimeout = 50 * time.Millisecond }))
	if resp, _ := get(t, g.addr, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); resp.StatusCode != 504 {
		t.Errorf("hanging upstream: got %d, want 504", resp.StatusCode)
	}
	if up.connections() != 1 {
		t.Errorf("a timeout was retried: %d connections", up.connections())
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := ln.Addr().String()
	ln.Close()
	g = start(t, nobody)
	if resp, body := get(t, g.addr, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); resp.StatusCode != 502 || strings.Contains(body, nobody) {
		t.Errorf("no upstream: got %d %s", resp.StatusCode, body)
	}
	g = start(t, nobody, withUpstream(func(u *upstream.Config) { u.Endpoints = append(u.Endpoints, "http://"+listenRaw(t, nil).addr()) }))
	for range 4 {
		if resp, _ := get(t, g.addr, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok"); resp.StatusCode != 200 {
			t.Errorf("one of two endpoints down: got %d", resp.StatusCode)
		}
	}
}

// TestStaleConnections: the upstream closes kept connections when it gets the
// next request on them, before it answers.
func TestStaleConnections(t *testing.T) {
	var heads atomic.Int64
	up := listenRaw(t, func(c net.Conn, r *bufio.Reader) {
		for n := 0; ; n++ {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			heads.Add(1)
			if n == 1 {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			_, _ = io.WriteString(c, okResponse)
		}
	})
	g := start(t, up.addr())
	do := func(raw string) int {
		resp, _ := get(t, g.addr, raw)
		eventually(t, "the connection is kept", func() bool { return g.current.Load().upstreams["main"].pool.Pending() == 0 })
		return resp.StatusCode
	}
	if got := do("GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"); got != 200 {
		t.Fatalf("got %d", got)
	}
	if got := do("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"); got != 200 || heads.Load() != 3 {
		t.Errorf("GET on a stale connection: %d after %d heads, want 200 after 3", got, heads.Load())
	}
	if got := do("POST /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"); got != 502 || heads.Load() != 4 {
		t.Errorf("POST on a stale connection: %d after %d heads, want 502 after 4: it must not be sent twice", got, heads.Load())
	}
	if got := strings.Count(up.received(), "POST /3"); got != 1 {
		t.Errorf("POST was sent %d times", got)
	}
}

// TestPostNoticesClosedConnections: what the server closed while it was idle is
// not used for a request that could not be repeated.
func TestPostNoticesClosedConnections(t *testing.T) {
	up := listenRaw(t, nil)
	g := start(t, up.addr())
	for i := range 5 {
		if resp, _ := get(t, g.addr, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok"); resp.StatusCode != 200 {
			t.Fatalf("request %d: got %d", i, resp.StatusCode)
		}
		eventually(t, "the connection is kept", func() bool { return g.current.Load().upstreams["main"].pool.Pending() == 0 })
		up.closeConns()
		eventually(t, "the upstream's connection ends", func() bool {
			up.mu.Lock()
			defer up.mu.Unlock()
			return len(up.open) == 0
		})
	}
}

func TestBodiesStreamBothWays(t *testing.T) {
	up := listenRaw(t, func(c net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		b := make([]byte, 1)
		for range 3 { // each byte must arrive before the next is sent
			if _, err := io.ReadFull(req.Body, b); err != nil {
				return
			}
		}
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n")
		for _, s := range []string{"a", "b", "c"} {
			_, _ = io.WriteString(c, s)
			if _, err := io.ReadFull(r, b); err != nil { // until the client has it
				return
			}
		}
	})
	g := start(t, up.addr())
	c := dial(t, g.addr)
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n")
	for i, s := range []string{"x", "y", "z"} {
		_, _ = io.WriteString(c, s)
		eventually(t, "a byte of the body arrives", func() bool { return strings.HasSuffix(up.received(), "xyz"[:i+1]) })
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	if _, err := io.ReadFull(resp.Body, b); err != nil || b[0] != 'a' {
		t.Errorf("first byte %q, %v", b, err)
	}
}

func TestEventStream(t *testing.T) {
	next := make(chan string)
	up := listenRaw(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = http.ReadRequest(r)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
		for e := range next {
			_, _ = io.WriteString(c, e)
		}
	})
	g := start(t, up.addr(), withUpstream(func(u *upstream.Config) { u.ResponseTimeout = 30 * time.Millisecond }))
	c := dial(t, g.addr)
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(c), nil) // before the first event
	if err != nil {
		t.Fatal(err)
	}
	br := bufio.NewReader(resp.Body)
	for _, e := range []string{"data: 1\n", "data: 2\n"} {
		<-time.After(60 * time.Millisecond) // longer than the response timeout, which must not count
		next <- e
		if got, err := br.ReadString('\n'); got != e || err != nil {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	close(next)
	if _, err := br.ReadString('\n'); err != io.EOF {
		t.Errorf("got %v, want the end", err)
	}
}

func TestWebSocketTunnel(t *testing.T) {
	up := listenRaw(t, func(c net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil || req.Header.Get("Upgrade") != "websocket" || req.Header.Get("Connection") != "Upgrade" {
			_, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
			return
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: x\r\n\r\nhello")
		_, _ = io.Copy(c, r)
	})
	g := start(t, up.addr(), withDecider(func(in *authz.Input) (*authz.Decision, error) {
		return &authz.Decision{Allow: in.Request.Path == "/ws"}, nil
	}))
	const upgrade = " HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Key: k\r\n\r\n"
	if resp, _ := get(t, g.addr, "GET /no"+upgrade); resp.StatusCode != 403 {
		t.Errorf("denied upgrade: got %d", resp.StatusCode)
	}
	c := dial(t, g.addr)
	br := bufio.NewReader(c)
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(c, "GET /ws"+upgrade+"early ")
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "websocket" || resp.Header.Get("Sec-Websocket-Accept") != "x" {
		t.Fatalf("got %+v, %v", resp, err)
	}
	_, _ = io.WriteString(c, "late")
	buf := make([]byte, len("helloearly late"))
	if _, err := io.ReadFull(br, buf); err != nil || string(buf) != "helloearly late" {
		t.Errorf("got %q, %v", buf, err)
	}
	c.Close()
	eventually(t, "the tunnel's other side ends", func() bool {
		up.mu.Lock()
		defer up.mu.Unlock()
		return len(up.open) == 0
	})
	if recs := g.records.all(); len(recs) != 2 || recs[1].Status != 101 {
		t.Errorf("recorded %v", recs)
	}
}

func TestUpgradeToSomethingElseIsRefused(t *testing.T) {
	up := listenRaw(t, answer("HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n"))
	g := start(t, up.addr())
	resp, _ := get(t, g.addr, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n\r\n")
	if resp.StatusCode != 502 {
		t.Errorf("got %d", resp.StatusCode)
	}
	if recs := g.records.all(); len(recs) != 1 || recs[0].Status != 502 {
		t.Errorf("recorded %v", recs)
	}
}

func TestOtherUpgradesAreDropped(t *testing.T) {
	up := listenRaw(t, nil)
	g := start(t, up.addr())
	resp, _ := get(t, g.addr, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQ\r\n\r\n")
	if resp.StatusCode != 200 || hasName(up.received(), "upgrade") || hasName(up.received(), "http2-settings") || hasName(up.received(), "connection") {
		t.Errorf("got %d, upstream received %q", resp.StatusCode, up.received())
	}
}

func TestClientGoneCancelsTheUpstream(t *testing.T) {
	gone := make(chan struct{})
	up := listenRaw(t, func(c net.Conn, r *bufio.Reader) {
		_, _ = http.ReadRequest(r)
		_, _ = c.Read(make([]byte, 1))
		close(gone)
	})
	g := start(t, up.addr())
	c := dial(t, g.addr)
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	eventually(t, "the request arrives", func() bool { return strings.Contains(up.received(), "\r\n\r\n") })
	c.Close()
	select {
	case <-gone:
	case <-time.After(5 * time.Second):
		t.Error("the upstream still works for a client that has gone")
	}
}

func TestPolicyReadsTheBodyAndItIsForwarded(t *testing.T) {
	for _, framing := range []string{"Content-Length: 10\r\n\r\n0123456789", "Transfer-Encoding: chunked\r\n\r\n4\r\n0123\r\n6\r\n456789\r\n0\r\n\r\n"} {
		up := listenRaw(t, nil)
		var data string
		var truncated bool
		var kept authz.Body
		g := start(t, up.addr(), func(_ *Config, p *Parts, _ *Deps) { p.PolicyBodyBytes = 8 },
			withDecider(func(in *authz.Input) (*authz.Decision, error) {
				for range 2 {
					b, tr, err := in.Request.Body.Buffer(context.Background())
					if err != nil {
						return nil, err
					}
					data, truncated = string(b), tr
				}
				kept = in.Request.Body
				return allow(in)
			}))
		resp, _ := get(t, g.addr, "POST / HTTP/1.1\r\nHost: a\r\n"+framing)
		if resp.StatusCode != 200 || data != "01234567" || !truncated {
			t.Errorf("got %d, policy read %q truncated %v", resp.StatusCode, data, truncated)
		}
		req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(up.received())))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(req.Body); string(b) != "0123456789" || err != nil {
			t.Errorf("upstream received %q, %v", b, err)
		}
		if b, _, err := kept.Buffer(context.Background()); string(b) != "01234567" || err != nil {
			t.Errorf("after the request: %q, %v", b, err)
		}
	}
}

func TestBodyThatNobodyReadCannotBeReadLater(t *testing.T) {
	var kept authz.Body
	g := start(t, listenRaw(t, nil).addr(), withDecider(func(in *authz.Input) (*authz.Decision, error) {
		kept = in.Request.Body
		return allow(in)
	}))
	get(t, g.addr, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nok")
	if b, _, err := kept.Buffer(context.Background()); err == nil {
		t.Errorf("read %q from a connection that serves another request", b)
	}
}

func TestCutBodyIsTheClientsFault(t *testing.T) {
	up := listenRaw(t, nil)
	g := start(t, up.addr())
	c := dial(t, g.addr)
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n123")
	_ = c.(*net.TCPConn).CloseWrite()
	if got := readAll(t, c, time.Second); !strings.HasPrefix(got, "HTTP/1.1 400 ") {
		t.Errorf("got %.60q, want 400", got)
	}
	if recs := g.records.all(); len(recs) != 1 || recs[0].Outcome != authz.OutcomeRefused {
		t.Errorf("recorded %+v", recs[0])
	}
}
