package jwt

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/meter"
	"github.com/sallyport/sallyport/engine/meter/metertest"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/dpop"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
	"github.com/sallyport/sallyport/proxy/redis"
	"github.com/sallyport/sallyport/proxy/redis/redistest"
)

func ath(token string) string {
	h := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(h[:])
}

// changed returns base with the members of change; nil removes one.
func changed(base, change map[string]any) map[string]any {
	out := maps.Clone(base)
	maps.Copy(out, change)
	maps.DeleteFunc(out, func(_ string, v any) bool { return v == nil })
	return out
}

var proofs int // makes each jti another one

// prove makes a proof for GET https://api.example.com/orders, changed as asked.
func prove(t testing.TB, s *josetest.Signer, token string, header, claims map[string]any) string {
	t.Helper()
	proofs++
	return s.Sign(t,
		changed(map[string]any{"typ": "dpop+jwt", "alg": s.Algorithm, "jwk": s.Public()}, header),
		changed(map[string]any{
			"jti": fmt.Sprint("proof-", proofs), "htm": "GET", "htu": "https://api.example.com/orders",
			"iat": testNow.Unix(), "ath": ath(token),
		}, claims))
}

func proven(token string, proofs ...string) *authn.Request {
	r := &authn.Request{
		Authorization: "DPoP " + token, Now: testNow, Client: "192.0.2.1",
		Method: "GET", Scheme: "https", Host: "api.example.com", Path: "/orders", RawQuery: "page=2",
	}
	for _, p := range proofs {
		r.Headers = append(r.Headers, authz.Header{Name: "dpop", Value: p})
	}
	return r
}

func boundToken(t testing.TB, issuer, holder *josetest.Signer, change map[string]any) string {
	t.Helper()
	return issuer.Sign(t, issuer.Header(), claims(testIssuer, changed(
		map[string]any{"cnf": map[string]any{"jkt": holder.Thumbprint(t)}}, change)))
}

