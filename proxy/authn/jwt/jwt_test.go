package jwt

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
)

func TestIdentity(t *testing.T) {
	key := josetest.New(t, "k1", "ES256")
	a := newFromFile(t, nil, key)
	token := key.Sign(t, key.Header(), claims(testIssuer, map[string]any{
		"aud": []string{"billing", "orders-api"}, "scp": []string{"admin"},
		"act": map[string]any{"sub": "gateway"}, "big": json.RawMessage("9007199254740993"),
	}))
	got, err := present(t, a, token)
	if err != nil {
		t.Fatal(err)
	}
	want := &authz.Identity{
		Authenticated: true, Authenticator: "corp", Kind: "jwt", Subject: "alice", Issuer: testIssuer,
		Audiences: []string{"billing", "orders-api"}, Scopes: []string{"orders.read", "orders.write", "admin"},
		Claims: map[string]any{
			"iss": testIssuer, "aud": []any{"billing", "orders-api"}, "sub": "alice", "scope": "orders.read orders.write",
			"iat": json.Number("1767322985"), "exp": json.Number("1767323345"), "scp": []any{"admin"},
			"act": map[string]any{"sub": "gateway"}, "big": json.Number("9007199254740993"),
		},
		TokenHeader: map[string]any{"alg": "ES256", "kid": "k1", "typ": "at+jwt"},
		ExpiresAt:   time.Unix(1767323345, 0),
		Actor:       map[string]any{"sub": "gateway"},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(authz.Identity{})); diff != "" {
		t.Errorf("identity (-want +got):\n%s", diff)
	}
	again, err := present(t, a, token)
	if err != nil || again != got {
		t.Errorf("the second look returned %p, %v; want the same identity %p from the cache", again, err, got)
	}
}

func TestEveryAlgorithm(t *testing.T) {
	for _, alg := range jose.AlgorithmNames() {
		t.Run(alg, func(t *testing.T) {
			key := josetest.New(t, "k1", alg)
			only := newFromFile(t, func(c *Config) { c.Algorithms = []string{alg} }, key)
			token := key.Sign(t, key.Header(), claims(testIssuer, nil))
			if _, err := present(t, only, token); err != nil {
				t.Errorf("token was refused: %v", err)
			}
			other := "ES256"
			if alg == other {
				other = "EdDSA"
			}
			without := newFromFile(t, func(c *Config) { c.Algorithms = []string{other} }, key)
			if _, err := present(t, without, token); !errors.Is(err, authn.ErrInvalid) {
				t.Errorf("with another algorithm allowed: got %v, want ErrInvalid", err)
			}
		})
	}
}

// TestScheme: the token is what follows exactly one Bearer scheme.
func TestScheme(t *testing.T) {
	key := josetest.New(t, "k1", "ES256")
	a := newFromFile(t, nil, key)
	token := key.Sign(t, key.Header(), claims(testIssuer, nil))
	for _, tt := range []struct {
		name, authorization string
		want                error
	}{
		{"canonical", "Bearer " + token, nil},
		{"lower case", "bearer " + token, nil},
		{"two spaces", "Bearer  " + token, nil},
		{"no header", "", authn.ErrNotMine},
		{"no scheme", token, authn.ErrNotMine},
		{"other scheme", "Basic YTpi", authn.ErrNotMine},
		{"scheme that begins alike", "BearerX " + token, authn.ErrNotMine},
		{"tab", "Bearer\t" + token, authn.ErrNotMine},
		{"no token", "Bearer", authn.ErrInvalid},
		{"only space", "Bearer  ", authn.ErrInvalid},
		{"two tokens", "Bearer " + token + " " + token, authn.ErrForeign},
		{"trailing parameter", "Bearer " + token + ", x=1", authn.ErrInvalid},
		{"opaque", "Bearer mF_9.B5f-4.1JqM", authn.ErrForeign},
		{"opaque without dots", "Bearer c2VjcmV0", authn.ErrForeign},
		{"encrypted", "Bearer " + token + ".AA.AA", authn.ErrForeign},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := a.Authenticate(t.Context(), &authn.Request{Authorization: tt.authorization, Now: testNow})
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
			if tt.want == authn.ErrNotMine && errors.Is(err, authn.ErrForeign) { //nolint:errorlint // the table's own value
				t.Errorf("got %v, want a plain ErrNotMine", err)
			}
		})
	}
}

