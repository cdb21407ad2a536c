package judge

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"net/netip"
	"net/url"
	"path"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/route"
)

type fixedDecider struct{ d *authz.Decision }

func (f fixedDecider) Decide(context.Context, *authz.Input) (*authz.Decision, error) { return f.d, nil }

type fixedChain struct{ id *authz.Identity }

func (f fixedChain) Authenticate(context.Context, *authn.Request) (*authz.Identity, error) {
	return f.id, nil
}

func (fixedChain) Challenges(error) []string { return nil }

func newJudge(t testing.TB, d *authz.Decision, routes ...route.Config) *Judge {
	t.Helper()
	if routes == nil {
		routes = []route.Config{{Name: "orders", Match: route.Match{Path: "/v1/orders/**"}, Authenticate: []string{"a"}, Upstream: "u"}}
	}
	table, err := route.New(routes)
	if err != nil {
		t.Fatal(err)
	}
	chains := make([]Chain, len(routes))
	for i := range chains {
		chains[i] = fixedChain{&authz.Identity{Subject: "alice"}}
	}
	return New(Config{Routes: table, Chains: chains, Decider: fixedDecider{d}, Upstream: func(n string) bool { return n == "u" }})
}

func arrival(method, target string, headers ...authz.Header) *Arrival {
	return &Arrival{
		Listener: &Listener{Gateway: &authz.Gateway{Listener: "public"}}, Method: method, Target: target, Protocol: "HTTP/1.1",
		Headers: append([]authz.Header{{Name: "host", Value: "api.example.com"}}, headers...),
		Peer:    netip.MustParseAddrPort("192.0.2.1:4711"), PeerText: "192.0.2.1", Time: time.Unix(1767323045, 0),
	}
}

// TestAllocationsOfAnAllowedRequest pins what judging costs besides
// authentication and decision. The parts: verdict and input, shape, path
// segments, visible headers, forward with its headers, request id, the
// Forwarded value, the authenticator's view, the policy's one header.
func TestAllocationsOfAnAllowedRequest(t *testing.T) {
	d := &authz.Decision{Allow: true}
	d.Upstream.SetHeaders = map[string]string{"x-user": "alice"}
	j := newJudge(t, d)
	a := arrival("GET", "/v1/orders/42?a=1", authz.Header{Name: "accept", Value: "*/*"}, authz.Header{Name: "user-agent", Value: "t"},
		authz.Header{Name: "authorization", Value: "Bearer x"})
	ctx := context.Background()
	if v := j.Judge(ctx, a); v.Forward == nil {
		t.Fatalf("refused: %v", v.Err)
	}
	if got := testing.AllocsPerRun(200, func() { j.Judge(ctx, a) }); got > 11 {
		t.Errorf("%v allocations, want at most 11", got)
	}
}

// A decider may give one decision to many requests, so nothing of it is changed,
// whatever is asked for.
func TestDecisionsAreNotChanged(t *testing.T) {
	for name, decision := range map[string]func() *authz.Decision{
		"allow": func() *authz.Decision {
			return &authz.Decision{
				Allow: true, Owned: []string{"x-b", "x-a"}, Labels: map[string]string{"a": "b"},
				Upstream: authz.UpstreamObligation{SetHeaders: map[string]string{"X-User": "alice", "x-b": "1"}, RemoveHeaders: []string{"Cookie", "accept"}},
				Response: authz.ResponseObligation{SetHeaders: map[string]string{"X-A": "1"}, RemoveHeaders: []string{"Server"}},
			}
		},
		"deny": func() *authz.Decision {
			return &authz.Decision{Status: 401, Headers: map[string]string{"X-A": "1"}, Body: []byte(`{"a": 1}`), Challenge: &authz.Challenge{Error: "invalid_token", MaxAge: -1}}
		},
		"fault": func() *authz.Decision {
			return &authz.Decision{Allow: true, Upstream: authz.UpstreamObligation{Name: "nobody"}}
		},
	} {
		given := decision()
		v := newJudge(t, given).Judge(context.Background(), arrival("GET", "/v1/orders/1", authz.Header{Name: "accept", Value: "*/*"}))
		if v.Answer != nil {
			v.Answer.Body = append(v.Answer.Body, "more"...)
		}
		if diff := cmp.Diff(decision(), given); diff != "" {
			t.Errorf("%s: the decision was changed: %s", name, diff)
		}
	}
}

