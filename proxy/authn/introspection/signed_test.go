package introspection

import (
	"errors"
	"net/http"
	"testing"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
)

const issuer = "https://idp.example"

// signing returns an authenticator that wants format, with the key of s fetched.
func signing(t *testing.T, p *idp, s *signer, format string, change func(*Config)) *Authenticator {
	t.Helper()
	set := s.keySet()
	p.keys.Store(&set)
	c := p.config(t)
	c.Format, c.Issuer, c.JWKSURL, c.Algorithms = format, issuer, p.URL+"/keys", []string{"ES256"}
	if change != nil {
		change(&c)
	}
	a := start(t, c)
	t.Cleanup(func() { _ = a.Run(canceled(t)) }) // closes the connections to the key set
	if err := a.Prime(t.Context()); err != nil {
		t.Fatal(err)
	}
	return a
}

// members is answerOf as an object.
func members(change map[string]any) map[string]any {
	m := map[string]any{"active": true, "sub": "alice", "scope": "orders.read", "exp": testNow.Unix() + 300}
	for name, value := range change {
		if m[name] = value; value == nil {
			delete(m, name)
		}
	}
	return m
}

// wrapped are the claims of RFC 9701 section 5.
func wrapped(change map[string]any) map[string]any {
	m := map[string]any{"iss": issuer, "aud": "gw", "iat": testNow.Unix(), "token_introspection": members(nil)}
	for name, value := range change {
		if m[name] = value; value == nil {
			delete(m, name)
		}
	}
	return m
}

func TestSignedAnswer(t *testing.T) {
	p, s := newIDP(t), newSigner(t)
	a := signing(t, p, s, formatSigned, nil)
	text := s.sign("token-introspection+jwt", wrapped(nil))
	p.sends("application/token-introspection+jwt; charset=utf-8", text)
	for range 2 { // asked, and from the cache
		r := request("opaque")
		id, err := a.Authenticate(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if id.Subject != "alice" || id.Issuer != issuer || id.Claims["active"] != true || id.Claims["token_introspection"] != nil {
			t.Errorf("identity %+v", id)
		}
		if r.Token != text {
			t.Errorf("what stands for the caller is %.40q, not the signed answer", r.Token)
		}
	}
	if p.asked.Load() != 1 || p.last.Load().header.Get("Accept") != "application/token-introspection+jwt" {
		t.Errorf("%d questions, the last is %+v", p.asked.Load(), p.last.Load())
	}
}

// TestSignedAnswersRefused: rows with ErrUnavailable are no answers, those with
// ErrInvalid are answers about a token that is not good.
func TestSignedAnswersRefused(t *testing.T) {
	const media, typ = "application/token-introspection+jwt", "token-introspection+jwt"
	p, s, stranger := newIDP(t), newSigner(t), newSigner(t)
	inner := func(change map[string]any) string {
		return s.sign(typ, wrapped(map[string]any{"token_introspection": members(change)}))
	}
	for _, tt := range []struct {
		name, media, text string
		want              error
	}{
		{"unsigned JSON", "application/json", answerOf(nil), authn.ErrUnavailable},
		{"unsigned no", "application/json", `{"active":false}`, authn.ErrInvalid},
		{"JSON by another name", media, answerOf(nil), authn.ErrUnavailable},
		{"other media type", "application/jwt", s.sign(typ, wrapped(nil)), authn.ErrUnavailable},
		{"no media type", "", s.sign(typ, wrapped(nil)), authn.ErrUnavailable},
		{"forged", media, stranger.sign(typ, wrapped(nil)), authn.ErrUnavailable},
		{"alg none", media, josetest.Base64([]byte(`{"alg":"none","typ":"token-introspection+jwt"}`)) + "." + josetest.Base64([]byte(mustJSON(wrapped(nil)))) + ".", authn.ErrUnavailable},
		{"an access token", media, s.sign("at+jwt", wrapped(nil)), authn.ErrUnavailable},
		{"no typ", media, s.sign("", wrapped(nil)), authn.ErrUnavailable},
		{"typ JWT", media, s.sign("JWT", wrapped(nil)), authn.ErrUnavailable},
		{"another issuer", media, s.sign(typ, wrapped(map[string]any{"iss": "https://other.example"})), authn.ErrUnavailable},
		{"no issuer", media, s.sign(typ, wrapped(map[string]any{"iss": nil})), authn.ErrUnavailable},
		{"for another server", media, s.sign(typ, wrapped(map[string]any{"aud": "other"})), authn.ErrUnavailable},
		{"for nobody", media, s.sign(typ, wrapped(map[string]any{"aud": nil})), authn.ErrUnavailable},
		{"for an empty name", media, s.sign(typ, wrapped(map[string]any{"aud": ""})), authn.ErrUnavailable},
		{"audience is a number", media, s.sign(typ, wrapped(map[string]any{"aud": 1})), authn.ErrUnavailable},
		{"no iat", media, s.sign(typ, wrapped(map[string]any{"iat": nil})), authn.ErrUnavailable},
		{"of the future", media, s.sign(typ, wrapped(map[string]any{"iat": testNow.Unix() + 31})), authn.ErrUnavailable},
		{"expired", media, s.sign(typ, wrapped(map[string]any{"exp": testNow.Unix() - 31})), authn.ErrUnavailable},
		{"facts are missing", media, s.sign(typ, wrapped(map[string]any{"token_introspection": nil, "active": true})), authn.ErrUnavailable},
		{"facts are text", media, s.sign(typ, wrapped(map[string]any{"token_introspection": "x"})), authn.ErrUnavailable},
		{"no active", media, inner(map[string]any{"active": nil}), authn.ErrUnavailable},
		{"active is text", media, inner(map[string]any{"active": "true"}), authn.ErrUnavailable},
		{"inactive", media, inner(map[string]any{"active": false}), authn.ErrInvalid},
		{"token expired", media, inner(map[string]any{"exp": testNow.Unix() - 31}), authn.ErrInvalid},
		{"token of another issuer", media, inner(map[string]any{"iss": "https://other.example"}), authn.ErrInvalid},
		{"refresh token", media, inner(map[string]any{"token_use": "refresh_token"}), authn.ErrInvalid},
		{"bound", media, inner(map[string]any{"cnf": map[string]any{"jkt": "x"}}), authn.ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := signing(t, p, s, formatSigned, nil)
			p.sends(tt.media, tt.text)
			r := request("opaque")
			id, err := a.Authenticate(t.Context(), r)
			other := map[error]error{authn.ErrInvalid: authn.ErrUnavailable, authn.ErrUnavailable: authn.ErrInvalid}[tt.want]
			if id != nil || r.Token != "" || !errors.Is(err, tt.want) || errors.Is(err, other) {
				t.Errorf("got %+v, token %q, %v; want %v", id, r.Token, err, tt.want)
			}
		})
	}
}