func TestDPoPAccepted(t *testing.T) {
	issuer := josetest.New(t, "k1", "ES256")
	a := newFromFile(t, nil, issuer)
	var carrier authn.Carrier = a // what ends at the gateway, also where another credential counts
	if got := carrier.CredentialHeaders(); !cmp.Equal(got, []string{"dpop"}) {
		t.Errorf("proofs come in %v", got)
	}
	for _, alg := range dpop.Default().Algorithms {
		holder := josetest.New(t, "", alg)
		token := boundToken(t, issuer, holder, nil)
		for range 2 { // the second time the token comes from the cache
			r := proven(token, prove(t, holder, token, nil, nil))
			id, err := a.Authenticate(t.Context(), r)
			if err != nil {
				t.Errorf("%s: %v", alg, err)
				continue
			}
			if spent, _ := r.Spent(); id.Subject != "alice" || r.Token != token || !cmp.Equal(spent, []string{"dpop"}) {
				t.Errorf("%s: subject %q, token left %v, spent %v", alg, id.Subject, r.Token == token, spent)
			}
		}
	}
	holder := josetest.New(t, "", "ES256")
	token := boundToken(t, issuer, holder, nil)
	for name, change := range map[string]map[string]any{
		"oldest":                {"iat": testNow.Add(-90 * time.Second).Unix()},
		"fast clock":            {"iat": testNow.Add(30 * time.Second).Unix()},
		"fraction":              {"iat": float64(testNow.Unix()) - 0.5},
		"host in capitals":      {"htu": "HTTPS://API.example.com/orders"},
		"default port":          {"htu": "https://api.example.com:443/orders"},
		"query and fragment":    {"htu": "https://api.example.com/orders?page=2#top"},
		"escape of a letter":    {"htu": "https://api.example.com/%6frders"},
		"unknown further claim": {"x": 1},
	} {
		if _, err := a.Authenticate(t.Context(), proven(token, prove(t, holder, token, nil, change))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestDPoPRefused is RFC 9449 sections 4.3 and 7.1: one row for each thing that
// must not count as a proof.
func TestDPoPRefused(t *testing.T) {
	issuer, holder, other := josetest.New(t, "k1", "ES256"), josetest.New(t, "", "ES256"), josetest.New(t, "", "ES256")
	rsaHolder := josetest.New(t, "", "RS256")
	a := newFromFile(t, nil, issuer)
	token := boundToken(t, issuer, holder, nil)
	rsaToken := boundToken(t, issuer, rsaHolder, nil)
	with := func(header, claims map[string]any) *authn.Request {
		return proven(token, prove(t, holder, token, header, claims))
	}
	good := func() string { return prove(t, holder, token, nil, nil) }
	request := func(change func(*authn.Request)) *authn.Request {
		r := proven(token, good())
		change(r)
		return r
	}
	jwk := func(change map[string]any) map[string]any {
		return map[string]any{"jwk": changed(holder.Public(), change)}
	}
	broken := good()
	broken = broken[:len(broken)-8] + "AAAAAAAA"
	for _, tt := range []struct {
		name string
		r    *authn.Request
	}{
		{"no proof", proven(token)},
		{"two proofs", proven(token, good(), good())},
		{"empty", proven(token, "")},
		{"garbage", proven(token, "x.y.z")},
		{"huge", proven(token, strings.Repeat("A", 9<<10))},
		{"the token itself", proven(token, token)},
		{"typ JWT", with(map[string]any{"typ": "JWT"}, nil)},
		{"typ missing", with(map[string]any{"typ": nil}, nil)},
		{"alg none", with(map[string]any{"alg": "none"}, nil)},
		{"alg HS256", with(map[string]any{"alg": "HS256"}, nil)},
		{"alg that is not listed", with(map[string]any{"alg": "ES512"}, nil)},
		{"alg of another key", with(map[string]any{"alg": "EdDSA"}, nil)},
		{"no jwk", with(map[string]any{"jwk": nil}, nil)},
		{"jwk is text", with(map[string]any{"jwk": "x"}, nil)},
		{"jwk with d", with(jwk(map[string]any{"d": "AQAB"}), nil)},
		{"jwk with p", with(jwk(map[string]any{"p": "AQAB"}), nil)},
		{"jwk off the curve", with(jwk(map[string]any{"x": josetest.Base64(make([]byte, 32))}), nil)},
		{"jwk for encryption", with(jwk(map[string]any{"use": "enc"}), nil)},
		{"jwk of a shared secret", with(map[string]any{"jwk": map[string]any{"kty": "oct", "k": josetest.Base64(make([]byte, 32))}}, nil)},
		{"crit", with(map[string]any{"crit": []string{"exp"}}, nil)},
		{"jku", with(map[string]any{"jku": "https://evil.example"}, nil)},
		{"signed by another key", proven(token, other.Sign(t, map[string]any{"typ": "dpop+jwt", "alg": "ES256", "jwk": holder.Public()}, map[string]any{}))},
		{"broken signature", proven(token, broken)},
		{"key of somebody else", proven(token, prove(t, other, token, nil, nil))},
		{"small RSA key", proven(rsaToken, prove(t, rsaHolder, rsaToken, map[string]any{"jwk": map[string]any{"kty": "RSA", "e": "AQAB", "n": josetest.Base64(append([]byte{0x80}, make([]byte, 127)...))}}, nil))},
		{"htm of another method", with(nil, map[string]any{"htm": "POST"})},
		{"htm in lower case", with(nil, map[string]any{"htm": "get"})},
		{"htm missing", with(nil, map[string]any{"htm": nil})},
		{"htu missing", with(nil, map[string]any{"htu": nil})},
		{"htu of another path", with(nil, map[string]any{"htu": "https://api.example.com/order"})},
		{"htu in other case", with(nil, map[string]any{"htu": "https://api.example.com/Orders"})},
		{"htu of another host", with(nil, map[string]any{"htu": "https://evil.example/orders"})},
		{"htu of another scheme", with(nil, map[string]any{"htu": "http://api.example.com/orders"})},
		{"htu of another port", with(nil, map[string]any{"htu": "https://api.example.com:8443/orders"})},
		{"htu with a user", with(nil, map[string]any{"htu": "https://u@api.example.com/orders"})},
		{"htu is a path", with(nil, map[string]any{"htu": "/orders"})},
		{"htu with an escaped slash", with(nil, map[string]any{"htu": "https://api.example.com%2Forders"})},
		{"too old", with(nil, map[string]any{"iat": testNow.Add(-91 * time.Second).Unix()})},
		{"of the future", with(nil, map[string]any{"iat": testNow.Add(32 * time.Second).Unix()})},
		{"iat missing", with(nil, map[string]any{"iat": nil})},
		{"iat is text", with(nil, map[string]any{"iat": fmt.Sprint(testNow.Unix())})},
		{"iat negative", with(nil, map[string]any{"iat": -1})},
		{"jti missing", with(nil, map[string]any{"jti": nil})},
		{"jti empty", with(nil, map[string]any{"jti": ""})},
		{"jti is a number", with(nil, map[string]any{"jti": 1})},
		{"jti too long", with(nil, map[string]any{"jti": strings.Repeat("j", 513)})},
		{"ath missing", with(nil, map[string]any{"ath": nil})},
		{"ath of another token", with(nil, map[string]any{"ath": ath("x")})},
		{"request by another method", request(func(r *authn.Request) { r.Method = "DELETE" })},
		{"request for another path", request(func(r *authn.Request) { r.Path = "/orders/1" })},
		{"request for another host", request(func(r *authn.Request) { r.Host = "api.example.org" })},
		{"proof in another header", request(func(r *authn.Request) { r.Headers[0].Name = "x-dpop" })},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := a.Authenticate(t.Context(), tt.r)
			if !errors.Is(err, authn.ErrInvalid) || !errors.Is(err, dpop.ErrProof) || errors.Is(err, authn.ErrNotMine) {
				t.Errorf("got %v, want ErrInvalid because of the proof", err)
			}
		})
	}
	if _, err := a.Authenticate(t.Context(), proven(token, good())); err != nil {
		t.Errorf("a good proof after all these: %v", err)
	}
}

// TestDPoPScheme: neither a stolen bound token nor a token that anybody may use
// passes as the other (RFC 9449 section 7.2).
func TestDPoPScheme(t *testing.T) {
	issuer, holder := josetest.New(t, "k1", "ES256"), josetest.New(t, "", "ES256")
	free := issuer.Sign(t, issuer.Header(), claims(testIssuer, nil))
	bound := boundToken(t, issuer, holder, nil)
	expired := boundToken(t, issuer, holder, map[string]any{"exp": testNow.Add(-time.Hour).Unix()})
	elsewhere := issuer.Sign(t, issuer.Header(), claims("https://other.example", map[string]any{"cnf": map[string]any{"jkt": holder.Thumbprint(t)}}))
	const realm, algs = `realm="sallyport"`, `algs="ES256 ES384 EdDSA PS256 RS256"`
	const bad = `, error="invalid_token", error_description="The access token is not acceptable"`
	for _, tt := range []struct {
		name, authorization string
		required            bool
		token               string // proven
		want                error
		challenges          []string
	}{
		{"nothing", "", false, "", authn.ErrNoCredential, []string{"Bearer " + realm}},
		{"nothing, required", "", true, "", authn.ErrNoCredential, []string{"DPoP " + realm + ", " + algs}},
		{"free", "Bearer " + free, false, free, nil, nil},
		{"free, required", "Bearer " + free, true, free, authn.ErrInvalid, []string{"DPoP " + realm + ", " + algs + bad}},
		{"free with a proof", "DPoP " + free, false, free, authn.ErrInvalid, []string{"DPoP " + realm + ", " + algs + bad, "Bearer " + realm}},
		{"bound", "DPoP " + bound, true, bound, nil, nil},
		{"scheme in lower case", "dpop " + bound, false, bound, nil, nil},
		{"bound as bearer", "Bearer " + bound, false, bound, authn.ErrInvalid, []string{"Bearer " + realm + bad, "DPoP " + realm + ", " + algs}},
		{"proof of another token", "DPoP " + bound, false, free, authn.ErrInvalid, []string{
			"DPoP " + realm + ", " + algs + `, error="invalid_dpop_proof", error_description="The DPoP proof is not acceptable"`, "Bearer " + realm,
		}},
		{"expired", "DPoP " + expired, false, expired, authn.ErrInvalid, []string{"DPoP " + realm + ", " + algs + bad, "Bearer " + realm}},
		{"another issuer's", "DPoP " + elsewhere, false, elsewhere, authn.ErrInvalid, []string{"DPoP " + realm + ", " + algs + bad, "Bearer " + realm}},
		{"no token", "DPoP", false, "", authn.ErrInvalid, []string{"DPoP " + realm + ", " + algs + bad, "Bearer " + realm}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newFromFile(t, func(c *Config) { c.DPoP.Required = tt.required }, issuer)
			chain, err := authn.New([]authn.Named{{Name: "corp", Authenticator: a}}, nil)
			if err != nil {
				t.Fatal(err)
			}
			r := proven("", prove(t, holder, tt.token, nil, nil))
			r.Authorization = tt.authorization
			_, err = chain.Authenticate(t.Context(), r)
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if err != nil {
				if diff := cmp.Diff(tt.challenges, chain.Challenges(err)); diff != "" {
					t.Errorf("challenges (-want +got):\n%s", diff)
				}
			}
		})
	}
}

