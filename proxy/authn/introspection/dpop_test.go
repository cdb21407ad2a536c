package introspection

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/anonymous"
	"github.com/sallyport/sallyport/proxy/authn/dpop"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
	"github.com/sallyport/sallyport/proxy/certs/certstest"
	"github.com/sallyport/sallyport/proxy/redis"
	"github.com/sallyport/sallyport/proxy/redis/redistest"
)

var proofs int // makes each jti another one

// prove makes a proof for GET https://api.example.com/orders with a token; a nil value
// leaves a claim out.
func (s *signer) prove(token string, change map[string]any) string {
	s.t.Helper()
	proofs++
	hash := sha256.Sum256([]byte(token))
	claims := map[string]any{
		"jti": fmt.Sprint("proof-", proofs), "htm": "GET", "htu": "https://api.example.com/orders", "iat": testNow.Unix(), "ath": josetest.Base64(hash[:]),
	}
	maps.Copy(claims, change)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return s.Sign(s.t, map[string]any{"alg": s.Algorithm, "typ": "dpop+jwt", "jwk": s.Public()}, claims)
}

// proven is a request with the scheme and the proofs given.
func proven(scheme, token string, proofs ...string) *authn.Request {
	r := &authn.Request{
		Authorization: scheme + " " + token, Now: testNow, Client: "192.0.2.1",
		Method: "GET", Scheme: "https", Host: "api.example.com", Path: "/orders", RawQuery: "page=2",
	}
	for _, p := range proofs {
		r.Headers = append(r.Headers, authz.Header{Name: "dpop", Value: p})
	}
	return r
}

func boundTo(s *signer) string {
	return answerOf(map[string]any{"token_type": "DPoP", "cnf": map[string]any{"jkt": s.Thumbprint(s.t)}})
}

// TestDPoP is RFC 9449 section 6.2: a token whose key the provider names is good with a
// proof by that key, asked about once and proven each time.
func TestDPoP(t *testing.T) {
	p, holder := newIDP(t), newSigner(t)
	a := start(t, p.config(t))
	var carrier authn.Carrier = a // what ends at the gateway, also where another credential counts
	if got := carrier.CredentialHeaders(); !cmp.Equal(got, []string{"dpop"}) {
		t.Errorf("proofs come in %v", got)
	}
	for name, kind := range map[string]any{"DPoP": "DPoP", "dpop": "dpop", "bearer": "Bearer", "absent": nil} {
		p.says(answerOf(map[string]any{"token_type": kind, "cnf": map[string]any{"jkt": holder.Thumbprint(t)}}))
		for i := range 2 { // the second time from the cache
			r := proven("DPoP", "token-"+name, holder.prove("token-"+name, nil))
			id, err := a.Authenticate(t.Context(), r)
			if err != nil {
				t.Fatalf("%s, request %d: %v", name, i, err)
			}
			if spent, _ := r.Spent(); id.Subject != "alice" || r.Token != "token-"+name || !cmp.Equal(spent, []string{"dpop"}) {
				t.Errorf("%s: subject %q, token left %q, spent %v", name, id.Subject, r.Token, spent)
			}
		}
	}
	if n := p.asked.Load(); n != 4 {
		t.Errorf("asked %d times, want once for each token", n)
	}
}

// TestDPoPRefused is one row for each thing that must not open, on the first request
// and with the answer in the cache.
func TestDPoPRefused(t *testing.T) {
	p, holder, other := newIDP(t), newSigner(t), newSigner(t)
	good := func(change map[string]any) string { return holder.prove("token", change) }
	ath := sha256.Sum256([]byte("another token"))
	replayed := good(nil)
	for _, tt := range []struct {
		name    string
		r       func() *authn.Request
		proof   bool // what is wrong is the proof
		unbound bool // the answer names no key
	}{
		{"no proof", func() *authn.Request { return proven("DPoP", "token") }, true, false},
		{"two proofs", func() *authn.Request { return proven("DPoP", "token", good(nil), good(nil)) }, true, false},
		{"proof of another key", func() *authn.Request { return proven("DPoP", "token", other.prove("token", nil)) }, true, false},
		{"replayed", func() *authn.Request { return proven("DPoP", "token", replayed) }, true, false},
		{"ath of another token", func() *authn.Request {
			return proven("DPoP", "token", good(map[string]any{"ath": josetest.Base64(ath[:])}))
		}, true, false},
		{"no ath", func() *authn.Request { return proven("DPoP", "token", good(map[string]any{"ath": nil})) }, true, false},
		{"another method", func() *authn.Request { return proven("DPoP", "token", good(map[string]any{"htm": "POST"})) }, true, false},
		{"another path", func() *authn.Request {
			return proven("DPoP", "token", good(map[string]any{"htu": "https://api.example.com/"}))
		}, true, false},
		{"another host", func() *authn.Request {
			return proven("DPoP", "token", good(map[string]any{"htu": "https://evil.example/orders"}))
		}, true, false},
		{"http for https", func() *authn.Request {
			return proven("DPoP", "token", good(map[string]any{"htu": "http://api.example.com/orders"}))
		}, true, false},
		{"too old", func() *authn.Request {
			return proven("DPoP", "token", good(map[string]any{"iat": testNow.Unix() - 91}))
		}, true, false},
		{"bound token as bearer", func() *authn.Request { return proven("Bearer", "token", good(nil)) }, false, false},
		{"bound token as bearer without proof", func() *authn.Request { return proven("Bearer", "token") }, false, false},
		{"free token with a proof", func() *authn.Request { return proven("DPoP", "token", good(nil)) }, false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if p.says(boundTo(holder)); tt.unbound {
				p.says(answerOf(nil))
			}
			a := start(t, p.config(t))
			if _, err := a.Authenticate(t.Context(), proven("DPoP", "token", replayed)); (err == nil) == tt.unbound {
				t.Fatalf("a good proof: %v", err)
			}
			for _, at := range []*Authenticator{start(t, p.config(t)), a} {
				if tt.name == "replayed" {
					at = a
				}
				_, err := at.Authenticate(t.Context(), tt.r())
				if !errors.Is(err, authn.ErrInvalid) || errors.Is(err, authn.ErrNotMine) || errors.Is(err, dpop.ErrProof) != tt.proof {
					t.Errorf("got %v, want ErrInvalid, because of the proof: %v", err, tt.proof)
				}
			}
		})
	}
}

