package jwt

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine/authz"
	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn"
)

func newTestLimiter(t *testing.T, failures setting.Rate, burst, clients int) *limiter {
	t.Helper()
	l, err := newLimiter(VerificationLimit{Failures: failures, Burst: burst, Clients: clients})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestNetwork(t *testing.T) {
	for client, want := range map[string]string{
		"192.0.2.1":               "192.0.2.1",
		"::ffff:192.0.2.1":        "192.0.2.1",
		"2001:db8:1:2:3:4:5:6":    "2001:db8:1:2::",
		"2001:db8:1:2:ffff::":     "2001:db8:1:2::",
		"2001:db8:1:3::1":         "2001:db8:1:3::",
		"fe80::1%eth0":            "fe80::",
		"":                        "invalid IP",
		"unknown":                 "invalid IP",
		"192.0.2.1, 198.51.100.1": "invalid IP",
	} {
		if got := network(client).String(); got != want {
			t.Errorf("%q is of %s, want %s", client, got, want)
		}
	}
}

func TestLimiter(t *testing.T) {
	l := newTestLimiter(t, 10, 5, 100)
	for i := range 5 {
		if err := l.allow("192.0.2.1", testNow); err != nil {
			t.Fatalf("bad signature %d: %v", i, err)
		}
		l.charge("192.0.2.1", testNow)
	}
	want := &authn.TooManyError{RetryAfter: 100 * time.Millisecond, Quota: 5, Window: time.Second}
	var got *authn.TooManyError
	if err := l.allow("192.0.2.1", testNow); !errors.As(err, &got) || !errors.Is(err, authn.ErrTooMany) {
		t.Fatalf("got %v, want ErrTooMany", err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if err := l.allow("192.0.2.2", testNow); err != nil {
		t.Errorf("another client: %v", err)
	}
	if err := l.allow("192.0.2.1", testNow.Add(100*time.Millisecond)); err != nil {
		t.Errorf("after the wait that was asked for: %v", err)
	}
	for range 10 { // that were being checked at once
		l.charge("192.0.2.1", testNow)
	}
	if err := l.allow("192.0.2.1", testNow.Add(time.Second)); !errors.Is(err, authn.ErrTooMany) {
		t.Errorf("10 below zero, after the time for 10: got %v, want ErrTooMany", err)
	}
}

// TestLimiterIsBounded: of many clients, those seen last are remembered.
func TestLimiterIsBounded(t *testing.T) {
	l := newTestLimiter(t, 1, 1, 100)
	for i := range 10_000 {
		l.charge(fmt.Sprintf("2001:db8:%x::1", i), testNow)
	}
	if n := l.clients.Len(); n != 100 {
		t.Errorf("%d clients are remembered, want 100", n)
	}
	if err := l.allow("2001:db8:270f::2", testNow); !errors.Is(err, authn.ErrTooMany) {
		t.Errorf("the last one: got %v, want ErrTooMany", err)
	}
}

func TestUnlimited(t *testing.T) {
	var unlimited setting.Rate
	if err := unlimited.UnmarshalText([]byte("unlimited")); err != nil {
		t.Fatal(err)
	}
	l := newTestLimiter(t, unlimited, 1, 1)
	for range 100 {
		l.charge("192.0.2.1", testNow)
		if err := l.allow("192.0.2.1", testNow); err != nil {
			t.Fatal(err)
		}
	}
}

func from(t *testing.T, a authn.Authenticator, client, token string, now time.Time) (*authz.Identity, error) {
	t.Helper()
	return a.Authenticate(t.Context(), &authn.Request{Authorization: "Bearer " + token, Client: client, Now: now})
}

// TestForgerIsLimited: a client that sends forged tokens buys a number of checks
// and no more; what was verified before passes, and other clients notice nothing.
func TestForgerIsLimited(t *testing.T) {
	k, stranger := newSigner(t, "k1", "ES256"), newSigner(t, "k1", "ES256")
	a, count := metered(t, func(c *Config) { c.VerificationLimit = VerificationLimit{Failures: 1, Burst: 3} }, k)
	token := func(s *signer, n int) string {
		return s.sign(t, s.header(), claims(testIssuer, map[string]any{"sub": fmt.Sprint("user-", n)}))
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
	k, unknown := newSigner(t, "k1", "ES256"), newSigner(t, "k9", "ES256")
	a, count := metered(t, func(c *Config) { c.VerificationLimit = VerificationLimit{Failures: 1, Burst: 1} }, k)
	for i := range 10 {
		sub := fmt.Sprint("user-", i)
		if _, err := from(t, a, "192.0.2.1", k.sign(t, k.header(), claims(testIssuer, map[string]any{"sub": sub})), testNow); err != nil {
			t.Fatal(err)
		}
		for name, token := range map[string]string{
			"expired":              k.sign(t, k.header(), claims(testIssuer, map[string]any{"exp": testNow.Unix() - 100})),
			"for another audience": k.sign(t, k.header(), claims(testIssuer, map[string]any{"aud": "x"})),
			"of an unknown key":    unknown.sign(t, unknown.header(), claims(testIssuer, nil)),
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
