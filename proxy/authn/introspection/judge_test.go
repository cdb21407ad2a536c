package introspection_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/anonymous"
	"github.com/sallyport/sallyport/proxy/authn/introspection"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
	"github.com/sallyport/sallyport/proxy/authn/jwt"
	"github.com/sallyport/sallyport/proxy/judge"
	"github.com/sallyport/sallyport/proxy/route"
)

// key is the one that an issuer of JWTs signs with, and a file with its set.
type key struct {
	*josetest.Signer
	file string
}

func newKey(t *testing.T) *key {
	t.Helper()
	k := &key{josetest.New(t, "k1", "ES256"), filepath.Join(t.TempDir(), "jwks.json")}
	if err := os.WriteFile(k.file, []byte(josetest.JWKS(t, k.Signer)), 0o600); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *key) sign(t *testing.T, claims map[string]any) string {
	t.Helper()
	return k.Sign(t, k.Header(), claims)
}

// gateway judges requests with an introspecting authenticator and one for JWTs.
type gateway struct {
	judge *judge.Judge
	asked atomic.Int64
}

type decider struct{}

func (decider) Decide(context.Context, *authz.Input) (*authz.Decision, error) {
	return &authz.Decision{Allow: true}, nil
}

// Headers shows the upstream the token that stands for the caller.
func (*gateway) Headers(_ context.Context, o *judge.Outgoing) ([]authz.Header, error) {
	return []authz.Header{{Name: "authorization", Value: "Bearer " + o.Caller.Token}}, nil
}

// routes are path /read, which requires a scope, /other, which requires one that the
// token lacks, /billing, which requires another audience, and all others.
func routes(names []string) []route.Config {
	named := func(name, path string, r route.Require) route.Config {
		return route.Config{Name: name, Match: route.Match{Path: path}, Authenticate: names, Upstream: "u", Require: r}
	}
	return []route.Config{
		named("read", "/read", route.Require{Scopes: []string{"orders.read"}, Audiences: []string{"orders-api"}}),
		named("other", "/other", route.Require{Scopes: []string{"orders.admin"}}),
		named("billing", "/billing", route.Require{Audiences: []string{"billing-api"}}),
		named("rest", "/**", route.Require{}),
	}
}

func newGateway(t *testing.T, k *key, order []string, change func(*introspection.Config), answer http.HandlerFunc) *gateway {
	t.Helper()
	g := &gateway{}
	idp := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g.asked.Add(1)
		answer(w, r)
	}))
	t.Cleanup(idp.Close)
	c := introspection.Default()
	c.URL, c.ClientID, c.ClientSecretFile = idp.URL, "gw", filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(c.ClientSecretFile, []byte("s3cret"), 0o600); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&c)
	}
	opaque, err := introspection.New("opaque", c, introspection.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = opaque.Run(ctx) // closes its connections
	})
	j := jwt.Default()
	j.Issuer, j.Audiences, j.JWKSFile, j.Algorithms = "https://corp.example", []string{"orders-api"}, k.file, []string{"ES256"}
	corp, err := jwt.New("corp", j, jwt.Deps{})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]authn.Authenticator{"opaque": opaque, "corp": corp, "anyone": anonymous.New("anyone", anonymous.Config{})}
	var links []authn.Named
	for _, name := range order {
		links = append(links, authn.Named{Name: name, Authenticator: all[name]})
	}
	chain, err := authn.New(links, nil)
	if err != nil {
		t.Fatal(err)
	}
	cfg := judge.Config{Decider: decider{}, Upstream: func(string) bool { return true }}
	for range routes(order) {
		cfg.Chains, cfg.Outbound = append(cfg.Chains, chain), append(cfg.Outbound, g)
	}
	if cfg.Routes, err = route.New(routes(order)); err != nil {
		t.Fatal(err)
	}
	g.judge = judge.New(cfg)
	return g
}

// get returns the status that a client sees, 0 for a request that is forwarded.
func (g *gateway) get(t *testing.T, path, token string) (int, *judge.Verdict) {
	t.Helper()
	a := &judge.Arrival{
		Listener: &judge.Listener{Gateway: &authz.Gateway{}}, Method: http.MethodGet, Target: path, Protocol: "HTTP/1.1",
		Headers: []authz.Header{{Name: "host", Value: "api.example.com"}}, Peer: netip.MustParseAddrPort("192.0.2.1:4711"), Time: time.Now(),
	}
	if token != "" {
		a.Headers = append(a.Headers, authz.Header{Name: "authorization", Value: "Bearer " + token})
	}
	v := g.judge.Judge(t.Context(), a)
	if v.Answer != nil {
		return v.Answer.Status, v
	}
	return 0, v
}

func says(answer string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) }
}

// TestRequirementsHoldOnCacheHits: what was found out for one route opens no other
// (the bypass of GHSA-qvp4-rpmr-xwrr).
func TestRequirementsHoldOnCacheHits(t *testing.T) {
	g := newGateway(t, newKey(t), []string{"opaque"}, nil, says(`{"active":true,"sub":"alice","scope":"orders.read","aud":"orders-api"}`))
	for range 2 {
		for path, want := range map[string]int{"/read": 0, "/other": 403, "/billing": 401, "/": 0} {
			if got, v := g.get(t, path, "token"); got != want {
				t.Errorf("%s: status %d, want %d (%v)", path, got, want, v.Err)
			}
		}
	}
	if n := g.asked.Load(); n != 1 {
		t.Errorf("the provider was asked %d times; the later requests were to be cache hits", n)
	}
}

