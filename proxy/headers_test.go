package proxy

import (
	"strings"
	"testing"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/route"
)

// lines returns the header lines of the only request in raw.
func lines(raw string) []string {
	h, _, _ := strings.Cut(raw, "\r\n\r\n")
	return strings.Split(h, "\r\n")[1:]
}

func hasLine(raw, want string) bool {
	for _, l := range lines(raw) {
		if strings.EqualFold(l, want) {
			return true
		}
	}
	return false
}

func hasName(raw, name string) bool {
	for _, l := range lines(raw) {
		if n, _, _ := strings.Cut(l, ":"); strings.EqualFold(n, name) {
			return true
		}
	}
	return false
}

func TestClientsCannotSetIdentityHeaders(t *testing.T) {
	names := []string{
		"X-User", "x-user", "X.User", "X-Forwarded-User", "X-Forwarded-Prefix", "X.Forwarded.For", "X-Real-IP", "Forwarded",
		"X-Original-URL", "X-Rewrite-URL", "X-HTTP-Method-Override", "X-Auth-Request-Email", "X-Tenant", "X.Tenant",
		"X-Envoy-Original-Path", "X-Forwarded-Client-Cert", "Proxy-Authorization", "Proxy-Connection", "TE", "HTTP2-Settings", "Upgrade",
	}
	for _, name := range names {
		up := listenRaw(t, nil)
		var seen []authz.Header
		g := start(t, up.addr(), func(c *Config, _ *Parts, _ *Deps) { c.IdentityHeaders = []string{"X-Tenant"} },
			withDecider(func(in *authz.Input) (*authz.Decision, error) {
				seen = in.Request.Headers
				return allow(in)
			}))
		resp, _ := get(t, g.addr, "GET / HTTP/1.1\r\nHost: a\r\n"+name+": mallory\r\n\r\n")
		if resp.StatusCode != 200 || strings.Contains(up.received(), "mallory") {
			t.Errorf("%s: got %d, upstream received %q", name, resp.StatusCode, up.received())
		}
		if len(seen) != 0 {
			t.Errorf("%s: the policy saw %v", name, seen)
		}
	}
}

func TestWhatADecisionSetsReplacesTheClients(t *testing.T) {
	up := listenRaw(t, nil)
	g := start(t, up.addr(), withDecider(func(*authz.Input) (*authz.Decision, error) {
		d := &authz.Decision{Allow: true}
		d.Upstream.SetHeaders = map[string]string{"X-Role": "reader", "authorization": "Bearer ours"}
		d.Upstream.RemoveHeaders = []string{"X_Debug"}
		d.Response.SetHeaders = map[string]string{"X-Frame-Options": "DENY"}
		d.Response.RemoveHeaders = []string{"content-TYPE"}
		return d, nil
	}))
	resp, _ := get(t, g.addr, "GET / HTTP/1.1\r\nHost: a\r\nX.Role: admin\r\nx-role: admin\r\nX-Debug: 1\r\nX-Other: 2\r\nAuthorization: Bearer good\r\n"+
		"Connection: authorization, x-forwarded-for\r\n\r\n")
	got := up.received()
	if resp.StatusCode != 200 || strings.Contains(got, "admin") || hasName(got, "x-debug") || strings.Contains(got, "good") ||
		!hasLine(got, "X-Role: reader") || !hasLine(got, "X-Other: 2") || !hasLine(got, "Authorization: Bearer ours") || !hasName(got, "x-forwarded-for") {
		t.Errorf("upstream received %q", got)
	}
	if resp.Header.Get("X-Frame-Options") != "DENY" || resp.Header.Get("Content-Type") != "" {
		t.Errorf("response has %v", resp.Header)
	}
}

func TestWhatAPolicyCouldSetIsNeverTheClients(t *testing.T) {
	up := listenRaw(t, nil)
	g := start(t, up.addr(), withDecider(func(*authz.Input) (*authz.Decision, error) {
		return &authz.Decision{Allow: true, Owned: []string{"X_Role", "accept", "authorization", "x-forwarded-for"}}, nil
	}), withRoutes(route.Config{Name: "all", Upstream: "main", Authenticate: []string{"test"}, ForwardCredentials: true}))
	get(t, g.addr, "GET / HTTP/1.1\r\nHost: a\r\nX.Role: admin\r\nx-role: admin\r\nX-Other: 2\r\nAuthorization: Bearer good\r\n\r\n")
	got := up.received()
	if strings.Contains(got, "admin") || !hasLine(got, "X-Other: 2") || !hasLine(got, "Authorization: Bearer good") || !hasLine(got, "X-Forwarded-For: 127.0.0.1") {
		t.Errorf("upstream received %q", got)
	}
}

