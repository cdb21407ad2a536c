package jwt

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/jose/josetest"
	"github.com/sallyport/sallyport/proxy/authn/limit"
)

func from(t *testing.T, a authn.Authenticator, client, token string, now time.Time) (*authz.Identity, error) {
	t.Helper()
	return a.Authenticate(t.Context(), &authn.Request{Authorization: "Bearer " + token, Client: client, Now: now})
}

// TestForgerIsLimited: a client that sends forged tokens buys a number of checks
// and no more; what was verified before passes, and other clients notice nothing.
func TestForgerIsLimited(t *testing.T) {
	k, stranger := josetest.New(t, "k1", "ES256"), josetest.New(t, "k1", "ES256")
	a, count := metered(t, func(c *Config) { c.VerificationLimit = limit.Config{Failures: 1, Burst: 3} }, k)
	token := func(s *josetest.Signer, n int) string {
		return s.Sign(t, s.Header(), claims(testIssuer, map[string]any{"sub": fmt.Sprint("user-", n)}))
	}
	const forger, other = "192.0.2.1", "192.0.2.2"
	known := token(k, 0)
	if _, err := from(t, a, forger, known, testNow); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		want := authn.ErrInvalid
		if i >= 3 {
			want = authn.ErrTooMany
		}
		if _, err := from(t, a, forger, token(stranger, i), testNow); !errors.Is(err, want) {
			t.Fatalf("forged token %d: got %v, want %v", i, err, want)
		}
	}
	if d := cmp.Diff(map[string]int64{"verified": 1, "failed": 3, "limited": 17}, count()); d != "" {
		t.Error(d)
	}
	for name, tc := range map[string]struct {
		client, token string
		now           time.Time
		want          error
	}{
		"verified before":       {forger, known, testNow, nil},
		"good and not yet seen": {forger, token(k, 1), testNow, authn.ErrTooMany},
		"of another client":     {other, token(k, 2), testNow, nil},
		"after the wait":        {forger, token(k, 3), testNow.Add(time.Second), nil},
	} {
		if _, err := from(t, a, tc.client, tc.token, tc.now); !errors.Is(err, tc.want) {
			t.Errorf("%s: got %v, want %v", name, err, tc.want)
		}
	}
}

// TestWhatCostsNoCheckIsNotCharged: good tokens, and those that are refused before
// a signature is checked, such as the expired ones of a client that does not
// renew them, count against nobody.
func TestWhatCostsNoCheckIsNotCharged(t *testing.T) {
	k, unknown := josetest.New(t, "k1", "ES256"), josetest.New(t, "k9", "ES256")
	a, count := metered(t, func(c *Config) { c.VerificationLimit = limit.Config{Failures: 1, Burst: 1} }, k)
	for i := range 10 {
		sub := fmt.Sprint("user-", i)
		if _, err := from(t, a, "192.0.2.1", k.Sign(t, k.Header(), claims(testIssuer, map[string]any{"sub": sub})), testNow); err != nil {
			t.Fatal(err)
		}
		for name, token := range map[string]string{
			"expired":              k.Sign(t, k.Header(), claims(testIssuer, map[string]any{"exp": testNow.Unix() - 100})),
			"for another audience": k.Sign(t, k.Header(), claims(testIssuer, map[string]any{"aud": "x"})),
			"of an unknown key":    unknown.Sign(t, unknown.Header(), claims(testIssuer, nil)),
			"no token":             "x.y.z",
		} {
			if _, err := from(t, a, "192.0.2.1", token, testNow); err == nil || errors.Is(err, authn.ErrTooMany) {
				t.Fatalf("%s: got %v", name, err)
			}
		}
	}
	if d := cmp.Diff(map[string]int64{"verified": 10}, count()); d != "" {
		t.Error(d)
	}
}