// TestDPoPIsNobodys: a bound token that is refused never falls through to anonymous,
// and only the challenge of its own scheme names an error.
func TestDPoPIsNobodys(t *testing.T) {
	p, holder := newIDP(t), newSigner(t)
	const realm, algs = `realm="sallyport"`, `algs="ES256 ES384 EdDSA PS256 RS256"`
	const bad = `, error="invalid_token", error_description="The access token is not acceptable"`
	for name, tt := range map[string]struct {
		authorization, answer string
		change                func(*Config)
		challenges            []string
	}{
		"made up":          {"DPoP made-up", `{"active":false}`, nil, []string{"DPoP " + realm + ", " + algs + bad, "Bearer " + realm}},
		"a JWT":            {"DPoP eyJhIjoxfQ.e30.AA", boundTo(holder), nil, []string{"DPoP " + realm + ", " + algs + bad, "Bearer " + realm}},
		"no token":         {"DPoP", "", nil, []string{"DPoP " + realm + ", " + algs + bad, "Bearer " + realm}},
		"bound as bearer":  {"Bearer token", boundTo(holder), nil, []string{"Bearer " + realm + bad, "DPoP " + realm + ", " + algs}},
		"without proof":    {"DPoP token", boundTo(holder), nil, []string{"DPoP " + realm + ", " + algs + `, error="invalid_dpop_proof", error_description="The DPoP proof is not acceptable"`, "Bearer " + realm}},
		"free, required":   {"Bearer token", answerOf(nil), func(c *Config) { c.DPoP.Required = true }, []string{"DPoP " + realm + ", " + algs + bad}},
		"type, and no key": {"DPoP token", answerOf(map[string]any{"token_type": "DPoP"}), nil, []string{"DPoP " + realm + ", " + algs + bad, "Bearer " + realm}},
		"type, and a certificate": {
			"DPoP token", answerOf(map[string]any{"token_type": "DPoP", "cnf": map[string]any{"x5t#S256": "AA"}}), nil,
			[]string{"DPoP " + realm + ", " + algs + bad, "Bearer " + realm},
		},
	} {
		t.Run(name, func(t *testing.T) {
			p.says(tt.answer)
			c := p.config(t)
			if tt.change != nil {
				tt.change(&c)
			}
			chain, err := authn.New([]authn.Named{{Name: "opaque", Authenticator: start(t, c)}, {Name: "anyone", Authenticator: anonymous.New("anyone", anonymous.Config{})}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			r := proven("", "")
			r.Authorization = tt.authorization
			id, err := chain.Authenticate(t.Context(), r)
			if !errors.Is(err, authn.ErrInvalid) {
				t.Fatalf("got %+v, %v, want ErrInvalid", id, err)
			}
			if diff := cmp.Diff(tt.challenges, chain.Challenges(err)); diff != "" {
				t.Errorf("challenges (-want +got):\n%s", diff)
			}
		})
	}
}

// TestDPoPNonceAndReload: the nonce of the refusal opens, and a reload forgets neither
// it nor the proofs.
func TestDPoPNonceAndReload(t *testing.T) {
	p, holder := newIDP(t), newSigner(t)
	p.says(boundTo(holder))
	c := p.config(t)
	c.DPoP.Nonce = true
	a := start(t, c)
	r := proven("DPoP", "token", holder.prove("token", nil))
	_, err := a.Authenticate(t.Context(), r)
	if !errors.Is(err, dpop.ErrNonce) || len(r.Response) != 1 || r.Response[0].Name != "dpop-nonce" {
		t.Fatalf("without a nonce: %v, response fields %v", err, r.Response)
	}
	if got := a.Challenges(err)[0]; !strings.HasPrefix(got, "DPoP ") || !strings.Contains(got, `error="use_dpop_nonce"`) {
		t.Errorf("challenge %s", got)
	}
	proof := holder.prove("token", map[string]any{"nonce": r.Response[0].Value})
	if _, err := a.Authenticate(t.Context(), proven("DPoP", "token", proof)); err != nil {
		t.Errorf("with the nonce: %v", err)
	}
	c.MaxAge = time.Second
	next := start(t, c)
	next.Inherit(a)
	if _, err := next.Authenticate(t.Context(), proven("DPoP", "token", proof)); !errors.Is(err, dpop.ErrProof) {
		t.Errorf("the same proof after a reload: %v, want ErrProof", err)
	}
	proof = holder.prove("token", map[string]any{"nonce": r.Response[0].Value})
	if _, err := next.Authenticate(t.Context(), proven("DPoP", "token", proof)); err != nil {
		t.Errorf("with the same nonce after a reload: %v", err)
	}
}

// TestDPoPReplicas: a proof that one replica accepted is refused by the other.
func TestDPoPReplicas(t *testing.T) {
	p, holder := newIDP(t), newSigner(t)
	p.says(boundTo(holder))
	server := redistest.Start(t, t.TempDir(), redistest.ByPassword)
	c := p.config(t)
	c.DPoP.ReplayRedis = &redis.Config{Server: redis.Server{Address: server.Address, PasswordFile: server.File("password", redistest.Password+"\n")}}
	a, b := start(t, c), start(t, c)
	proof := holder.prove("token", nil)
	if _, err := a.Authenticate(t.Context(), proven("DPoP", "token", proof)); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Authenticate(t.Context(), proven("DPoP", "token", proof)); !errors.Is(err, dpop.ErrProof) {
		t.Errorf("at the other: %v, want ErrProof", err)
	}
	server.Kill()
	_, err := b.Authenticate(t.Context(), proven("DPoP", "token", holder.prove("token", nil)))
	if !errors.Is(err, authn.ErrUnavailable) || errors.Is(err, authn.ErrInvalid) {
		t.Errorf("without Redis: %v, want ErrUnavailable", err)
	}
	redistest.ReadsPassword(t, a, c.DPoP.ReplayRedis.PasswordFile)
}

// TestBoundTwice: a token that is bound to a certificate and to a key needs both.
func TestBoundTwice(t *testing.T) {
	ca := certstest.NewCA(t, "clients")
	mine := ca.Issue(t, "mine", nil)
	sum := sha256.Sum256(mine.Leaf.Raw)
	p, holder := newIDP(t), newSigner(t)
	p.says(answerOf(map[string]any{"token_type": "DPoP", "cnf": map[string]any{"x5t#S256": josetest.Base64(sum[:]), "jkt": holder.Thumbprint(t)}}))
	a := start(t, p.config(t))
	with := &tls.ConnectionState{
		HandshakeComplete: true, PeerCertificates: []*x509.Certificate{mine.Leaf}, VerifiedChains: [][]*x509.Certificate{{mine.Leaf, ca.Certificate}},
	}
	for _, tt := range []struct {
		name   string
		scheme string
		tls    *tls.ConnectionState
		want   error
	}{
		{"both", "DPoP", with, nil}, {"proof alone", "DPoP", nil, authn.ErrInvalid}, {"certificate alone", "Bearer", with, authn.ErrInvalid},
	} {
		r := proven(tt.scheme, "token", holder.prove("token", nil))
		r.TLS = tt.tls
		if _, err := a.Authenticate(t.Context(), r); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

// TestForgedProofs: a client that signs proofs with keys that they do not name has few
// of them checked, and no question is asked for them.
func TestForgedProofs(t *testing.T) {
	p, holder := newIDP(t), newSigner(t)
	p.says(boundTo(holder))
	a := start(t, p.config(t))
	forged := holder.prove("token", nil)
	forged = forged[:len(forged)-8] + "AAAAAAAA"
	var last error
	for range 201 {
		_, last = a.Authenticate(t.Context(), proven("DPoP", "token", forged))
	}
	if tooMany := (*authn.TooManyError)(nil); !errors.As(last, &tooMany) || tooMany.RetryAfter <= 0 || errors.Is(last, authn.ErrInvalid) {
		t.Errorf("after 200 forged proofs: %v, want ErrTooMany", last)
	}
	r := proven("DPoP", "token", holder.prove("token", nil))
	if r.Client = "192.0.2.2"; p.asked.Load() != 1 {
		t.Errorf("asked %d times, want once", p.asked.Load())
	}
	if _, err := a.Authenticate(t.Context(), r); err != nil {
		t.Errorf("another client: %v", err)
	}
}