// TestDPoPReplay: a proof counts once, also across a reload; a memory that is full
// closes.
func TestDPoPReplay(t *testing.T) {
	issuer, holder := josetest.New(t, "k1", "ES256"), josetest.New(t, "", "ES256")
	token := boundToken(t, issuer, holder, nil)
	few := func(c *Config) { c.DPoP.ReplayEntries = 2 }
	a := newFromFile(t, few, issuer)
	proof := prove(t, holder, token, nil, nil)
	if _, err := a.Authenticate(t.Context(), proven(token, proof)); err != nil {
		t.Fatal(err)
	}
	next := newFromFile(t, few, issuer)
	next.Inherit(a)
	for name, at := range map[string]*Authenticator{"again": a, "after a reload": next} {
		if _, err := at.Authenticate(t.Context(), proven(token, proof)); !errors.Is(err, dpop.ErrProof) {
			t.Errorf("%s: got %v, want ErrProof", name, err)
		}
	}
	if _, err := next.Authenticate(t.Context(), proven(token, prove(t, holder, token, nil, nil))); err != nil {
		t.Fatal(err)
	}
	_, err := next.Authenticate(t.Context(), proven(token, prove(t, holder, token, nil, nil)))
	if !errors.Is(err, authn.ErrUnavailable) || errors.Is(err, authn.ErrInvalid) {
		t.Errorf("with a full memory: got %v, want ErrUnavailable", err)
	}
	later := testNow.Add(91 * time.Second)
	r := proven(token, prove(t, holder, token, nil, map[string]any{"iat": later.Unix()}))
	r.Now = later
	if _, err := next.Authenticate(t.Context(), r); err != nil {
		t.Errorf("after the window: %v", err)
	}
	r = proven(token, proof)
	r.Now = later
	if _, err := next.Authenticate(t.Context(), r); !errors.Is(err, dpop.ErrProof) {
		t.Errorf("the first proof after it was forgotten: got %v, want ErrProof", err)
	}
}