func TestConnectionNamesEndHereForThePolicyToo(t *testing.T) {
	up := listenRaw(t, nil)
	var seen []authz.Header
	g := start(t, up.addr(), withDecider(func(in *authz.Input) (*authz.Decision, error) {
		seen = in.Request.Headers
		return allow(in)
	}))
	get(t, g.addr, "GET / HTTP/1.1\r\nHost: a\r\nX-Secret: 1\r\nX-Kept: 2\r\nConnection: X-Secret\r\n\r\n")
	if len(seen) != 1 || seen[0].Name != "x-kept" || hasName(up.received(), "x-secret") || hasName(up.received(), "connection") {
		t.Errorf("policy saw %v, upstream received %q", seen, up.received())
	}
}

// TestNothingRestsOnANominatedHeader: what the upstream does not get does not
// count for the route, the identity or the policy either.
func TestNothingRestsOnANominatedHeader(t *testing.T) {
	up := listenRaw(t, nil)
	acme := anyRoute()
	acme.Name, acme.Match.Headers = "acme", map[string]string{"x-tenant": "acme"}
	var in *authz.Input
	g := start(t, up.addr(), withRoutes(acme, anyRoute()), withDecider(func(i *authz.Input) (*authz.Decision, error) {
		in = i
		return allow(i)
	}))
	get(t, g.addr, "POST / HTTP/1.1\r\nHost: a\r\nX-Tenant: acme\r\nContent-Type: text/a\r\nAuthorization: Bearer good\r\nContent-Length: 2\r\n"+
		"Connection: X-Tenant, content-type\r\nConnection: authorization, content-length, host\r\n\r\nok")
	if in.Route.Name != "all" || in.Request.ContentType != "" || in.Identity.Authenticated || in.Request.Host != "a" {
		t.Errorf("judged %+v %+v", in.Route, in.Identity)
	}
	if got := up.received(); hasName(got, "x-tenant") || hasName(got, "content-type") || !strings.HasSuffix(got, "Content-Length: 2\r\n\r\nok") {
		t.Errorf("upstream received %q", got)
	}
}

func TestCredentials(t *testing.T) {
	const raw = "GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer good\r\nCookie: s=1\r\nX-Api-Key: k\r\n\r\n"
	tests := []struct {
		name    string
		change  func(*route.Config)
		forward bool
		visible []string
	}{
		{"default", func(*route.Config) {}, false, nil},
		{"forwarded", func(r *route.Config) { r.ForwardCredentials = true }, true, nil},
		{"visible", func(r *route.Config) { r.InputHeaders = []string{"Cookie", "X-API-Key"} }, false, []string{"cookie", "x-api-key"}},
	}
	for _, tc := range tests {
		r := anyRoute()
		tc.change(&r)
		up := listenRaw(t, nil)
		var seen []string
		g := start(t, up.addr(), withRoutes(r), withDecider(func(in *authz.Input) (*authz.Decision, error) {
			for _, h := range in.Request.Headers {
				seen = append(seen, h.Name)
			}
			return allow(in)
		}))
		get(t, g.addr, raw)
		if got := hasLine(up.received(), "Authorization: Bearer good"); got != tc.forward {
			t.Errorf("%s: authorization forwarded: %v", tc.name, got)
		}
		if !hasLine(up.received(), "Cookie: s=1") {
			t.Errorf("%s: the upstream's cookie is gone", tc.name)
		}
		if strings.Join(seen, " ") != strings.Join(tc.visible, " ") {
			t.Errorf("%s: the policy saw %v, want %v", tc.name, seen, tc.visible)
		}
	}
}