// TestHeaderRefused walks the rows of attacks that live in the JOSE header.
func TestHeaderRefused(t *testing.T) {
	key := josetest.New(t, "k1", "ES256")
	other := josetest.New(t, "k2", "ES256")
	rsaKey := josetest.New(t, "r1", "RS256")
	a := newFromFile(t, nil, key, rsaKey)
	with := func(name string, value any) map[string]any {
		h := key.Header()
		h[name] = value
		return h
	}
	for _, tt := range []struct {
		name, token string
	}{
		{"alg none", josetest.Base64([]byte(`{"alg":"none","kid":"k1"}`)) + "." + josetest.Base64([]byte(josetest.JSON(t, claims(testIssuer, nil)))) + "."},
		{"alg none with signature", key.Sign(t, with("alg", "none"), claims(testIssuer, nil))},
		{"alg NONE", key.Sign(t, with("alg", "NONE"), claims(testIssuer, nil))},
		{"alg missing", key.Sign(t, map[string]any{"kid": "k1"}, claims(testIssuer, nil))},
		{"alg not a string", key.Sign(t, with("alg", 1), claims(testIssuer, nil))},
		{"alg unlike the key's", key.Sign(t, with("alg", "EdDSA"), claims(testIssuer, nil))},
		{"PS256 with a key declared RS256", (&josetest.Signer{KeyID: "r1", Algorithm: "PS256", Private: rsaKey.Private}).Sign(t, map[string]any{"alg": "PS256", "kid": "r1"}, claims(testIssuer, nil))},
		{"alg HS256 keyed with the public key", confused(t, rsaKey)},
		{"signed by another key under this kid", (&josetest.Signer{KeyID: "k1", Algorithm: "ES256", Private: other.Private}).Sign(t, key.Header(), claims(testIssuer, nil))},
		{"unknown kid", other.Sign(t, other.Header(), claims(testIssuer, nil))},
		{"kid not a string", key.Sign(t, with("kid", 1), claims(testIssuer, nil))},
		{"kid empty", key.Sign(t, with("kid", ""), claims(testIssuer, nil))},
		{"crit", key.Sign(t, with("crit", []string{"exp"}), claims(testIssuer, nil))},
		{"b64", key.Sign(t, with("b64", true), claims(testIssuer, nil))},
		{"cty", key.Sign(t, with("cty", "JWT"), claims(testIssuer, nil))},
		{"zip", key.Sign(t, with("zip", "DEF"), claims(testIssuer, nil))},
		{"jku", key.Sign(t, with("jku", "https://evil.example/keys"), claims(testIssuer, nil))},
		{"x5u", key.Sign(t, with("x5u", "https://evil.example/cert"), claims(testIssuer, nil))},
		{"jwk", other.Sign(t, map[string]any{"alg": "ES256", "kid": "k1", "jwk": other.JWK()}, claims(testIssuer, nil))},
		{"jwk of the very key", key.Sign(t, with("jwk", key.JWK()), claims(testIssuer, nil))},
		{"x5c", key.Sign(t, with("x5c", []string{"MIIB"}), claims(testIssuer, nil))},
		{"duplicate member", key.Sign(t, `{"alg":"ES256","kid":"k2","kid":"k1"}`, claims(testIssuer, nil))},
		{"header is an array", key.Sign(t, `["ES256"]`, claims(testIssuer, nil))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id, err := present(t, a, tt.token)
			if id != nil || !errors.Is(err, authn.ErrInvalid) && !errors.Is(err, authn.ErrForeign) {
				t.Errorf("got %v, %v; want ErrInvalid or ErrForeign", id, err)
			}
		})
	}
}

