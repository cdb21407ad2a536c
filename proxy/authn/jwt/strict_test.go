package jwt

import (
	"errors"
	"slices"
	"testing"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
)

// TestScopeClaims: scopes come as text or as an array, from the claims that are
// listed and from no other.
func TestScopeClaims(t *testing.T) {
	key := josetest.New(t, "k1", "ES256")
	for _, tt := range []struct {
		name   string
		from   []string // nil: the default
		change map[string]any
		want   []string
		bad    bool
	}{
		{"text", nil, map[string]any{"scope": "a b"}, []string{"a", "b"}, false},
		{"array", nil, map[string]any{"scope": []string{"a", "b"}}, []string{"a", "b"}, false},
		{"array with spaces inside", nil, map[string]any{"scope": []string{"a b", "c"}}, []string{"a", "b", "c"}, false},
		{"both claims", nil, map[string]any{"scope": "a", "scp": []string{"b"}}, []string{"a", "b"}, false},
		{"empty", nil, map[string]any{"scope": ""}, nil, false},
		{"a claim that is not listed", nil, map[string]any{"scope": nil, "permissions": []string{"a"}}, nil, false},
		{"permissions", []string{"permissions"}, map[string]any{"scope": "b", "permissions": []string{"a"}}, []string{"a"}, false},
		{"names with spaces", []string{"roles"}, map[string]any{"roles": []string{"billing admin", "reader"}}, []string{"reader"}, false},
		{"names with other spaces", nil, map[string]any{"scope": "a\u00a0admin b\tadmin c"}, []string{"a\u00a0admin", "b\tadmin", "c"}, false},
		{"none", []string{}, map[string]any{"scope": "a"}, nil, false},
		{"a number", nil, map[string]any{"scope": 1}, nil, true},
		{"an array with a number", []string{"permissions"}, map[string]any{"permissions": []any{"a", 1}}, nil, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newFromFile(t, func(c *Config) {
				if tt.from != nil {
					c.ScopeClaims = tt.from
				}
			}, key)
			id, err := present(t, a, key.Sign(t, key.Header(), claims(testIssuer, tt.change)))
			if tt.bad {
				if !errors.Is(err, authn.ErrInvalid) {
					t.Errorf("got %v, want ErrInvalid", err)
				}
				return
			}
			if err != nil || !slices.Equal(id.Scopes, tt.want) {
				t.Errorf("got %v, %v, want %q", id, err, tt.want)
			}
		})
	}
}

// TestIssuersOfOneRoute: two issuers in a chain keep their own keys, algorithms,
// audiences and token types, whichever is asked first.
func TestIssuersOfOneRoute(t *testing.T) {
	const partner = "https://partner.example"
	corpKey, partnerKey := josetest.New(t, "k1", "ES256"), josetest.New(t, "k1", "EdDSA")
	corp := newFromFile(t, func(c *Config) { c.Algorithms = []string{"ES256"} }, corpKey)
	other := newFromFile(t, func(c *Config) {
		c.Issuer, c.Audiences, c.Algorithms, c.TokenTypes = partner, []string{"partner-api"}, []string{"EdDSA"}, []string{"JWT"}
	}, partnerKey)
	good := map[string]any{"aud": "partner-api"}
	asJWT := map[string]any{"alg": "EdDSA", "kid": "k1", "typ": "JWT"}
	for _, order := range [][]authn.Named{
		{{Name: "corp", Authenticator: corp}, {Name: "partner", Authenticator: other}},
		{{Name: "partner", Authenticator: other}, {Name: "corp", Authenticator: corp}},
	} {
		chain, err := authn.New(order, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			name, token, issuer string
		}{
			{"of the one", corpKey.Sign(t, corpKey.Header(), claims(testIssuer, nil)), testIssuer},
			{"of the other", partnerKey.Sign(t, asJWT, claims(partner, good)), partner},
			{"the one's, signed by the other", partnerKey.Sign(t, partnerKey.Header(), claims(testIssuer, nil)), ""},
			{"the other's, signed by the one", corpKey.Sign(t, corpKey.Header(), claims(partner, good)), ""},
			{"the other's with the one's audience", partnerKey.Sign(t, asJWT, claims(partner, nil)), ""},
			{"the other's with the one's type", partnerKey.Sign(t, partnerKey.Header(), claims(partner, good)), ""},
			{"of a third", corpKey.Sign(t, corpKey.Header(), claims("https://third.example", nil)), ""},
		} {
			for range 2 { // the second time from memory
				id, err := chain.Authenticate(t.Context(), &authn.Request{Authorization: "Bearer " + tt.token, Now: testNow})
				switch {
				case tt.issuer == "" && !errors.Is(err, authn.ErrInvalid):
					t.Errorf("%s first, %s: got %v, %v, want ErrInvalid", order[0].Name, tt.name, id, err)
				case tt.issuer != "" && (err != nil || id.Issuer != tt.issuer):
					t.Errorf("%s first, %s: got %v, %v, want issuer %s", order[0].Name, tt.name, id, err, tt.issuer)
				}
			}
		}
	}
}

// TestBindingForOthers: who takes bearer tokens only never takes one of the DPoP
// scheme, and nobody overlooks a part of what a token is bound to.
func TestBindingForOthers(t *testing.T) {
	for name, tt := range map[string]struct {
		cnf  map[string]any
		want Binding
	}{
		"key":                 {map[string]any{"jkt": "x"}, Binding{Key: "x"}},
		"certificate":         {map[string]any{"x5t#S256": "y"}, Binding{Certificate: "y"}},
		"key and certificate": {map[string]any{"jkt": "x", "x5t#S256": "y"}, Binding{Certificate: "y", Key: "x"}},
		"neither":             {map[string]any{}, Binding{}},
		"something else too":  {map[string]any{"jkt": "x", "kid": "y"}, Binding{}},
	} {
		b, err := BindingOf(map[string]any{"cnf": tt.cnf})
		if bad := tt.want == (Binding{}); bad != (err != nil) || !bad && b != tt.want {
			t.Errorf("%s: bound to %+v, %v", name, b, err)
		}
	}
	for authorization, want := range map[string]error{"DPoP x": authn.ErrNotMine, "DPoP": authn.ErrNotMine, "Bearer": authn.ErrInvalid, "Bearer x": nil} {
		if token, err := Bearer(authorization); !errors.Is(err, want) || (token == "x") != (want == nil) {
			t.Errorf("%s: %q, %v, want %v", authorization, token, err, want)
		}
	}
}
