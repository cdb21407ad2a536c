package proxy

import (
	"slices"
	"strings"
	"testing"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/route"
	"github.com/sallyport/sallyport/proxy/upstream"
)

func TestValidateNamesEveryProblem(t *testing.T) {
	bad := DefaultListener()
	bad.Address, bad.ProxyProtocol = "8080", true
	bad.Limits.MaxHeaderBytes, bad.Limits.IdleTimeout = 10, -1
	also := DefaultListener()
	also.Name, also.Address, also.TrustedProxies = "b", ":0", []string{"10.0.0.0/8", "example.com"}
	twice := also
	twice.TrustedProxies, twice.RedirectPort = nil, 8443
	far := also
	far.Name, far.TrustedProxies, far.RedirectToHTTPS, far.RedirectPort = "far", nil, true, 65536
	cfg := Config{
		Listeners: []ListenerConfig{bad, also, twice, far},
		Upstreams: map[string]upstream.Config{"u": {Endpoints: []string{"ftp://a", "http://a/path", "http://u:p@a", "http://0.0.0.0"}, MaxConnections: -1}},
		Routes:    []route.Config{{Name: "r", Upstream: "v", Authenticate: []string{"a", "b"}}}, IdentityHeaders: []string{"x y"},
	}
	var keys []string
	for _, p := range setting.Problems(cfg.Validate(func(n string) bool { return n == "a" })) {
		keys = append(keys, p.Key)
	}
	slices.Sort(keys)
	want := []string{
		"identity_headers[0]",
		"listeners[0].address", "listeners[0].limits.idle_timeout", "listeners[0].limits.max_header_bytes", "listeners[0].name", "listeners[0].proxy_protocol",
		"listeners[1].trusted_proxies[1]", "listeners[2].name", "listeners[2].redirect_port", "listeners[3].redirect_port",
		"routes[0].authenticate[1]", "routes[0].upstream",
		"upstreams.u.endpoints[0]", "upstreams.u.endpoints[1]", "upstreams.u.endpoints[2]", "upstreams.u.endpoints[3]", "upstreams.u.max_connections",
	}
	if !slices.Equal(keys, want) {
		t.Errorf("got  %v\nwant %v", keys, want)
	}
}

// TestRoutesThatNeverMatch: a route cannot rest on a header that is taken from every
// request before.
func TestRoutesThatNeverMatch(t *testing.T) {
	problems := func(proxies []string, header string) []*setting.Problem {
		l := DefaultListener()
		l.Name, l.Address, l.TrustedProxies = "public", "127.0.0.1:0", proxies
		cfg := Config{
			Listeners: []ListenerConfig{l}, Upstreams: map[string]upstream.Config{"main": {Endpoints: []string{"http://127.0.0.1:1"}}},
			Routes: []route.Config{anyRoute()}, IdentityHeaders: []string{"X_Tenant"},
		}
		cfg.Routes[0].Match.Headers = map[string]string{header: "acme"}
		return setting.Problems(cfg.Validate(nil))
	}
	for header, says := range map[string]string{
		"X-User": "sets", "x-request-id": "sets", "X-HTTP-Method-Override": "sets", "x-tenant": "sets",
		"X-Forwarded-Host": "trusted_proxies", "Forwarded": "trusted_proxies", "x-real-ip": "trusted_proxies", "X-Forwarded-Anything": "trusted_proxies",
	} {
		got := problems(nil, header)
		if len(got) != 1 || got[0].Key != "routes[0].match.headers."+header || !strings.Contains(got[0].Error(), says) {
			t.Errorf("%s: %v", header, got)
		}
		if got := problems([]string{"10.0.0.0/8"}, header); (len(got) == 0) != (says == "trusted_proxies") {
			t.Errorf("%s, with trusted proxies: %v", header, got)
		}
	}
	for _, header := range []string{"X-Tenant-Id", "Authorization", "Cookie", "Host", "Content-Type", "Upgrade", "X-Api-Key", "User-Agent"} {
		if got := problems(nil, header); len(got) > 0 {
			t.Errorf("%s: %v", header, got)
		}
	}
}

func TestUpstreamFilesThatCannotBeReadStopTheBuild(t *testing.T) {
	c := upstream.Default()
	c.Endpoints = []string{"https://a"}
	c.TLS = upstream.TLSConfig{CAFile: "/nowhere/ca.pem", CertFile: "/nowhere/c.pem"}
	var keys []string
	for _, p := range setting.Problems(c.Validate()) {
		keys = append(keys, p.Key)
	}
	if !slices.Equal(keys, []string{"tls.ca_file", "tls.cert_file"}) {
		t.Errorf("got %v", keys)
	}
}

// TestZeroIsNotADefault: who writes 0 does not mean 10 MiB or a minute.
func TestZeroIsNotADefault(t *testing.T) {
	l := DefaultListener()
	l.Name, l.Address, l.Limits = "public", "127.0.0.1:0", Limits{}
	var got []string
	for _, p := range setting.Problems(l.Validate()) {
		got = append(got, p.Key)
	}
	want := []string{"limits.max_header_bytes", "limits.max_connections", "limits.header_timeout", "limits.request_timeout", "limits.idle_timeout"}
	if !slices.Equal(got, want) {
		t.Errorf("problems %v, want %v", got, want)
	}
	up := listenRaw(t, nil)
	g := start(t, up.addr(), withListener(func(l *ListenerConfig) { l.Limits.MaxBodyBytes = 0 }))
	for body, want := range map[string]int{"Content-Length: 1\r\n\r\nx": 413, "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n": 413, "Content-Length: 0\r\n\r\n": 200} {
		if resp, _ := get(t, g.addr, "POST / HTTP/1.1\r\nHost: a\r\n"+body); resp.StatusCode != want {
			t.Errorf("%q: got %d, want %d", body, resp.StatusCode, want)
		}
	}
}