// TestErrorsAreShort: what a stranger sends does not fill the log.
func TestErrorsAreShort(t *testing.T) {
	key := josetest.New(t, "k1", "ES256")
	a := newFromFile(t, nil, key)
	long := strings.Repeat("x", 8000)
	for name, token := range map[string]string{
		"kid":              key.Sign(t, map[string]any{"alg": "ES256", "kid": long}, claims(testIssuer, nil)),
		"alg":              key.Sign(t, map[string]any{"alg": long}, claims(testIssuer, nil)),
		"typ":              key.Sign(t, map[string]any{"alg": "ES256", "typ": long}, claims(testIssuer, nil)),
		"iss":              key.Sign(t, key.Header(), claims(long, nil)),
		"aud":              key.Sign(t, key.Header(), claims(testIssuer, map[string]any{"aud": long})),
		"cnf":              key.Sign(t, key.Header(), claims(testIssuer, map[string]any{"cnf": map[string]any{long: 1}})),
		"duplicate member": key.SignText(t, josetest.JSON(t, key.Header()), `{"`+long+`":1,"`+long+`":2}`),
	} {
		if _, err := present(t, a, token); err == nil || len(err.Error()) > 400 {
			t.Errorf("%s: error of %d bytes", name, len(fmt.Sprint(err)))
		}
	}
}

// confused returns the HS/RS confusion: a MAC keyed with the public modulus.
func confused(t *testing.T, key *josetest.Signer) string {
	t.Helper()
	fake := &josetest.Signer{KeyID: key.KeyID, Algorithm: "HS256", Private: []byte(josetest.JSON(t, key.JWK()))}
	return fake.Sign(t, fake.Header(), claims(testIssuer, nil))
}

// TestSerialization: one token has one spelling, the compact one.
func TestSerialization(t *testing.T) {
	key := josetest.New(t, "k1", "ES256")
	a := newFromFile(t, nil, key)
	token := key.Sign(t, key.Header(), claims(testIssuer, nil))
	if _, err := present(t, a, token); err != nil {
		t.Fatal(err)
	}
	head, rest, _ := strings.Cut(token, ".")
	payload, sig, _ := strings.Cut(rest, ".")
	general := josetest.JSON(t, map[string]any{"payload": payload, "signatures": []any{map[string]any{"protected": head, "signature": sig}}})
	flattened := josetest.JSON(t, map[string]any{"payload": payload, "protected": head, "signature": sig})
	for name, text := range map[string]string{
		"general JSON":          general,
		"flattened JSON":        flattened,
		"padding":               token + "=",
		"padding in the header": head + "=." + rest,
		"line break":            token + "\n",
		"line break inside":     head + ".\r\n" + rest,
		"standard alphabet":     head + "." + payload + "." + strings.NewReplacer("-", "+", "_", "/").Replace(sig) + "+/",
		"unused bits":           head + "." + payload + "." + lastSymbolChanged(sig),
		"no signature":          head + "." + payload + ".",
		"no payload":            head + ".." + sig,
		"fourth part":           token + ".",
		"longer than 16 KiB":    key.Sign(t, key.Header(), claims(testIssuer, map[string]any{"x": strings.Repeat("x", jose.MaxToken)})),
	} {
		t.Run(name, func(t *testing.T) {
			if id, err := present(t, a, text); err == nil {
				t.Errorf("accepted as %q", id.Subject)
			}
		})
	}
}

// lastSymbolChanged changes bits of the last symbol that no byte takes.
func lastSymbolChanged(s string) string {
	const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	i := strings.IndexByte(alphabet, s[len(s)-1])
	return s[:len(s)-1] + string(alphabet[i|1])
}