// TestOrders: which of two authenticators judges which token, in both orders.
func TestOrders(t *testing.T) {
	k, stranger := newKey(t), newKey(t)
	claims := func(issuer string) map[string]any {
		return map[string]any{"iss": issuer, "aud": "orders-api", "sub": "bob", "iat": time.Now().Unix(), "exp": time.Now().Add(time.Hour).Unix()}
	}
	mine, foreign, forged := k.sign(t, claims("https://corp.example")), k.sign(t, claims("https://other.example")), stranger.sign(t, claims("https://corp.example"))
	answer := func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("token") == "good" || r.FormValue("token") == foreign {
			_, _ = io.WriteString(w, `{"active":true,"sub":"alice"}`)
			return
		}
		_, _ = io.WriteString(w, `{"active":false}`)
	}
	type outcome struct {
		status        int
		authenticator string
		asked         int64
	}
	no := outcome{status: 401}
	for _, tt := range []struct {
		name  string
		order []string
		all   bool
		want  map[string]outcome
	}{
		{"corp first", []string{"corp", "opaque", "anyone"}, false, map[string]outcome{
			"good": {0, "opaque", 1}, "bad": {401, "", 1}, mine: {0, "corp", 0}, foreign: no, forged: no, "": {0, "anyone", 0},
		}},
		{"opaque first", []string{"opaque", "corp", "anyone"}, false, map[string]outcome{
			"good": {0, "opaque", 1}, "bad": {401, "", 1}, mine: {0, "corp", 0}, foreign: no, forged: no, "": {0, "anyone", 0},
		}},
		{"corp first, all tokens", []string{"corp", "opaque", "anyone"}, true, map[string]outcome{
			"good": {0, "opaque", 1}, "bad": {401, "", 1}, mine: {0, "corp", 0}, foreign: {0, "opaque", 1}, forged: no, "": {0, "anyone", 0},
		}},
		{"opaque first, all tokens", []string{"opaque", "corp", "anyone"}, true, map[string]outcome{
			"good": {0, "opaque", 1}, "bad": {401, "", 1}, mine: {401, "", 1}, foreign: {0, "opaque", 1}, forged: {401, "", 1}, "": {0, "anyone", 0},
		}},
		{"opaque alone", []string{"opaque"}, false, map[string]outcome{
			"good": {0, "opaque", 1}, "bad": {401, "", 1}, mine: no, foreign: no, forged: no, "": no,
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g := newGateway(t, k, tt.order, func(c *introspection.Config) { c.AllTokens = tt.all }, answer)
			for token, want := range tt.want {
				before := g.asked.Load()
				status, v := g.get(t, "/", token)
				got := outcome{status: status, asked: g.asked.Load() - before}
				if v.Input.Identity != nil {
					got.authenticator = v.Input.Identity.Authenticator
				}
				if got != want {
					t.Errorf("%.12q: %+v, want %+v (%v)", token, got, want, v.Err)
				}
			}
		})
	}
}

// TestPhantomTokenReachesTheUpstream: opaque outside, a JWT inside, also on a hit.
func TestPhantomTokenReachesTheUpstream(t *testing.T) {
	k := newKey(t)
	phantom := k.sign(t, map[string]any{"iss": "https://idp.example", "sub": "alice", "exp": time.Now().Add(time.Hour).Unix()})
	for _, format := range []string{"jwt", "json"} {
		g := newGateway(t, k, []string{"opaque"}, func(c *introspection.Config) {
			if c.Format = format; format == "jwt" {
				c.Issuer, c.JWKSFile, c.Algorithms = "https://idp.example", k.file, []string{"ES256"}
			}
		}, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Accept") == "application/jwt" {
				w.Header().Set("Content-Type", "application/jwt")
				_, _ = io.WriteString(w, phantom)
				return
			}
			_, _ = io.WriteString(w, `{"active":true,"sub":"alice"}`)
		})
		want := map[string]string{"jwt": "Bearer " + phantom, "json": "Bearer opaque-token"}[format]
		for range 2 {
			_, v := g.get(t, "/", "opaque-token")
			if v.Forward == nil {
				t.Fatalf("%s: refused: %v", format, v.Err)
			}
			var got []string
			for _, h := range v.Forward.Headers {
				if h.Name == "authorization" {
					got = append(got, h.Value)
				}
			}
			if len(got) != 1 || got[0] != want {
				t.Errorf("%s: the upstream gets %q, want %.60q", format, got, want)
			}
		}
		if n := g.asked.Load(); n != 1 {
			t.Errorf("%s: asked %d times", format, n)
		}
	}
}

// TestClientsLearnNothing: 401 with one text, 503 while the provider is away.
func TestClientsLearnNothing(t *testing.T) {
	for answer, want := range map[string]int{`{"active":false,"error":"revoked by bob"}`: 401, `garbage from bob`: 503} {
		g := newGateway(t, newKey(t), []string{"opaque", "anyone"}, nil, says(answer))
		status, v := g.get(t, "/", "token")
		if status != want || strings.Contains(string(v.Answer.Body), "bob") || strings.Contains(string(v.Answer.Body), "active") {
			t.Errorf("%s: status %d, want %d; body %s", answer, status, want, v.Answer.Body)
		}
	}
}