func TestDPoPNonce(t *testing.T) {
	issuer, holder := josetest.New(t, "k1", "ES256"), josetest.New(t, "", "ES256")
	token := boundToken(t, issuer, holder, nil)
	a := newFromFile(t, func(c *Config) { c.DPoP.Nonce = true }, issuer)
	ask := func(at time.Time, nonce any) (string, error) {
		r := proven(token, prove(t, holder, token, nil, map[string]any{"nonce": nonce, "iat": at.Unix()}))
		r.Now = at
		_, err := a.Authenticate(t.Context(), r)
		if len(r.Response) == 0 {
			return "", err
		}
		return r.Response[0].Value, err
	}
	nonce, err := ask(testNow, nil)
	if !errors.Is(err, dpop.ErrNonce) || !errors.Is(err, authn.ErrInvalid) || nonce == "" {
		t.Fatalf("without a nonce: got %q, %v", nonce, err)
	}
	if c := a.Challenges(err)[0]; !strings.Contains(c, `error="use_dpop_nonce"`) {
		t.Errorf("challenge %q", c)
	}
	if again, err := ask(testNow, nonce); err != nil || again != "" {
		t.Errorf("with the nonce: %q, %v; want no other nonce", again, err)
	}
	newer, err := ask(testNow.Add(time.Minute), nonce)
	if err != nil || newer == "" || newer == nonce {
		t.Errorf("a period later: %q, %v; want to be accepted with a newer nonce", newer, err)
	}
	for name, bad := range map[string]any{"too old": nonce, "made up": "AAAAAAAAAAAAAAAAAAAAAA", "a number": 1} {
		if _, err := ask(testNow.Add(2*time.Minute), bad); !errors.Is(err, dpop.ErrNonce) {
			t.Errorf("%s: got %v, want ErrNonce", name, err)
		}
	}
}

// TestDPoPForged: forged proofs cost their sender what forged tokens do.
func TestDPoPForged(t *testing.T) {
	issuer, holder := josetest.New(t, "k1", "ES256"), josetest.New(t, "", "ES256")
	token := boundToken(t, issuer, holder, nil)
	a := newFromFile(t, func(c *Config) { c.VerificationLimit.Burst, c.VerificationLimit.Failures = 2, 1 }, issuer)
	forged := prove(t, holder, token, nil, nil)
	forged = forged[:len(forged)-8] + "AAAAAAAA"
	var err error
	for range 3 {
		_, err = a.Authenticate(t.Context(), proven(token, forged))
	}
	if !errors.Is(err, authn.ErrTooMany) {
		t.Errorf("got %v, want ErrTooMany", err)
	}
}