func TestClaims(t *testing.T) {
	key := josetest.New(t, "k1", "ES256")
	a := newFromFile(t, func(c *Config) { c.RequiredClaims = map[string][]string{"tenant": {"acme", "7", "true"}} }, key)
	unix := func(d time.Duration) int64 { return testNow.Add(d).Unix() }
	for _, tt := range []struct {
		name   string
		change map[string]any
		ok     bool
	}{
		{"good", nil, true},
		{"exp missing", map[string]any{"exp": nil}, false},
		{"exp 0", map[string]any{"exp": 0}, false},
		{"exp negative", map[string]any{"exp": -1}, false},
		{"exp as text", map[string]any{"exp": "1767323345"}, false},
		{"exp null", map[string]any{"exp": json.RawMessage("null")}, false},
		{"exp beyond time", map[string]any{"exp": json.RawMessage("1e300")}, false},
		{"exp no float", map[string]any{"exp": json.RawMessage("1e4000")}, false},
		{"exp in milliseconds", map[string]any{"exp": testNow.Add(time.Minute).UnixMilli()}, false},
		{"nbf negative", map[string]any{"nbf": -1}, false},
		{"exp with fraction", map[string]any{"exp": json.RawMessage("1767323345.5")}, true},
		{"expired beyond leeway", map[string]any{"exp": unix(-31 * time.Second)}, false},
		{"expired at the edge", map[string]any{"exp": unix(-30 * time.Second)}, false},
		{"expired within leeway", map[string]any{"exp": unix(-29 * time.Second)}, true},
		{"nbf beyond leeway", map[string]any{"nbf": unix(31 * time.Second)}, false},
		{"nbf at the edge", map[string]any{"nbf": unix(30 * time.Second)}, true},
		{"nbf as text", map[string]any{"nbf": "0"}, false},
		{"iat in the future", map[string]any{"iat": unix(31 * time.Second)}, false},
		{"iat missing", map[string]any{"iat": nil}, true},
		{"aud missing", map[string]any{"aud": nil}, false},
		{"aud of another", map[string]any{"aud": "billing"}, false},
		{"aud in a list", map[string]any{"aud": []string{"billing", "orders-api"}}, true},
		{"aud list empty", map[string]any{"aud": []string{}}, false},
		{"aud with a number", map[string]any{"aud": []any{"orders-api", 1}}, false},
		{"aud by prefix", map[string]any{"aud": "orders-api/"}, false},
		{"iss missing", map[string]any{"iss": nil}, false},
		{"iss a list", map[string]any{"iss": []string{testIssuer}}, false},
		{"iss of another", map[string]any{"iss": testIssuer + "/"}, false},
		{"sub not a string", map[string]any{"sub": 7}, false},
		{"sub missing", map[string]any{"sub": nil}, true},
		{"scope an object", map[string]any{"scope": map[string]any{}}, false},
		{"act not an object", map[string]any{"act": "x"}, false},
		{"required claim missing", map[string]any{"tenant": nil}, false},
		{"required claim of another value", map[string]any{"tenant": "evil"}, false},
		{"required claim in a list", map[string]any{"tenant": []string{"x", "acme"}}, true},
		{"required claim in a nested list", map[string]any{"tenant": []any{[]any{"acme"}}}, false},
		{"required claim a number", map[string]any{"tenant": 7}, true},
		{"required claim a boolean", map[string]any{"tenant": true}, true},
		{"required claim an object", map[string]any{"tenant": map[string]any{"acme": 1}}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := claims(testIssuer, map[string]any{"tenant": "acme"})
			for name, v := range tt.change {
				if c[name] = v; v == nil {
					delete(c, name)
				}
			}
			id, err := present(t, a, key.Sign(t, key.Header(), c))
			if (err == nil) != tt.ok || (id != nil) != tt.ok {
				t.Errorf("got %v, %v; want accepted: %v", id, err, tt.ok)
			}
		})
	}
}

