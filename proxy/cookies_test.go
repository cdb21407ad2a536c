package proxy

import (
	"context"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/judge"
)

// renewing has every response bring the renewed cookie of a session.
type renewing struct{ testChain }

func (c renewing) Authenticate(ctx context.Context, r *authn.Request) (*authz.Identity, error) {
	r.Response = append(r.Response, authz.Header{Name: "set-cookie", Value: "__Host-sallyport-login=renewed; Path=/; Secure"})
	return c.testChain.Authenticate(ctx, r)
}

func withChain(c judge.Chain) option {
	return func(_ *Config, p *Parts, _ *Deps) { p.Chain = func([]string) (judge.Chain, error) { return c, nil } }
}

// TestSessionsAreRenewedByAnyResponse: a refresh token that was exchanged is lost when
// the browser does not get the cookie, and the old one ends the session at providers
// that look for reuse.
func TestSessionsAreRenewedByAnyResponse(t *testing.T) {
	for name, tc := range map[string]struct {
		raw, upgrade string
		status       int
	}{
		"page":      {okResponse, "", 200},
		"nothing":   {"HTTP/1.1 304 Not Modified\r\n\r\n", "", 304},
		"no answer": {"", "", 502},
		"WebSocket": {
			"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
			"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: k\r\n", 101,
		},
	} {
		g := start(t, listenRaw(t, answer(tc.raw)).addr(), withChain(renewing{}))
		resp, _ := get(t, g.addr, "GET / HTTP/1.1\r\nHost: a\r\n"+tc.upgrade+"\r\n")
		if got := resp.Header.Values("Set-Cookie"); resp.StatusCode != tc.status || len(got) != 1 || !strings.Contains(got[0], "=renewed;") {
			t.Errorf("%s: %d sets %q", name, resp.StatusCode, got)
		}
	}
}

// TestUpstreamsSetNoSessions: what the gateway takes for a session is never an
// upstream's to set, which could log a browser in as somebody else, or out.
func TestUpstreamsSetNoSessions(t *testing.T) {
	const head, tail = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", "\r\n\r\nok"
	for line, kept := range map[string]bool{
		"Set-Cookie: __Host-sallyport-login=1.evil; Path=/; Secure":                   false,
		"set-cookie: __Host-sallyport-login=; Path=/; Secure; Max-Age=0":              false,
		"SET-COOKIE:   __Host-sallyport-login.1 = x; Path=/":                          false,
		"Set-Cookie: __Secure-sallyport-login=1.evil; Domain=example.com; Secure":     false,
		"Set-Cookie: sallyport-insecure-login=1.evil":                                 false,
		"Set-Cookie: __Host-sallyport-login-login~0123=1.x; Path=/; Secure":           false,
		"Set-Cookie: =sallyport-insecure-login=1.evil":                                false,
		"Set-Cookie: \t= __Host-sallyport-login=1.evil; Path=/; Secure":               false,
		"Set-Cookie: sallyport-insecure-login":                                        false,
		"Set-Cookie: __Host-session=1; Path=/; Secure; HttpOnly":                      true,
		"Set-Cookie: a=__Host-sallyport-login=1":                                      true,
		"Set-Cookie: theme=dark; Comment=sallyport-insecure-login=1; Path=/sallyport": true,
	} {
		g := start(t, listenRaw(t, answer(head+line+"\r\nSet-Cookie: app=1; Path=/"+tail)).addr())
		resp, _ := get(t, g.addr, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		got := resp.Header.Values("Set-Cookie")
		want := 1
		if kept {
			want = 2
		}
		if resp.StatusCode != 200 || len(got) != want || !strings.HasPrefix(got[len(got)-1], "app=1") {
			t.Errorf("%q: %d sets %q", line, resp.StatusCode, got)
		}
	}
}