// TestAudienceOfASignedAnswer: some providers put the token's own audience there.
func TestAudienceOfASignedAnswer(t *testing.T) {
	p, s := newIDP(t), newSigner(t)
	p.sends("application/token-introspection+jwt", s.sign("token-introspection+jwt",
		wrapped(map[string]any{"aud": []string{"x", "orders-api"}, "token_introspection": members(map[string]any{"aud": "orders-api"})})))
	a := signing(t, p, s, formatSigned, func(c *Config) { c.Audiences = []string{"orders-api"} })
	if _, err := present(t, a, "opaque"); err != nil {
		t.Error(err)
	}
}

// TestPhantomToken: the access token in its other form.
func TestPhantomToken(t *testing.T) {
	p, s := newIDP(t), newSigner(t)
	a := signing(t, p, s, formatJWT, nil)
	text := s.sign("at+jwt", members(map[string]any{"iss": issuer, "active": nil, "aud": "orders-api"}))
	p.sends("application/jwt", text+"\n")
	for range 2 { // asked, and from the cache
		r := request("opaque")
		id, err := a.Authenticate(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if id.Subject != "alice" || id.TokenHeader["typ"] != "at+jwt" || r.Token != text {
			t.Errorf("identity %+v, token %q", id, r.Token)
		}
	}
	if p.asked.Load() != 1 || p.last.Load().header.Get("Accept") != "application/jwt" {
		t.Errorf("%d questions, the last is %+v", p.asked.Load(), p.last.Load())
	}
	p.answer(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	if _, err := present(t, a, "unknown"); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("204: %v, want ErrInvalid", err)
	}
}

func TestPhantomTokensRefused(t *testing.T) {
	const media = "application/jwt"
	p, s, stranger := newIDP(t), newSigner(t), newSigner(t)
	token := func(change map[string]any) map[string]any {
		m := members(map[string]any{"iss": issuer, "active": nil})
		for name, value := range change {
			if m[name] = value; value == nil {
				delete(m, name)
			}
		}
		return m
	}
	for _, tt := range []struct {
		name, media, text string
		want              error
	}{
		{"unsigned JSON", "application/json", answerOf(nil), authn.ErrUnavailable},
		{"unsigned no", "application/json", `{"active":false}`, authn.ErrInvalid},
		{"other media type", "text/plain", s.sign("at+jwt", token(nil)), authn.ErrUnavailable},
		{"forged", media, stranger.sign("at+jwt", token(nil)), authn.ErrUnavailable},
		{"another issuer", media, s.sign("at+jwt", token(map[string]any{"iss": "https://other.example"})), authn.ErrUnavailable},
		{"logout token", media, s.sign("logout+jwt", token(nil)), authn.ErrUnavailable},
		{"introspection answer", media, s.sign("token-introspection+jwt", wrapped(nil)), authn.ErrUnavailable},
		{"no exp", media, s.sign("at+jwt", token(map[string]any{"exp": nil})), authn.ErrUnavailable},
		{"expired", media, s.sign("at+jwt", token(map[string]any{"exp": testNow.Unix() - 31})), authn.ErrInvalid},
		{"inactive", media, s.sign("at+jwt", token(map[string]any{"active": false})), authn.ErrInvalid},
		{"ID token", media, s.sign("JWT", token(map[string]any{"at_hash": "x"})), authn.ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := signing(t, p, s, formatJWT, nil)
			p.sends(tt.media, tt.text)
			r := request("opaque")
			if id, err := a.Authenticate(t.Context(), r); id != nil || r.Token != "" || !errors.Is(err, tt.want) {
				t.Errorf("got %+v, token %q, %v; want %v", id, r.Token, err, tt.want)
			}
		})
	}
}

// TestKeysOutOfReach: without keys nothing is believed, and it is no token's fault.
func TestKeysOutOfReach(t *testing.T) {
	p, s := newIDP(t), newSigner(t)
	c := p.config(t)
	c.Format, c.Issuer, c.JWKSURL = formatSigned, issuer, p.URL+"/keys"
	a := start(t, c)
	t.Cleanup(func() { _ = a.Run(canceled(t)) })
	p.sends("application/token-introspection+jwt", s.sign("token-introspection+jwt", wrapped(nil)))
	if _, err := present(t, a, "opaque"); !errors.Is(err, authn.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	set := s.keySet()
	p.keys.Store(&set)
	if err := a.Prime(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := present(t, a, "opaque"); err != nil {
		t.Errorf("with keys: %v", err)
	}
}