// TestClaimsText holds claims that no JSON encoder writes.
func TestClaimsText(t *testing.T) {
	key := josetest.New(t, "k1", "ES256")
	a := newFromFile(t, nil, key)
	good := josetest.JSON(t, claims(testIssuer, nil))
	for name, text := range map[string]string{
		"duplicate member":        strings.Replace(good, `{`, `{"sub":"bob",`, 1),
		"duplicate member nested": strings.Replace(good, `{`, `{"x":[{"a":1,"a":2}],`, 1),
		"trailing text":           good + "{}",
		"array":                   "[" + good + "]",
		"empty":                   "",
		"not UTF-8":               strings.Replace(good, "alice", "al\xffice", 1),
		"too deep":                strings.Replace(good, `{`, `{"x":`+strings.Repeat("[", 40)+strings.Repeat("]", 40)+`,`, 1),
		"byte order mark":         "\ufeff" + good,
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := present(t, a, key.SignText(t, josetest.JSON(t, key.Header()), text)); !errors.Is(err, authn.ErrInvalid) {
				t.Errorf("got %v, want ErrInvalid", err)
			}
		})
	}
}

// TestTokenType: a token is good for the use it was made for.
func TestTokenType(t *testing.T) {
	key := josetest.New(t, "k1", "ES256")
	a := newFromFile(t, nil, key)
	strict := newFromFile(t, func(c *Config) { c.TokenTypes = []string{"at+jwt"} }, key)
	identities := newFromFile(t, func(c *Config) { c.AcceptIDTokens = true }, key)
	for _, tt := range []struct {
		name                string
		typ                 any
		change              map[string]any
		byDefault, few, ids bool
	}{
		{"access token", "at+jwt", nil, true, true, true},
		{"access token in full", "application/AT+JWT", nil, true, true, true},
		{"JWT", "JWT", nil, true, false, true},
		{"absent", nil, nil, true, false, true},
		{"not a string", 1, nil, false, false, false},
		{"ID token by type", "id_token", nil, false, false, false},
		{"logout token by type", "logout+jwt", nil, false, false, false},
		{"DPoP proof", "dpop+jwt", nil, false, false, false},
		{"security event", "secevent+jwt", nil, false, false, false},
		{"ID token by claim", "JWT", map[string]any{"at_hash": "x"}, false, false, true},
		{"ID token by claim, no type", nil, map[string]any{"c_hash": "x"}, false, false, true},
		{"logout token by claim", "JWT", map[string]any{"events": map[string]any{}}, false, false, false},
		{"access token that happens to have the claim", "at+jwt", map[string]any{"at_hash": "x"}, true, true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := key.Header()
			if h["typ"] = tt.typ; tt.typ == nil {
				delete(h, "typ")
			}
			token := key.Sign(t, h, claims(testIssuer, tt.change))
			if _, err := present(t, a, token); (err == nil) != tt.byDefault {
				t.Errorf("by default: %v", err)
			}
			if _, err := present(t, strict, token); (err == nil) != tt.few {
				t.Errorf("with at+jwt only: %v", err)
			}
			if _, err := present(t, identities, token); (err == nil) != tt.ids {
				t.Errorf("with accept_id_tokens: %v", err)
			}
		})
	}
}

// TestWithoutKid: such a token is tried with the keys that fit.
func TestWithoutKid(t *testing.T) {
	first, second, rs := josetest.New(t, "k1", "ES256"), josetest.New(t, "", "ES256"), josetest.New(t, "r1", "RS256")
	a := newFromFile(t, nil, first, second, rs)
	header := map[string]any{"alg": "ES256"}
	if _, err := present(t, a, second.Sign(t, header, claims(testIssuer, nil))); err != nil {
		t.Errorf("signed with the second key that fits: %v", err)
	}
	stranger := josetest.New(t, "", "ES256")
	if _, err := present(t, a, stranger.Sign(t, header, claims(testIssuer, nil))); err == nil {
		t.Error("a stranger's token was accepted")
	}
}
