package limit

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sallyport/sallyport/engine/setting"
	"github.com/sallyport/sallyport/proxy/authn"
)

var testNow = time.Unix(1_700_000_000, 0)

func newTestLimiter(t *testing.T, failures setting.Rate, burst, clients int) *Limiter {
	t.Helper()
	l, err := New(Config{Failures: failures, Burst: burst, Clients: clients})
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
		if err := l.Allow("192.0.2.1", testNow); err != nil {
			t.Fatalf("bad credential %d: %v", i, err)
		}
		l.Charge("192.0.2.1", testNow)
	}
	want := &authn.TooManyError{Of: authn.BadCredentials, RetryAfter: 100 * time.Millisecond, Quota: 5, Window: time.Second}
	var got *authn.TooManyError
	if err := l.Allow("192.0.2.1", testNow); !errors.As(err, &got) || !errors.Is(err, authn.ErrTooMany) {
		t.Fatalf("got %v, want ErrTooMany", err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	if err := l.Allow("192.0.2.2", testNow); err != nil {
		t.Errorf("another client: %v", err)
	}
	if err := l.Allow("192.0.2.1", testNow.Add(100*time.Millisecond)); err != nil {
		t.Errorf("after the wait that was asked for: %v", err)
	}
	for range 10 { // that were being checked at once
		l.Charge("192.0.2.1", testNow)
	}
	if err := l.Allow("192.0.2.1", testNow.Add(time.Second)); !errors.Is(err, authn.ErrTooMany) {
		t.Errorf("10 below zero, after the time for 10: got %v, want ErrTooMany", err)
	}
}

// TestLimiterIsBounded: of many clients, those seen last are remembered.
func TestLimiterIsBounded(t *testing.T) {
	l := newTestLimiter(t, 1, 1, 100)
	for i := range 10_000 {
		l.Charge(fmt.Sprintf("2001:db8:%x::1", i), testNow)
	}
	if n := l.clients.Len(); n != 100 {
		t.Errorf("%d clients are remembered, want 100", n)
	}
	if err := l.Allow("2001:db8:270f::2", testNow); !errors.Is(err, authn.ErrTooMany) {
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
		l.Charge("192.0.2.1", testNow)
		if err := l.Allow("192.0.2.1", testNow); err != nil {
			t.Fatal(err)
		}
	}
}