func TestRouteWithoutDecisionCache(t *testing.T) {
	routes := []route.Config{
		{Name: "a", Match: route.Match{Path: "/a"}, Authenticate: []string{"a"}, Upstream: "u", NoDecisionCache: true},
		{Name: "b", Match: route.Match{Path: "/b"}, Authenticate: []string{"a"}, Upstream: "u"},
	}
	j := newJudge(t, &authz.Decision{Allow: true}, routes...)
	for path, want := range map[string]bool{"/a": true, "/b": false} {
		if v := j.Judge(context.Background(), arrival("GET", path)); v.Input.Route.Uncached != want {
			t.Errorf("%s: uncached %v", path, v.Input.Route.Uncached)
		}
	}
}

func BenchmarkJudge(b *testing.B) {
	d := &authz.Decision{Allow: true}
	d.Upstream.SetHeaders = map[string]string{"x-user": "alice"}
	j := newJudge(b, d)
	a := arrival("GET", "/v1/orders/42?a=1", authz.Header{Name: "accept", Value: "*/*"}, authz.Header{Name: "user-agent", Value: "t"},
		authz.Header{Name: "authorization", Value: "Bearer x"})
	b.ReportAllocs()
	for b.Loop() {
		j.Judge(context.Background(), a)
	}
}

func TestInputSaysWhatIsForwarded(t *testing.T) {
	j := newJudge(t, &authz.Decision{Allow: true})
	v := j.Judge(context.Background(), arrival("GET", "/v1/orders/a%20b?q=1&q=2", authz.Header{Name: "x-a", Value: "1"}))
	r := v.Input.Request
	if r.Path != "/v1/orders/a%20b" || strings.Join(r.Segments, "|") != "v1|orders|a b" || r.RawQuery != "q=1&q=2" ||
		r.Host != "api.example.com" || r.Port != 80 || r.Scheme != "http" || r.Method != "GET" || len(r.ID) != 32 || r.Protocol != "HTTP/1.1" {
		t.Errorf("request %+v", r)
	}
	if v.Forward.Target != "/v1/orders/a%20b?q=1&q=2" || v.Forward.Host != "api.example.com" || v.Forward.Upstream != "u" {
		t.Errorf("forward %+v", v.Forward)
	}
	if v.Input.Source.IP != "192.0.2.1" || v.Input.Source.Port != 4711 || v.Input.Identity.Subject != "alice" || v.Input.TLS != nil {
		t.Errorf("input %+v", v.Input)
	}
}

// peekingChain looks at headers as an authenticator does.
type peekingChain struct{ got map[string]string }

func (c peekingChain) Authenticate(_ context.Context, r *authn.Request) (*authz.Identity, error) {
	for _, n := range []string{"x-real-ip", "x-user", "cookie", "x-request-id"} {
		c.got[n] = r.Header(n)
	}
	return &authz.Identity{}, nil
}

func (peekingChain) Challenges(error) []string { return nil }

func TestAuthenticatorsSeeWhatThePeerMaySay(t *testing.T) {
	for _, trusted := range []bool{false, true} {
		j := newJudge(t, &authz.Decision{Allow: true})
		chain := peekingChain{map[string]string{}}
		j.cfg.Chains[0] = chain
		a := arrival("GET", "/v1/orders/42", authz.Header{Name: "x-real-ip", Value: "203.0.113.9"},
			authz.Header{Name: "x-user", Value: "root"}, authz.Header{Name: "cookie", Value: "s=1"})
		if trusted {
			a.Listener.Trusted = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		}
		if v := j.Judge(context.Background(), a); v.Err != nil {
			t.Fatal(v.Err)
		}
		if (chain.got["x-real-ip"] != "") != trusted || chain.got["x-user"] != "" || chain.got["cookie"] != "s=1" {
			t.Errorf("trusted %v: saw %v", trusted, chain.got)
		}
	}
}

// TestNoRouteRestsOnWhatClientsMayNotSend: also where nobody refused such a route.
func TestNoRouteRestsOnWhatClientsMayNotSend(t *testing.T) {
	for header, trusted := range map[string]bool{"x-user": true, "x-request-id": true, "x-forwarded-host": false, "forwarded": false} {
		rest := route.Config{Name: "rest", Authenticate: []string{"a"}, Upstream: "u"}
		root := rest
		root.Name, root.Match.Headers = "root", map[string]string{header: "root"}
		j := newJudge(t, &authz.Decision{Allow: true}, root, rest)
		a := arrival("GET", "/x", authz.Header{Name: header, Value: "root"})
		if trusted {
			a.Listener.Trusted = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
		}
		if v := j.Judge(t.Context(), a); v.Err != nil || v.Input.Route.Name != "rest" {
			t.Errorf("%s: route %q, %v", header, v.Input.Route.Name, v.Err)
		}
		if Absent(nil, trusted)(header) == "" {
			t.Errorf("%s may be named", header)
		}
	}
}

