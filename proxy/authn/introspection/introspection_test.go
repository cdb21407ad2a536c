package introspection

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
)

func TestIdentity(t *testing.T) {
	p := newIDP(t)
	p.says(answerOf(map[string]any{"act": map[string]any{"sub": "gateway"}, "big": json.RawMessage("9007199254740993")}))
	a := start(t, p.config(t))
	r := request("mF_9.B5f-4.1JqM")
	got, err := a.Authenticate(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	want := &authz.Identity{
		Authenticated: true, Authenticator: "opaque", Kind: "introspection", Subject: "alice", Issuer: "https://idp.example",
		Audiences: []string{"orders-api"}, Scopes: []string{"orders.read", "orders.write"},
		Claims: map[string]any{
			"active": true, "sub": "alice", "client_id": "web", "username": "alice@example.com", "scope": "orders.read orders.write",
			"iss": "https://idp.example", "aud": []any{"orders-api"}, "token_type": "Bearer",
			"iat": json.Number("1767323035"), "nbf": json.Number("1767323035"), "exp": json.Number("1767323345"),
			"act": map[string]any{"sub": "gateway"}, "big": json.Number("9007199254740993"),
		},
		ExpiresAt: time.Unix(1767323345, 0),
		Actor:     map[string]any{"sub": "gateway"},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(authz.Identity{})); diff != "" {
		t.Errorf("identity (-want +got):\n%s", diff)
	}
	if r.Token != "mF_9.B5f-4.1JqM" {
		t.Errorf("the token that stands for the caller is %q", r.Token)
	}
	again, err := present(t, a, "mF_9.B5f-4.1JqM")
	if err != nil || again != got || p.asked.Load() != 1 {
		t.Errorf("the second look returned %p, %v after %d questions; want the same identity %p from the cache", again, err, p.asked.Load(), got)
	}
	q := p.last.Load()
	if q.form.Get("token") != "mF_9.B5f-4.1JqM" || q.form.Get("token_type_hint") != "access_token" || q.header.Get("Accept") != "application/json" {
		t.Errorf("the question is %+v", q)
	}
}

// TestLittleIsRequired: RFC 7662 section 2.2 requires one member.
func TestLittleIsRequired(t *testing.T) {
	p := newIDP(t)
	a := start(t, p.config(t))
	for name, text := range map[string]string{
		"active alone":           `{"active":true}`,
		"scopes as an array":     `{"active":true,"scope":["a b","c"]}`,
		"scopes of other spaces": `{"active":true,"scope":"a\u00a0b\u2003c d"}`,
		"one audience":           `{"active":true,"aud":"orders-api"}`,
		"clock a little behind":  answerOf(map[string]any{"nbf": testNow.Unix() + 20, "iat": testNow.Unix() + 20}),
		"expires now":            answerOf(map[string]any{"exp": testNow.Unix() - 20}),
		"lower case type":        answerOf(map[string]any{"token_type": "bearer"}),
		"access token of Hydra":  answerOf(map[string]any{"token_use": "access_token"}),
	} {
		p.says(text)
		id, err := present(t, a, strings.ReplaceAll(name, " ", "-"))
		if err != nil || !id.Authenticated {
			t.Errorf("%s: %v", name, err)
		}
		if name == "scopes of other spaces" && !slices.Equal(id.Scopes, []string{"a\u00a0b\u2003c", "d"}) {
			t.Errorf("scopes %q", id.Scopes)
		}
		if name == "scopes as an array" && !slices.Equal(id.Scopes, []string{"a", "b", "c"}) {
			t.Errorf("scopes %q", id.Scopes)
		}
		if name == "active alone" && !id.ExpiresAt.IsZero() {
			t.Errorf("expires at %s although nobody said so", id.ExpiresAt)
		}
	}
}

// TestRefused: the provider answered, and the token is not to be accepted.
func TestRefused(t *testing.T) {
	p := newIDP(t)
	c := p.config(t)
	c.Issuer, c.Audiences = "https://idp.example", []string{"orders-api", "billing"}
	for _, tt := range []struct {
		name, text string
	}{
		{"inactive", `{"active":false}`},
		{"inactive with all the rest", answerOf(map[string]any{"active": false})},
		{"expired", answerOf(map[string]any{"exp": testNow.Unix() - 30})},
		{"exp is text", answerOf(map[string]any{"exp": "1767323345"})},
		{"not yet", answerOf(map[string]any{"nbf": testNow.Unix() + 31})},
		{"nbf is text", answerOf(map[string]any{"nbf": "soon"})},
		{"of the future", answerOf(map[string]any{"iat": testNow.Unix() + 31})},
		{"another issuer", answerOf(map[string]any{"iss": "https://idp.example/"})},
		{"no issuer", answerOf(map[string]any{"iss": nil})},
		{"issuer is not text", answerOf(map[string]any{"iss": []string{"https://idp.example"}})},
		{"another audience", answerOf(map[string]any{"aud": []string{"orders"}})},
		{"no audience", answerOf(map[string]any{"aud": nil})},
		{"audience is a number", answerOf(map[string]any{"aud": 1})},
		{"DPoP token", answerOf(map[string]any{"token_type": "DPoP"})},
		{"type is not text", answerOf(map[string]any{"token_type": true})},
		{"Hydra's refresh token", answerOf(map[string]any{"token_use": "refresh_token"})},
		{"Cognito's ID token", answerOf(map[string]any{"token_use": "id"})},
		{"Keycloak's refresh token", answerOf(map[string]any{"typ": "Refresh"})},
		{"Keycloak's offline token", answerOf(map[string]any{"typ": "Offline"})},
		{"ID token", answerOf(map[string]any{"at_hash": "x"})},
		{"logout token", answerOf(map[string]any{"events": map[string]any{}})},
		{"sub is not text", answerOf(map[string]any{"sub": 7})},
		{"username is not text", answerOf(map[string]any{"username": 7})},
		{"client_id is not text", answerOf(map[string]any{"client_id": []string{"web"}})},
		{"scope is an object", answerOf(map[string]any{"scope": map[string]any{}})},
		{"act is not an object", answerOf(map[string]any{"act": "gateway"})},
		{"bound to a certificate, and there is none", answerOf(map[string]any{"cnf": map[string]any{"x5t#S256": "AA"}})},
		{"bound to a DPoP key", answerOf(map[string]any{"cnf": map[string]any{"jkt": "AA"}})},
		{"bound to nothing", answerOf(map[string]any{"cnf": map[string]any{}})},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p.says(tt.text)
			a := start(t, c)
			for range 2 { // asked, and remembered
				if id, err := present(t, a, "token"); id != nil || !errors.Is(err, authn.ErrInvalid) || errors.Is(err, authn.ErrUnavailable) {
					t.Errorf("got %+v, %v; want ErrInvalid", id, err)
				}
			}
		})
	}
	p.says(answerOf(nil))
	if _, err := present(t, start(t, c), "token"); err != nil {
		t.Errorf("what the rows differ from: %v", err)
	}
}