func TestForwardedHeaders(t *testing.T) {
	const sent = "GET / HTTP/1.1\r\nHost: a:8080\r\nX-Forwarded-For: 203.0.113.9, 192.0.2.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example\r\n" +
		"X-Forwarded-Port: 444\r\nForwarded: for=192.0.2.1\r\nX-Request-Id: abc-1\r\n\r\n"
	tests := []struct {
		name    string
		trusted []string
		want    []string
		source  string
		scheme  string
	}{
		{"untrusted", nil, []string{
			"X-Forwarded-For: 127.0.0.1", "X-Forwarded-Proto: http", "X-Forwarded-Host: a:8080",
			`Forwarded: for=127.0.0.1;host="a:8080";proto=http`,
		}, "127.0.0.1", "http"},
		{"trusted", []string{"127.0.0.0/8"}, []string{
			"X-Forwarded-For: 203.0.113.9, 192.0.2.1, 127.0.0.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: shop.example",
			`Forwarded: for=192.0.2.1, for=127.0.0.1;host="a:8080";proto=http`, "X-Forwarded-Port: 444", "X-Request-Id: abc-1",
		}, "192.0.2.1", "https"},
		{"chain of trust", []string{"127.0.0.1", "192.0.2.0/24"}, nil, "203.0.113.9", "https"},
	}
	for _, tc := range tests {
		up := listenRaw(t, nil)
		var in *authz.Input
		g := start(t, up.addr(), withListener(func(l *ListenerConfig) { l.TrustedProxies = tc.trusted }),
			withDecider(func(i *authz.Input) (*authz.Decision, error) {
				in = i
				return allow(i)
			}))
		resp, _ := get(t, g.addr, sent)
		for _, want := range tc.want {
			if !hasLine(up.received(), want) {
				t.Errorf("%s: no line %q in %q", tc.name, want, up.received())
			}
		}
		if in.Source.IP != tc.source || in.Request.Scheme != tc.scheme {
			t.Errorf("%s: source %+v, scheme %s", tc.name, in.Source, in.Request.Scheme)
		}
		if tc.trusted == nil && (hasName(up.received(), "X-Forwarded-Port") || resp.Header.Get("X-Request-Id") == "abc-1") {
			t.Errorf("%s: an untrusted peer's word counts: %q", tc.name, up.received())
		}
	}
}

func TestRewriteIsJudgedAndForwarded(t *testing.T) {
	r := anyRoute()
	r.Match.Path, r.Rewrite.StripPrefix, r.Rewrite.AddPrefix = "/v1/orders/{id}", "/v1", "/api"
	up := listenRaw(t, nil)
	var in *authz.Input
	g := start(t, up.addr(), withRoutes(r), withDecider(func(i *authz.Input) (*authz.Decision, error) {
		in = i
		return allow(i)
	}))
	get(t, g.addr, "GET /v1/orders/4%202?q HTTP/1.1\r\nHost: a\r\n\r\n")
	if in.Request.Path != "/api/orders/4%202" || in.Request.Segments[2] != "4 2" || in.Route.Params["id"] != "4 2" {
		t.Errorf("judged %+v %+v", in.Request, in.Route)
	}
	if !strings.HasPrefix(up.received(), "GET /api/orders/4%202?q HTTP/1.1\r\n") {
		t.Errorf("upstream received %q", up.received())
	}
}

