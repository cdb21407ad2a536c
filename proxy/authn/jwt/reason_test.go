package jwt

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
)

// TestReasons: what is wrong with a token is known behind the chain too, and only
// that.
func TestReasons(t *testing.T) {
	key, other := josetest.New(t, "k", "ES256"), josetest.New(t, "k", "ES256")
	a := newFromFile(t, nil, key)
	chain, err := authn.New([]authn.Named{{Name: "a", Authenticator: a}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	now := testNow
	iss := a.config.Issuer
	for name, tc := range map[string]struct {
		token string
		want  error
	}{
		"good":          {key.Sign(t, key.Header(), claims(iss, nil)), nil},
		"expired":       {key.Sign(t, key.Header(), claims(iss, map[string]any{"exp": now.Add(-time.Hour).Unix()})), authn.ErrExpired},
		"not yet":       {key.Sign(t, key.Header(), claims(iss, map[string]any{"nbf": now.Add(time.Hour).Unix()})), authn.ErrNotYetValid},
		"audience":      {key.Sign(t, key.Header(), claims(iss, map[string]any{"aud": "other"})), authn.ErrAudience},
		"issuer":        {key.Sign(t, key.Header(), claims("https://other.example", nil)), authn.ErrIssuer},
		"signature":     {other.Sign(t, key.Header(), claims(iss, nil)), authn.ErrSignature},
		"malformed":     {"opaque", authn.ErrMalformed},
		"not JSON":      {key.SignText(t, josetest.JSON(t, key.Header()), "{"), authn.ErrMalformed},
		"without typ":   {key.Sign(t, map[string]any{"alg": "ES256", "kid": "k", "typ": "x"}, claims(iss, nil)), nil},
		"another claim": {key.Sign(t, key.Header(), claims(iss, map[string]any{"sub": 1})), nil},
	} {
		for range 2 { // the second time from what was remembered
			r := &authn.Request{Authorization: "Bearer " + tc.token, Now: now}
			_, err := chain.Authenticate(t.Context(), r)
			if got := err == nil; got != (name == "good") || got != (r.Token == tc.token) {
				t.Errorf("%s: %v, left token %.10q", name, err, r.Token)
			}
			for _, reason := range []error{authn.ErrMalformed, authn.ErrSignature, authn.ErrAudience, authn.ErrExpired, authn.ErrIssuer, authn.ErrNotYetValid} {
				if got, want := errors.Is(err, reason), tc.want != nil && tc.want.Error() == reason.Error(); got != want {
					t.Errorf("%s: is %q: %v, want %v (%v)", name, reason, got, want, err)
				}
			}
			if err != nil && (errors.Is(err, authn.ErrNotMine) || !errors.Is(err, authn.ErrInvalid) || strings.Contains(err.Error(), tc.token)) {
				t.Errorf("%s: class of %v", name, err)
			}
		}
	}
}
