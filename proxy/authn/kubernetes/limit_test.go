package kubernetes

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/sallyport/sallyport/proxy/authn"
	"github.com/sallyport/sallyport/proxy/authn/limit"
)

// from is a request by a client, some time later.
func from(client, token string, later time.Duration) *authn.Request {
	r := at(token, later)
	r.Client = client
	return r
}

// TestForgerIsLimited: a client with forged tokens buys a number of questions and no
// more; its tokens in the cache go on, and other clients notice nothing.
func TestForgerIsLimited(t *testing.T) {
	s := newAPIServer(t)
	a := s.open(func(c *Config) { c.QuestionLimit = limit.Config{Failures: 1, Burst: 3} })
	const forger, other = "192.0.2.1", "192.0.2.2"
	known := token(t, map[string]any{"jti": "known"})
	if _, err := a.Authenticate(t.Context(), from(forger, known, 0)); err != nil {
		t.Fatal(err)
	}
	s.change(func() { s.status = map[string]any{"authenticated": false, "error": "invalid signature"} })
	for i := range 20 {
		_, err := a.Authenticate(t.Context(), from(forger, token(t, map[string]any{"jti": fmt.Sprint("forged-", i)}), 0))
		tooMany := (*authn.TooManyError)(nil)
		if limited := i >= 3; errors.As(err, &tooMany) != limited || errors.Is(err, authn.ErrInvalid) == limited {
			t.Fatalf("forged token %d: %v", i, err)
		}
		if tooMany != nil && tooMany.RetryAfter <= 0 {
			t.Errorf("no time to come again: %+v", tooMany)
		}
	}
	if n := s.tokens.Load(); n != 4 {
		t.Errorf("%d questions, want 4", n)
	}
	s.change(func() { s.status = good() })
	for _, tt := range []struct {
		name string
		r    *authn.Request
		want error
	}{
		{"in the cache", from(forger, known, 0), nil},
		{"expired, which costs no question", from(forger, token(t, map[string]any{"exp": now.Unix() - 1}), 0), authn.ErrInvalid},
		{"good and not yet seen", from(forger, token(t, map[string]any{"jti": "new"}), 0), authn.ErrTooMany},
		{"of another client", from(other, token(t, map[string]any{"jti": "new"}), 0), nil},
		{"after the wait", from(forger, token(t, map[string]any{"jti": "later"}), time.Second), nil},
	} {
		if _, err := a.Authenticate(t.Context(), tt.r); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}