func TestTypesAsConfigured(t *testing.T) {
	p := newIDP(t)
	p.says(answerOf(map[string]any{"token_type": nil}))
	c := p.config(t)
	c.TokenTypes = []string{"Bearer"}
	if _, err := present(t, start(t, c), "token"); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("a token without type: %v, want ErrInvalid", err)
	}
}

// TestWhoseToken: what is asked about, and what is left to others.
func TestWhoseToken(t *testing.T) {
	p := newIDP(t)
	one := start(t, p.config(t))
	c := p.config(t)
	c.AllTokens = true
	all := start(t, c)
	jwt := josetest.Base64([]byte(`{"alg":"ES256"}`)) + ".e30.AA"
	for _, tt := range []struct {
		name, authorization string
		want, wantAll       error
	}{
		{"opaque", "Bearer mF_9.B5f-4.1JqM", nil, nil},
		{"scheme in lower case", "bearer abc", nil, nil},
		{"padded", "Bearer abc==", nil, nil},
		{"JWT", "Bearer " + jwt, authn.ErrForeign, nil},
		{"encrypted JWT", "Bearer " + jwt + ".AA.AA", nil, nil},
		{"no header", "", authn.ErrNotMine, authn.ErrNotMine},
		{"other scheme", "Basic YTpi", authn.ErrNotMine, authn.ErrNotMine},
		{"no scheme", "abc", authn.ErrNotMine, authn.ErrNotMine},
		{"no token", "Bearer ", authn.ErrInvalid, authn.ErrInvalid},
		{"padding alone", "Bearer ==", authn.ErrInvalid, authn.ErrInvalid},
		{"two tokens", "Bearer abc def", authn.ErrInvalid, authn.ErrInvalid},
		{"parameter", "Bearer abc, x=1", authn.ErrInvalid, authn.ErrInvalid},
		{"padding inside", "Bearer a=b", authn.ErrInvalid, authn.ErrInvalid},
		{"line break", "Bearer abc\n", authn.ErrInvalid, authn.ErrInvalid},
		{"not ASCII", "Bearer é", authn.ErrInvalid, authn.ErrInvalid},
		{"too long", "Bearer " + strings.Repeat("x", 16<<10+1), authn.ErrInvalid, authn.ErrInvalid},
	} {
		for a, want := range map[*Authenticator]error{one: tt.want, all: tt.wantAll} {
			before := p.asked.Load()
			_, err := a.Authenticate(t.Context(), &authn.Request{Authorization: tt.authorization, Now: testNow})
			if !errors.Is(err, want) || want == authn.ErrNotMine && errors.Is(err, authn.ErrForeign) { //nolint:errorlint // the table's own value
				t.Errorf("%s, all tokens %v: got %v, want %v", tt.name, a == all, err, want)
			}
			if asked := p.asked.Load() > before; want != nil && asked {
				t.Errorf("%s, all tokens %v: the provider was asked", tt.name, a == all)
			}
		}
	}
}