// TestDPoPReplicas: a proof that one replica accepted is refused by the other. While Redis
// is away nobody knows, which is no replay and 503.
func TestDPoPReplicas(t *testing.T) {
	server := redistest.Start(t, t.TempDir(), redistest.ByPassword)
	password := server.File("password", redistest.Password+"\n")
	issuer, holder := josetest.New(t, "k1", "ES256"), josetest.New(t, "", "ES256")
	token, free := boundToken(t, issuer, holder, nil), issuer.Sign(t, issuer.Header(), claims(testIssuer, nil))
	metrics := meter.New()
	shared := func(c *Config) {
		c.DPoP.ReplayRedis = &redis.Config{Server: redis.Server{Address: server.Address, PasswordFile: password}, Timeout: 5 * time.Second}
	}
	a, b := newWith(t, Deps{Metrics: metrics}, shared, issuer), newWith(t, Deps{}, shared, issuer)
	show := func(at *Authenticator, proof string) error {
		_, err := at.Authenticate(t.Context(), proven(token, proof))
		return err
	}
	proof := prove(t, holder, token, nil, nil)
	if err := show(a, proof); err != nil {
		t.Fatal(err)
	}
	for name, at := range map[string]*Authenticator{"one replica": a, "the other": b} {
		if err := show(at, proof); !errors.Is(err, dpop.ErrProof) || errors.Is(err, authn.ErrUnavailable) {
			t.Errorf("again at %s: %v, want ErrProof", name, err)
		}
	}
	server.Kill()
	fresh := prove(t, holder, token, nil, nil)
	for range 2 {
		if err := show(a, fresh); !errors.Is(err, authn.ErrUnavailable) || errors.Is(err, authn.ErrInvalid) {
			t.Errorf("without Redis: %v, want ErrUnavailable", err)
		}
	}
	if err := show(a, prove(t, josetest.New(t, "", "ES256"), token, nil, nil)); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("a proof of the wrong key, without Redis: %v, want ErrInvalid", err)
	}
	if _, err := a.Authenticate(t.Context(), &authn.Request{Authorization: "Bearer " + free, Now: testNow}); err != nil {
		t.Errorf("a token that is not bound, without Redis: %v", err)
	}
	server.Restart()
	until := func(at *Authenticator) error {
		return redistest.Retry(func() error { return show(at, fresh) }, authn.ErrUnavailable)
	}
	if err := until(a); err != nil {
		t.Errorf("once Redis is back: %v", err)
	}
	if err := until(b); !errors.Is(err, dpop.ErrProof) {
		t.Errorf("at the other, once Redis is back: %v, want ErrProof", err)
	}
	if n := metertest.Counts(metrics)["sallyport.dpop.proofs authenticator=corp,outcome=unavailable"]; n < 2 {
		t.Errorf("counted %d that could not be told, want at least 2", n)
	}
	redistest.ReadsPassword(t, a, password)
}

// TestDPoPShares: a key that has used up its share of the memory gets 429, what it
// showed before still does not count twice, and another key notices nothing. All of it
// is counted.
func TestDPoPShares(t *testing.T) {
	issuer, greedy, modest := josetest.New(t, "k1", "ES256"), josetest.New(t, "", "ES256"), josetest.New(t, "", "ES256")
	metrics := meter.New()
	a := newWith(t, Deps{Metrics: metrics}, func(c *Config) { c.DPoP.ReplayEntriesPerKey = 2 }, issuer)
	chain, err := authn.New([]authn.Named{{Name: "corp", Authenticator: a}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	hers, his := boundToken(t, issuer, greedy, nil), boundToken(t, issuer, modest, nil)
	first := prove(t, greedy, hers, nil, nil)
	for i, proof := range []string{first, prove(t, greedy, hers, nil, nil), prove(t, greedy, hers, nil, nil), prove(t, greedy, hers, nil, nil)} {
		_, err := chain.Authenticate(t.Context(), proven(hers, proof))
		if tooMany := (*authn.TooManyError)(nil); errors.As(err, &tooMany) != (i >= 2) || (err == nil) != (i < 2) {
			t.Errorf("proof %d: %v", i, err)
		}
	}
	if _, err := chain.Authenticate(t.Context(), proven(hers, first)); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("the first proof again: %v, want ErrInvalid", err)
	}
	if _, err := chain.Authenticate(t.Context(), proven(his, prove(t, modest, his, nil, nil))); err != nil {
		t.Errorf("another key: %v", err)
	}
	if _, err := chain.Authenticate(t.Context(), proven(his, prove(t, greedy, his, nil, nil))); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("a proof of the wrong key: %v, want ErrInvalid", err)
	}
	want := map[string]int64{"accepted": 3, "limited": 2, "replayed": 1, "refused": 1}
	for outcome, n := range want {
		if got := metertest.Counts(metrics)["sallyport.dpop.proofs authenticator=corp,outcome="+outcome]; got != n {
			t.Errorf("counted %d %s, want %d", got, outcome, n)
		}
	}
}
