package proxy

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
)

const head = "GET / HTTP/1.1\r\nHost: a\r\n"

// TestRefusedRequests sends what must not reach an upstream. Behind each lies a
// second request in the same bytes: it must not be served either.
func TestRefusedRequests(t *testing.T) {
	const second = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
	tests := []struct {
		name   string
		raw    string
		status int
	}{
		// Framing (RFC 9112 section 6).
		{"TE after CL", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"CL after TE", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400},
		{"two equal CL", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nok", 400},
		{"two unlike CL", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nokk", 400},
		{"CL list", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2, 2\r\n\r\nok", 400},
		{"CL plus", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +2\r\n\r\nok", 400},
		{"CL minus", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -2\r\n\r\nok", 400},
		{"CL hex", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x2\r\n\r\nok", 400},
		{"CL empty", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nok", 400},
		{"CL beyond 63 bits", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551618\r\n\r\nok", 400},
		{"CL with inner space", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1 2\r\n\r\nok", 400},
		{"CL with space before colon", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 2\r\n\r\nok", 400},
		{"TE with space before colon", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n", 400},
		{"TE with vertical tab", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n", 400},
		{"TE xchunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", 400},
		{"TE identity", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: identity\r\n\r\n", 400},
		{"TE gzip, chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400},
		{"TE twice", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", 400},
		{"TE in 1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"TE folded", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400},

		// Lines and names.
		{"obs-fold", head + "X-A: b\r\n c\r\n\r\n", 400},
		{"first header folded", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400},
		{"bare LF in request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400},
		{"bare LF in header", head + "X-A: b\nX-B: c\r\n\r\n", 400},
		{"bare LF at end", head + "\n", 400},
		{"bare CR in value", head + "X-A: b\rX-B: c\r\n\r\n", 400},
		{"bare CR in name", head + "X\r-A: b\r\n\r\n", 400},
		{"NUL in value", head + "X-A: b\x00c\r\n\r\n", 400},
		{"DEL in value", head + "X-A: b\x7f\r\n\r\n", 400},
		{"not UTF-8", head + "X-A: \xff\r\n\r\n", 400},
		{"space in name", head + "X A: b\r\n\r\n", 400},
		{"underscore in name", head + "X_Forwarded_User: root\r\n\r\n", 400},
		{"empty name", head + ": b\r\n\r\n", 400},
		{"no colon", head + "X-A\r\n\r\n", 400},

		// Repeated fields: readers take the first or the last.
		{"two Host", head + "Host: b\r\n\r\n", 400},
		{"two Authorization", head + "Authorization: Bearer good\r\nAuthorization: Bearer bad\r\n\r\n", 400},
		{"two Content-Type", head + "Content-Type: a/b\r\nContent-Type: c/d\r\n\r\n", 400},
		{"two Cookie", head + "Cookie: a=b\r\ncookie: a=c\r\n\r\n", 400},

		// Request line.
		{"no host", "GET / HTTP/1.1\r\n\r\n", 400},
		{"CONNECT", "CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", 400},
		{"TRACE", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"PRI", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
		{"unknown method", "BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"lower-case method", "get / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"HTTP/1.2", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505},
		{"HTTP/0.9", "GET /\r\n\r\n", 400},
		{"lower-case version", "GET / http/1.1\r\nHost: a\r\n\r\n", 400},
		{"two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"space in target", "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"tab in target", "GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"asterisk", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"no leading slash", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"fragment", "GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400},

		// Authority.
		{"userinfo in Host", "GET / HTTP/1.1\r\nHost: user:pass@a\r\n\r\n", 400},
		{"userinfo in URL", "GET http://user:pass@a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"URL of another host", "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"URL of another scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400},
		{"bad port", "GET / HTTP/1.1\r\nHost: a:0x50\r\n\r\n", 400},
		{"port 0", "GET / HTTP/1.1\r\nHost: a:0\r\n\r\n", 400},
		{"empty port", "GET / HTTP/1.1\r\nHost: a:\r\n\r\n", 400},
		{"comma in Host", "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400},
		{"trailing dot", "GET / HTTP/1.1\r\nHost: a.\r\n\r\n", 400},
		{"path in Host", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400},
		{"empty Host", "GET / HTTP/1.1\r\nHost:\r\n\r\n", 400},

		{"strange expectation", "POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\nContent-Length: 2\r\n\r\nok", 417},
		{"head too large", head + "X-A: " + strings.Repeat("a", 33<<10) + "\r\n\r\n", 431},
		{"too many headers", head + strings.Repeat("X-A: b\r\n", 300) + "\r\n", 431},
		{"body too large", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10485761\r\n\r\n", 413},
	}
	up := listenRaw(t, nil)
	g := start(t, up.addr())
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			got := send(t, g.addr, tc.raw+second)
			resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(got)), nil)
			if err != nil {
				t.Fatalf("no response: %v", err)
			}
			if resp.StatusCode != tc.status || !resp.Close || resp.Header.Get("X-Request-Id") == "" ||
				resp.Header.Get("Content-Type") != "application/problem+json" {
				t.Errorf("got\n%s\nwant %d and the end of the connection", got, tc.status)
			}
			if n := strings.Count(got, "HTTP/1.1 "); n != 1 {
				t.Errorf("%d responses for one request", n)
			}
		})
	}
	if got := up.received(); got != "" {
		t.Errorf("the upstream received %q", got)
	}
}

func TestRefusedPaths(t *testing.T) {
	paths := []string{
		"/a/../b", "/..", "/a/./b", "/.", "//a", "/a//b", "/a/%2e%2e/b", "/%2E", "/a%2fb", "/a%2Fb", "/a%5cb", `/a\b`,
		"/a%00", "/a%0a", "/a%7f", "/%252f", "/%25%32%66", "/%2", "/%", "/%zz", "/%%32", "/a;b", "/;/a", "/..;/a", "/%61dmin",
		"/a%2D", "/a%5Fb", "/a%3", "/\xc3\xa9", "/%c3", "/a\"", "/<", "/a`",
	}
	up := listenRaw(t, nil)
	g := start(t, up.addr())
	for _, p := range paths {
		got := send(t, g.addr, "GET "+p+" HTTP/1.1\r\nHost: a\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 400 ") {
			t.Errorf("%q: got %.40q, want 400", p, got)
		}
	}
	if got := up.received(); got != "" {
		t.Errorf("the upstream received %q", got)
	}
}

func TestAcceptedPathsArriveAsSent(t *testing.T) {
	up := listenRaw(t, nil)
	g := start(t, up.addr())
	for _, p := range []string{
		"/", "/a/", "/a/b.c", "/...", "/a%20b", "/%C3%A9", "/%e2%82%ac/x", "/~u", "/%7eu", "/a:b@c,d=e+f!$&'()*", "/100%25", "/a?b/../c//d%2f;e", "/{id}|x", "/a?",
	} {
		resp, _ := get(t, g.addr, "GET "+p+" HTTP/1.1\r\nHost: a\r\n\r\n")
		if resp.StatusCode != 200 {
			t.Errorf("%q: got %d", p, resp.StatusCode)
			continue
		}
		if want := "GET " + strings.TrimSuffix(p, "?") + " HTTP/1.1\r\n"; !strings.Contains(up.received(), want) {
			t.Errorf("%q did not arrive as it was sent", p)
		}
	}
}

func TestAbsoluteFormIsForwardedInOriginForm(t *testing.T) {
	up := listenRaw(t, nil)
	g := start(t, up.addr())
	resp, _ := get(t, g.addr, "GET HTTP://A:80/x?y HTTP/1.1\r\nHost: a:80\r\n\r\n")
	if resp.StatusCode != 200 || !strings.HasPrefix(up.received(), "GET /x?y HTTP/1.1\r\nHost: a:80\r\n") {
		t.Errorf("got %d, upstream received %q", resp.StatusCode, up.received())
	}
}

// TestUnreadBodyIsNeverTheNextRequest: a deny leaves the body unread, and in it
// stands a request.
func TestUnreadBodyIsNeverTheNextRequest(t *testing.T) {
	const inner = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
	const next = "GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
	fill := strings.Repeat(inner, 260) // 9 KB
	huge := strings.Repeat(inner, 12000)
	chunk := func(s string) string { return "2328\r\n" + s[:0x2328] + "\r\n0\r\n\r\n" }
	tests := []struct {
		name, raw string
		keeps     bool
	}{
		{"sized", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + itoa(len(fill)) + "\r\n\r\n" + fill, true},
		{"chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(fill), true},
		{"beyond the drain", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: " + itoa(len(huge)) + "\r\n\r\n" + huge, false},
		{"broken chunks", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcdeXX" + inner, false},
	}
	up := listenRaw(t, nil)
	g := start(t, up.addr(), withDecider(func(in *authz.Input) (*authz.Decision, error) {
		return &authz.Decision{Allow: in.Request.Method == "GET"}, nil
	}))
	for _, tc := range tests {
		t.Run(tc.name, func(t *testing.T) {
			before := len(up.received())
			c := dial(t, g.addr)
			go func() { _, _ = io.WriteString(c, tc.raw+next) }()
			got := readAll(t, c, 500*time.Millisecond)
			if !strings.HasPrefix(got, "HTTP/1.1 403 ") {
				t.Fatalf("got %.60q, want 403", got)
			}
			arrived := up.received()[before:]
			if strings.Contains(arrived, "smuggled") {
				t.Errorf("the body was taken for a request: %q", arrived)
			}
			if served := strings.Contains(arrived, "GET /next "); served != tc.keeps {
				t.Errorf("next request served: %v, want %v", served, tc.keeps)
			}
		})
	}
}

func itoa(n int) string {
	if n < 10 {
		return string(rune('0' + n))
	}
	return itoa(n/10) + string(rune('0'+n%10))
}

// TestRefusedClientsMaySendTheRest: closing at once would reset the connection,
// and a client that is still sending would lose the answer.
func TestRefusedClientsMaySendTheRest(t *testing.T) {
	g := start(t, listenRaw(t, nil).addr())
	c := dial(t, g.addr)
	br := bufio.NewReader(c)
	resp, _ := exchangeOn(t, c, br, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n")
	if resp.StatusCode != 413 {
		t.Fatalf("got %d", resp.StatusCode)
	}
	for i := range 10 {
		if _, err := c.Write(make([]byte, 10<<10)); err != nil {
			t.Fatalf("part %d: %v", i, err)
		}
		<-time.After(time.Millisecond)
	}
}

func TestBrokenChunksNeverComplete(t *testing.T) {
	const start11 = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
	bodies := map[string]string{
		"bare LF after size":      "2\nok\r\n0\r\n\r\n",
		"bare LF in extension":    "2;a\nok\r\n0\r\n\r\n",
		"bare CR in extension":    "2;a\rb\r\nok\r\n0\r\n\r\n",
		"space before size":       " 2\r\nok\r\n0\r\n\r\n",
		"space after size":        "2 \r\nok\r\n0\r\n\r\n",
		"0x size":                 "0x2\r\nok\r\n0\r\n\r\n",
		"negative size":           "-2\r\nok\r\n0\r\n\r\n",
		"plus size":               "+2\r\nok\r\n0\r\n\r\n",
		"empty size":              "\r\nok\r\n0\r\n\r\n",
		"size beyond 60 bits":     "10000000000000002\r\nok\r\n0\r\n\r\n",
		"data longer than size":   "2\r\nokk\r\n0\r\n\r\n",
		"CR without LF":           "2\r\nok\rX0\r\n\r\n",
		"long extension":          "2;" + strings.Repeat("a", 200) + "\r\nok\r\n0\r\n\r\n",
		"control in extension":    "2;\x00\r\nok\r\n0\r\n\r\n",
		"bare LF trailer":         "2\r\nok\r\n0\r\nX: y\n\r\n",
		"bare LF after trailers":  "2\r\nok\r\n0\r\n\n",
		"NUL in trailer":          "2\r\nok\r\n0\r\nX: \x00\r\n\r\n",
		"endless trailers":        "2\r\nok\r\n0\r\n" + strings.Repeat("X: y\r\n", 4000) + "\r\n",
		"last chunk then garbage": "2\r\nok\r\n0\r\nZZ",
	}
	up := listenRaw(t, nil)
	g := start(t, up.addr())
	for name, body := range bodies {
		got := send(t, g.addr, start11+body+"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 400 ") || strings.Contains(got, "HTTP/1.1 200") {
			t.Errorf("%s: got %.60q, want 400", name, got)
		}
	}
	if got := up.received(); strings.Contains(got, "\r\n0\r\n\r\n") || strings.Contains(got, "smuggled") {
		t.Errorf("the upstream received a complete request: %q", got)
	}
}

func TestChunkedBodyIsFramedAnew(t *testing.T) {
	up := listenRaw(t, nil)
	g := start(t, up.addr())
	resp, _ := get(t, g.addr, "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nTrailer: X-User\r\n\r\n"+
		"2;ext=\"1\"\r\nok\r\n03\r\nabc\r\n0\r\nX-User: root\r\nAuthorization: Bearer x\r\n\r\n")
	if resp.StatusCode != 200 {
		t.Fatalf("got %d", resp.StatusCode)
	}
	got := up.received()
	if !strings.Contains(got, "Transfer-Encoding: chunked\r\n") || strings.Contains(got, "ext") ||
		strings.Contains(got, "root") || strings.Contains(got, "Trailer") || strings.Contains(got, "Bearer") {
		t.Errorf("upstream received %q", got)
	}
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(got)))
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(req.Body); string(body) != "okabc" || err != nil || len(req.Trailer) != 0 {
		t.Errorf("body %q, trailers %v, %v", body, req.Trailer, err)
	}
}

func TestChunkedBodyOverTheLimit(t *testing.T) {
	up := listenRaw(t, nil)
	g := start(t, up.addr(), withListener(func(l *ListenerConfig) { l.Limits.MaxBodyBytes = 1000 }))
	part := "100\r\n" + strings.Repeat("x", 256) + "\r\n"
	got := send(t, g.addr, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"+strings.Repeat(part, 4)+"0\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 413 ") || strings.Contains(up.received(), "\r\n0\r\n\r\n") {
		t.Errorf("got %.60q; upstream received %q", got, up.received())
	}
	got = send(t, g.addr, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"+strings.Repeat(part, 3)+"0\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("768 bytes: got %.60q", got)
	}
}

// TestAnnouncedLengthIsNotAllocated: the length is a claim until bytes arrive.
func TestAnnouncedLengthIsNotAllocated(t *testing.T) {
	up := listenRaw(t, nil)
	g := start(t, up.addr(), withListener(func(l *ListenerConfig) { l.Limits.MaxBodyBytes = 1 << 50 }))
	c := dial(t, g.addr)
	if _, err := io.WriteString(c, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000000000\r\n\r\nabc"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the first bytes arrive upstream", func() bool { return strings.HasSuffix(up.received(), "abc") })
}

func TestSlowHeadIsEndedAndIdleIsNot(t *testing.T) {
	up := listenRaw(t, nil)
	g := start(t, up.addr(), withListener(func(l *ListenerConfig) {
		l.Limits.HeaderTimeout, l.Limits.IdleTimeout = 100*time.Millisecond, 10*time.Second
	}))
	idle, slow := dial(t, g.addr), dial(t, g.addr)
	if _, err := io.WriteString(slow, "GET / HTTP/1.1\r\nHost:"); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, slow, 2*time.Second); !strings.HasPrefix(got, "HTTP/1.1 408 ") {
		t.Errorf("slow head: got %.60q, want 408", got)
	}
	resp, _ := exchangeOn(t, idle, bufio.NewReader(idle), "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	if resp.StatusCode != 200 {
		t.Errorf("idle connection: got %d", resp.StatusCode)
	}
}

func TestExpectContinueComesAfterTheDecision(t *testing.T) {
	up := listenRaw(t, nil)
	g := start(t, up.addr(), withDecider(func(in *authz.Input) (*authz.Decision, error) {
		return &authz.Decision{Allow: in.Request.Path == "/ok"}, nil
	}))
	c := dial(t, g.addr)
	_, _ = io.WriteString(c, "POST /no HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
	got := readAll(t, c, 300*time.Millisecond)
	if !strings.HasPrefix(got, "HTTP/1.1 403 ") || !strings.Contains(got, "Connection: close") {
		t.Errorf("denied: got %q, want 403 and the end", got)
	}
	c = dial(t, g.addr)
	br := bufio.NewReader(c)
	_, _ = io.WriteString(c, "POST /ok HTTP/1.1\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n")
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	line, err := br.ReadString('\n')
	if err != nil || line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("got %q, %v", line, err)
	}
	_, _ = br.ReadString('\n')
	resp, _ := exchangeOn(t, c, br, "hi")
	if resp.StatusCode != 200 || resp.Close {
		t.Errorf("got %d", resp.StatusCode)
	}
	if got := up.received(); strings.Contains(got, "Expect") || !strings.HasSuffix(got, "\r\n\r\nhi") {
		t.Errorf("upstream received %q", got)
	}
}

func TestNothingIsInjected(t *testing.T) {
	up := listenRaw(t, nil)
	g := start(t, up.addr())
	get(t, g.addr, "POST /x HTTP/1.1\r\nHost: a\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nok")
	got := up.received()
	for _, name := range []string{"Content-Type", "User-Agent", "Connection", "Accept", "Authorization"} {
		if strings.Contains(got, name) {
			t.Errorf("%s was added: %q", name, got)
		}
	}
}

func TestConnectionCloseInAnyCase(t *testing.T) {
	up := listenRaw(t, nil)
	g := start(t, up.addr())
	for _, v := range []string{"close", "Close", "CLOSE", "x, Close"} {
		c := dial(t, g.addr)
		resp, _ := exchangeOn(t, c, bufio.NewReader(c), "GET / HTTP/1.1\r\nHost: a\r\nConnection: "+v+"\r\n\r\n")
		if !resp.Close {
			t.Errorf("Connection: %s: the response does not say close", v)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("Connection: %s: %v, want the end", v, err)
		}
	}
}

func TestPanicEndsTheConnectionAndNotTheProcess(t *testing.T) {
	up := listenRaw(t, nil)
	g := start(t, up.addr(), withDecider(func(in *authz.Input) (*authz.Decision, error) {
		if in.Request.Path == "/panic" {
			panic("decider")
		}
		return allow(in)
	}))
	got := send(t, g.addr, "GET /panic HTTP/1.1\r\nHost: a\r\n\r\n")
	if !strings.HasPrefix(got, "HTTP/1.1 500 ") || strings.Contains(got, "decider") || !strings.Contains(got, "Connection: close") {
		t.Errorf("got %q", got)
	}
	if resp, _ := get(t, g.addr, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); resp.StatusCode != 200 {
		t.Errorf("after the panic: %d", resp.StatusCode)
	}
}

func TestPipelinedRequestsAreServedInOrder(t *testing.T) {
	up := listenRaw(t, func(c net.Conn, r *bufio.Reader) {
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"+req.URL.Path)
		}
	})
	g := start(t, up.addr())
	got := send(t, g.addr, "GET /1 HTTP/1.1\r\nHost: a\r\n\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	i1, i2, i3 := strings.Index(got, "/1"), strings.Index(got, "/2"), strings.Index(got, "/3")
	if i1 < 0 || i2 < i1 || i3 < i2 {
		t.Errorf("got %q", got)
	}
}