// TestBuffer: a token may lie in a buffer that the next request overwrites.
func TestBuffer(t *testing.T) {
	p := newIDP(t)
	a := start(t, p.config(t))
	buffer := []byte("Bearer good")
	r := &authn.Request{Authorization: unsafe.String(&buffer[0], len(buffer)), Now: testNow}
	if _, err := a.Authenticate(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	copy(buffer, "Bearer evil")
	p.says(`{"active":false}`)
	if _, err := a.Authenticate(t.Context(), r); !errors.Is(err, authn.ErrInvalid) {
		t.Errorf("the other token: %v, want ErrInvalid", err)
	}
	if _, err := present(t, a, "good"); err != nil {
		t.Errorf("the first token is gone: %v", err)
	}
}

func TestAllocations(t *testing.T) {
	p := newIDP(t)
	a := start(t, p.config(t))
	for name, authorization := range map[string]string{
		"cached": "Bearer token", "not mine": "Basic YTpi", "foreign": "Bearer " + josetest.Base64([]byte(`{"alg":"ES256"}`)) + ".e30.AA",
	} {
		r := &authn.Request{Authorization: authorization, Now: testNow}
		_, _ = a.Authenticate(t.Context(), r) // fills the cache
		ctx := t.Context()
		if n := testing.AllocsPerRun(100, func() { _, _ = a.Authenticate(ctx, r) }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestChallenge(t *testing.T) {
	p := newIDP(t)
	c := p.config(t)
	c.Realm = "api"
	a := start(t, c)
	if got := a.Challenges(nil); len(got) != 1 || got[0] != `Bearer realm="api"` {
		t.Errorf("challenges %s", got)
	}
	if got := a.Challenges(authn.ErrInvalid)[0]; !strings.Contains(got, "invalid_token") || strings.Contains(got, "active") {
		t.Errorf("challenge for a bad token %s", got)
	}
}