func TestAnswers(t *testing.T) {
	up := listenRaw(t, nil)
	only := anyRoute()
	only.Match.Methods, only.Match.Path = []string{"GET", "HEAD", "POST"}, "/r/**"
	g := start(t, up.addr(), withRoutes(only), withDecider(func(in *authz.Input) (*authz.Decision, error) {
		d := &authz.Decision{Status: 0}
		switch in.Request.Path {
		case "/r/nopolicy":
			return nil, authz.ErrNoPolicy
		case "/r/timeout":
			return nil, authz.ErrDecisionTimeout
		case "/r/nil":
			return nil, nil //nolint:nilnil // what a broken decider does
		case "/r/redirect":
			d.Redirect = "https://login.example/"
		case "/r/teapot":
			d.Status, d.Body, d.Headers = 418, []byte(`{"why":"tea"}`), map[string]string{"X-Why": "tea"}
		case "/r/scope":
			d.Challenge = &authz.Challenge{Error: "insufficient_scope", Scope: "orders.write", MaxAge: -1}
		case "/r/gone":
			d.Allow, d.Upstream.Name = true, "gone"
		case "/r/split":
			d.Allow, d.Upstream.SetHeaders = true, map[string]string{"x-a": "b\r\nx-c: d"}
		case "/r/framing":
			d.Allow, d.Upstream.SetHeaders = true, map[string]string{"Content-Length": "0"}
		case "/r/exchange":
			d.Allow, d.Upstream.TokenExchange = true, &authz.TokenExchange{}
		case "/r/fault":
			d.Allow, d.Fault = true, &authz.Fault{Kind: authz.FaultType, Detail: "secret"}
		}
		return d, nil
	}))
	tests := []struct {
		path, header string
		status       int
		outcome      authz.Outcome
		want         map[string]string
	}{
		{"/r/no", "", 403, authz.OutcomeDenied, nil},
		{"/r/x", "Authorization: Bearer bad\r\n", 401, authz.OutcomeUnauthenticated, map[string]string{"Www-Authenticate": `Bearer error="invalid_token"`}},
		{"/r/x", "Authorization: Bearer later\r\n", 503, authz.OutcomeUnavailable, map[string]string{"Retry-After": "5"}},
		{"/r/nopolicy", "", 503, authz.OutcomeUnavailable, map[string]string{"Retry-After": "5"}},
		{"/r/timeout", "", 403, authz.OutcomeFault, nil},
		{"/r/nil", "", 500, authz.OutcomeUnavailable, nil},
		{"/r/redirect", "", 302, authz.OutcomeDenied, map[string]string{"Location": "https://login.example/"}},
		{"/r/teapot", "", 418, authz.OutcomeDenied, map[string]string{"X-Why": "tea", "Content-Type": "application/json"}},
		{"/r/scope", "", 403, authz.OutcomeDenied, map[string]string{"Www-Authenticate": `Bearer error="insufficient_scope", scope="orders.write"`}},
		{"/r/gone", "", 403, authz.OutcomeFault, nil},
		{"/r/split", "", 403, authz.OutcomeFault, nil},
		{"/r/framing", "", 403, authz.OutcomeFault, nil},
		{"/r/exchange", "", 403, authz.OutcomeFault, nil},
		{"/r/fault", "", 403, authz.OutcomeFault, nil},
		{"/elsewhere", "", 404, authz.OutcomeRefused, nil},
	}
	for _, tc := range tests {
		resp, body := get(t, g.addr, "GET "+tc.path+" HTTP/1.1\r\nHost: a\r\n"+tc.header+"\r\n")
		if resp.StatusCode != tc.status || strings.Contains(body, "secret") {
			t.Errorf("%s: got %d %s, want %d", tc.path, resp.StatusCode, body, tc.status)
		}
		for k, v := range tc.want {
			if resp.Header.Get(k) != v {
				t.Errorf("%s: %s is %q, want %q", tc.path, k, resp.Header.Get(k), v)
			}
		}
		recs := g.records.all()
		last := recs[len(recs)-1]
		if last.Outcome != tc.outcome || last.Status != tc.status || last.Input.Request.ID != resp.Header.Get("X-Request-Id") {
			t.Errorf("%s: recorded %s %d %s", tc.path, last.Outcome, last.Status, last.Input.Request.ID)
		}
		if tc.status == 403 && tc.want == nil && tc.outcome == authz.OutcomeDenied &&
			(!strings.Contains(body, `"request_id":"`+last.Input.Request.ID+`"`) || !strings.Contains(body, `"decision_id":"`+last.DecisionID+`"`)) {
			t.Errorf("%s: body %s", tc.path, body)
		}
	}
	resp, _ := get(t, g.addr, "DELETE /r/x HTTP/1.1\r\nHost: a\r\n\r\n")
	if resp.StatusCode != 405 || resp.Header.Get("Allow") != "GET, HEAD, POST" {
		t.Errorf("got %d %v", resp.StatusCode, resp.Header)
	}
	resp, body := get(t, g.addr, "HEAD /r/no HTTP/1.1\r\nHost: a\r\n\r\n")
	if resp.StatusCode != 403 || body != "" || resp.ContentLength <= 0 {
		t.Errorf("HEAD: %d %q %d", resp.StatusCode, body, resp.ContentLength)
	}
	if up.received() != "" {
		t.Errorf("upstream received %q", up.received())
	}
}

func TestRedirectToHTTPS(t *testing.T) {
	up := listenRaw(t, nil)
	g := start(t, up.addr(), withListener(func(l *ListenerConfig) { l.RedirectToHTTPS = true }))
	resp, _ := get(t, g.addr, "GET /a?b HTTP/1.1\r\nHost: a.example:8080\r\n\r\n")
	if resp.StatusCode != 308 || resp.Header.Get("Location") != "https://a.example/a?b" {
		t.Errorf("got %d %v", resp.StatusCode, resp.Header)
	}
	if resp, _ := get(t, g.addr, "GET /..//b HTTP/1.1\r\nHost: a\r\n\r\n"); resp.StatusCode != 400 {
		t.Errorf("ambiguous path: got %d", resp.StatusCode)
	}
	for port, want := range map[int]string{8443: "https://a.example:8443/a?b", 443: "https://a.example/a?b"} {
		g := start(t, up.addr(), withListener(func(l *ListenerConfig) { l.RedirectToHTTPS, l.RedirectPort = true, port }))
		resp, _ := get(t, g.addr, "GET /a?b HTTP/1.1\r\nHost: a.example:8080\r\n\r\n")
		if resp.StatusCode != 308 || resp.Header.Get("Location") != want {
			t.Errorf("port %d: got %d %v", port, resp.StatusCode, resp.Header)
		}
	}
}