func TestPathParametersByOption(t *testing.T) {
	tests := []struct {
		path string
		ok   bool
	}{
		{"/a;x=1/b", true},
		{"/;x", false},
		{"/a/..;x/b", false},
		{"/a/.;x", false},
		{"/a;x=%2f", false},
	}
	for _, tc := range tests {
		if _, err := checkPath(tc.path, true, nil); (err == nil) != tc.ok {
			t.Errorf("%s with parameters: %v", tc.path, err)
		}
		if _, err := checkPath(tc.path, false, nil); err == nil {
			t.Errorf("%s without parameters is accepted", tc.path)
		}
	}
}

// FuzzPath: a path that is accepted has one reading. Every way in which servers
// normalize must give the segments that were judged.
func FuzzPath(f *testing.F) {
	for _, s := range []string{
		"/", "/a/b", "/a%20b/", "/%C3%A9", "/..", "/a/../b", "//", "/%2e", "/%252e", "/a%2fb", "/a;b", "/%7e", "/100%25", "/%25zz", "/\\", "/%00",
		"/%25%32%65", "/...", "/.a", "/a.", "/{x}", "/a:b", "/%E2%82%AC", "/%c0%ae", "/%uff0e",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, p string) {
		segments, err := checkPath(p, false, nil)
		if err != nil {
			return
		}
		decoded, err := url.PathUnescape(p)
		if err != nil {
			t.Fatalf("%q: accepted, but net/url cannot decode it: %v", p, err)
		}
		if got := "/" + strings.Join(segments, "/"); got != decoded {
			t.Fatalf("%q: judged as %q, decoded as %q", p, got, decoded)
		}
		for name, reading := range map[string]string{
			"decoded": decoded, "raw": p, "backslashes": strings.ReplaceAll(decoded, `\`, "/"),
			"parameters cut": cutParameters(p), "twice decoded": twice(decoded),
		} {
			if cleaned := clean(reading); cleaned != reading {
				t.Fatalf("%q, %s: %q is cleaned to %q", p, name, reading, cleaned)
			}
			if strings.Count(reading, "/") != strings.Count(p, "/") {
				t.Fatalf("%q, %s: %q has other segments", p, name, reading)
			}
		}
		if twice(decoded) != decoded {
			t.Fatalf("%q: decoding twice changes it", p)
		}
		if u, err := url.ParseRequestURI(p); err != nil || u.Host != "" || u.Path != decoded {
			t.Fatalf("%q: net/url reads %+v, %v", p, u, err)
		}
	})
}

// clean is path.Clean that keeps a trailing slash.
func clean(p string) string {
	c := path.Clean(p)
	if strings.HasSuffix(p, "/") && c != "/" {
		c += "/"
	}
	return c
}

func cutParameters(p string) string {
	parts := strings.Split(p, "/")
	for i := range parts {
		parts[i], _, _ = strings.Cut(parts[i], ";")
	}
	return strings.Join(parts, "/")
}

func twice(decoded string) string {
	if again, err := url.PathUnescape(decoded); err == nil {
		return again
	}
	return decoded
}

func TestPathSeeds(t *testing.T) {
	for p, want := range map[string]bool{
		"/": true, "/a/b/": true, "/a%20b": true, "/%7Ea": true, "/100%25": true, "/%25zz": true, "/...": true,
		"": false, "a": false, "/.": false, "/..": false, "//": false, "/a//": false, "/%2e": false, "/%2F": false, "/%5C": false,
		"/%00": false, "/%1f": false, "/%252e": false, "/%25%32%65": false, "/%c0%ae": false, "/%61": false, "/%": false, "/a b": false,
	} {
		if _, err := checkPath(p, false, nil); (err == nil) != want {
			t.Errorf("%q: %v, want accepted %v", p, err, want)
		}
	}
}

func TestHosts(t *testing.T) {
	tests := []struct {
		in, host string
		port     int
		ok       bool
	}{
		{"Example.COM", "example.com", 0, true},
		{"a:8080", "a", 8080, true},
		{"[2001:DB8::1]:443", "[2001:db8::1]", 443, true},
		{"[::1]", "[::1]", 0, true},
		{"127.0.0.1", "127.0.0.1", 0, true},
		{"a_b.svc", "a_b.svc", 0, true},
		{"", "", 0, false},
		{"a@b", "", 0, false},
		{"a:b@c", "", 0, false},
		{"a:", "", 0, false},
		{"a:65536", "", 0, false},
		{"a:+80", "", 0, false},
		{"a:80:80", "", 0, false},
		{"[::1", "", 0, false},
		{"[::1]x", "", 0, false},
		{"[fe80::1%25eth0]", "", 0, false},
		{"[127.0.0.1]", "", 0, false},
		{"::1", "", 0, false},
		{"a..b", "", 0, false},
		{".a", "", 0, false},
		{"a.", "", 0, false},
		{"a%2eb", "", 0, false},
		{"a/b", "", 0, false},
		{"a b", "", 0, false},
		{"ä.example", "", 0, false},
	}
	for _, tc := range tests {
		host, port, err := splitHost(tc.in)
		if (err == nil) != tc.ok || host != tc.host || port != tc.port {
			t.Errorf("%q: %q %d %v", tc.in, host, port, err)
		}
	}
}

func TestInventedIDsAreNotTaken(t *testing.T) {
	for id, want := range map[string]bool{"abc-123": true, "": false, "a b": false, "a\"b": false, "<x>": false, strings.Repeat("a", 129): false} {
		if validID(id) != want {
			t.Errorf("%q: accepted %v", id, !want)
		}
	}
}

func TestForwardedCertificateNeedsOne(t *testing.T) {
	leaf := &x509.Certificate{SerialNumber: big.NewInt(1)}
	for name, tc := range map[string]struct {
		tls  *tls.ConnectionState
		want bool
	}{
		"plain":          {nil, false},
		"no certificate": {&tls.ConnectionState{}, false},
		"mutual":         {&tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf}}}, true},
	} {
		for _, header := range []string{"x-forwarded-client-cert", "client-cert", "client-cert-chain"} {
			for from, trusted := range map[string]bool{"192.0.2.0/24": true, "203.0.113.0/24": false} {
				a := arrival("GET", "/v1/orders/1", authz.Header{Name: header, Value: "Hash=1"})
				a.Listener.Trusted, a.TLS = []netip.Prefix{netip.MustParsePrefix(from)}, tc.tls
				v := newJudge(t, &authz.Decision{Allow: true}).Judge(context.Background(), a)
				got := slices.ContainsFunc(v.Forward.Headers, func(h authz.Header) bool { return h.Name == header })
				if want := tc.want && trusted; got != want {
					t.Errorf("%s, %s, trusted %v: forwarded %v, want %v", name, header, trusted, got, want)
				}
			}
		}
	}
}

// TestForwardedCertificateOfAListedProxy: where authenticators believe some proxies only,
// an upstream hears of no client's certificate from others.
func TestForwardedCertificateOfAListedProxy(t *testing.T) {
	leaf := &x509.Certificate{SerialNumber: big.NewInt(1)}
	believes := func(yes bool) func(*authn.Request) bool {
		return func(r *authn.Request) bool {
			if !r.Trusted || r.TLS == nil {
				t.Errorf("asked about %+v", r)
			}
			return yes
		}
	}
	for name, tc := range map[string]struct {
		vouchers []func(*authn.Request) bool
		want     int
	}{
		"nobody has a list": {nil, 1},
		"listed":            {[]func(*authn.Request) bool{believes(false), believes(true)}, 1},
		"not listed":        {[]func(*authn.Request) bool{believes(false), believes(false)}, 0},
	} {
		for _, header := range []string{"x-forwarded-client-cert", "client-cert", "client-cert-chain", "x-forwarded.client-cert"} {
			a := arrival("GET", "/v1/orders/1", authz.Header{Name: header, Value: "Hash=1"}, authz.Header{Name: "x-real-ip", Value: "192.0.2.9"})
			a.Listener.Trusted = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
			a.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}, VerifiedChains: [][]*x509.Certificate{{leaf}}}
			j := newJudge(t, &authz.Decision{Allow: true})
			j.cfg.Vouchers = tc.vouchers
			v := j.Judge(context.Background(), a)
			if got := len(values(v.Forward.Headers, header)); got != tc.want {
				t.Errorf("%s: %s is forwarded %d times, want %d", name, header, got, tc.want)
			}
			if len(values(v.Forward.Headers, "x-real-ip")) != 1 {
				t.Errorf("%s: other headers of a trusted peer are not forwarded", name)
			}
		}
	}
}

// TestSPIFFEIDIsOnlyThatOfAnSVID: what the policy reads as SPIFFE ID is what the
// mTLS authenticator would take for one.
func TestSPIFFEIDIsOnlyThatOfAnSVID(t *testing.T) {
	uri := func(s string) *url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	tests := map[string]struct {
		cert x509.Certificate
		want string
	}{
		"an SVID":       {x509.Certificate{URIs: []*url.URL{uri("spiffe://example.org/a")}}, "spiffe://example.org/a"},
		"can sign":      {x509.Certificate{URIs: []*url.URL{uri("spiffe://example.org/a")}, IsCA: true}, ""},
		"another URI":   {x509.Certificate{URIs: []*url.URL{uri("spiffe://example.org/a"), uri("https://example.org")}}, ""},
		"dot segments":  {x509.Certificate{URIs: []*url.URL{uri("spiffe://example.org/a/../b")}}, ""},
		"with userinfo": {x509.Certificate{URIs: []*url.URL{uri("spiffe://x@example.org/a")}}, ""},
	}
	for name, tc := range tests {
		tc.cert.SerialNumber = big.NewInt(1)
		a := arrival("GET", "/v1/orders/1")
		a.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{&tc.cert}, VerifiedChains: [][]*x509.Certificate{{&tc.cert}}}
		v := newJudge(t, &authz.Decision{Allow: true}).Judge(context.Background(), a)
		if got := v.Input.TLS.ClientCertificate.SPIFFEID; got != tc.want {
			t.Errorf("%s: SPIFFE ID %q, want %q", name, got, tc.want)
		}
	}
}

// Words of a value are looked at at once: whatever byte is bad, wherever it
// stands, it is found, and nothing else is.
func TestValuesAreCheckedByteByByte(t *testing.T) {
	naive := func(s string) bool {
		for i := range len(s) {
			if c := s[i]; c < 0x20 && c != '\t' || c == 0x7f {
				return false
			}
		}
		return utf8.ValidString(s)
	}
	for size := range 18 {
		for at := range size {
			for c := range 256 {
				for _, fill := range []byte{'a', ' ', '~', '\t', 0x1f, 0x80} {
					value := bytes.Repeat([]byte{fill}, size)
					value[at] = byte(c)
					if got, want := checkValue(string(value)) == nil, naive(string(value)); got != want {
						t.Fatalf("%q is taken: %v, want %v", value, got, want)
					}
				}
			}
		}
	}
}

// What one request found out about the headers of a shared decision counts for the
// next, and not for a judge with another configuration.
func TestHeadersOfASharedDecisionAreCheckedOnce(t *testing.T) {
	d := &authz.Decision{Allow: true, Memo: &authz.Memo{}}
	d.Upstream.SetHeaders = map[string]string{"X-Role": "reader", "x-user": "alice"}
	get := arrival("GET", "/v1/orders/1", authz.Header{Name: "x-role", Value: "admin"})
	first, other := newJudge(t, d), newJudge(t, d)
	want := headerLines(first.Judge(t.Context(), get).Forward)
	if !strings.Contains(want, "x-role: reader") || strings.Contains(want, "admin") {
		t.Fatalf("sent %s", want)
	}
	d.Upstream.SetHeaders["transfer-encoding"] = "chunked" // nothing does that but this test
	if v := first.Judge(t.Context(), get); v.Forward == nil || headerLines(v.Forward) != want {
		t.Errorf("checked again, or sent something else: %+v", v)
	}
	if v := other.Judge(t.Context(), get); v.Forward != nil {
		t.Errorf("another judge forwards what it never checked: %s", headerLines(v.Forward))
	}
	d.Memo = nil
	if v := first.Judge(t.Context(), get); v.Forward != nil {
		t.Errorf("a decision of its own is forwarded unchecked: %s", headerLines(v.Forward))
	}
}

// headerLines are the headers that are forwarded, but for the request's own ID.
func headerLines(f *Forward) string {
	var b strings.Builder
	for _, h := range f.Headers {
		if h.Name != "x-request-id" {
			fmt.Fprintf(&b, "%s: %s\n", h.Name, h.Value)
		}
	}
	return b.String()
}

// TestUnseen: what it says of a name is what becomes of a header with it.
func TestUnseen(t *testing.T) {
	identity, credentials := []string{"X-Plan"}, []string{"x-shop-key"}
	j := &Judge{classes: newClasses(identity, credentials)}
	unseen := Unseen(identity, credentials)
	for name, want := range map[string]bool{
		"x-tenant": true, "accept": true, "user-agent": true,
		"x-plan": false, "x_plan": false, "x-user": false, "x-shop-key": false, "authorization": false, "cookie": false,
		"host": false, "connection": false, "forwarded": false, "x-forwarded-for": false, "client-cert": false,
	} {
		got, _ := j.visible(&Arrival{Headers: []authz.Header{{Name: name, Value: "a"}}}, nil)
		if seen := len(got) == 1; seen != want || (unseen(strings.ToUpper(name)) == "") != want {
			t.Errorf("%s: seen %v, want %v; said %q", name, seen, want, unseen(name))
		}
	}
}
